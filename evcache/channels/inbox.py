"""The messages that wait for one consumer: bounded, filled from any thread, emptied on one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from evcache.channels.base import ChannelError

# Messages that may wait for a consumer. At most 64 MB, in practice some 100 kB: of 5 ms in which 20 processes announce a
# write each, they are the changes of a quarter of a second. Whoever is further behind is better off forgetting all.
MAX_WAITING_MESSAGES = 1_000


class Inbox:
    """A subscription whose messages are pushed."""

    def __init__(
        self,
        limit: int = MAX_WAITING_MESSAGES,
        on_close: Callable[[Inbox], Awaitable[None]] | None = None,
    ) -> None:
        """For the running event loop. `on_close` is awaited by `aclose`."""
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._on_close = on_close
        self._lock = threading.Lock()
        self._messages: deque[bytes] = deque()
        self._error: ChannelError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._waking = False

    # From any thread.

    def push(self, message: bytes) -> bool:
        """One more message. False when nobody will ever read it: the subscription has ended, or ends because of it."""
        with self._lock:
            if self._ended:
                return False
            if len(self._messages) < self._limit:
                self._messages.append(message)
            else:
                self._end(ChannelError(f"{self._limit} messages wait: whoever listens is too slow"))
            return self._wake() and not self._ended

    def end(self, error: ChannelError | None = None) -> None:
        """End it: with an error when messages may have been missed, and then at once. No effect when it has ended."""
        with self._lock:
            if not self._ended:
                self._end(error)
                self._wake()

    def _end(self, error: ChannelError | None) -> None:
        self._ended = True
        self._error = error
        if error is not None:
            self._messages.clear()  # what is missing matters more than what is not

    def _wake(self) -> bool:
        """Have the consumer look, if it waits. False when its loop is gone."""
        if self._waking or self._waiter is None:
            return True
        self._waking = True
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        try:  # the threadsafe one writes to a socket each time
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(self._look)
        except RuntimeError:  # the loop was closed, and the consumer with it
            self._end(None)
            return False
        return True

    # On the loop.

    def _look(self) -> None:
        with self._lock:
            self._waking = False
            waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> bytes:
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                if self._error is not None:
                    # Another one each time: an exception that is raised again collects tracebacks.
                    raise ChannelError(*self._error.args)
                if self._ended:
                    raise StopAsyncIteration
                waiter = self._waiter = self._loop.create_future()
            await waiter

    async def aclose(self) -> None:
        """Let go of it: the consumer, if it waits, is woken and finds its end."""
        self.end()
        if self._on_close is not None:
            await self._on_close(self)
