"""Parts of long work: steps of a computation, after which the event loop runs other work, and items done a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

from evcache.zones._tasks import unattended

Item = TypeVar("Item")

# Keys that are checked or encoded in one step: about a millisecond.
STEP_KEYS = 256

# Bytes of a value that count as one more key. Copying them takes some microseconds, compressing them a hundred.
BYTES_LIKE_A_KEY = 4_096


class Steps:
    """The work of the current step."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def is_over(self, size: int) -> bool:
        """Count one key with a value of this many bytes. Return True if the step is over, and begin the next."""
        self._done += 1 + size // BYTES_LIKE_A_KEY
        if self._done < STEP_KEYS:
            return False
        self._done = 0
        return True


class ByteBudget:
    """Bytes that several tasks may have in flight together. A task over the limit may have its bytes if no other has any."""

    __slots__ = ("_limit", "_taken", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, size: int) -> None:
        """Wait until there is room for so many bytes, and take it. May be cancelled."""
        while self._taken and self._taken + size > self._limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._taken += size

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._taken -= size
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


async def a_few_at_once(items: Iterable[Item], work: Callable[[Item], Awaitable[object]], at_once: int) -> None:
    """Do the work for each item, for so many items at the same time.

    If one raises, or the caller is cancelled, the work that runs is cancelled and no other item is begun.

    Args:
        items: What is worked on, in this order.
        work: An async function of one item.
        at_once: The number of tasks.

    Raises:
        Exception: What the work raised first.
    """
    left = iter(items)

    async def go_on(item: Item) -> None:
        await work(item)
        for following in left:
            await work(following)

    try:
        async with asyncio.TaskGroup() as group:
            for item in islice(left, at_once):
                unattended(group.create_task(go_on(item)))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
