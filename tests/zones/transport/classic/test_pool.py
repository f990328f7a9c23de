"""Pool of the classic transport: bounded, fair, and closed without a trace."""

import asyncio

import pytest

from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.classic.pool import CannotConnect
from tests.support.classic import client_of, scenario
from tests.support.streams import ScriptedServer, cancelled, closing, dialer, settled

CLOSE = ScriptedServer.CLOSE


@scenario
async def test_connecting_has_a_limit():
    async def never(_factory):
        await asyncio.get_running_loop().create_future()

    async with closing(client_of(never, connect_timeout=0.01)) as client:
        with pytest.raises(CannotConnect, match=r"no connection in 0\.01 s"):
            await client.fetch([b"k"])


@scenario
async def test_waiting_for_a_connection_has_a_limit():
    async with (
        ScriptedServer(None) as server,
        closing(client_of(server.dial, connections=1, acquire=0.01)) as client,
    ):
        first = asyncio.create_task(client.fetch([b"a"]))
        await server.heard.wait()
        with pytest.raises(TimeoutError):
            await client.fetch([b"b"])
        assert server.lines == [b"gets a\r\n"]
        await cancelled(first)


@scenario
async def test_a_refused_connect_fails_each_waiting_call():
    """No waiting caller depends on a later call."""
    async with ScriptedServer() as server:
        dial = server.dial
    async with closing(client_of(dial, connections=1)) as client:
        errors = await asyncio.gather(*(client.fetch([b"k"]) for _ in range(20)), return_exceptions=True)
        assert [type(error) for error in errors] == [CannotConnect] * 20


@pytest.mark.parametrize("how", ["cancelled", "closed"])
@scenario
async def test_a_waiting_call_gets_a_new_connection_when_one_is_lost(how):
    """In aiomcache, callers wait on a queue that a lost connection is never put into."""
    script = {"cancelled": [None], "closed": [CLOSE]}[how]
    async with (
        ScriptedServer(*script, *[b"END\r\n"] * 10) as server,
        closing(client_of(server.dial, connections=1)) as client,
    ):
        first = asyncio.create_task(client.fetch([b"first"]))
        await server.heard.wait()
        others = [asyncio.create_task(client.fetch([b"other"])) for _ in range(5)]
        if how == "cancelled":
            first.cancel()
        assert await asyncio.gather(*others) == [{}] * 5
        await asyncio.wait([first])
        assert first.cancelled() or first.exception() is not None


@scenario
async def test_cancelled_waiting_calls_cost_no_connection_and_delay_no_other_call():
    async with (
        ScriptedServer(*[None], *[b"END\r\n"] * 10) as server,
        closing(client_of(server.dial, connections=1)) as client,
    ):
        first = asyncio.create_task(client.fetch([b"first"]))
        await server.heard.wait()
        waiting = [asyncio.create_task(client.fetch([b"w"])) for _ in range(6)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        first.cancel()
        assert await asyncio.gather(*waiting[1::2]) == [{}] * 3
        assert server.total == 2
        assert len(server.lines) == 1 + 3


@scenario
async def test_connections_are_lent_in_the_order_of_the_calls():
    async with ScriptedServer(*[b"END\r\n"] * 8) as server, closing(client_of(server.dial, connections=1)) as client:
        await asyncio.gather(*(client.fetch([b"%d" % number]) for number in range(8)))
        assert server.lines == [b"gets %d\r\n" % number for number in range(8)]


@scenario
async def test_the_pool_grows_to_its_bound_and_no_further():
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=4)) as client,
    ):
        assert client.connections == 0
        await client.fetch([b"k"])
        assert client.connections == server.connections_total == 1
        server.pause()
        calls = [asyncio.create_task(client.fetch([b"k"])) for _ in range(40)]
        await settled(lambda: server.connections == 4)
        server.resume()
        assert await asyncio.gather(*calls) == [{}] * 40
        assert client.connections == server.connections_total == 4


@scenario
async def test_an_unused_pool_shrinks_to_one_connection():
    """One connection stays, so that the client notices when the server ends."""
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=4, idle=0.01)) as client,
    ):
        await asyncio.gather(*(client.fetch([b"k"]) for _ in range(40)))
        assert client.connections > 1
        await settled(lambda: server.connections == 1)
        assert client.connections == 1


@scenario
async def test_a_cold_pool_opens_no_more_than_it_may():
    """aiomcache opens one connection for each waiting call, and keeps a few."""
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=3)) as client,
    ):
        await asyncio.gather(*(client.fetch([b"k"]) for _ in range(40)))
        assert server.connections_total <= 3


@scenario
async def test_bytes_without_a_request_end_an_idle_connection():
    """They would be the reply to the next request."""
    ends = []
    async with (
        ScriptedServer(b"END\r\n", b"VERSION 2\r\n") as server,
        closing(client_of(server.dial, on_server_end=lambda: ends.append(1))) as client,
    ):
        assert await client.fetch([b"k"]) == {}
        assert client.connections == 1
        for writer in server.writers:
            writer.write(b"VERSION 1\r\n")
        await settled(lambda: ends)
        assert client.connections == 0
        assert await client.version() == b"2"


@scenario
async def test_an_idle_connection_that_the_server_closes_is_not_used():
    ends = []
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), on_server_end=lambda: ends.append(1))) as client,
    ):
        await asyncio.gather(*(client.fetch([b"k"]) for _ in range(3)))
        port = server.port
        await server.stop()
        await settled(lambda: client.connections == 0)
        assert ends
        await server.start(port=port)
        assert await client.fetch([b"k"]) == {}


@scenario
async def test_abort_ends_calls_and_is_final():
    async with ScriptedServer(None) as server:
        client = client_of(server.dial, connections=1)
        call = asyncio.create_task(client.fetch([b"a"]))
        waits = asyncio.create_task(client.fetch([b"b"]))
        await server.heard.wait()
        client.abort()
        for task in (call, waits):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await task
        with pytest.raises(ConnectionError):
            await client.fetch([b"c"])
        client.abort()
        await settled(lambda: not server.writers)
        assert client.connections == 0


@scenario
async def test_cancelling_while_it_connects_leaves_no_connection():
    async with FakeMemcached(classic_only=True) as server:
        gate = asyncio.Event()

        async def slow(factory):
            wire = await dialer(server.address)(factory)
            gate.set()
            await asyncio.get_running_loop().create_future()
            return wire

        async with closing(client_of(slow)) as client:
            call = asyncio.create_task(client.fetch([b"k"]))
            await gate.wait()
            await cancelled(call)
            await settled(lambda: server.connections == 0)
            assert client.connections == 0


@scenario
async def test_a_unix_socket(tmp_path):
    server = FakeMemcached(classic_only=True)
    await server.start_unix(str(tmp_path / "socket"))
    try:
        async with closing(client_of(dialer(server.address))) as client:
            assert await client.store(b"set", b"k", b"v", 0, 0) == b"STORED"
            assert (await client.fetch([b"k"]))[b"k"].value == b"v"
    finally:
        await server.stop()
