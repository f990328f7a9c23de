"""Publisher: batches, repeated messages, and heartbeats while they matter."""

import asyncio
import itertools

import pytest

from evcache.channels import ChannelError
from evcache.invalidation.bus import InvalidationBus
from evcache.invalidation.messages import Kind
from evcache.invalidation.publisher import (
    BATCH_SECONDS,
    HEARTBEAT_SECONDS,
    QUIET_AFTER_SECONDS,
    RETRY_FIRST_SECONDS,
    RETRY_LONGEST_SECONDS,
)
from evcache.zones.errors import InvalidArgument, UsageError
from tests.support.scripted_channel import (
    SOON,
    Recorder,
    ScriptedChannel,
    bus_on,
)
from tests.support.virtual_time import in_virtual_time, now, settle


@in_virtual_time
async def test_changes_within_the_batch_time_are_one_message():
    """Once for each key, and not later than the batch time."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    await asyncio.sleep(1)
    bus.publish(b"a", 1)
    bus.publish(b"b", None)
    await asyncio.sleep(BATCH_SECONDS / 2)
    bus.publish(b"a", 3)
    bus.publish(b"c", 0)
    assert bus.stats.pending == 3
    await asyncio.sleep(SOON)
    assert channel.changes() == [{b"a": 3, b"b": None, b"c": 0}]
    assert channel.sent() == [(pytest.approx(1 + BATCH_SECONDS), 1)]
    bus.publish(b"a", 4)
    await asyncio.sleep(SOON)
    assert channel.changes()[1:] == [{b"a": 4}]
    assert [number for _, number in channel.sent()] == [1, 2]
    assert (bus.stats.published, bus.stats.pending, bus.stats.failures) == (4, 0, 0)
    await bus.close(1)


@in_virtual_time
async def test_a_refused_message_is_repeated_unchanged():
    """With the same number and content, after growing pauses. Later changes wait for the next message."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.refuse = ChannelError("refused")
    bus.publish(b"a", 1)
    await asyncio.sleep(SOON)
    bus.publish(b"a", 2)
    await asyncio.sleep(20)
    bus.publish(b"b", 5)
    assert bus.stats.pending == 3
    channel.refuse = None
    await asyncio.sleep(2 * RETRY_LONGEST_SECONDS)
    attempts = channel.sent()
    assert {number for _, number in attempts[:-1]} == {1}
    assert attempts[-1][1] == 2
    assert channel.changes() == [{b"a": 1}] * (len(attempts) - 1) + [{b"a": 2, b"b": 5}]
    pauses = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(attempts[:-1])]
    assert RETRY_FIRST_SECONDS <= pauses[0] <= 2 * RETRY_FIRST_SECONDS
    assert max(pauses) <= RETRY_LONGEST_SECONDS + RETRY_FIRST_SECONDS
    assert pauses[:5] == sorted(pauses[:5])
    assert bus.stats.failures == len(pauses)
    assert (bus.stats.published, bus.stats.pending) == (3, 0)
    await bus.close(1)


@in_virtual_time
async def test_an_unconfirmed_message_takes_effect_once():
    """A copy has the same number, and others do not act on it again."""
    channel, heard = ScriptedChannel(), Recorder()
    bus, other = bus_on(channel), bus_on(channel, heard)
    await settle()
    heard.take()
    channel.refuse_after = ChannelError("no answer")
    bus.publish(b"a", 1)
    await asyncio.sleep(2)
    channel.refuse_after = None
    await asyncio.sleep(2)
    assert len(channel.sent()) > 2
    assert heard.take() == [(b"a", 1)]
    await bus.close(1)
    await other.close(1)
    assert heard.take() == ["down", "lost: closed"]


@in_virtual_time
async def test_an_overflow_becomes_a_gap():
    """What waits for a channel that is out is bounded; when it is back, others forget everything."""
    channel, heard = ScriptedChannel(), Recorder()
    bus, other = bus_on(channel, max_pending=10), bus_on(channel, heard)
    bus.publish(b"first", 1)
    await asyncio.sleep(SOON)
    heard.take()
    channel.refuse = ChannelError("out")
    for number in range(100):
        bus.publish(b"%d" % number, number + 1)
        await asyncio.sleep(0.001)
        assert bus.stats.pending <= 20
    assert bus.stats.overflows > 1
    channel.refuse = None
    await asyncio.sleep(2)
    events = heard.take()
    (gap,) = (place for place, event in enumerate(events) if isinstance(event, str))
    assert "missing" in events[gap]
    assert events[-1] == (b"99", 100)
    assert gap < len(events) - 1  # the changes of a message follow its gap
    assert (other.stats.gaps, bus.stats.pending) == (1, 0)
    await bus.close(1)
    await other.close(1)


