"""The channel through Redis, on a real server: the contract, and that a loss is always noticed."""

import asyncio
import gc
import re
import time

import pytest

from evcache.channels import ChannelError
from evcache.channels.redis import RedisChannel
from evcache.invalidation.bus import InvalidationBus
from evcache.zones.errors import InvalidArgument, UsageError
from integration.redis_server import RedisServer, find_redis
from tests.evcache.channels.contract import ENOUGH_SECONDS, ChannelContract, lost, received
from tests.support.scripted_channel import Recorder

# Short, so that tests are quick, and long enough for a machine that does other things too.
QUICK = {"ping": 0.2, "silence": 1.0, "timeout": 1.0}


@pytest.fixture
def server():
    """One that a test may break."""
    server = RedisServer(find_redis())
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def shared_server():
    """One that stays in one piece."""
    server = RedisServer(find_redis())
    try:
        server.start()
        yield server
    finally:
        server.kill()


def on_redis(server, scenario, **options):
    """Run an async function of a channel; nothing may be left behind."""

    async def main():
        channel = RedisChannel(server.url, **QUICK | options)
        try:
            await scenario(channel)
        finally:
            await channel.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def is_lost(subscription):
    """Wait for the end of a subscription; how long that took."""
    began = time.monotonic()
    await lost(subscription)
    return time.monotonic() - began


class TestRedisChannel(ChannelContract):
    @pytest.fixture(autouse=True)
    def _server(self, shared_server):
        self.server = shared_server

    def on_channel(self, scenario, **options):
        on_redis(self.server, scenario, **options)


def clients(server):
    """The ids of connections that have subscribed."""
    return re.findall(r"^id=(\d+)\b.* sub=1 ", server.command("CLIENT LIST").decode(), re.MULTILINE)


def test_a_server_that_dies_is_noticed(server):
    """By those who wait and by those who do not; when it is back, nothing has connected again by itself."""

    async def scenario(channel):
        waiting, idle = await channel.subscribe("a"), await channel.subscribe("b")
        reading = asyncio.ensure_future(lost(waiting))
        await asyncio.sleep(0)
        server.kill()
        await reading
        await lost(idle)
        with pytest.raises(ChannelError):
            await channel.publish("a", b"x")
        with pytest.raises(ChannelError):
            await channel.subscribe("a")
        server.start()
        await asyncio.sleep(3 * QUICK["ping"])
        assert clients(server) == []
        await lost(waiting)
        again = await channel.subscribe("a")
        await channel.publish("a", b"back")
        assert await received(again, 1) == [b"back"]
        await again.aclose()

    on_redis(server, scenario)


def test_a_connection_that_is_killed_is_noticed(server):
    """With the server in the best of health; other subscriptions go on."""

    async def scenario(channel):
        first = await channel.subscribe("topic")
        (identity,) = clients(server)
        second = await channel.subscribe("topic")
        assert server.command(f"CLIENT KILL ID {identity}") == b":1\r\n"
        await channel.publish("topic", b"missed")
        await lost(first)
        assert await received(second, 1) == [b"missed"]
        await asyncio.sleep(3 * QUICK["ping"])
        assert len(clients(server)) == 1
        await second.aclose()

    on_redis(server, scenario)


def test_a_server_that_stands_still_is_noticed(server):
    """Its connections look alive. Each operation during the stall fails in bounded time, and works after the server resumes."""

    async def scenario(channel):
        subscription = await channel.subscribe("topic")
        await channel.publish("topic", b"1")
        assert await received(subscription, 1) == [b"1"]
        server.pause()
        took = await is_lost(subscription)
        assert took < ENOUGH_SECONDS / 2
        for attempt in (channel.publish("topic", b"x"), channel.subscribe("topic")):
            with pytest.raises(ChannelError, match="within 1.0 s"):
                async with asyncio.timeout(ENOUGH_SECONDS):
                    await attempt
        server.resume()
        again = await channel.subscribe("topic")
        await channel.publish("topic", b"2")
        while (await received(again, 1)) != [b"2"]:
            pass  # the message that was sent during the stall may arrive now
        await again.aclose()

    on_redis(server, scenario)


def test_silence_is_no_loss_while_pings_are_answered(server):
    """A topic without messages stays subscribed."""

    async def scenario(channel):
        subscription = await channel.subscribe("topic")
        await asyncio.sleep(2.5 * QUICK["silence"])
        await channel.publish("topic", b"1")
        assert await received(subscription, 1) == [b"1"]
        await subscription.aclose()

    on_redis(server, scenario)


def test_a_loop_that_is_held_up_blames_nobody(server):
    """The answers to pings wait to be read, and so do messages: none is missed."""

    async def scenario(channel):
        subscription = await channel.subscribe("topic")
        await asyncio.sleep(2 * QUICK["ping"])
        assert server.command("PUBLISH topic 1") == b":1\r\n"
        time.sleep(1.5 * QUICK["silence"])
        await asyncio.sleep(2 * QUICK["ping"])
        assert await received(subscription, 1) == [b"1"]
        await subscription.aclose()

    on_redis(server, scenario)


