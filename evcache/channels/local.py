"""Channel within one process, for clients on one event loop or several, and for tests."""

from __future__ import annotations

import threading

from evcache.channels.base import ChannelError
from evcache.channels.inbox import MAX_WAITING_MESSAGES, Inbox
from evcache.zones._live import Live
from evcache.zones.validation import at_least_one


class LocalChannel(Live):
    """Channel between the clients of one process. Several threads and event loops may use it at once."""

    def __init__(self, *, max_waiting: int = MAX_WAITING_MESSAGES) -> None:
        """Create a channel without subscriptions.

        Args:
            max_waiting: Largest number of messages that wait for a consumer. One more ends its subscription with
                `ChannelError`.
        """
        at_least_one(max_waiting, "max_waiting")
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._topics: dict[str, dict[Inbox, None]] = {}
        self._closed = False

    async def publish(self, topic: str, message: bytes) -> None:
        """Deliver a message to the subscriptions of the topic.

        Args:
            topic: Topic of the message.
            message: Bytes of the message.

        Raises:
            ChannelError: The channel is closed.
        """
        with self._lock:  # held during the loop, so that all subscriptions get messages in one order
            self._check_open()
            inboxes = self._topics.get(topic, {})
            gone = [inbox for inbox in inboxes if not inbox.push(message)]
            for inbox in gone:
                del inboxes[inbox]

    async def subscribe(self, topic: str) -> Inbox:
        """Subscribe on the running event loop, and return the subscription.

        Args:
            topic: Topic of the messages.

        Raises:
            ChannelError: The channel is closed.
        """

        async def leave(inbox: Inbox) -> None:
            with self._lock:
                inboxes = self._topics.get(topic, {})
                inboxes.pop(inbox, None)
                if not inboxes:
                    self._topics.pop(topic, None)

        inbox = Inbox(self._max_waiting, leave)
        with self._lock:
            self._check_open()
            self._topics.setdefault(topic, {})[inbox] = None
        return inbox

    async def close(self) -> None:
        """End every subscription, on any loop."""
        with self._lock:
            self._closed = True
            topics, self._topics = self._topics, {}
        for inboxes in topics.values():
            for inbox in inboxes:
                inbox.end()

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelError("the channel is closed")