@in_virtual_time
async def test_heartbeats_stop_after_the_quiet_time():
    """One a second after changes, with their number, then one BYE. A client without changes sends nothing."""
    channel = ScriptedChannel()
    bus, silent = bus_on(channel), bus_on(channel)
    await asyncio.sleep(10)
    assert channel.log == []
    bus.publish(b"a", 1)
    await asyncio.sleep(QUIET_AFTER_SECONDS + 2 * HEARTBEAT_SECONDS)
    bye = channel.sent(Kind.BYE)
    assert [number for _, number in bye] == [1]
    assert 0 <= bye[0][0] - 10 - QUIET_AFTER_SECONDS <= HEARTBEAT_SECONDS + SOON
    spoken = [at for at, _ in channel.log]
    assert all(later - earlier <= HEARTBEAT_SECONDS + SOON for earlier, later in itertools.pairwise(spoken))
    assert {number for _, number in channel.sent(Kind.HEARTBEAT)} == {1}
    assert len(channel.sent(Kind.HEARTBEAT)) <= QUIET_AFTER_SECONDS + 1
    channel.log.clear()
    await asyncio.sleep(1000)
    assert channel.log == []
    await bus.close(1)
    await silent.close(1)
    assert channel.log == []  # has said BYE, and never had anything to say


@in_virtual_time
async def test_a_busy_bus_sends_no_heartbeats():
    """Its changes are."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    for number in range(100):
        bus.publish(b"a", number + 1)
        await asyncio.sleep(0.9 * HEARTBEAT_SECONDS)
    assert channel.sent(Kind.HEARTBEAT) == []
    await bus.close(1)


@in_virtual_time
async def test_a_new_session_after_a_quiet_time_is_no_gap():
    """For peers that were subscribed all the time, and for those that joined later."""
    channel, first, second = ScriptedChannel(), Recorder(), Recorder()
    bus, early = bus_on(channel), bus_on(channel, first)
    for number in range(3):
        bus.publish(b"a", number + 1)
        await asyncio.sleep(SOON)
    await asyncio.sleep(2 * QUIET_AFTER_SECONDS)
    late = bus_on(channel, second)
    await asyncio.sleep(100)
    first.take(), second.take()
    bus.publish(b"b", 9)
    await asyncio.sleep(SOON)
    assert first.take() == second.take() == [(b"b", 9)]
    for one in (bus, early, late):
        await one.close(1)


@in_virtual_time
async def test_a_refused_bye_is_repeated():
    channel = ScriptedChannel()
    bus = bus_on(channel)
    bus.publish(b"a", 1)
    await asyncio.sleep(QUIET_AFTER_SECONDS - 2)
    channel.refuse = ChannelError("out")
    await asyncio.sleep(10)
    said = len(channel.sent(Kind.BYE))
    assert 5 <= said <= 10
    channel.refuse = None
    await asyncio.sleep(100)
    assert len(channel.sent(Kind.BYE)) == said + 1
    await bus.close(1)


@in_virtual_time
async def test_close_sends_pending_changes_and_a_bye():
    """At once, before the batch time ends. Later changes have no effect."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    await settle()
    bus.publish(b"a", 1)
    await bus.close(1)
    assert now() <= 2 * BATCH_SECONDS
    assert [one.kind for _, one in channel.log] == [Kind.CHANGES, Kind.BYE]
    bus.publish(b"b", 1)
    await bus.close(1)
    await asyncio.sleep(10)
    assert len(channel.log) == 2
    assert not bus.is_up
    with pytest.raises(UsageError):
        bus.start()


