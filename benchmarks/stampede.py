"""How often a value is loaded, and who waits for it, when several processes want one key; and what asking that way costs.

    python -m benchmarks.stampede [--ttl 10] [--seconds 32] [--rates 100 1000] [--processes 4] [--zones 1] [--json file]

Loads per cycle: the number of processes that load the value each time that it expires, or nearly so. The optimum is 1.0 for
each zone. Delayed: the share of requests that took longer than 10 ms, and longer than 50 ms, which is half of a load. The
row `hits` shows the delays that this machine causes, because its value is never loaded again.

The first second, in which the cache is empty, counts as a cycle; its delays do not count.

Requests arrive at random, and do not wait for earlier ones (an open loop). Servers and processes share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.servers import memcached_nodes
from evcache import EVCache, LoadPolicy, NearCache

LOAD_SECONDS = 0.1
LOAD_SPREAD = 0.3  # sigma of the lognormal
DELAYS = (0.01, 0.05)
START_SECONDS = 0.1  # from when all processes are connected
COLD_SECONDS = 1.0

LONG = 3600.0
POLICIES: dict[str, dict[str, Any] | None] = {
    "hits": {"refresh_after": 1.0},
    "none": None,
    "single flight": {"lease": False, "xfetch_beta": 0.0, "refresh_after": 1.0},
    "XFetch": {"lease": False, "xfetch_beta": 1.0, "refresh_after": 1.0},
    "leases": {"refresh_after": 1.0},
    "leases, soft": {},
}
"""By name; None: `get`, and on a miss the loader and `set`, as services do it by hand."""

# A benchmark that fails on a busy machine tells nothing: long timeouts, which cost the same.
PATIENT: dict[str, Any] = {"read_timeout": 10, "write_timeout": 10}


# One process under traffic.


async def traffic(job: dict[str, Any]) -> dict[str, Any]:
    """Ask for one key at random times; when loads began, and how many requests were delayed."""
    chance = random.Random(job["seed"])
    began: list[float] = []
    took: list[float] = []

    async def load() -> str:
        began.append(time.monotonic())
        await asyncio.sleep(chance.lognormvariate(math.log(LOAD_SECONDS) - LOAD_SPREAD**2 / 2, LOAD_SPREAD))
        return "v" * 100

    settings = job["policy"]
    async with EVCache(job["namespace"], job["zones"], local_zone=job["home"], **PATIENT) as cache:

        async def by_hand() -> object:
            value = await cache.get("key")
            if value is None:
                value = await load()
                await cache.set("key", value, ttl=job["ttl"])
            return value

        policy = LoadPolicy(**(settings or {}))

        async def request() -> None:
            asked = time.monotonic()
            await (by_hand() if settings is None else cache.get_or_load("key", load, ttl=job["ttl"], policy=policy))
            if asked > warm:
                took.append(time.monotonic() - asked)

        await cache.get("other")  # connected
        print("connected", flush=True)
        start = float(await asyncio.to_thread(sys.stdin.readline))
        warm = start + COLD_SECONDS
        requests: set[asyncio.Task[None]] = set()
        due = start
        while due < start + job["seconds"]:
            due += chance.expovariate(job["rate"])
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(request())
            requests.add(task)
            task.add_done_callback(requests.discard)
        await asyncio.gather(*requests)
    return {"loads": began, "requests": len(took), "delayed": [sum(each > limit for each in took) for limit in DELAYS]}


def under_traffic(name: str, rate: float, zones: dict[str, list[str]], options: argparse.Namespace) -> dict[str, float]:
    """Run several processes that together send `rate` requests each second."""
    ttl = LONG if name == "hits" else options.ttl
    homes = list(zones)
    jobs = [
        {
            "namespace": f"stampede-{name.replace(' ', '')}-{rate:g}",
            "zones": zones,
            "home": homes[number % len(homes)],
            "policy": POLICIES[name],
            "ttl": ttl,
            "rate": rate / options.processes,
            "seconds": options.seconds,
            "seed": number,
        }
        for number in range(options.processes)
    ]
    command = [sys.executable, "-m", "benchmarks.stampede", "--job"]
    running = [
        subprocess.Popen([*command, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for job in jobs
    ]
    try:
        for process in running:
            if process.stdout is None or process.stdout.readline() != "connected\n":
                raise SystemExit("a process did not connect")
        start = f"{time.monotonic() + START_SECONDS}\n"
        for process in running:
            if process.stdin is not None:
                process.stdin.write(start)
                process.stdin.flush()
        answers = [json.loads(process.communicate(timeout=options.seconds + 30)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    counts = cycles([moment for answer in answers for moment in answer["loads"]], ttl)
    requests = sum(answer["requests"] for answer in answers)
    delayed = [sum(answer["delayed"][index] for answer in answers) / requests for index in range(len(DELAYS))]
    return {
        "cycles": len(counts),
        "loads_per_cycle": statistics.mean(counts),
        "most_loads": max(counts),
        "requests": requests,
        "delayed_10_ms": delayed[0],
        "delayed_50_ms": delayed[1],
    }


def cycles(loads: list[float], ttl: float) -> list[int]:
    """How many loads there were in each cycle: those that began within half a ttl of its first one."""
    counts: list[int] = []
    first = -math.inf
    for moment in sorted(loads):
        if moment > first + ttl / 2:
            first = moment
            counts.append(0)
        counts[-1] += 1
    return counts


# What a call costs.


async def microseconds(call: Callable[[], Awaitable[object]], callers: int, calls: int) -> float:
    """Return the microseconds that one call takes with this number of concurrent callers."""

    async def caller() -> None:
        for _ in range(calls // callers):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - began) / calls * 1e6


async def never() -> object:
    """The loader of what is there."""
    raise AssertionError


async def costs(zones: dict[str, list[str]], rounds: int, calls: int) -> list[dict[str, Any]]:
    """What `get` and `get_or_load` of what is there take, in turns, and their ratio: medians of the rounds."""
    rows: list[dict[str, Any]] = []
    home = next(iter(zones))
    async with (
        EVCache("stampede-cost", zones, local_zone=home, **PATIENT) as far,
        EVCache("stampede-cost", zones, local_zone=home, near_cache=NearCache(ttl=LONG), **PATIENT) as near,
    ):
        await far.set("key", "v" * 100, ttl=LONG, consistency="all")
        await near.get("key")
        for what, cache, callers in (("memcached", far, 1), ("memcached", far, 32), ("near", near, 1)):
            times: list[tuple[float, float]] = []
            for _ in range(rounds + 1):
                plain = await microseconds(lambda cache=cache: cache.get("key"), callers, calls)  # type: ignore[misc]
                loading = await microseconds(
                    lambda cache=cache: cache.get_or_load("key", never, ttl=LONG),  # type: ignore[misc]
                    callers,
                    calls,
                )
                times.append((plain, loading))
            del times[0]  # warms up
            rows.append(
                {
                    "hit": what,
                    "callers": callers,
                    "get_us": statistics.median(plain for plain, _ in times),
                    "get_or_load_us": statistics.median(loading for _, loading in times),
                    "ratio": statistics.median(loading / plain for plain, loading in times),
                }
            )
    return rows


# A cache that is dead.

DEAD_CALLERS = 1_000
DEAD_LOAD_SECONDS = 0.02
MAX_LOADS = 32


async def without_a_cache(load: Callable[[], Awaitable[object]]) -> float:
    """Seconds that the callers take with a semaphore alone."""
    slots = asyncio.Semaphore(MAX_LOADS)

    async def caller() -> None:
        async with slots:
            await load()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(DEAD_CALLERS)))
    return time.perf_counter() - began


async def with_a_dead_cache(load: Callable[[], Awaitable[object]], address: str) -> list[float]:
    """Seconds that they take when the cache refuses or hangs: at first, and when that is known."""
    taken = []
    async with EVCache("stampede-dead", {"a": [address]}, local_zone="a", max_loads=MAX_LOADS) as cache:
        for _ in range(2):
            began = time.perf_counter()
            await asyncio.gather(*(cache.get_or_load(f"key-{number}", load) for number in range(DEAD_CALLERS)))
            taken.append(time.perf_counter() - began)
    return taken


async def dead(rounds: int) -> list[dict[str, Any]]:
    """What a call costs beside its loader: medians, in microseconds, over what a semaphore alone takes."""

    async def load() -> object:
        await asyncio.sleep(DEAD_LOAD_SECONDS)
        return 1

    with socket.create_server(("127.0.0.1", 0)) as refusing:
        refused = f"127.0.0.1:{refusing.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        figures: dict[str, list[float]] = {}
        for _ in range(rounds):
            figures.setdefault("no cache, a semaphore", []).append(await without_a_cache(load))
            for name, address in (("refuses", refused), ("hangs", hanging)):
                first, later = await with_a_dead_cache(load, address)
                figures.setdefault(f"{name}, at first", []).append(first)
                figures.setdefault(f"{name}, known", []).append(later)
    base = statistics.median(figures["no cache, a semaphore"])
    return [
        {"cache": name, "seconds": (middle := statistics.median(values)), "us_a_call": (middle - base) / DEAD_CALLERS * 1e6}
        for name, values in figures.items()
    ]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stampede", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--ttl", type=float, default=10.0, help="seconds that a value lives")
    parser.add_argument("--seconds", type=float, default=32.0, help="length of each row of traffic")
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[100.0, 1000.0], help="requests a second, of all processes"
    )
    parser.add_argument("--only", action="append", choices=list(POLICIES), help="this row only; may be given more than once")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--zones", type=int, default=1, help="the processes take turns in being at home in them")
    parser.add_argument("--rounds", type=int, default=7, help="of what is timed; medians are printed")
    parser.add_argument("--json", type=Path, help="write the result there as well")
    options = parser.parse_args()
    if options.job:
        print(json.dumps(asyncio.run(traffic(json.loads(options.job)))))
        return
    result: dict[str, Any] = {"traffic": {}}
    with memcached_nodes(options.zones) as (ports, servers):
        zones = {f"zone-{number}": [f"127.0.0.1:{port}"] for number, port in enumerate(ports)}
        print(f"{options.zones} zone(s): {servers}; {options.processes} processes, ttl {options.ttl:g} s, loads 0.1 s")
        for rate in options.rates:
            print(f"{rate:g} requests a second   cycles  loads per cycle (most)  over 10 ms  over 50 ms")
            rows = result["traffic"][f"{rate:g}"] = {}
            for name in options.only or POLICIES:
                row = rows[name] = under_traffic(name, rate, zones, options)
                print(
                    f"    {name:18} {row['cycles']:8} {row['loads_per_cycle']:12.1f} ({row['most_loads']})"
                    f"{row['delayed_10_ms']:14.2%}{row['delayed_50_ms']:12.2%}",
                    flush=True,
                )
        result["costs"] = asyncio.run(costs(zones, options.rounds, 3_200))
    print("a hit, microseconds      get  get_or_load  ratio")
    for row in result["costs"]:
        who = f"{row['hit']}, {row['callers']} caller(s)"
        print(f"    {who:20} {row['get_us']:8.2f} {row['get_or_load_us']:10.2f} {row['ratio']:8.2f}")
    result["dead"] = asyncio.run(dead(options.rounds))
    print(f"{DEAD_CALLERS} callers of as many keys, {MAX_LOADS} loaders of 20 ms at once: seconds, microseconds a call")
    for row in result["dead"]:
        print(f"    {row['cache']:24} {row['seconds']:8.3f} {row['us_a_call']:10.0f}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
