"""Contract of every channel. A class of tests for each kind inherits it, and runs a scenario on a channel of its kind."""

import asyncio
from contextlib import aclosing

import pytest

from evcache.channels import ChannelError

ENOUGH_SECONDS = 20  # real time on a busy machine; virtual time in memory


async def received(subscription, count):
    """Return the next messages."""
    async with asyncio.timeout(ENOUGH_SECONDS):
        return [await anext(subscription) for _ in range(count)]


async def all_of(subscription):
    """Return the messages until the end."""
    async with asyncio.timeout(ENOUGH_SECONDS):
        return [message async for message in subscription]


async def lost(subscription):
    """Read until `ChannelError`, and return the messages before it. Fail on another end."""
    messages = []
    with pytest.raises(ChannelError):
        async with asyncio.timeout(ENOUGH_SECONDS):
            async for message in subscription:
                messages.append(message)
    return messages


class ChannelContract:
    """The tests. `on_channel(scenario, **options)` runs an async function of a fresh channel, and closes that."""

    def on_channel(self, scenario, **options):
        raise NotImplementedError

    def test_messages_come_in_order_and_unchanged(self):
        """From the moment when `subscribe` returns, the publisher's own included."""
        messages = [b"", bytes(range(256)), b"\r\n", b"x" * 65536, *(b"%d" % number for number in range(300))]

        async def scenario(channel):
            await channel.publish("topic", b"before")
            subscription = await channel.subscribe("topic")
            for message in messages:
                await channel.publish("topic", message)
            assert await received(subscription, len(messages)) == messages
            await subscription.aclose()

        self.on_channel(scenario)

    def test_topics_are_separate(self):
        async def scenario(channel):
            topics = ["a", "a:b", "a*", "ä ö", "A"]
            subscriptions = [await channel.subscribe(topic) for topic in topics]
            for _ in range(3):
                for topic in topics:
                    await channel.publish(topic, topic.encode())
            for topic, subscription in zip(topics, subscriptions, strict=True):
                assert await received(subscription, 3) == [topic.encode()] * 3
                await subscription.aclose()

        self.on_channel(scenario)

    def test_every_subscription_gets_every_message(self):
        """A subscription that ends takes no message from the others."""

        async def scenario(channel):
            first, second, third = [await channel.subscribe("topic") for _ in range(3)]
            await channel.publish("topic", b"1")
            assert await received(first, 1) == await received(second, 1) == await received(third, 1) == [b"1"]
            await second.aclose()
            await channel.publish("topic", b"2")
            assert await received(first, 1) == await received(third, 1) == [b"2"]
            assert await all_of(second) == []
            await first.aclose()
            await third.aclose()

        self.on_channel(scenario)

    def test_messages_of_several_publishers_keep_each_ones_order(self):
        async def scenario(channel):
            async def publish(name):
                for number in range(50):
                    await channel.publish("topic", b"%s%d" % (name, number))

            subscription = await channel.subscribe("topic")
            await asyncio.gather(*(publish(name) for name in (b"a", b"b", b"c")))
            messages = await received(subscription, 150)
            for name in (b"a", b"b", b"c"):
                assert [m for m in messages if m.startswith(name)] == [b"%s%d" % (name, number) for number in range(50)]
            await subscription.aclose()

        self.on_channel(scenario)

    def test_a_consumer_that_is_cancelled_loses_nothing(self):
        async def scenario(channel):
            subscription = await channel.subscribe("topic")
            messages = []
            for number in range(20):
                waiting = asyncio.ensure_future(anext(subscription))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                if not waiting.cancelled():
                    messages.append(waiting.result())
                await channel.publish("topic", b"%d" % number)
            messages += await received(subscription, 20 - len(messages))
            assert messages == [b"%d" % number for number in range(20)]
            await subscription.aclose()

        self.on_channel(scenario)

    def test_a_consumer_that_is_too_slow_is_told(self):
        """What waits is bounded, and nothing is dropped in silence; others are not concerned."""

        async def scenario(channel):
            slow, quick = await channel.subscribe("topic"), await channel.subscribe("topic")
            for number in range(30):
                await channel.publish("topic", b"%d" % number)
                assert await received(quick, 1) == [b"%d" % number]
            await asyncio.sleep(0.1)  # on a real server, until the last one has come to both
            assert await lost(slow) == []  # at once: what was missed matters more than what was not
            await lost(slow)  # and for good
            await slow.aclose()
            await quick.aclose()

        self.on_channel(scenario, max_waiting=10)

    def test_as_many_as_may_wait_can(self):
        async def scenario(channel):
            async with aclosing(await channel.subscribe("topic")) as subscription:
                for number in range(10):
                    await channel.publish("topic", b"%d" % number)
                await asyncio.sleep(0.1)
                assert len(await received(subscription, 10)) == 10

        self.on_channel(scenario, max_waiting=10)

    def test_closing_ends_subscriptions(self):
        """Those that wait, and those that are not read now; afterwards nothing is possible, and closing again is."""

        async def scenario(channel):
            waiting, idle = await channel.subscribe("topic"), await channel.subscribe("topic")
            reading = asyncio.ensure_future(all_of(waiting))
            await asyncio.sleep(0)
            await channel.close()
            assert await reading == []
            assert await all_of(idle) == []
            with pytest.raises(ChannelError):
                await channel.publish("topic", b"late")
            with pytest.raises(ChannelError):
                await channel.subscribe("topic")
            await channel.close()
            await idle.aclose()

        self.on_channel(scenario)

    def test_leaving_ends_a_subscription(self):
        """Also while a consumer waits; it may be done again, and the channel goes on."""

        async def scenario(channel):
            subscription = await channel.subscribe("topic")
            reading = asyncio.ensure_future(all_of(subscription))
            await asyncio.sleep(0)
            await subscription.aclose()
            assert await reading == []
            await subscription.aclose()
            again = await channel.subscribe("topic")
            await channel.publish("topic", b"1")
            assert await received(again, 1) == [b"1"]
            await again.aclose()

        self.on_channel(scenario)

    def test_nobody_needs_to_listen(self):
        async def scenario(channel):
            for _ in range(3):
                await channel.publish("topic", b"x")

        self.on_channel(scenario)

    def test_publishing_that_is_cancelled_harms_nobody(self):
        """It may have been taken or not; those that come later are, and in order."""

        async def scenario(channel):
            async with aclosing(await channel.subscribe("topic")) as subscription:
                for number in range(20):
                    publishing = asyncio.ensure_future(channel.publish("topic", b"cancelled"))
                    for _ in range(number % 5):
                        await asyncio.sleep(0)
                    publishing.cancel()
                    await asyncio.wait([publishing])
                    await channel.publish("topic", b"%d" % number)
                await channel.publish("topic", b"end")
                messages = []
                while (message := (await received(subscription, 1))[0]) != b"end":
                    messages.append(message)
                assert [m for m in messages if m != b"cancelled"] == [b"%d" % number for number in range(20)]

        self.on_channel(scenario)
