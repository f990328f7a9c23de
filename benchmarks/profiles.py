"""Where the time of our own client goes: the functions that cost most, themselves and not what they call."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.contenders import contenders
from benchmarks.measuring import OURS, measure
from benchmarks.servers import NO_REDIS
from benchmarks.works import ZONES, Work

FUNCTIONS = 10
PROFILED = (Work("get hit", callers=32), Work("set", zones=ZONES, callers=32))


def print_profiles(ports: list[int], seconds: float) -> None:
    """A get hit and a guarded set, 32 callers each. The profiler itself makes everything about three times slower."""
    for work in PROFILED:
        profile, calls = asyncio.run(_profiled(work, ports, seconds))
        statistics = pstats.Stats(profile)
        entries = statistics.stats  # type: ignore[attr-defined]
        total = sum(own for _, _, own, _, _ in entries.values())
        print(f"\n{work.title}: {calls} calls, {total / calls * 1e6:.1f} us each under the profiler")
        print("   share  us/call  calls/call  function")
        ordered = sorted(entries.items(), key=lambda entry: -entry[1][2])
        for (path, line, name), (_, count, own, _, _) in ordered[:FUNCTIONS]:
            where = name if path == "~" else f"{Path(path).parent.name}/{Path(path).name}:{line} {name}"
            print(f"  {own / total:6.1%}  {own / calls * 1e6:7.2f}  {count / calls:10.2f}  {where}")


async def _profiled(work: Work, ports: list[int], seconds: float) -> tuple[cProfile.Profile, int]:
    variants = next(one for one in contenders(NO_REDIS) if one.name == OURS).variants(work)
    assert not isinstance(variants, str)
    async with AsyncExitStack() as stack:
        run = await variants[""](stack, work, ports)
        await measure(run, seconds / 4)
        profile = cProfile.Profile()
        profile.enable()
        turn = await measure(run, seconds)
        profile.disable()
    return profile, turn.operations
