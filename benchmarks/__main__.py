"""Runs every contender in turn on the same work, round after round, and prints medians and ratios.

A machine is noisy, and its speed changes during a benchmark. The contenders therefore take turns in short rounds, and the
median of the rounds counts. Ratios between clients of one run are comparable; absolute times are not.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import blocking_peers
from benchmarks.contenders import Contender, contenders
from benchmarks.measuring import CannotTakePartError, Result, Round, Run, WrongAnswerError, measure
from benchmarks.peers import POOLS
from benchmarks.profiles import print_profiles
from benchmarks.report import json_of, skips_of, table_of, text_of, verdicts
from benchmarks.servers import held_by, memcached_nodes, redis_protocol_server
from benchmarks.works import NODES, Work, works
from evcache.zones.transport.core import selected

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

SECONDS, ROUNDS = 0.25, 5
SHORT_SECONDS, SHORT_ROUNDS = 0.06, 3
TRIALS, SHORT_TRIALS = 3, 2
OPENING_SHARE = 1.35
"""Opening, closing and what calls last beyond the end of their turn, on top of the turns themselves: measured."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 32 * 1024 * 1024  # the most that it takes

PACKAGES = (
    "evcache",
    "aiomcache",
    "emcache",
    "valkey-glide",
    "redis",
    "hiredis",
    "pymemcache",
    "pylibmc",
    "meta-memcache",
    "uvloop",
)


@dataclass(frozen=True)
class Pace:
    """How long turns are, how many count, and how often it is tried which way to set up a contender is the fastest."""

    seconds: float
    rounds: int
    trials: int
    """Of each way to set a contender up, half a turn long."""


async def best_of(stack: AsyncExitStack, contender: Contender, work: Work, ports: list[int], pace: Pace) -> Run | str:
    """The contender, ready, in whichever of its variants gets most done in a trial; or why it can't take part."""
    variants = contender.variants(work)
    if isinstance(variants, str):
        return variants
    opened: dict[str, tuple[Run, AsyncExitStack]] = {}
    for variant, opener in variants.items():
        own = await stack.enter_async_context(AsyncExitStack())
        try:
            run = await opener(own, work, ports)
        except CannotTakePartError as error:
            return str(error)
        run.name, run.variant = contender.name, variant
        await check(run, work)
        opened[variant] = run, own
    if len(opened) == 1:
        return next(iter(opened.values()))[0]
    rates = dict.fromkeys(opened, 0.0)
    for _ in range(pace.trials):
        for variant, (run, _) in opened.items():
            # The best of its trials: whatever else the machine does can only make one worse.
            rates[variant] = max(rates[variant], (await measure(run, pace.seconds / 2)).per_second)
    best = max(rates, key=lambda variant: rates[variant])
    for variant, (_, own) in opened.items():
        if variant != best:
            await own.aclose()
    return opened[best][0]


async def check(run: Run, work: Work) -> None:
    """One call: it answers with the value, or the value is where it has been written."""
    first: Callable[[], Any] = run.calls[0]
    answer = await asyncio.to_thread(first) if run.in_threads else await first()
    if not run.is_right(answer):
        raise WrongAnswerError(f"{run.name}: {work.title}")
    if run.values is not None and run.values(answer) != [work.value] * work.keys:
        raise WrongAnswerError(f"{run.name}: {work.title}, the values are others")
    for port, key in run.written:
        if await asyncio.to_thread(held_by, port, key) != work.value:
            raise WrongAnswerError(f"{run.name}: {work.title}, another value is stored")


async def compare(
    work: Work, clients: list[Contender], ports: list[int], pace: Pace
) -> tuple[dict[str, Result], dict[str, str]]:
    """Every contender on one kind of work; those that can't do it, with the reason."""
    async with AsyncExitStack() as stack:
        runs: list[Run] = []
        skipped: dict[str, str] = {}
        for contender in clients:
            run = await best_of(stack, contender, work, ports, pace)
            if isinstance(run, str):
                skipped[contender.name] = run
            else:
                runs.append(run)
        if not runs:
            return {}, skipped
        gc.collect()
        turns: dict[str, list[Round]] = {run.name: [] for run in runs}
        for number in range(pace.rounds + 1):
            first = number % len(runs)  # a fixed order would give one client the after-effects of another
            for run in runs[first:] + runs[:first]:
                turn = await measure(run, pace.seconds)
                if number:  # the first round warms up
                    turns[run.name].append(turn)
        return {run.name: Result.of(run.variant, turns[run.name]) for run in runs}, skipped


def chosen(options: argparse.Namespace) -> list[Work]:
    """The kinds of work that the command line asks for."""
    return [
        work
        for work in works()
        if (work.short or not options.short)
        and (uvloop is not None or work.loop != "uvloop")
        and (not options.only or any(text in work.title for text in options.only))
    ]


