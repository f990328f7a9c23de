"""Bound on the number of pending keys, with a first-come-first-served queue of waiting calls."""

from __future__ import annotations

import asyncio

from evcache.write_behind.buffer import Buffer


class Capacity:
    """Limit on pending keys, and the calls that wait for a free place in the order of their arrival."""

    def __init__(self, buffer: Buffer, max_keys: int) -> None:
        self.max_keys = max_keys
        self._buffer = buffer
        self._queue: dict[str, list[asyncio.Future[None]]] = {}
        # Places reserved for calls that were woken and have not run yet, with their number for each key. Without the
        # reservation a later call could take the place first.
        self._reserved: dict[str, int] = {}

    @property
    def _free(self) -> int:
        return self.max_keys - len(self._buffer) - len(self._reserved)

    def admits(self, key: str) -> bool:
        """Return True if a write of this key needs no waiting. A pending key takes newer values without a new place."""
        return key in self._buffer or key in self._reserved or (not self._queue and self._free > 0)

    async def wait(self, key: str) -> None:
        """Wait for a place. Calls for one key are woken together and share one place. Cancellation frees the reservation."""
        turn = asyncio.get_running_loop().create_future()
        self._queue.setdefault(key, []).append(turn)
        try:
            await turn
        except BaseException:
            if turn in self._queue.get(key, ()):
                self._queue[key].remove(turn)
                if not self._queue[key]:
                    del self._queue[key]
            elif not turn.cancelled() and key in self._reserved:  # woken, then cancelled before it ran
                self._reserved[key] -= 1
                if not self._reserved[key]:
                    self.release(key)
            raise

    def release(self, key: str) -> None:
        """End the reservation of a key after the first of its calls has stored its write, or failed."""
        self._reserved.pop(key, None)
        self.wake_next()

    def wake_next(self) -> None:
        """Reserve the free places for the first calls in the queue, and wake them."""
        while self._queue and self._free > 0:
            key = next(iter(self._queue))
            turns = [turn for turn in self._queue.pop(key) if not turn.done()]
            if turns:
                self._reserved[key] = len(turns)
            for turn in turns:
                turn.set_result(None)

    def wake_all(self) -> None:
        """Wake all waiting calls because the buffer closes."""
        for turns in self._queue.values():
            for turn in turns:
                if not turn.done():
                    turn.set_result(None)
        self._queue.clear()
