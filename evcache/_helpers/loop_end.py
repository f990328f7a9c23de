"""Callback at the end of an event loop, for clients that are not closed before it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress


class LoopEnd:
    """Callback at the shutdown of the running event loop.

    asyncio has no such callback. But `asyncio.run` closes every asynchronous generator that has begun on its loop, after it
    has cancelled all tasks and before it closes the loop. So a generator waits here for nothing else.
    """

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        """`call` may await. The loop calls it once for each `watch`, unless `stop` is called first."""
        self._call = call
        self._generator: AsyncGenerator[None, None] | None = None

    def watch(self) -> None:
        """Call at the end of the running loop."""
        self._generator = self._wait()
        with suppress(StopIteration):  # it has reached its `yield`, without a turn of the loop
            self._generator.__anext__().send(None)

    def stop(self) -> None:
        """Cancel the call. No effect if no loop is watched."""
        generator, self._generator = self._generator, None
        if generator is not None:
            with suppress(StopIteration):
                generator.aclose().send(None)

    async def _wait(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._generator is not None:
                self._generator = None
                await self._call()
