"""Channel with scripted failures, and a listener that records its calls. For tests in virtual time."""

import asyncio

from evcache.channels import ChannelError, LocalChannel
from evcache.invalidation.bus import MISSED_HEARTBEATS, InvalidationBus
from evcache.invalidation.messages import InvalidationMessage, Kind, decode, encode
from evcache.invalidation.publisher import BATCH_SECONDS, HEARTBEAT_SECONDS
from tests.support.virtual_time import now, settle

SOON = 10 * BATCH_SECONDS
TIMEOUT = MISSED_HEARTBEATS * HEARTBEAT_SECONDS


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


class Peer:
    """Another process with scripted messages."""

    def __init__(self, channel, publisher=2**40):
        self._channel = channel
        self._publisher = publisher

    async def send(self, kind, number, *changes):
        message = encode(InvalidationMessage(kind, self._publisher, number, changes))
        await self._channel.publish("topic", message)
        await settle()

    async def write(self, number, key=b"k", version=1):
        await self.send(Kind.CHANGES, number, (key, version))

    async def live(self, number, seconds):
        """Send heartbeats for this number of seconds."""
        for _ in range(round(seconds / HEARTBEAT_SECONDS)):
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.send(Kind.HEARTBEAT, number)


def bus_on(channel, listener=None, **options):
    """Return a bus that has been started."""
    bus = InvalidationBus(channel, "topic", listener or Recorder(), **options)
    bus.start()
    return bus


async def listening(channel, after=0.0, **options):
    """Return a bus that has subscribed this number of seconds ago, its listener, and another process."""
    recorder = Recorder()
    bus = bus_on(channel, recorder, **options)
    await asyncio.sleep(after)
    await settle()
    return bus, recorder, Peer(channel)


async def publish_raw(channel, data):
    """Publish bytes without the log of the scripted channel, which decodes its messages."""
    await LocalChannel.publish(channel, "topic", data)
    await settle()


async def publish_change(channel, number, publisher=7):
    """Publish a change of one key without a turn of the loop."""
    await channel.publish("topic", encode(InvalidationMessage(Kind.CHANGES, publisher, number, ((b"k", 1),))))
