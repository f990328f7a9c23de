"""Division of long work: steps of a computation, between which the event loop runs other tasks, and limited concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

from evcache.zones._tasks import unattended

Item = TypeVar("Item")

# Keys that are checked or encoded in one step, which takes about a millisecond.
STEP_KEYS = 256

# Bytes of a value that count as one more key. Copying them takes microseconds, and compressing them a hundred.
BYTES_LIKE_A_KEY = 4_096


class Steps:
    """Counter of the work in the current step."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def count(self, size: int) -> bool:
        """Count one key with a value of this many bytes. Return True if the step is over, and begin the next."""
        self._done += 1 + size // BYTES_LIKE_A_KEY
        if self._done < STEP_KEYS:
            return False
        self._done = 0
        return True


class ByteBudget:
    """Limit on the bytes that several tasks have in flight. A task over the limit is admitted if no other has any."""

    __slots__ = ("_limit", "_taken", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, size: int) -> None:
        """Wait until this number of bytes is free, and take them. Cancellation takes none."""
        while self._taken and self._taken + size > self._limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._taken += size

    def release(self, size: int) -> None:
        """Release bytes that were taken."""
        self._taken -= size
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


async def run_concurrently(items: Iterable[Item], work: Callable[[Item], Awaitable[object]], limit: int) -> None:
    """Call `work` for each item, with at most `limit` calls at a time.

    If a call raises, or the caller is cancelled, the running calls are cancelled and no other begins.

    Args:
        items: Arguments of the calls, in this order.
        work: Async function of one item.
        limit: Number of tasks.

    Raises:
        Exception: The first exception of `work`.
    """
    left = iter(items)

    async def run_next(item: Item) -> None:
        await work(item)
        for following in left:
            await work(following)

    try:
        async with asyncio.TaskGroup() as group:
            for item in islice(left, limit):
                unattended(group.create_task(run_next(item)))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
