"""Interface of invalidation channels. A channel moves bytes, and the bus above it knows their meaning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class ChannelError(Exception):
    """A message may not have been accepted, or messages may have been lost. It never reaches callers of a client."""


class Subscription(Protocol):
    """Messages of one topic, for one consumer.

    - It yields every message from the beginning of the subscription on, including those of its own process.
    - Messages of one publisher arrive in the order in which the channel accepted them. A message that was sent twice may
      arrive twice.
    - It raises `ChannelError` as soon as messages may have been lost. The connection may be lost, the server may not reply,
      or the consumer may be too slow.
    - It never reconnects, because the consumer must know about the gap.
    - It ends when it or the channel is closed.
    - Cancellation of a waiting consumer loses no message.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return itself."""

    async def __anext__(self) -> bytes:
        """Return the next message."""

    async def aclose(self) -> None:
        """End the subscription, and release its resources. May be called again."""


class InvalidationChannel(Protocol):
    """Carrier of messages between processes. One object may serve several clients, each with its own topic."""

    async def publish(self, topic: str, message: bytes) -> None:
        """Send a message.

        After a cancellation, the message may have been sent.

        Args:
            topic: Topic of the message.
            message: Bytes of the message.

        Raises:
            ChannelError: The message may not have been accepted. Raised within a bounded time.
        """

    async def subscribe(self, topic: str) -> Subscription:
        """Subscribe to a topic, and return the subscription when it is active. Cancellation leaves nothing behind.

        Args:
            topic: Topic of the messages.

        Raises:
            ChannelError: The subscription failed. Raised within a bounded time.
        """

    async def close(self) -> None:
        """End every subscription, and release all resources. May be called again. Later messages are refused."""
