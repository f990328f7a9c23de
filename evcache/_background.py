"""Work that outlives the call that caused it: owned, bounded, and awaited on close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.errors import CacheError

T = TypeVar("T")

# Writes that wait for a connection, or look closer at a refused store. Each is bounded by its call's deadline, so this many
# are only there when thousands of calls a second meet servers that answer nothing.
MAX_TASKS = 10_000

_log = logging.getLogger("evcache.client")


def _work() -> str:
    return "background work"


class BackgroundTasks:
    """The background tasks of one client."""

    def __init__(self, max_tasks: int = MAX_TASKS) -> None:
        self._max_tasks = max_tasks
        self._tasks: dict[asyncio.Task[Any], Callable[[], str]] = {}  # with what each one runs, for the log
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self, work: Coroutine[Any, Any, T], describe: Callable[[], str] = _work, *, limited: bool = True
    ) -> asyncio.Task[T] | None:
        """Run `work` as a task. None, with nothing run, when there are too many or the client is closing.

        `describe` returns what runs in it, for the log. Work that calls code of the service needs one. `limited`: False for
        work that its owner bounds and that must not be refused: it runs however many tasks there are.
        """
        if self._closed or (limited and len(self._tasks) >= self._max_tasks):
            work.close()
            return None
        task = unattended(asyncio.get_running_loop().create_task(work))
        self._tasks[task] = describe
        task.add_done_callback(self._ended)
        return task

    def reopen(self) -> None:
        """Take work again after `close`, or on another loop if the loop of the present tasks is closed."""
        abandon(self._tasks)
        self._tasks = {}
        self._closed = False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()  # looked at, so that it is not reported as lost when the caller has left
        if error is not None and not isinstance(error, CacheError):
            _log.error("background work ended with a bug", exc_info=error)

    async def close(self, drain: float) -> int:
        """Take no more work, wait up to `drain` seconds for running tasks, then cancel them. Return how many were cancelled.

        A cancelled call cancels all tasks at once. A further call waits for the tasks that have not ended. A task that goes
        on after its cancellation is logged and left alone.
        """
        self._closed = True
        if not self._tasks:
            return 0
        tasks = set(self._tasks)
        try:
            _, left = await asyncio.wait(tasks, timeout=drain)
        except asyncio.CancelledError:
            cancel_once(tasks)
            raise
        cut_short = cancel_once(left)
        await ended(left, lambda task: self._tasks.get(task, _work)())
        return len(cut_short)
