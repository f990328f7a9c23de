"""What a bus hears and tells: changes of others, and everything that may have hidden some."""

import asyncio
import itertools

import pytest

from evcache.channels import ChannelError
from evcache.invalidation.bus import MISSED_HEARTBEATS, SLICE_CHANGES, STEADY_SECONDS
from evcache.invalidation.messages import InvalidationMessage, Kind, encode
from evcache.invalidation.publisher import HEARTBEAT_SECONDS, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS
from tests.evcache.invalidation.test_publisher import SOON, bus_on
from tests.support.scripted_channel import Recorder, ScriptedChannel
from tests.support.virtual_time import in_virtual_time, now, settle

SILENCE = MISSED_HEARTBEATS * HEARTBEAT_SECONDS


class Other:
    """Another process, whose every message is scripted."""

    def __init__(self, channel, publisher=2**40):
        self._channel = channel
        self._publisher = publisher

    async def say(self, kind, number, *changes):
        message = encode(InvalidationMessage(kind, self._publisher, number, changes))
        await self._channel.publish("topic", message)
        await settle()

    async def write(self, number, key=b"k", version=1):
        await self.say(Kind.CHANGES, number, (key, version))

    async def live(self, number, seconds):
        """Send heartbeats for so long."""
        for _ in range(round(seconds / HEARTBEAT_SECONDS)):
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.say(Kind.HEARTBEAT, number)


async def listening(channel, after=0.0, **options):
    """A bus that has subscribed so long ago, its listener, and another process."""
    recorder = Recorder()
    bus = bus_on(channel, recorder, **options)
    await asyncio.sleep(after)
    await settle()
    return bus, recorder, Other(channel)


@in_virtual_time
async def test_a_subscription_begins_with_nothing_known():
    """What was said before it is not: forget first, and then rely on what is heard."""
    bus, recorder, _ = await listening(ScriptedChannel())
    assert recorder.take() == ["lost: subscribed", "up"]
    assert bus.is_up
    await bus.close(1)
    assert recorder.take() == ["down", "lost: closed"]
    assert not bus.is_up


@in_virtual_time
async def test_changes_of_others_are_told_and_own_ones_are_not():
    """In order, with versions as they were announced."""
    channel = ScriptedChannel()
    first, heard_by_first, _ = await listening(channel)
    second, heard_by_second, _ = await listening(channel)
    heard_by_first.take(), heard_by_second.take()
    first.publish(b"a", 7)
    first.publish(b"b", None)
    await asyncio.sleep(SOON)
    second.publish(b"c", 0)
    await asyncio.sleep(SOON)
    assert heard_by_second.take() == [(b"a", 7), (b"b", None)]
    assert heard_by_first.take() == [(b"c", 0)]
    assert (first.stats.received, second.stats.received) == (1, 2)
    assert (first.stats.publishers, second.stats.publishers) == (1, 1)
    await first.close(1)
    await second.close(1)


@in_virtual_time
async def test_topics_are_apart():
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    recorder.take()
    await channel.publish("another topic", encode(InvalidationMessage(Kind.CHANGES, 1, 1, ((b"k", 1),))))
    await settle()
    assert recorder.take() == []
    await bus.close(1)


