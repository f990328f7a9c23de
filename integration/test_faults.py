"""A server that closes, resets, hangs, babbles or dribbles: every call ends in time, with the right outcome, and the next works."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from evcache import CacheUnavailable, EVCache, NodeSettings
from evcache.errors import ConnectionLost, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from evcache.zones.transport.classic.pool import PoolLimits
from integration.raw import stats
from tests.support.cores import TRANSPORTS, name_of, running

# Timeout in seconds of a call that is expected to use all of it.
TIMEOUT = 1.0
# Limit in seconds between the deadline and the return of the call. A busy machine may take this time to run callbacks. A
# call that waits for its timeout twice exceeds it.
SLACK = 0.9 * TIMEOUT
# Timeout in seconds of a call that is expected to end earlier. It is long, because that distinguishes a call that waits for
# its deadline from one that a busy machine delays.
PATIENT = 10.0
CALLS = 50
BIG = "b" * 20_000


@pytest.fixture(params=TRANSPORTS, ids=name_of)
def transport(request):
    """Each test runs on both transports, and on both cores."""
    name, core = request.param
    with running(core):
        yield name


@asynccontextmanager
async def one_node_behind_a_proxy(address, namespace, transport, connections=16):
    """A client whose only node is behind a proxy, warmed up: there is no other zone to hide a failure."""
    async with (
        FaultProxy(address) as proxy,
        EVCache(
            namespace,
            {"only": [proxy.address]},
            local_zone="only",
            read_timeout=PATIENT,
            write_timeout=PATIENT,
            nodes=NodeSettings(transport=transport, classic=PoolLimits(connections=connections)),
        ) as cache,
    ):
        await cache.set("small", "s" * 20)
        await cache.set("big", BIG)
        await cache.incr("counter", initial=5)
        yield cache, proxy


def calls(cache, timeout):
    """Every kind of call, with a check of its answer."""
    return [
        (cache.get("small", timeout=timeout), "s" * 20),
        (cache.get("big", timeout=timeout), BIG),
        (cache.get_many(["small", "big", "none"], timeout=timeout), {"small": "s" * 20, "big": BIG}),
        (cache.set("small", "s" * 20, timeout=timeout), True),
        (cache.set("big", BIG, timeout=timeout), True),
        (cache.delete("none", timeout=timeout), True),
        (cache.touch("small", 100, timeout=timeout), True),
        (cache.add("small", "x", timeout=timeout), False),
        (cache.incr("counter", 0, timeout=timeout), 5),
        (cache.get_item("none", timeout=timeout), None),
    ]


async def outcomes(cache, timeout=PATIENT):
    """Start many calls at once and return their outcomes. No call may take longer than its timeout."""
    expected = {}
    for _ in range(CALLS // 10):
        for call, value in calls(cache, timeout):
            expected[asyncio.ensure_future(call)] = value
    began = time.monotonic()
    done, pending = await asyncio.wait(expected, timeout=timeout + SLACK)
    took = time.monotonic() - began
    assert not pending, f"{len(pending)} of {len(expected)} calls did not end within {timeout} s"
    failures = []
    for task in done:
        error = task.exception()
        if error is not None:
            assert isinstance(error, CacheUnavailable), f"{error!r}"
            failures += error.failures.values()
        else:
            value = expected[task]
            result = task.result()
            assert (bool(result) if isinstance(value, bool) else result) == value
    return failures, took


async def assert_all_is_well(cache):
    """Reconnecting takes a moment; after that every call gets its own answer."""
    deadline = time.monotonic() + 10
    while True:
        try:
            assert await cache.get("small") == "s" * 20
            break
        except CacheUnavailable:
            assert time.monotonic() < deadline, "it never came back"
            await asyncio.sleep(0.05)
    failures, _ = await outcomes(cache)
    assert failures == []


# Ways to break the connection, and the errors that waiting callers may get.
FAULTS = {
    "closed before the first reply": (lambda proxy: proxy.cut_after(0), {ConnectionLost}),
    "closed within a line": (lambda proxy: proxy.cut_after(3), {ConnectionLost}),
    "closed within a value": (lambda proxy: proxy.cut_after(5_000), {ConnectionLost}),
    "closed far into the replies": (lambda proxy: proxy.cut_after(60_001), {ConnectionLost}),
    "reset before the first reply": (lambda proxy: proxy.reset_after(0), {ConnectionLost}),
    "reset within a value": (lambda proxy: proxy.reset_after(5_000), {ConnectionLost}),
    "requests cut in the middle": (lambda proxy: proxy.cut_requests_after(100), {ConnectionLost}),
    "an unknown word": (lambda proxy: proxy.inject(b"WHAT\r\n"), {ProtocolError, ConnectionLost}),
    "a reply to nobody": (lambda proxy: proxy.inject(b"HD O999999\r\n"), {ProtocolError, ConnectionLost}),
    "a reply without its opaque": (lambda proxy: proxy.inject(b"EN\r\n"), {ProtocolError, ConnectionLost}),
    "somebody else's value": (
        lambda proxy: proxy.inject(b"VA 6 f0 c5 O1\r\nsecret\r\n"),
        {ProtocolError, ConnectionLost},
    ),
    "somebody else's classic value": (
        lambda proxy: proxy.inject(b"VALUE secret 0 6 5\r\nsecret\r\n"),
        {ProtocolError, ConnectionLost},
    ),
    "an answer too many": (
        lambda proxy: proxy.inject(b"HD O1\r\nSTORED\r\n"),
        {ProtocolError, ConnectionLost},
    ),
    "an error that loses the thread": (
        lambda proxy: proxy.inject(b"CLIENT_ERROR bad data chunk\r\n"),
        {ProtocolError, ConnectionLost},
    ),
    "an endless line": (lambda proxy: proxy.inject(b"x" * 5_000), {ProtocolError, ConnectionLost}),
    "a length that is none": (lambda proxy: proxy.inject(b"VA -1 O1\r\n"), {ProtocolError, ConnectionLost}),
    "binary rubbish": (lambda proxy: proxy.inject(bytes(range(256))), {ProtocolError, ConnectionLost}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_connection_fails_those_who_wait_and_nobody_else(each_server, namespace, transport, name):
    """Each ends at once with what happened to it; the next call works, on a connection that is in one piece."""

    async def main():
        # A pool of classic connections opens more in the background. With one, the fault meets a connection that calls use.
        async with one_node_behind_a_proxy(each_server, namespace, transport, connections=1) as (cache, proxy):
            break_it, told = FAULTS[name]
            break_it(proxy)
            failures, took = await outcomes(cache)
            assert failures, "the fault did not reach anybody"
            # Some meet the node while it reconnects: they may also hear that it is down.
            assert {type(failure) for failure in failures} <= told | {NodeUnavailable}
            assert any(type(failure) in told for failure in failures)
            assert took < PATIENT, "the end of a connection is known at once, nobody waits for a deadline"
            await assert_all_is_well(cache)

    asyncio.run(main())


# One call of each kind, the shortest way to write it.
EACH_CALL = {
    "get": lambda cache: cache.get("big"),
    "get of nothing": lambda cache: cache.get("none"),
    "get_many": lambda cache: cache.get_many(["small", "big", "none"]),
    "get_item": lambda cache: cache.get_item("big"),
    "set": lambda cache: cache.set("small", "s" * 20),
    "set_many": lambda cache: cache.set_many({"small": "s" * 20}),
    "delete": lambda cache: cache.delete("none"),
    "touch": lambda cache: cache.touch("small", 100),
    "add": lambda cache: cache.add("small", "x"),
    "replace": lambda cache: cache.replace("big", BIG),
    "append": lambda cache: cache.append("none", "x"),
    "prepend": lambda cache: cache.prepend("none", "x"),
    "cas": lambda cache: cache.cas("none", "x", 5),
    "incr": lambda cache: cache.incr("counter", 0),
    "incr of nothing": lambda cache: cache.incr("none"),
    "decr": lambda cache: cache.decr("counter", 0),
}


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("name", EACH_CALL)
def test_the_end_of_the_stream_ends_each_kind_of_call_at_once(each_server, namespace, transport, name, after):
    """Before the first byte of its reply, and within its first word."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            proxy.cut_after(after)
            began = time.monotonic()
            with pytest.raises(CacheUnavailable) as raised:
                await EACH_CALL[name](cache)
            assert time.monotonic() - began < PATIENT
            assert {type(error) for error in raised.value.failures.values()} == {ConnectionLost}
            await assert_all_is_well(cache)

    asyncio.run(main())


