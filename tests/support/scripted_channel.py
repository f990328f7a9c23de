"""A channel whose failures are scripted, and a listener that keeps what it is told. For tests in virtual time."""

import asyncio

from evcache.channels import ChannelError, LocalChannel
from evcache.invalidation.messages import Kind, decode
from tests.support.virtual_time import now, settle


class ScriptedChannel(LocalChannel):
    """A LocalChannel that refuses, hangs and loses on demand."""

    def __init__(self, **options):
        super().__init__(**options)
        self.log = []
        """(time, announcement) of each that somebody tried to send."""
        self.subscribed_at = []
        """Times of attempts to subscribe."""
        self.refuse = None  # an error for each publish
        self.refuse_after = None  # the same, when the message was taken
        self.refuse_to_subscribe = None
        self.hang = False  # publishing does not end
        self.confirm_late = False  # everybody has heard it before `publish` returns
        self.swallow = False  # what is published is taken, and reaches nobody
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
        """Every subscription is lost."""
        for subscription in self.subscriptions:
            subscription.end(ChannelError(reason))
        self.subscriptions.clear()

    def sent(self, *kinds):
        """(time, number) of each attempt to send an announcement of these kinds; of changes unless said otherwise."""
        return [(at, one.number) for at, one in self.log if one.kind in (kinds or (Kind.CHANGES,))]

    def changes(self):
        """What each message of changes says."""
        return [dict(one.changes) for _, one in self.log if one.kind is Kind.CHANGES]


class Recorder:
    """A listener."""

    def __init__(self):
        self.events = []

    def changed(self, key, version):
        self.events.append((key, version))

    def lost_track(self, reason):
        self.events.append(f"lost: {reason}")

    def channel_up(self, up):
        self.events.append("up" if up else "down")

    def take(self):
        """What was told since the last time."""
        events, self.events = self.events, []
        return events
