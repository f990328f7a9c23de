"""The seam between announcements and what carries them. A channel moves bytes; what they mean is above it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class ChannelError(Exception):
    """A message was not certainly taken, or messages may have been missed. It never reaches callers of a client."""


class Subscription(Protocol):
    """The messages of one topic, for one consumer.

    Every message from the beginning of the subscription on, those of the same process too, and those of one publisher in
    the order in which they were taken; one that was sent twice may come twice. Raises `ChannelError` as soon as messages
    may have been missed: the connection is lost, nothing shows that it lives, or the consumer is too slow. It never
    connects again by itself: whoever listens must know that there was a gap. Ends when it, or the channel, is closed.
    Cancelling a consumer that waits loses no message.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""

    async def __anext__(self) -> bytes:
        """The next message."""

    async def aclose(self) -> None:
        """End it, and let go of what it holds. May be called again."""


class InvalidationChannel(Protocol):
    """Carries messages between processes. One object may serve several clients, on topics of their own."""

    async def publish(self, topic: str, message: bytes) -> None:
        """Have a message taken.

        Raises `ChannelError`, in bounded time, when it is not certain that it was. It may have been then, as after being
        cancelled.
        """

    async def subscribe(self, topic: str) -> Subscription:
        """Listen; returns when the subscription is active.

        Raises `ChannelError`, in bounded time, when there is none. Being cancelled leaves nothing behind.
        """

    async def close(self) -> None:
        """End every subscription, and let go of what is held. May be called again; nothing can be sent afterwards."""