def commands_seen(server):
    """How often a server was asked for something, as it says itself."""
    counts = ("cmd_", "incr_", "decr_", "delete_", "cas_")
    return sum(int(count) for name, count in stats(server).items() if name.startswith(counts))


async def cancelled_when_sent(server, proxy, call):
    """A call whose caller leaves when the server has been asked, and before its answer is here."""
    before = commands_seen(server)
    proxy.stall_replies = True
    task = asyncio.ensure_future(call)
    while commands_seen(server) == before:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.stall_replies = False


def test_a_call_after_a_cancelled_one_gets_its_own_answer(each_server, namespace, transport):
    """`add` does not hear that the `set` was stored, `incr` does not return the other's number, and no value is mixed up."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            await cancelled_when_sent(each_server, proxy, cache.set("small", "s" * 20))
            assert not await cache.add("small", "yours")
            await cache.incr("other", initial=111)
            await cancelled_when_sent(each_server, proxy, cache.incr("other"))
            assert await cache.incr("counter", 0) == 5
            assert await cache.incr("other", 0) == 112, "the cancelled one was counted, once"
            await cancelled_when_sent(each_server, proxy, cache.get("big"))
            assert await cache.get("small") == "s" * 20
            await cancelled_when_sent(each_server, proxy, cache.get("small"))
            assert await cache.get("none") is None
            await cancelled_when_sent(each_server, proxy, cache.get("none"))
            assert await cache.get_many(["small", "none", "big"]) == {"small": "s" * 20, "big": BIG}
            await assert_all_is_well(cache)

    asyncio.run(main())


def test_a_call_after_one_that_was_cancelled_within_a_value_gets_its_own_answer(each_server, namespace, transport):
    """No later call receives the rest of the value."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            proxy.fragment = 1_000
            for turns in range(0, 60, 3):
                reading = asyncio.ensure_future(cache.get("big"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading])
                assert await cache.get("small") == "s" * 20
                assert await cache.incr("counter", 0) == 5
            proxy.fragment = None
            await assert_all_is_well(cache)

    asyncio.run(main())