NEWS = (b"k", 1)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ([(Kind.CHANGES, 1), (Kind.CHANGES, 2)], [NEWS, NEWS]),
        ([(Kind.CHANGES, 1), (Kind.CHANGES, 1)], [NEWS]),
        ([(Kind.CHANGES, 1), (Kind.CHANGES, 3)], [NEWS, "lost", NEWS]),
        ([(Kind.CHANGES, 1), (Kind.CHANGES, 3), (Kind.CHANGES, 2), (Kind.CHANGES, 4)], [NEWS, "lost", NEWS, NEWS]),
        ([(Kind.CHANGES, 1), (Kind.HEARTBEAT, 1)], [NEWS]),
        ([(Kind.CHANGES, 1), (Kind.HEARTBEAT, 2)], [NEWS, "lost"]),
        ([(Kind.CHANGES, 1), (Kind.BYE, 3)], [NEWS, "lost"]),
        ([(Kind.CHANGES, 5)], ["lost", NEWS]),
        ([(Kind.HEARTBEAT, 5)], ["lost"]),
    ],
)
@in_virtual_time
async def test_what_does_not_follow_is_a_gap(script, told):
    """It is told before the changes that came with it, and the subscription goes on."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel, after=60)
    recorder.take()
    for kind, number in script:
        await other.say(kind, number, *([NEWS] if kind is Kind.CHANGES else []))
    assert [event[:4] if isinstance(event, str) else event for event in recorder.take()] == told
    assert bus.stats.gaps == told.count("lost")
    assert bus.is_up
    await bus.close(1)


@in_virtual_time
async def test_who_was_there_before_is_taken_as_he_is():
    """Of what he said before the subscription, nothing was kept."""
    bus, recorder, other = await listening(ScriptedChannel(), after=SILENCE / 2)
    recorder.take()
    await other.write(7)
    await other.write(8)
    assert recorder.take() == [(b"k", 1)] * 2
    await bus.close(1)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, bytes([2]) + encode(InvalidationMessage(Kind.HEARTBEAT, 1, 1))[1:]])
@in_virtual_time
async def test_what_can_not_be_read_is_a_gap(data):
    """Another release may have said anything with it."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    recorder.take()
    await LocalPublish.raw(channel, data)
    (event,) = recorder.take()
    assert event.startswith("lost: invalid message")
    assert bus.is_up
    await bus.close(1)


class LocalPublish:
    """Past the log of the scripted channel, which reads what it is given."""

    @staticmethod
    async def raw(channel, data):
        await super(ScriptedChannel, channel).publish("topic", data)
        await settle()


@in_virtual_time
async def test_missed_heartbeats_are_a_gap():
    """Three in a row, told once; two are none, and neither is silence after a BYE."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel)
    recorder.take()
    await other.write(1)
    await other.live(1, seconds=20)
    await asyncio.sleep(SILENCE - 0.5)
    await other.live(1, seconds=2)
    assert recorder.take() == [(b"k", 1)]
    await asyncio.sleep(SILENCE + 2 * HEARTBEAT_SECONDS)
    (event,) = recorder.take()
    assert "heartbeats of 1 publishers" in event
    await asyncio.sleep(1000)
    assert recorder.take() == []
    await other.write(2)
    await other.say(Kind.BYE, 2)
    await asyncio.sleep(1000)
    assert recorder.take() == [(b"k", 1)]
    assert (bus.stats.gaps, bus.stats.losses, bus.is_up) == (1, 0, True)
    await bus.close(1)


@in_virtual_time
async def test_a_process_that_dies_is_noticed_by_all_others():
    """Within a few heartbeats of its last word; one that closes is not."""
    channel = ScriptedChannel()
    dying, _, _ = await listening(channel)
    closing, _, _ = await listening(channel)
    witness, recorder, _ = await listening(channel)
    recorder.take()
    dying.publish(b"a", 1)
    closing.publish(b"b", 1)
    await asyncio.sleep(10)
    await closing.close(1)
    await asyncio.sleep(10)
    assert recorder.take() == [(b"a", 1), (b"b", 1)]
    channel.hang = True
    await dying.close(0)  # no time to say BYE
    await asyncio.sleep(SILENCE + 2 * HEARTBEAT_SECONDS)
    (event,) = recorder.take()
    assert "1 publishers" in event
    await witness.close(1)


@in_virtual_time
async def test_a_loop_that_was_held_up_takes_nobody_for_silent():
    """What came meanwhile was not read, and where the whole machine stood still, nothing came."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel)
    await other.write(1)
    recorder.take()
    for _ in range(5):
        await other.live(1, seconds=2)
        asyncio.get_running_loop().advance(2 * SILENCE)  # this process computes
        await asyncio.sleep(0.1)
    assert recorder.take() == []
    await bus.close(1)