def test_leaving_closes_the_connection(server):
    async def scenario(channel):
        subscription = await channel.subscribe("topic")
        assert len(clients(server)) == 1
        await subscription.aclose()
        deadline = time.monotonic() + ENOUGH_SECONDS
        while clients(server):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    on_redis(server, scenario)


def test_subscribing_that_is_cancelled_leaves_nothing(server):
    """At whatever moment."""

    async def scenario(channel):
        for turns in range(0, 40, 2):
            subscribing = asyncio.ensure_future(channel.subscribe("topic"))
            for _ in range(turns):
                await asyncio.sleep(0)
            subscribing.cancel()
            await asyncio.wait([subscribing])
            if not subscribing.cancelled():
                await subscribing.result().aclose()
        deadline = time.monotonic() + ENOUGH_SECONDS
        while clients(server):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    on_redis(server, scenario)


def test_a_close_that_is_cancelled_is_finished_by_another(server):
    """No subscription, connection or task is left, whenever the close was cancelled."""

    async def scenario(channel):
        for turns in range(12):
            closing_channel = RedisChannel(server.url, **QUICK)
            for _ in range(3):
                await closing_channel.subscribe("topic")
            await closing_channel.publish("topic", b"x")
            closing = asyncio.ensure_future(closing_channel.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await closing_channel.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        deadline = time.monotonic() + ENOUGH_SECONDS
        while clients(server):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    on_redis(server, scenario)


def test_another_event_loop_is_refused(shared_server):
    channel = RedisChannel(shared_server.url)

    async def use():
        await channel.publish("topic", b"x")

    async def close():
        await channel.close()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(UsageError):
            asyncio.run(use())
        runner.run(close())


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])
def test_one_event_loop_after_another(shared_server, closes, recwarn):
    """A channel of a module works on the next loop, whether it was closed on the last one or ended with it."""
    channel = RedisChannel(shared_server.url)

    async def use():
        subscription = await channel.subscribe("topic")
        await channel.publish("topic", b"x")
        assert await received(subscription, 1) == [b"x"]
        if closes:
            await channel.close()
            with pytest.raises(ChannelError):
                await channel.publish("topic", b"x")

    for _ in range(3):
        asyncio.run(use(), debug=True)
    gc.collect()
    assert [warning.message for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []


@pytest.mark.parametrize(
    ("url", "options", "argument"),
    [
        ("http://localhost", {}, "url"),
        ("localhost:6379", {}, "url"),
        (None, {}, "url"),
        ("redis://localhost", {"no_such_option": 1}, "url"),
        ("redis://localhost", {"ping": 0}, "ping"),
        ("redis://localhost", {"silence": -1}, "silence"),
        ("redis://localhost", {"ping": 1.0, "silence": 1.0}, "silence"),
        ("redis://localhost", {"timeout": None}, "timeout"),
        ("redis://localhost", {"max_waiting": 0}, "max_waiting"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_opened(url, options, argument):
    with pytest.raises(InvalidArgument) as raised:
        RedisChannel(url, **options)
    assert raised.value.argument == argument


def test_the_url_can_not_change_how_messages_are_read(shared_server):
    """Options in it that redis-py would follow: text in place of bytes, another protocol, retries."""

    class Server:
        url = f"{shared_server.url}?decode_responses=true&protocol=3&retry_on_timeout=true&health_check_interval=1"

    async def scenario(channel):
        subscription = await channel.subscribe("topic")
        await asyncio.sleep(3 * QUICK["ping"])
        await channel.publish("topic", b"\xff")
        assert await received(subscription, 1) == [b"\xff"]
        await subscription.aclose()

    on_redis(Server, scenario)


def test_buses_hear_of_each_other_and_of_every_outage(server):
    """From one process to another, and through the death of the server: forget, and go on."""

    async def scenario(channel):
        second_channel = RedisChannel(server.url, **QUICK)
        told = Recorder()
        speaker, listener = InvalidationBus(channel, "topic", Recorder()), InvalidationBus(second_channel, "topic", told)
        try:
            for bus in (speaker, listener):
                bus.start()
            await until(lambda: speaker.is_up and listener.is_up)
            told.take()
            speaker.publish(b"a", 1)
            await until(lambda: (b"a", 1) in told.events)
            assert told.take() == [(b"a", 1)]
            server.kill()
            await until(lambda: not listener.is_up)
            assert told.take()[0] == "down"
            speaker.publish(b"b", 2)
            server.start()
            await until(lambda: listener.is_up and not speaker.stats.pending)
            assert told.take()[:2] == ["lost: subscribed", "up"]
            speaker.publish(b"c", 3)
            await until(lambda: (b"c", 3) in told.events)
        finally:
            await speaker.close(1)
            await listener.close(1)
            await second_channel.close()

    on_redis(server, scenario)


async def until(condition):
    async with asyncio.timeout(ENOUGH_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
