"""The end of background tasks."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakSet

_log = logging.getLogger("evcache.client")

T = TypeVar("T")
AnyTask = TypeVar("AnyTask", bound=asyncio.Future[Any])

# Not `Task.cancelling()`: before Python 3.13 a TaskGroup leaves that counted up when one of its tasks has failed.
_cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()


def unattended(task: AnyTask) -> AnyTask:
    """Let a task of the client end silently with a loop that is closed under it. Return the task.

    asyncio reports a task that is collected before it has ended. Here, the program has closed its loop, or ends, without
    `close`. `asyncio.gather` sets the same attribute, which has no public name. A call that waits for the task is reported.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
    return task


def cancel_once(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Cancel those tasks that run and that this function has not cancelled before, and return them.

    A close that was cancelled is called again: a second cancellation would interrupt how a task cleans up after the first.
    """
    cancelled = [task for task in tasks if not task.done() and task not in _cancelled]
    for task in cancelled:
        _cancelled.add(task)
        task.cancel()
    return cancelled


# The default drain of a client's `close`. Cleaning up after a cancellation takes milliseconds, or one round trip.
PATIENCE_SECONDS = 2.0


async def ended(tasks: Collection[asyncio.Task[Any]], describe: Callable[[asyncio.Task[Any]], str]) -> None:
    """Wait up to `PATIENCE_SECONDS` for tasks that were cancelled.

    Code of the service may run in them, and may catch the cancellation and go on. Such a task is logged
    and not awaited: it may end at any time, and must not keep the client from closing.

    Args:
        tasks: The tasks.
        describe: Return what a task runs, for the log.
    """
    running = [task for task in tasks if not task.done()]
    if not running:
        return  # `asyncio.wait` would take a turn of the loop, in which a cancelled `close` could be cut off
    for task in (await asyncio.wait(running, timeout=PATIENCE_SECONDS))[1]:
        _log.warning("closed, but %s goes on after its cancellation", describe(task))


class closing(Generic[T]):  # noqa: N801  # as `contextlib.aclosing`
    """Context that closes an asynchronous iterator, if it is a generator.

    A generator that is left at a `yield` would keep its tasks until the garbage collector runs. `contextlib.aclosing` fails
    for other iterators, and where a coroutine is collected because its event loop is closed: nothing can be awaited then.
    """

    def __init__(self, iterator: AsyncIterator[T]) -> None:
        self._iterator = iterator

    async def __aenter__(self) -> AsyncIterator[T]:
        return self._iterator

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if isinstance(self._iterator, AsyncGenerator) and kind is not GeneratorExit:
            await self._iterator.aclose()


# `finally` blocks of one coroutine that may try to wait. More than any function of this project has.
_MAX_WAITS = 10


def abandon(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End those tasks that will never run again because their event loop is closed.

    This runs their `finally` blocks now. Garbage collection would run them later, on the state of the next opening.
    """
    for task in tasks:
        coroutine = task.get_coro()
        if task.done() or not task.get_loop().is_closed() or not isinstance(coroutine, Coroutine):
            continue
        for _ in range(_MAX_WAITS):
            # Much of what the blocks do fails without the loop. An error ends a block, and the next attempt the one around
            # it.
            with suppress(Exception):
                coroutine.close()
                break


def name_of(function: object) -> str:
    """Return the name of a function of the service, for the log."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{getattr(function, '__module__', '')}.{name}"
