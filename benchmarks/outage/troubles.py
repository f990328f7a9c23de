"""Troubles that are no outage, while 32 callers read: what fails, what is slow, and what the client takes to be down.

Each caller reads a key every 10 ms, or as soon as its last read has ended. The client's settings are the defaults, so a read
has 0.1 s. The troubles:

    local still        the local zone stands still (SIGSTOP) for 0.2 s, every 2 s
    all still          every zone does
    busy               four processes compute on two processors, beside this one and its servers
    quota              this process is stopped for 80 ms of each 100 ms, as a CPU quota of a fifth does
    half-open          every 4 s a NAT forgets the connections that are open; new connections work
    large              values of 1 MB; each caller reads one after another, and waits 50 ms after a read that failed

The figures:

    still              the share of the time in which the servers stood still
    failed             reads that raised, or returned None though the zones have the key
    slow               reads that took longer than 30 ms, a third of the timeout, failed ones too
    node down          how often the client took a node to be down
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.outage.common import (
    CALLERS,
    FAILED,
    LOCAL,
    MISSING,
    NAMESPACE,
    OTHERS,
    Reads,
    fill,
    fresh_zones,
    key_of,
    percentile,
    value_of,
)
from benchmarks.outage.proxies import proxies_before
from evcache import CacheError, EVCache, Hooks
from evcache.testing import RunningZones
from integration.servers import ServerKind

TROUBLES = ("local still", "all still", "busy", "quota", "half-open", "large")
SECONDS = 20.0
KEYS = 500
PACE_SECONDS = 0.01
SLOW_SECONDS = 0.03
STILL_SECONDS, STILL_EVERY_SECONDS = 0.2, 2.0
FORGET_EVERY_SECONDS = 4.0
BUSY_PROCESSES = 4
LARGE_KEYS, LARGE_BYTES = 20, 1_000_000
FAILED_PAUSE_SECONDS = 0.05
WRITE_SECONDS = 5.0

# Stops a process for 80 ms of each 100 ms. Arguments: its pid, and the seconds until it ends.
FREEZER = """
import os, signal, sys, time
pid, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.08)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.02)
"""

Trouble = Callable[[], Awaitable[object]]


class NodesDown(Hooks):
    """Counts how often a node is taken to be down."""

    def __init__(self) -> None:
        self.count = 0

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """Count it."""
        del zone, node, why
        self.count += down


def run(kind: ServerKind, trouble: str, seconds: float | None) -> dict[str, object]:
    """One trouble, on servers of its own; the figures."""
    with fresh_zones(kind) as zones:
        return asyncio.run(measure(zones, trouble, seconds or SECONDS))


async def measure(zones: RunningZones, trouble: str, seconds: float) -> dict[str, object]:
    """Read while the trouble lasts."""
    hooks, reads = NodesDown(), Reads()
    async with AsyncExitStack() as stack:
        seen, forget = await stack.enter_async_context(behind_nat(zones, trouble))
        cache = await stack.enter_async_context(EVCache(NAMESPACE, seen, local_zone=LOCAL, hooks=hooks))
        large = trouble == "large"
        await (fill_large(cache) if large else fill(cache, KEYS))
        began = time.perf_counter()
        troubling = asyncio.create_task(troubles(zones, trouble, forget, seconds))
        read = read_large if large else read_paced
        await asyncio.gather(*(read(cache, number, began + seconds, reads) for number in range(CALLERS)))
        still = await troubling
    came, took = reads.counts(began, time.perf_counter()), [read.took for read in reads.ended(began, time.perf_counter())]
    failed = came[FAILED] + came[MISSING]
    return {
        "reads": came.total(),
        "still, %": 100 * still / seconds if still else None,
        "failed": failed,
        "failed, %": 100 * failed / came.total(),
        "slow": sum(each > SLOW_SECONDS for each in took),
        "p50, ms": percentile(took, 50) * 1e3,
        "p99, ms": percentile(took, 99) * 1e3,
        "node down": hooks.count,
        "failed as": ", ".join(f"{name} {count}" for name, count in reads.errors.items()) or None,
    }


@asynccontextmanager
async def behind_nat(zones: RunningZones, trouble: str) -> AsyncIterator[tuple[dict[str, list[str]], Trouble | None]]:
    """Yield the zones as the client sees them, and what makes a NAT forget their connections."""
    if trouble != "half-open":
        yield zones.zones, None
        return
    names = [name for name, nodes in zones.zones.items() for _ in nodes]
    async with proxies_before([node for nodes in zones.zones.values() for node in nodes]) as proxies:
        seen: dict[str, list[str]] = {}
        for name, address in zip(names, proxies.addresses, strict=True):
            seen.setdefault(name, []).append(address)
        yield seen, proxies.forget


async def troubles(zones: RunningZones, trouble: str, forget: Trouble | None, seconds: float) -> float:
    """Make the trouble for `seconds`. Return the seconds for which servers were stalled."""
    ends = time.perf_counter() + seconds
    if trouble in ("local still", "all still"):
        return await stand_still(zones, (LOCAL,) if trouble == "local still" else (LOCAL, *OTHERS), ends)
    processes: list[subprocess.Popen[bytes]] = []
    if trouble == "busy":
        processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)]
    elif trouble == "quota":
        processes = [subprocess.Popen([sys.executable, "-c", FREEZER, str(os.getpid()), str(seconds)])]
    try:
        while (left := ends - time.perf_counter()) > 0:
            await asyncio.sleep(min(left, FORGET_EVERY_SECONDS))
            if forget is not None:
                await forget()
    finally:
        for process in processes:
            if trouble == "busy":  # a freezer ends by itself: killed, it may leave this process stopped
                process.kill()
            await asyncio.to_thread(process.wait)
    return 0.0


async def stand_still(zones: RunningZones, names: tuple[str, ...], ends: float) -> float:
    """Stop these zones from time to time, all at once. Return the seconds for which they were stalled."""
    total = 0.0
    while time.perf_counter() + STILL_EVERY_SECONDS <= ends:
        await asyncio.sleep(STILL_EVERY_SECONDS - STILL_SECONDS)
        await asyncio.gather(*(asyncio.to_thread(zones.pause, name) for name in names))
        began = time.perf_counter()
        await asyncio.sleep(STILL_SECONDS)
        await asyncio.gather(*(asyncio.to_thread(zones.resume, name) for name in names))
        total += time.perf_counter() - began
    return total


async def read_paced(cache: EVCache, number: int, ends: float, reads: Reads) -> None:
    """One caller: a read every 10 ms."""
    due = time.perf_counter() + PACE_SECONDS * number / CALLERS
    while time.perf_counter() < ends:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        due = max(due, time.perf_counter() - PACE_SECONDS) + PACE_SECONDS
        await read(cache, key_of(number), value_of(number), reads)


async def fill_large(cache: EVCache) -> None:
    """Write the large values to every zone."""
    for number in range(LARGE_KEYS):
        result = await cache.set(key_of(number), b"x" * LARGE_BYTES, consistency="all", timeout=WRITE_SECONDS)
        if not result:
            raise SystemExit("not every zone took the values, with all of them up")


async def read_large(cache: EVCache, number: int, ends: float, reads: Reads) -> None:
    """One caller: a large value after another, with a pause after a failure."""
    value = b"x" * LARGE_BYTES
    while time.perf_counter() < ends:
        number += 1
        if await read(cache, key_of(number % LARGE_KEYS), value, reads) != "read":
            await asyncio.sleep(FAILED_PAUSE_SECONDS)


async def read(cache: EVCache, key: str, value: bytes, reads: Reads) -> str:
    """Read once, and return what came of it."""
    began = time.perf_counter()
    try:
        found = await cache.get(key)
    except CacheError as error:
        reads.errors[type(error).__name__] += 1
        came = FAILED
    else:
        came = "read" if found == value else MISSING
    reads.add(began, came)
    return came
