"""The channel within a process: the contract, and threads."""

import asyncio
import subprocess
import sys
import threading

import pytest

from evcache.channels import ChannelError, LocalChannel
from evcache.zones.errors import InvalidArgument
from tests.evcache.channels.contract import ChannelContract, all_of, lost, received
from tests.support.virtual_time import run

THREADS_SECONDS = 20


class TestLocalChannel(ChannelContract):
    def on_channel(self, scenario, **options):
        async def main():
            channel = LocalChannel(**options)
            await scenario(channel)
            await channel.close()

        run(main())


def in_threads(*coroutines):
    """Run each in a thread with an event loop of its own; their results. Raises what one of them raises."""
    results = {}

    def work(number, coroutine):
        try:
            results[number] = asyncio.run(coroutine)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(coroutines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(THREADS_SECONDS)
        assert not thread.is_alive()
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[number] for number in range(len(coroutines))]


def test_several_event_loops():
    """Each thread listens and publishes; all of them get all messages, in the same order, and each one's in its own."""
    channel = LocalChannel(max_waiting=10_000)
    everybody = threading.Barrier(4)

    async def member(name):
        subscription = await channel.subscribe("topic")
        everybody.wait(THREADS_SECONDS)
        for number in range(100):
            await channel.publish("topic", b"%d:%d" % (name, number))
            await asyncio.sleep(0)
        return await received(subscription, 400)

    heard = in_threads(*(member(name) for name in range(4)))
    assert heard[0] == heard[1] == heard[2] == heard[3]
    for name in range(4):
        mine = [message for message in heard[0] if message.startswith(b"%d:" % name)]
        assert mine == [b"%d:%d" % (name, number) for number in range(100)]


def test_a_loop_that_is_held_up_is_bounded_too():
    """Messages of another thread are bounded during the stall, and the consumer gets an error for those over the limit."""
    channel = LocalChannel(max_waiting=10)
    subscribed, published = threading.Event(), threading.Event()

    async def held_up():
        subscription = await channel.subscribe("topic")
        subscribed.set()
        assert published.wait(THREADS_SECONDS)
        return await lost(subscription)

    async def publisher():
        assert subscribed.wait(THREADS_SECONDS)
        for _ in range(11):
            await channel.publish("topic", b"x")
        published.set()

    assert in_threads(held_up(), publisher())[0] == []


def test_closing_from_another_thread_ends_those_who_wait():
    channel = LocalChannel()
    subscribed = threading.Event()

    async def listener():
        subscription = await channel.subscribe("topic")
        subscribed.set()
        return await all_of(subscription)

    async def closer():
        assert subscribed.wait(THREADS_SECONDS)
        await channel.close()

    assert in_threads(listener(), closer())[0] == []


def test_a_loop_that_has_gone_harms_nobody():
    """A subscription that was not closed is dropped when a message cannot be delivered."""
    channel = LocalChannel(max_waiting=3)

    async def leave_a_consumer_waiting():
        subscription = await channel.subscribe("topic")
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        assert not waiting.done()

    asyncio.run(leave_a_consumer_waiting())

    async def go_on():
        subscription = await channel.subscribe("topic")
        for number in range(10):
            await channel.publish("topic", b"%d" % number)
            assert await received(subscription, 1) == [b"%d" % number]

    asyncio.run(go_on())


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
def test_what_can_not_be_a_limit(limit):
    with pytest.raises(InvalidArgument, match="max_waiting"):
        LocalChannel(max_waiting=limit)


def test_a_channel_error_is_no_cache_error():
    """Callers of a client never see one; nothing that catches the errors of caches may swallow it."""
    from evcache import CacheError

    assert not issubclass(ChannelError, CacheError)


PROGRAM = """
import sys
import evcache, evcache.invalidation.bus, evcache.channels
assert not any(name.partition(".")[0] == "redis" for name in sys.modules), "redis was imported"
sys.modules["redis"] = None  # as if it was not installed
try:
    import evcache.channels.redis
except ImportError as error:
    print(error)
"""


def test_redis_is_only_needed_by_who_uses_it():
    """And when it is missing, the error says what to install."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install evcache[redis]" in done.stdout
