"""Subscriptions of a bus: their loss, the retries, and the echo of own messages."""

import asyncio
import itertools

import pytest

from evcache.channels import ChannelError
from evcache.invalidation.bus import STEADY_SECONDS
from evcache.invalidation.messages import Kind
from evcache.invalidation.publisher import HEARTBEAT_SECONDS, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS
from tests.support.scripted_channel import TIMEOUT, ScriptedChannel, listening, publish_change
from tests.support.virtual_time import in_virtual_time, now, settle


@in_virtual_time
async def test_a_lost_subscription_clears_the_near_cache_and_is_replaced():
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
    await other.write(5)  # after a new subscription the peer is unknown
    await asyncio.sleep(RETRY_LONGEST_SECONDS)
    assert (b"k", 1) in recorder.take()
    await bus.close(1)


@in_virtual_time
async def test_subscribing_is_retried_with_growing_pauses():
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
async def test_pauses_are_short_again_after_a_steady_subscription():
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
async def test_any_error_of_a_channel_is_a_loss(error):
    channel = ScriptedChannel()
    channel.refuse_to_subscribe = error
    bus, recorder, _ = await listening(channel, after=5)
    assert len(channel.subscribed_at) > 2
    channel.refuse_to_subscribe = None
    await asyncio.sleep(5)
    assert recorder.take() == ["lost: subscribed", "up"]
    await bus.close(1)


@in_virtual_time
async def test_a_subscription_that_ends_without_an_error_is_lost():
    """Another user of the channel may close it, without an error."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    recorder.take()
    await channel.close()
    await settle()
    assert recorder.take() == ["down", "lost: subscription ended"]
    await bus.close(0.1)


@in_virtual_time
async def test_a_slow_consumer_loses_its_subscription():
    """As after any loss; the channel bounds what waits."""
    channel = ScriptedChannel(max_waiting=10)
    bus, recorder, _ = await listening(channel)
    recorder.take()
    for number in range(11):  # without a turn of the loop
        await publish_change(channel, number + 1)
    await settle()
    assert recorder.take()[0] == "down"
    await asyncio.sleep(1)
    assert bus.is_up
    await bus.close(1)


@in_virtual_time
async def test_a_loss_and_a_recovery_are_logged_once(caplog):
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
async def test_a_subscription_without_own_messages_is_replaced():
    """They were taken, and do not come: it is at another server than they are, and so are all the others' messages."""
    channel = ScriptedChannel()
    bus, recorder, _ = await listening(channel)
    bus.publish(b"a", 1)
    await asyncio.sleep(10)
    recorder.take()
    channel.swallow = True
    await asyncio.sleep(TIMEOUT + 3 * HEARTBEAT_SECONDS)
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
async def test_own_messages_that_the_channel_refused_are_not_expected(confirm_late):
    """Publishing fails while the subscription works. An earlier own message may arrive before the channel confirms it."""
    channel = ScriptedChannel()
    channel.confirm_late = confirm_late
    bus, recorder, other = await listening(channel)
    await other.write(1)
    await other.send(Kind.BYE, 1)
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
async def test_a_channel_that_never_returns_own_messages_works():
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