def test_a_server_that_hangs_costs_each_call_its_time_and_no_more(each_server, namespace, transport):
    """Every call on a stalled connection times out. When the server resumes, no caller receives a late reply."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            (node,) = cache._runtime.cluster.nodes.values()  # noqa: SLF001
            connection = node.connection()
            proxy.stall = True
            failures, took = await outcomes(cache, TIMEOUT)
            assert len(failures) == CALLS
            assert {type(failure) for failure in failures} == {NodeTimeout}
            assert took < TIMEOUT + SLACK
            proxy.stall = False
            await assert_all_is_well(cache)
            if transport == "meta":
                assert node.connection() is connection, "a stall of less than the limit does not cost the connection"
                assert proxy.connections_total <= 2  # the client tried a new one, too
            else:  # a call that times out closes its connection, because no later call may use it
                assert proxy.connections <= PoolLimits().connections

    asyncio.run(main())


def test_a_stopped_process_costs_each_call_its_time_and_no_more(each_kind, namespace, transport):
    """SIGSTOP: the kernel still accepts, the process answers nothing."""
    with each_kind.local_zones({"only": 1}).running() as zones:

        async def main():
            async with EVCache(
                namespace,
                zones.zones,
                local_zone="only",
                read_timeout=PATIENT,
                write_timeout=PATIENT,
                transport=transport,
            ) as cache:
                await cache.set("small", "s" * 20)
                await cache.set("big", BIG)
                await cache.incr("counter", initial=5)
                zones.pause("only")
                failures, took = await outcomes(cache, TIMEOUT)
                zones.resume("only")
                assert {type(failure) for failure in failures} == {NodeTimeout}
                assert took < TIMEOUT + SLACK
                await assert_all_is_well(cache)

        asyncio.run(main())


def test_byte_by_byte_changes_nothing(each_server, namespace, transport):
    """Replies in segments of one byte are the same replies."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            await cache.set("big", "b" * 300)
            proxy.fragment = 1
            for _ in range(5):
                assert await cache.get("small") == "s" * 20
                assert await cache.get("big") == "b" * 300
                assert await cache.get_many(["small", "big"]) == {"small": "s" * 20, "big": "b" * 300}
                assert await cache.set("small", "s" * 20)
                assert await cache.incr("counter", 0) == 5

    asyncio.run(main())


def test_a_refused_connection_is_told_at_once(each_server, namespace, transport):
    """No server: calls fail without waiting for their time, and the client is back soon after the server is."""

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            proxy.refuse = True
            await proxy.drop_connections()
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(CacheUnavailable) as raised:
                    await cache.get("small")
                assert isinstance(raised.value.failures["only"], NodeUnavailable)
                assert time.monotonic() - began < PATIENT
            proxy.refuse = False
            await assert_all_is_well(cache)

    asyncio.run(main())


def test_a_slow_server_is_waited_for_as_long_as_the_call_has(each_server, namespace, transport):
    """Latency below the timeout is no failure."""
    # Five writers of one large key, each of whom looks before storing, need up to ten round trips for the last of them.
    latency = PATIENT / 500

    async def main():
        async with one_node_behind_a_proxy(each_server, namespace, transport) as (cache, proxy):
            proxy.delay = latency
            failures, took = await outcomes(cache)
            assert failures == []
            assert took >= latency

    asyncio.run(main())
