"""Background tasks of a client. They outlive the call that started them, are bounded, and are awaited on close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.errors import CacheError

T = TypeVar("T")

# Writes that wait for a connection, or examine a refused store. The deadline of its call bounds each, so this number is only
# reached if thousands of calls a second meet servers that do not answer.
MAX_TASKS = 10_000

_log = logging.getLogger("evcache.client")


def _work() -> str:
    return "background work"


class BackgroundTasks:
    """Background tasks of one client."""

    def __init__(self, max_tasks: int = MAX_TASKS) -> None:
        self._max_tasks = max_tasks
        self._tasks: dict[asyncio.Task[Any], Callable[[], str]] = {}  # with the name of its work, for the log
        self._closed = False

    def __len__(self) -> int:
        """Number of running tasks."""
        return len(self._tasks)

    def spawn(
        self, work: Coroutine[Any, Any, T], describe: Callable[[], str] = _work, *, limited: bool = True
    ) -> asyncio.Task[T] | None:
        """Run `work` as a task.

        Args:
            work: Coroutine. It is closed if it is not run.
            describe: Returns the name of the work, for the log. Needed for work that calls code of the service.
            limited: False for work that must not be refused, and whose owner bounds it.

        Returns:
            The task. None if there are too many tasks, or if the client is closing.
        """
        if self._closed or (limited and len(self._tasks) >= self._max_tasks):
            work.close()
            return None
        task = unattended(asyncio.get_running_loop().create_task(work))
        self._tasks[task] = describe
        task.add_done_callback(self._ended)
        return task

    def reopen(self) -> None:
        """Accept work again after `close`, or on another loop if the loop of the present tasks is closed."""
        abandon(self._tasks)
        self._tasks = {}
        self._closed = False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()  # retrieved, so that asyncio does not report it if the caller has left
        if error is not None and not isinstance(error, CacheError):
            _log.error("background work failed: unexpected exception", exc_info=error)

    async def close(self, drain: float) -> int:
        """Refuse further work, wait for the running tasks, and cancel those that have not ended.

        Cancellation of this call cancels all tasks at once. A further call waits for the tasks that have not ended. A task
        that continues after its cancellation is logged, and may end at any time.

        Args:
            drain: Seconds to wait before the tasks are cancelled.

        Returns:
            The number of cancelled tasks.
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
