"""Channel with scripted failures, and a listener that records its calls. For tests in virtual time."""

import asyncio

from evcache.channels import ChannelError, LocalChannel
from evcache.invalidation.messages import Kind, decode
from tests.support.virtual_time import now, settle


class ScriptedChannel(LocalChannel):
    """LocalChannel that refuses, hangs and loses on demand."""

    def __init__(self, **options):
        super().__init__(**options)
        self.log = []
        """(time, message) of each attempt to publish."""
        self.subscribed_at = []
        """Times of the attempts to subscribe."""
        self.refuse = None  # an error for each publish
        self.refuse_after = None  # an error for each publish, after the message was delivered
        self.refuse_to_subscribe = None
        self.hang = False  # `publish` does not return
        self.confirm_late = False  # all subscribers have read it before `publish` returns
        self.swallow = False  # messages are accepted, and not delivered
        self.subscriptions = []

    async def publish(self, topic, message):
        self.log.append((now(), decode(message)))
        if self.hang:
            await asyncio.Event().wait()
        if self.refuse is not None:
            raise self.refuse
        if not self.swallow:
            await super().publish(topic, message)
        if self.confirm_late:
            await settle()
        if self.refuse_after is not None:
            raise self.refuse_after

    async def subscribe(self, topic):
        self.subscribed_at.append(now())
        if self.refuse_to_subscribe is not None:
            raise self.refuse_to_subscribe
        self.subscriptions.append(await super().subscribe(topic))
        return self.subscriptions[-1]

    def lose(self, reason="lost"):
        """End every subscription with an error."""
        for subscription in self.subscriptions:
            subscription.end(ChannelError(reason))
        self.subscriptions.clear()

    def sent(self, *kinds):
        """Return (time, number) of each attempt to publish a message of these kinds, by default of changes."""
        return [(at, one.number) for at, one in self.log if one.kind in (kinds or (Kind.CHANGES,))]

    def changes(self):
        """Return the changes of each message."""
        return [dict(one.changes) for _, one in self.log if one.kind is Kind.CHANGES]


class Recorder:
    """Listener that records its calls."""

    def __init__(self):
        self.events = []

    def invalidate(self, key, version):
        self.events.append((key, version))

    def invalidate_all(self, reason):
        self.events.append(f"lost: {reason}")

    def set_channel_up(self, up):
        self.events.append("up" if up else "down")

    def take(self):
        """Return the calls since the last `take`."""
        events, self.events = self.events, []
        return events
