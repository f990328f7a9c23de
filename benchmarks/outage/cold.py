"""The local zone dies and comes back empty at once, under callers who read as fast as they are answered.

20,000 keys of 100 bytes that live 600 s: enough for refilling to take its time. The figures, for each second since the
servers answer again (`before` and `dead` are the times before):

    reads/s                the reads that callers were answered, or offered: each asks again as soon as it has an answer
    local                  the share of them that the local zone served, in percent
    at eu-1b/s, eu-1c/s    requests that these zones got, as their servers count them: reads, and repairs that read again
    others / reads         both of them together, for each read
    sets at eu-1a/s        what the zone was brought
    failed, missing        reads that raised, or returned None though another zone has the key

It ends with the first second in which 95 % are local, or after 60.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.outage.common import FAILED, LOCAL, MISSING, NAMESPACE, OTHERS, WRONG, Reads, callers, fill, fresh_zones
from benchmarks.outage.table import NEVER
from benchmarks.outage.watch import Counted, Counters
from evcache import EVCache
from evcache.testing import RunningZones
from integration.servers import ServerKind

KEYS, TTL_SECONDS = 20_000, 600
BEFORE_SECONDS, MOST_SECONDS = 3.0, 60
LOCAL_SHARE = 0.95

Figures = dict[str, object]


def run(kind: ServerKind, seconds: float | None) -> tuple[list[Figures], Figures]:
    """On servers of its own: the figures of each second, and what they come to."""
    with fresh_zones(kind) as zones:
        return asyncio.run(measure(zones, seconds or BEFORE_SECONDS))


async def measure(zones: RunningZones, before: float) -> tuple[list[Figures], Figures]:
    """Before, dead, and second by second."""
    lines: list[Figures] = []
    async with EVCache(NAMESPACE, zones.zones, local_zone=LOCAL) as cache:
        await fill(cache, KEYS, TTL_SECONDS)
        async with callers(cache, KEYS) as reads:
            slices = Slices(reads, Counters(zones.zones))
            await slices.next("", OTHERS)
            await asyncio.sleep(before)
            lines.append(await slices.next("before", OTHERS))
            await asyncio.to_thread(zones.kill, LOCAL)
            await asyncio.to_thread(zones.restart, LOCAL)
            lines.append(await slices.next("dead", OTHERS))
            back = time.perf_counter()
            shares: list[float] = []
            while len(shares) < MOST_SECONDS and (not shares or shares[-1] < LOCAL_SHARE * 100):
                await asyncio.sleep(max(0.0, back + len(shares) + 1 - time.perf_counter()))
                lines.append(await slices.next(str(len(shares) + 1), (*OTHERS, LOCAL)))
                shares.append(float(str(lines[-1]["local, %"])))
    return lines, {
        "seconds until 95 % are local": len(shares) if shares[-1] >= LOCAL_SHARE * 100 else NEVER,
        "most requests at others / reads, since the return": max(float(str(line["others / reads"])) for line in lines[2:]),
        "failed reads": sum(int(str(line["failed"])) for line in lines),
        "missing reads": sum(int(str(line["missing"])) for line in lines),
        "wrong values": sum(int(str(line["wrong"])) for line in lines),
    }


class Slices:
    """What happened since the last time it was asked."""

    def __init__(self, reads: Reads, counters: Counters) -> None:
        self._reads = reads
        self._counters = counters
        self._at = time.perf_counter()
        self._counted: dict[str, Counted] = {}

    async def next(self, name: str, zones: tuple[str, ...]) -> Figures:
        """The figures; of servers only those that are up now and were, or were restarted, since."""
        counted = await self._counters.look(zones)
        now = time.perf_counter()
        length = now - self._at
        came = self._reads.counts(self._at, now)
        nothing = Counted(0, 0, 0, 0)
        new = {zone: seen.since(self._counted.get(zone, nothing)) for zone, seen in counted.items()}
        self._at, self._counted = now, self._counted | counted
        others = sum(new[zone].gets for zone in OTHERS)
        return {
            "second": name,
            "reads/s": came.total() / length,
            "local, %": 100 * came[LOCAL] / max(1, came.total()),
            **{f"at {zone}/s": new[zone].gets / length for zone in OTHERS},
            "others / reads": others / max(1, came.total()),
            f"sets at {LOCAL}/s": new[LOCAL].sets / length if LOCAL in new else None,
            "failed": came[FAILED],
            "missing": came[MISSING],
            "wrong": came[WRONG],
        }
