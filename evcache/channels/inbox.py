"""Bounded queue of messages for one consumer, filled from any thread and read on one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from evcache.channels.base import ChannelError

# Messages that may wait for a consumer: at most 64 MB, in practice about 100 kB. If 20 processes publish a write each in 5
# ms, these are the changes of a quarter of a second. A consumer that is further behind does better to clear its near cache.
MAX_WAITING_MESSAGES = 1_000


class Inbox:
    """Subscription whose messages are pushed."""

    def __init__(
        self,
        limit: int = MAX_WAITING_MESSAGES,
        on_close: Callable[[Inbox], Awaitable[None]] | None = None,
    ) -> None:
        """Create it for a consumer on the running event loop.

        Args:
            limit: Largest number of waiting messages. One more ends the subscription with `ChannelError`.
            on_close: Awaited by `aclose`.
        """
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
        """Add a message. Return False if no consumer will read it, because the subscription has ended or is full."""
        with self._lock:
            if self._ended:
                return False
            if len(self._messages) < self._limit:
                self._messages.append(message)
            else:
                self._end(ChannelError(f"consumer too slow: {self._limit} messages wait"))
            return self._wake() and not self._ended

    def end(self, error: ChannelError | None = None) -> None:
        """End the subscription. If `error` is given, waiting messages are dropped. No effect if it has ended."""
        with self._lock:
            if not self._ended:
                self._end(error)
                self._wake()

    def _end(self, error: ChannelError | None) -> None:
        self._ended = True
        self._error = error
        if error is not None:
            self._messages.clear()  # a lost message makes the waiting ones useless

    def _wake(self) -> bool:
        """Wake the consumer if it waits. Return False if its loop is closed."""
        if self._waking or self._waiter is None:
            return True
        self._waking = True
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        try:  # `call_soon_threadsafe` writes to a socket each time
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(self._resolve_waiter)
        except RuntimeError:  # the loop was closed, and the consumer with it
            self._end(None)
            return False
        return True

    # On the loop.

    def _resolve_waiter(self) -> None:
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
                    # A new exception each time, because a repeated one collects tracebacks.
                    raise ChannelError(*self._error.args)
                if self._ended:
                    raise StopAsyncIteration
                waiter = self._waiter = self._loop.create_future()
            await waiter

    async def aclose(self) -> None:
        """End the subscription, and wake its consumer."""
        self.end()
        if self._on_close is not None:
            await self._on_close(self)
