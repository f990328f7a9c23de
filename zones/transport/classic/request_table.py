"""Requests of a classic connection that have no answer yet, and the order of writes to one key. No I/O, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import NamedTuple

from evcache.zones.transport.in_flight import Waiter


class ClassicRequest(NamedTuple):
    """State of one request."""

    waiter: Waiter
    size: int
    """Bytes of its value."""
    written: tuple[bytes, ...]
    """Keys that it writes."""
    began: float
    """Time on the loop's clock at which the caller made it."""
    lost: float
    """Value of `LoopLag.lost` at that time."""


class RequestTable:
    """Requests without an answer, by the task that executes each."""

    __slots__ = ("_last_write", "_requests", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes of the values that are to be stored."""
        self._requests: dict[asyncio.Task[None], ClassicRequest] = {}
        self._last_write: dict[bytes, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """Tasks of the requests."""
        return self._requests.keys()

    @property
    def unanswered(self) -> int:
        """Number of requests whose caller still waits."""
        return sum(not request.waiter.done() for request in self._requests.values())

    def get(self, task: asyncio.Task[None]) -> ClassicRequest | None:
        """Return the request of a task, or None if it has been removed."""
        return self._requests.get(task)

    def writes_of(self, keys: Iterable[bytes]) -> list[asyncio.Task[None]]:
        """Return the tasks of the last writes to these keys that have no answer."""
        return [task for key in keys if (task := self._last_write.get(key)) is not None]

    def add(self, task: asyncio.Task[None], request: ClassicRequest) -> None:
        """Add the request of a task."""
        self._requests[task] = request
        self.bytes += request.size
        for key in request.written:
            self._last_write[key] = task

    def remove(self, task: asyncio.Task[None]) -> None:
        """Remove the request of a task, if it is there."""
        request = self._requests.pop(task, None)
        if request is None:
            return
        self.bytes -= request.size
        for key in request.written:
            if self._last_write.get(key) is task:
                del self._last_write[key]