@in_virtual_time
async def test_a_subscription_that_is_lost_is_told_and_had_again():
    """Nothing is relied on in between, and nothing of before is afterwards."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel)
    await other.write(1)
    recorder.take()
    channel.refuse_to_subscribe = ChannelError("still out")
    channel.lose("the server is gone")
    await settle()
    assert recorder.take() == ["down", "lost: the server is gone"]
    assert not bus.is_up
    await asyncio.sleep(60)
    assert recorder.take() == []
    channel.refuse_to_subscribe = None
    await asyncio.sleep(2 * RETRY_LONGEST_SECONDS)
    assert recorder.take() == ["lost: subscribed", "up"]
    assert bus.is_up
    await other.write(5)  # after a new subscription he is a stranger like any other
    await asyncio.sleep(RETRY_LONGEST_SECONDS)
    assert (b"k", 1) in recorder.take()
    await bus.close(1)


@in_virtual_time
async def test_subscribing_is_tried_with_growing_pauses():
    """Bounded ones; also when the subscription is had and lost again at once."""
    channel = ScriptedChannel()
    channel.refuse_to_subscribe = ChannelError("out")
    bus, recorder, _ = await listening(channel)
    await asyncio.sleep(60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(channel.subscribed_at)]
    assert pauses[:4] == sorted(pauses[:4])
    assert RETRY_FIRST_SECONDS <= pauses[0] <= 2 * RETRY_FIRST_SECONDS
    assert RETRY_LONGEST_SECONDS <= max(pauses) <= RETRY_LONGEST_SECONDS + RETRY_FIRST_SECONDS
    assert recorder.take() == []  # it never was up
    assert bus.stats.losses == len(channel.subscribed_at)

    channel.refuse_to_subscribe = None
    channel.subscribed_at.clear()
    for _ in range(6000):
        channel.lose()
        await asyncio.sleep(0.01)
    assert 60 / (RETRY_LONGEST_SECONDS + RETRY_FIRST_SECONDS) - 1 <= len(channel.subscribed_at) <= 25
    await bus.close(1)


@in_virtual_time
async def test_after_a_good_subscription_pauses_are_short_again():
    channel = ScriptedChannel()
    channel.refuse_to_subscribe = ChannelError("out")
    bus, _, _ = await listening(channel, after=60)
    channel.refuse_to_subscribe = None
    await asyncio.sleep(RETRY_LONGEST_SECONDS + STEADY_SECONDS + 1)
    assert bus.is_up
    channel.lose()
    lost_at = now()
    await asyncio.sleep(2 * RETRY_FIRST_SECONDS)
    assert bus.is_up
    assert channel.subscribed_at[-1] - lost_at <= RETRY_FIRST_SECONDS
    await bus.close(1)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("no route"), TimeoutError()])
@in_virtual_time
async def test_whatever_a_channel_raises_is_a_loss(error):
    channel = ScriptedChannel()
    channel.refuse_to_subscribe = error
    bus, recorder, _ = await listening(channel, after=5)
    assert len(channel.subscribed_at) > 2
    channel.refuse_to_subscribe = None
    await asyncio.sleep(5)
    assert recorder.take() == ["lost: subscribed", "up"]
    await bus.close(1)


@in_virtual_time
async def test_a_channel_that_ends_a_subscription_has_lost_it():
    """Without an error too: somebody else closed it."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    recorder.take()
    await channel.close()
    await settle()
    assert recorder.take() == ["down", "lost: subscription ended"]
    await bus.close(0.1)


@in_virtual_time
async def test_a_listener_that_is_too_slow_hears_of_it():
    """As after any loss; the channel bounds what waits."""
    channel = ScriptedChannel(max_waiting=10)
    bus, recorder, _ = await listening(channel)
    recorder.take()
    for number in range(11):  # without a turn of the loop
        await LocalPublishNow.say(channel, number + 1)
    await settle()
    assert recorder.take()[0] == "down"
    await asyncio.sleep(1)
    assert bus.is_up
    await bus.close(1)


class LocalPublishNow:
    @staticmethod
    async def say(channel, number):
        await channel.publish("topic", encode(InvalidationMessage(Kind.CHANGES, 7, number, ((b"k", 1),))))


