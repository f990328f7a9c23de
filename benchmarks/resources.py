"""What work takes of a process: CPU, memory, and time in which the event loop runs nothing else."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import evcache.zones.testing


def median_seconds(work: Callable[[], object], times: int) -> float:
    """Median CPU seconds of this thread."""
    taken: list[float] = []
    for _ in range(times):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


@contextmanager
def memory_of() -> Iterator[Callable[[], int]]:
    """Bytes that this process has taken since, but for those of the fake servers."""
    hidden = tracemalloc.Filter(inclusive=False, filename_pattern=f"{Path(evcache.zones.testing.__file__).parent}/*")

    def taken() -> int:
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces([hidden]).statistics("filename")
        return sum(one.size for one in traces if "tracemalloc" not in one.traceback[0].filename)

    gc.collect()
    tracemalloc.start()
    try:
        before = taken()
        yield lambda: taken() - before
    finally:
        tracemalloc.stop()


async def longest_hold(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds for which the loop was held at one time while this was done."""
    worst, running = 0.0, True

    async def look() -> None:
        nonlocal worst
        before = time.thread_time()
        while running:
            await asyncio.sleep(0)
            now = time.thread_time()
            worst, before = max(worst, now - before), now

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    await work()
    running = False
    await looking
    return worst


def resident(process: int) -> int:
    """RSS in bytes."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024
