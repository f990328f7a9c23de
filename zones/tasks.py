"""The end of background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

# Not `Task.cancelling()`: before Python 3.13 a TaskGroup leaves that counted up when one of its tasks has failed.
_cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()


def cancel_once(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Cancel those tasks that run and that this function has not cancelled before, and return them.

    A close that was cancelled is called again: a second cancellation would interrupt how a task cleans up after the first.
    """
    cancelled = [task for task in tasks if not task.done() and task not in _cancelled]
    for task in cancelled:
        _cancelled.add(task)
        task.cancel()
    return cancelled