def taking_part(options: argparse.Namespace, redis: int | str) -> list[Contender]:
    """Return the contenders that the command line asks for. `redis` is the port of that server, or why there is none."""
    clients = contenders(redis)
    if options.short:
        clients = [client for client in clients if client.name not in blocking_peers.VARIANTS]
    if options.clients:
        clients = [client for client in clients if client.name in options.clients]
    return clients


def run_on(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """What runs a coroutine on this kind of loop."""
    return uvloop.run if loop == "uvloop" else asyncio.run


def expected_minutes(chosen: list[Work], clients: list[Contender], pace: Pace) -> float:
    """About how long it takes."""
    turns = 0.0
    for work in chosen:
        ways = [len(variants) for one in clients if not isinstance(variants := one.variants(work), str)]
        turns += (pace.rounds + 1) * len(ways) + pace.trials / 2 * sum(way for way in ways if way > 1)
    return turns * pace.seconds * OPENING_SHARE / 60


def facts() -> dict[str, Any]:
    """The machine and the versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "core": selected.SELECTED.name,
        "versions": versions,
    }


def keep_memory() -> bool:
    """Make the allocator keep freed memory. Return False if it has no such setting.

    glibc gives large blocks back to the kernel, or not, depending on what lies behind them. Where it does, each value of
    1 MB costs 250 page faults: four times the processor time, for whichever client is in that state.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="what the figures need alone, without blocking clients")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="work whose title has one of these in it")
    parser.add_argument("--clients", nargs="+", metavar="NAME", help="these contenders alone")
    parser.add_argument("--list", action="store_true", help="the titles of all work")
    parser.add_argument(
        "--trim", action="store_true", help="leave the allocator as it is: large values may cost page faults"
    )
    parser.add_argument(
        "--peer-pool", type=int, metavar="N", help="connections of asyncio peers, not the fastest number; 2 is their default"
    )
    parser.add_argument("--profile", action="store_true", help="what our own client spends its time on, instead")
    parser.add_argument("--seconds", type=float, help=f"length of a turn of one contender, {SECONDS} unless --short")
    parser.add_argument("--rounds", type=int, help=f"rounds that count, after one that warms up: {ROUNDS} unless --short")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    return parser.parse_args()


def main() -> None:
    """Parse the command line and run."""
    options = arguments()
    todo = chosen(options)
    if options.list:
        print("\n".join(work.title for work in todo))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # the servers end with us
    seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    rounds = options.rounds or (SHORT_ROUNDS if options.short else ROUNDS)
    pace = Pace(seconds, rounds, SHORT_TRIALS if options.short else TRIALS)
    if options.peer_pool:
        POOLS.update(dict.fromkeys(POOLS, (options.peer_pool,)))
    began = time.monotonic()
    kept = not options.trim and keep_memory()
    with redis_protocol_server() as (redis, redis_about), memcached_nodes(NODES) as (ports, servers):
        clients = taking_part(options, redis)
        if not todo or not clients:
            raise SystemExit("nothing is left to do: see --list")
        about = facts()
        machine = f"{about['core']} core, {about['cores']} processors, load {about['load']:.1f}"
        print(f"{NODES} {servers}; {redis_about}; Python {about['python']}, {machine}")
        print("the allocator keeps freed memory" if kept else "the allocator may give freed memory back to the kernel")
        print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
        if options.profile:
            print_profiles(ports, 8 * pace.seconds)
            return
        minutes = expected_minutes(todo, clients, pace)
        print(f"{len(todo)} kinds of work, {pace.rounds} rounds of {pace.seconds:g} s: about {minutes:.1f} minutes")
        if uvloop is None:
            print("uvloop: is not installed")
        rows: dict[str, dict[str, Result]] = {}
        printed = []
        for work in todo:
            results, skipped = run_on(work.loop)(compare(work, clients, ports, pace))
            rows[work.title] = results
            printed.append(json_of(work, results, skipped))
            print(f"\n{table_of(work, results)}", flush=True)
    reached = verdicts(rows)
    print(f"\n{skips_of(one['skipped'] for one in printed)}\n\n{text_of(reached)}")
    print(f"\nIt took {(time.monotonic() - began) / 60:.1f} minutes.")
    if options.json is not None:
        about |= {
            "servers": servers,
            "redis_server": redis_about,
            "memory_kept": kept,
            "seconds": pace.seconds,
            "rounds": pace.rounds,
            "load_after": os.getloadavg()[0],
        }
        options.json.write_text(json.dumps({**about, "rows": printed, "figures": reached}, indent=1))


if __name__ == "__main__":
    main()
