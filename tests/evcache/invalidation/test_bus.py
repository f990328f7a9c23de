"""What a bus hears and tells: changes of others, and everything that may have hidden some."""

import asyncio

import pytest

from evcache.invalidation.bus import SLICE_CHANGES
from evcache.invalidation.messages import InvalidationMessage, Kind, encode
from evcache.invalidation.publisher import HEARTBEAT_SECONDS
from tests.support.scripted_channel import (
    SOON,
    TIMEOUT,
    Peer,
    Recorder,
    ScriptedChannel,
    bus_on,
    listening,
    publish_change,
    publish_raw,
)
from tests.support.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_a_subscription_begins_with_a_cleared_near_cache():
    """The listener clears its entries first, because changes before the subscription are unknown."""
    bus, recorder, _ = await listening(ScriptedChannel())
    assert recorder.take() == ["lost: subscribed", "up"]
    assert bus.is_up
    await bus.close(1)
    assert recorder.take() == ["down", "lost: closed"]
    assert not bus.is_up


@in_virtual_time
async def test_a_listener_gets_changes_of_other_clients_and_no_own_ones():
    """Changes arrive in order, with their versions."""
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
async def test_topics_are_separate():
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
async def test_a_number_that_does_not_follow_is_a_gap(script, told):
    """The listener learns of the gap before the changes of the same message. The subscription continues."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel, after=60)
    recorder.take()
    for kind, number in script:
        await other.send(kind, number, *([NEWS] if kind is Kind.CHANGES else []))
    assert [event[:4] if isinstance(event, str) else event for event in recorder.take()] == told
    assert bus.stats.gaps == told.count("lost")
    assert bus.is_up
    await bus.close(1)


@in_virtual_time
async def test_a_publisher_from_before_the_subscription_is_no_gap():
    """No change from before the subscription can be in the near cache."""
    bus, recorder, other = await listening(ScriptedChannel(), after=TIMEOUT / 2)
    recorder.take()
    await other.write(7)
    await other.write(8)
    assert recorder.take() == [(b"k", 1)] * 2
    await bus.close(1)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, bytes([2]) + encode(InvalidationMessage(Kind.HEARTBEAT, 1, 1))[1:]])
@in_virtual_time
async def test_an_invalid_message_is_a_gap(data):
    """Another release may have said anything with it."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    recorder.take()
    await publish_raw(channel, data)
    (event,) = recorder.take()
    assert event.startswith("lost: invalid message")
    assert bus.is_up
    await bus.close(1)


@in_virtual_time
async def test_missed_heartbeats_are_a_gap():
    """Three in a row are one gap. Two are none, and missing heartbeats after a BYE are none."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel)
    recorder.take()
    await other.write(1)
    await other.live(1, seconds=20)
    await asyncio.sleep(TIMEOUT - 0.5)
    await other.live(1, seconds=2)
    assert recorder.take() == [(b"k", 1)]
    await asyncio.sleep(TIMEOUT + 2 * HEARTBEAT_SECONDS)
    (event,) = recorder.take()
    assert "heartbeats of 1 publishers" in event
    await asyncio.sleep(1000)
    assert recorder.take() == []
    await other.write(2)
    await other.send(Kind.BYE, 2)
    await asyncio.sleep(1000)
    assert recorder.take() == [(b"k", 1)]
    assert (bus.stats.gaps, bus.stats.losses, bus.is_up) == (1, 0, True)
    await bus.close(1)


@in_virtual_time
async def test_a_killed_process_is_a_gap_for_its_peers():
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
    await asyncio.sleep(TIMEOUT + 2 * HEARTBEAT_SECONDS)
    (event,) = recorder.take()
    assert "1 publishers" in event
    await witness.close(1)


@in_virtual_time
async def test_a_stalled_loop_restarts_the_timeouts_of_peers():
    """During the stall, the process has read nothing. If the whole host stalled, no peer has sent anything."""
    channel = ScriptedChannel()
    bus, recorder, other = await listening(channel)
    await other.write(1)
    recorder.take()
    for _ in range(5):
        await other.live(1, seconds=2)
        asyncio.get_running_loop().advance(2 * TIMEOUT)  # this process computes
        await asyncio.sleep(0.1)
    assert recorder.take() == []
    await bus.close(1)


@in_virtual_time
async def test_a_flood_of_changes_lets_other_tasks_run():
    """Between slices of bounded size, whether the changes are in one message or in many."""
    channel = ScriptedChannel(max_waiting=10_000)
    bus, recorder, _ = await listening(channel)
    recorder.take()
    for number in range(1, 3 * SLICE_CHANGES):
        await publish_change(channel, number)
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
async def test_a_listener_that_raises_is_logged_once_and_gets_later_changes(caplog):
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
    other = Peer(channel)
    await other.write(1)
    await other.write(2)
    await other.write(4)
    assert [event for event in recorder.take() if not isinstance(event, str)] == [(b"k", 1)] * 3
    assert bus.is_up
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await bus.close(1)
