"""Lock per key: callers of one key hold it one after another, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _CountedLock:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        """Number of callers that hold the lock or wait for it."""


class KeyedLock:
    """Locks of the keys that callers hold or wait for. Other keys take no memory."""

    def __init__(self) -> None:
        self._locks: dict[bytes, _CountedLock] = {}

    def __len__(self) -> int:
        """Number of keys that callers hold or wait for."""
        return len(self._locks)

    def reopen(self) -> None:
        """Forget all locks. They cannot move to another loop, and their holders may never run again."""
        self._locks = {}

    @asynccontextmanager
    async def of(self, key: bytes, deadline: float | None = None) -> AsyncIterator[bool]:
        """Hold the lock of a key. A caller that is cancelled while it waits leaves the queue.

        Args:
            key: The key.
            deadline: Time on the loop's clock until which the caller waits. If None, there is no limit.

        Yields:
            True if the caller had to wait.

        Raises:
            TimeoutError: Another caller held the lock until the deadline.
        """
        counted = self._locks.get(key)
        if counted is None:
            counted = self._locks[key] = _CountedLock()
        counted.users += 1
        try:
            waits = counted.lock.locked()
            async with asyncio.timeout_at(deadline if waits else None):
                await counted.lock.acquire()
            try:
                yield waits
            finally:
                counted.lock.release()
        finally:
            counted.users -= 1
            if not counted.users and self._locks.get(key) is counted:
                del self._locks[key]
