"""A pause that can be shortened while it lasts."""

from __future__ import annotations

import asyncio
import contextlib


class Pause:
    """The pause before the next probe of one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends = 0.0
        self._shortened = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for this number of seconds, or until the time that `shorten` gives."""
        self._ends = self._loop.time() + seconds
        while self._loop.time() < self._ends:
            self._shortened.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._ends):
                    await self._shortened.wait()

    def shorten(self, until: float) -> None:
        """End the present pause at the time `until`, on the loop's clock. Does nothing if it ends before then."""
        if until < self._ends:
            self._ends = until
            self._shortened.set()