@in_virtual_time
async def test_close_before_any_change_sends_nothing():
    channel = ScriptedChannel()
    bus = bus_on(channel)
    await bus.close(1)
    never_started = InvalidationBus(channel, "topic", Recorder())
    never_started.publish(b"a", 1)
    await never_started.close(1)
    assert channel.log == []


@pytest.mark.parametrize("drain", [0, 0.5, 3])
@in_virtual_time
async def test_close_is_bounded_while_publish_hangs(drain):
    """By the drain; every task has ended then, which the loop checks, and what was not said is counted."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.hang = True
    bus.publish(b"a", 1)
    await asyncio.sleep(SOON)
    began = now()
    await bus.close(drain)
    assert now() - began == pytest.approx(drain)
    assert bus.stats.pending == 1


@in_virtual_time
async def test_close_ends_a_pause_between_retries():
    """The channel is back in the middle of a long pause: what waits is sent at once."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.refuse = ChannelError("out")
    bus.publish(b"a", 1)
    await asyncio.sleep(20)
    attempts = len(channel.log)
    while len(channel.log) == attempts:  # now the next one is far away
        await asyncio.sleep(SOON)
    channel.refuse = None
    began = now()
    await bus.close(1)
    assert now() - began < SOON
    assert bus.stats.pending == 0


@in_virtual_time
async def test_close_retries_for_the_drain_while_the_channel_is_down():
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.refuse = ChannelError("out")
    bus.publish(b"a", 1)
    await asyncio.sleep(SOON)
    before = len(channel.log)
    await bus.close(2)
    assert len(channel.log) - before >= 3
    assert bus.stats.pending == 1


@pytest.mark.parametrize("delay", [0, BATCH_SECONDS / 2, 1])
@in_virtual_time
async def test_a_cancelled_close_ends_all_tasks(delay):
    """At whatever moment; a second call finds nothing to do."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.hang = True
    bus.publish(b"a", 1)
    closing = asyncio.ensure_future(bus.close(100))
    await asyncio.sleep(delay)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await bus.close(100)
    assert now() == pytest.approx(delay)


@in_virtual_time
async def test_unexpected_errors_of_a_channel_are_retried():
    """Whatever it raises, changes are sent in the end."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    channel.refuse = ZeroDivisionError("a bug")
    bus.publish(b"a", 1)
    await asyncio.sleep(5)
    channel.refuse = None
    await asyncio.sleep(5)
    assert bus.stats.published == 1
    await bus.close(1)


@in_virtual_time
async def test_failures_to_publish_and_their_end_are_logged_once(caplog):
    """However many messages fail."""
    caplog.set_level("INFO", "evcache.invalidation")
    channel = ScriptedChannel()
    bus = bus_on(channel)
    for _ in range(2):
        channel.refuse = ChannelError("out of order")
        for number in range(20):
            bus.publish(b"%d" % number, 1)
            await asyncio.sleep(1)
        channel.refuse = None
        await asyncio.sleep(5)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert "out of order" in caplog.text
    await bus.close(1)


@in_virtual_time
async def test_a_second_start_has_no_effect():
    channel = ScriptedChannel()
    bus = bus_on(channel)
    bus.start()
    await settle()
    assert len(channel.subscribed_at) == 1
    await bus.close(1)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"topic": ""}, "topic"),
        ({"topic": b"x"}, "topic"),
        ({"batch": -1}, "batch"),
        ({"heartbeat": 0}, "heartbeat"),
        ({"quiet_after": "long"}, "quiet_after"),
        ({"max_pending": 0}, "max_pending"),
    ],
)
def test_bad_settings_are_refused(options, argument):
    with pytest.raises(InvalidArgument) as raised:
        InvalidationBus(**{"channel": ScriptedChannel(), "topic": "topic", "listener": Recorder()} | options)
    assert raised.value.argument == argument


@in_virtual_time
async def test_a_change_that_cannot_be_sent_is_refused():
    """By the call, and nothing else is disturbed."""
    channel = ScriptedChannel()
    bus = bus_on(channel)
    with pytest.raises(InvalidArgument, match="key"):
        bus.publish(bytes(100_000), 1)
    bus.publish(b"a", 1)
    await asyncio.sleep(SOON)
    assert channel.changes() == [{b"a": 1}]
    with pytest.raises(InvalidArgument, match="drain"):
        await bus.close(-1)
    await bus.close(1)
