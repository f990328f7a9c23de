"""Turns by key: those who want the same key go one after another, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Turn:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class KeyedLock:
    """Locks for the keys that somebody holds or waits for; no others exist."""

    def __init__(self) -> None:
        self._turns: dict[bytes, _Turn] = {}

    def __len__(self) -> int:
        """Keys that somebody holds or waits for."""
        return len(self._turns)

    def reopen(self) -> None:
        """Forget all turns. Locks cannot move to another loop, and their holders may never run again."""
        self._turns = {}

    @asynccontextmanager
    async def of(self, key: bytes, deadline: float | None = None) -> AsyncIterator[bool]:
        """Hold a key. A caller that is cancelled while it waits lets those behind move up.

        Yields:
            Whether the caller had to wait.

        Raises:
            TimeoutError: The key was not free by the deadline, on the loop's clock.
        """
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn()
        turn.users += 1
        try:
            waits = turn.lock.locked()
            async with asyncio.timeout_at(deadline if waits else None):
                await turn.lock.acquire()
            try:
                yield waits
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users and self._turns.get(key) is turn:
                del self._turns[key]
