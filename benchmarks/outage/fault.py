"""The local zone dies, is stopped, or answers late, and comes back, under callers who read as fast as they are answered.

500 keys of 100 bytes, written to all zones before; the client's settings are the defaults, so a read has 0.1 s.
There are three phases. `before` has no fault. `during` begins when the fault is ordered. `after` begins when the fault has
ended, and lasts until reads are local again.

The figures:

    fault ordered to done    a container takes a while to die: times from the fault on are never better than this
    failed, missing, wrong   reads that raised; that returned None though another zone has the key; another value. Over all
    timed out on eu-1a       reads in `during` that waited in vain for the local zone, as the client itself says (a hook)
    reads that waited        reads begun in `during` that took longer than `limit`: 10 ms, or 5 medians of `before` if that
                             is more. Time in which the event loop stood still is taken off: that is this machine
    as many seemed to        the same of `before`, when nothing was to be waited for: the noise of this machine. Where
                             it is not 0, go by `the last of them`, which the client says and noise does not move
    none waits after         from the fault until the last of them began, and 0 without any: from then on nobody waits. A
                             slow read does not count when it has at most one other within half a second, so that a client
                             may ask each of the two nodes from time to time whether it is back
    p50, p99                 of reads by when they began, failed ones too; `steady` is `during` without its first second
    local again after        until 95 % of the reads in half a second are served by the local zone; at most 60 s
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.outage.common import (
    FAILED,
    LOCAL,
    MISSING,
    NAMESPACE,
    WRONG,
    Read,
    Reads,
    callers,
    fill,
    fresh_zones,
    percentile,
)
from benchmarks.outage.proxies import proxies_before
from benchmarks.outage.table import NEVER
from benchmarks.outage.watch import Watch, watching
from evcache import CacheError, EVCache, Hooks
from evcache.testing import RunningZones
from evcache.zones.errors import NodeTimeout
from integration.servers import ServerKind

FAULTS = ("kill", "pause", "delay")
KEYS = 500
BEFORE_SECONDS, DURING_SECONDS, AFTER_SECONDS = 5.0, 8.0, 60.0
DELAY_SECONDS = 0.2  # of replies: longer than a read may take

WAITED_SECONDS, WAITED_MEDIANS = 0.010, 5
PROBES, PROBE_SECONDS = 2, 0.5  # this number of slow reads within this time are probes, one for each node
STEADY_AFTER_SECONDS = 1.0

LOCAL_SHARE, LOCAL_WINDOW_SECONDS = 0.95, 0.5


class LocalTimeouts(Hooks):
    """When reads gave up waiting for the local zone."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """Remember it."""
        if zone == LOCAL and isinstance(error, NodeTimeout):
            self.at.append(time.perf_counter())


@dataclass
class Times:
    """The ends of the phases."""

    began: float
    fault: float = 0.0  # ordered
    done: float = 0.0
    ending: float = 0.0  # the end of the fault, ordered
    ended: float = 0.0
    local_again: float = NEVER


def run(kind: ServerKind, fault: str, seconds: float | None) -> dict[str, object]:
    """One fault, on servers of its own; the figures."""
    with fresh_zones(kind) as zones:
        return asyncio.run(measure(zones, fault, seconds or BEFORE_SECONDS, seconds or DURING_SECONDS))


Change = Callable[[], Awaitable[object]]


@asynccontextmanager
async def breakable(zones: RunningZones, fault: str) -> AsyncIterator[tuple[dict[str, list[str]], Change, Change]]:
    """The zones as the client is to see them, and how the fault begins and ends."""
    if fault == "delay":
        async with proxies_before(zones.zones[LOCAL]) as proxies:
            yield {**zones.zones, LOCAL: proxies.addresses}, partial(proxies.delay, DELAY_SECONDS), partial(proxies.delay, 0)
    else:
        begin, end = (zones.kill, zones.restart) if fault == "kill" else (zones.pause, zones.resume)
        # A thread is used because containers take up to a second, which would stall the callers.
        yield zones.zones, partial(asyncio.to_thread, begin, LOCAL), partial(asyncio.to_thread, end, LOCAL)


async def measure(zones: RunningZones, fault: str, before: float, during: float) -> dict[str, object]:
    """The three phases."""
    hooks = LocalTimeouts()
    async with AsyncExitStack() as stack:
        seen, begin_fault, end_fault = await stack.enter_async_context(breakable(zones, fault))
        cache = await stack.enter_async_context(EVCache(NAMESPACE, seen, local_zone=LOCAL, hooks=hooks))
        await fill(cache, KEYS)
        watch = await stack.enter_async_context(watching())
        reads = await stack.enter_async_context(callers(cache, KEYS))
        times = Times(time.perf_counter())
        await asyncio.sleep(before)
        times.fault = time.perf_counter()
        await begin_fault()
        times.done = time.perf_counter()
        await asyncio.sleep(max(0.0, times.fault + during - times.done))
        times.ending = time.perf_counter()
        await end_fault()
        times.ended = time.perf_counter()
        times.local_again = await local_again(reads, times.ended)
    return figures(reads, times, hooks, watch)


async def local_again(reads: Reads, since: float) -> float:
    """Wait until reads are local; when they began to be."""
    while (now := time.perf_counter()) < since + AFTER_SECONDS:
        window = now - LOCAL_WINDOW_SECONDS
        if window >= since:
            served = reads.counts(window, now)
            if served and served[LOCAL] >= LOCAL_SHARE * served.total():
                return window
        await asyncio.sleep(LOCAL_WINDOW_SECONDS / 5)
    return NEVER


def waiting(reads: list[Read], limit: float, watch: Watch) -> list[float]:
    """Return the start times of reads that took longer than the limit, not counting stalls of the event loop."""
    return sorted(
        read.began
        for read in reads
        if read.took > limit and read.took - watch.stood_still(read.began, read.began + read.took) > limit
    )


def none_waits_after(slow: list[float], fault: float, until: float) -> float:
    """Seconds from the fault on after which reads no longer wait, except probes; NEVER when they still do at the end."""
    last = fault
    for began in slow:
        neighbours = bisect_right(slow, began + PROBE_SECONDS) - bisect_left(slow, began - PROBE_SECONDS)
        if neighbours > PROBES:
            last = began
    return last - fault if last < until - PROBE_SECONDS else NEVER


def figures(reads: Reads, times: Times, hooks: LocalTimeouts, watch: Watch) -> dict[str, object]:
    """What is printed; see the top of this module."""
    everything = reads.counts(times.began, NEVER)
    before = [read.took for read in reads.begun(times.began, times.fault)]
    during = list(reads.begun(times.fault, times.ending))
    steady = [read.took for read in during if read.began >= times.fault + STEADY_AFTER_SECONDS]
    p50, p99 = percentile(before, 50), percentile(before, 99)
    limit = max(WAITED_SECONDS, WAITED_MEDIANS * p50)
    slow = waiting(during, limit, watch)
    timeouts = [at for at in hooks.at if times.fault <= at < times.ending]
    took = [read.took for read in during]
    rate_before = len(before) / (times.fault - times.began)
    return {
        "reads before": len(before),
        "reads during": len(during),
        "reads after": everything.total() - len(before) - len(during),
        "failed reads": everything[FAILED],
        "missing reads": everything[MISSING],
        "wrong values": everything[WRONG],
        "failed as": ", ".join(f"{name} {count}" for name, count in reads.errors.items()) or None,
        "fault ordered to done, ms": (times.done - times.fault) * 1e3,
        f"timed out on {LOCAL}": len(timeouts),
        "the last of them, ms after the fault": (timeouts[-1] - times.fault) * 1e3 if timeouts else None,
        "limit, ms": limit * 1e3,
        "reads that waited": len(slow),
        "as many seemed to, before": len(waiting(list(reads.begun(times.began, times.fault)), limit, watch)),
        "none waits after, ms": none_waits_after(slow, times.fault, times.ending) * 1e3,
        "reads/s before": rate_before,
        "reads/s during / before": len(during) / (times.ending - times.fault) / rate_before,
        "p50 before, ms": p50 * 1e3,
        "p99 before, ms": p99 * 1e3,
        "p50 during / before": percentile(took, 50) / p50,
        "p99 during / before": percentile(took, 99) / p99,
        "p99 steady / before": percentile(steady, 99) / p99,
        "slowest during, ms": max(took, default=0.0) * 1e3,
        "longest stall of the loop, ms": watch.longest_stall(times.fault, times.ending) * 1e3,
        "local again after, s": times.local_again - times.ended,
    }