@in_virtual_time
async def test_a_flood_leaves_turns_to_others():
    """Between slices of bounded size, whether the changes are in one message or in many."""
    channel = ScriptedChannel(max_waiting=10_000)
    bus, recorder, _ = await listening(channel)
    recorder.take()
    for number in range(1, 3 * SLICE_CHANGES):
        await LocalPublishNow.say(channel, number)
    big = tuple((b"%d" % number, 1) for number in range(SLICE_CHANGES))
    for number in range(3):
        await channel.publish("topic", encode(InvalidationMessage(Kind.CHANGES, 8, number + 1, big)))
    slices = []
    while (count := len(recorder.events)) < 6 * SLICE_CHANGES - 1:
        await asyncio.sleep(0)
        slices.append(len(recorder.events) - count)
    assert max(slices) <= 2 * SLICE_CHANGES
    assert len(slices) >= 4
    await bus.close(1)


@in_virtual_time
async def test_a_listener_with_a_bug_is_logged_once_and_told_the_rest(caplog):
    class Broken(Recorder):
        def invalidate(self, key, version):
            super().invalidate(key, version)
            raise ZeroDivisionError

        def invalidate_all(self, reason):
            super().invalidate_all(reason)
            raise ZeroDivisionError

        set_channel_up = None  # not even callable

    channel, recorder = ScriptedChannel(), Broken()
    bus = bus_on(channel, recorder)
    await settle()
    other = Other(channel)
    await other.write(1)
    await other.write(2)
    await other.write(4)
    assert [event for event in recorder.take() if not isinstance(event, str)] == [(b"k", 1)] * 3
    assert bus.is_up
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await bus.close(1)


@in_virtual_time
async def test_a_loss_and_a_return_are_logged_once(caplog):
    caplog.set_level("INFO", "evcache.invalidation")
    channel = ScriptedChannel()
    bus, _, other = await listening(channel)
    for _ in range(2):
        channel.refuse_to_subscribe = ChannelError("out of order")
        channel.lose("cut off")
        await asyncio.sleep(30)
        channel.refuse_to_subscribe = None
        await asyncio.sleep(5)
        for number in range(50):
            await other.write(2 * number + 1)
        await asyncio.sleep(20)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert "cut off" in caplog.text
    await bus.close(1)
    assert len(caplog.records) == 4


@in_virtual_time
async def test_a_subscription_that_does_not_bring_own_messages_is_given_up():
    """They were taken, and do not come: it is at another server than they are, and so are all the others' messages."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    bus.publish(b"a", 1)
    await asyncio.sleep(10)
    recorder.take()
    channel.swallow = True
    await asyncio.sleep(SILENCE + 3 * HEARTBEAT_SECONDS)
    assert recorder.take()[:2] == ["down", "lost: own messages do not arrive"]
    channel.swallow = False
    await asyncio.sleep(10)
    assert bus.is_up
    recorder.take()
    await asyncio.sleep(1000)
    assert recorder.take() == []
    await bus.close(1)


@pytest.mark.parametrize("confirm_late", [False, True])
@in_virtual_time
async def test_own_messages_that_were_not_taken_are_not_waited_for(confirm_late):
    """Publishing is out, and listening is not: the others are still heard. Those before may have come back before the
    channel said that they were taken."""
    channel = ScriptedChannel()
    channel.confirm_late = confirm_late
    bus, recorder, other = await listening(channel)
    await other.write(1)
    await other.say(Kind.BYE, 1)
    bus.publish(b"a", 1)
    await asyncio.sleep(10)
    recorder.take()
    channel.refuse = ChannelError("out")
    bus.publish(b"a", 2)
    await asyncio.sleep(60)
    assert recorder.take() == []
    assert bus.stats.failures > 10
    await bus.close(1)


@in_virtual_time
async def test_a_channel_that_does_not_bring_back_own_messages_can_be_used():
    """It is only missed where it was ever seen."""

    class Deaf(ScriptedChannel):
        async def publish(self, topic, message):
            self.swallow = self.swallow_own and message[2:8] == self.own
            await super().publish(topic, message)

    channel = Deaf()
    channel.swallow_own, channel.own = True, None
    bus, recorder, _ = await listening(channel)
    channel.own = bus._outbox.publisher.to_bytes(8, "big")[:6]
    recorder.take()
    for number in range(100):
        bus.publish(b"a", number + 1)
        await asyncio.sleep(1)
    assert recorder.take() == []
    assert bus.is_up
    await bus.close(1)
