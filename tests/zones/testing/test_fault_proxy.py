"""FaultProxy, in front of a server that answers every chunk with the same bytes."""

import asyncio
import socket

import pytest

from evcache.zones.testing.fault_proxy.pipes import HELD_BYTES_MAX
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from tests.support.proxy_peers import AN_HOUR, LIMIT, Client, address_of, run, turns_of_the_loop, until


def test_without_faults_bytes_pass_in_both_directions():
    async def scenario(proxy, echo, client):
        client.send(b"one")
        await client.receive(b"one")
        client.send(b"x" * 3_000_000)
        await client.receive(b"x" * 3_000_000)

    run(scenario)


def test_connections_are_counted():
    async def scenario(proxy, echo, first, second):
        await until(lambda: proxy.connections == 2)
        first.transport.abort()
        await until(lambda: proxy.connections == 1)
        assert proxy.connections_total == 2

    run(scenario, clients=2)


def test_a_client_may_close_its_direction_and_still_gets_its_replies():
    async def scenario(proxy, echo, client):
        proxy.stall = True
        client.send(b"last words")
        client.transport.write_eof()
        await turns_of_the_loop()
        proxy.stall = False
        await client.receive(b"last words")
        assert await client.end() == "end"
        assert echo.ends == 1

    run(scenario)


def test_a_server_that_closes_ends_the_clients_connection():
    async def scenario(proxy, echo, client):
        client.send(b"x")
        await client.receive(b"x")
        (server_side,) = echo.writers
        server_side.close()
        assert await client.end() == "end"
        await until(lambda: proxy.connections == 0)

    run(scenario)


def test_a_client_that_resets_resets_the_servers_connection():
    async def scenario(proxy, echo, client):
        client.send(b"x")
        await client.receive(b"x")
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.transport.abort()
        await until(lambda: not echo.writers)
        assert echo.ends == 0

    run(scenario)


def test_a_server_that_is_gone_means_a_reset():
    async def main():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with asyncio.timeout(LIMIT), FaultProxy(address_of(unused)) as proxy:
                client = await Client.connect(proxy.address)
                assert await client.end() == "reset"

    asyncio.run(main())


def test_a_stall_holds_both_directions_and_new_connections_until_it_is_over():
    async def scenario(proxy, echo, client):
        proxy.stall = True
        client.send(b"held")
        late = await Client.connect(proxy.address)
        late.send(b"late")
        await turns_of_the_loop()
        assert (client.got, late.got, echo.got) == (b"", b"", b"")
        proxy.stall = False
        await client.receive(b"held")
        await late.receive(b"late")
        late.transport.abort()

    run(scenario)


def test_forgotten_connections_stay_open_and_carry_nothing():
    """Neither side gets a notice, and a new connection works."""

    async def scenario(proxy, echo, client):
        client.send(b"before")
        await client.receive(b"before")
        proxy.forget_connections()
        client.send(b"lost")
        late = await Client.connect(proxy.address)
        late.send(b"late")
        await late.receive(b"late")
        await turns_of_the_loop()
        assert (client.got, client.ended, bytes(echo.got)) == (b"", None, b"beforelate")
        assert proxy.connections == 2
        late.transport.abort()

    run(scenario)


def test_stalled_replies_let_requests_through():
    async def scenario(proxy, echo, client):
        proxy.stall_replies = True
        client.send(b"done but not heard of")
        await until(lambda: echo.got == b"done but not heard of")
        await turns_of_the_loop()
        assert client.got == b""
        proxy.stall_replies = False
        await client.receive(b"done but not heard of")

    run(scenario)


def test_a_stalled_proxy_takes_a_bounded_number_of_bytes():
    async def scenario(proxy, echo, client):
        proxy.stall = True
        size = 32 * HELD_BYTES_MAX  # the kernel takes some 10 MB of it
        client.send(b"x" * size)
        left = None
        while client.transport.get_write_buffer_size() != left:
            left = client.transport.get_write_buffer_size()
            await asyncio.sleep(0.005)
        assert left > 0
        proxy.stall = False
        await client.receive(b"x" * size)

    run(scenario)


@pytest.mark.parametrize("direction", ["delay", "delay_requests"])
def test_a_delay_holds_bytes_back(direction):
    async def scenario(proxy, echo, client):
        loop = asyncio.get_running_loop()
        setattr(proxy, direction, 0.02)
        started = loop.time()
        client.send(b"x")
        await client.receive(b"x")
        assert loop.time() - started >= 0.02

    run(scenario)


def test_a_delay_of_replies_does_not_delay_requests():
    async def scenario(proxy, echo, client):
        proxy.delay = AN_HOUR
        client.send(b"x")
        await until(lambda: echo.got == b"x")
        await turns_of_the_loop()
        assert client.got == b""

    run(scenario)


def test_a_delay_that_ends_early_releases_what_it_held_in_order():
    async def scenario(proxy, echo, client):
        proxy.delay = AN_HOUR
        for number in range(1, 21):
            client.send(b"%2d " % number)
            await until(lambda: len(echo.got) == 3 * number)  # noqa: B023 - called before number moves on
        assert client.got == b""
        proxy.delay = 0
        await client.receive(bytes(echo.got))

    run(scenario)


def test_a_delay_is_latency_and_not_a_limit_of_throughput():
    """Fifty chunks, 1 ms apart, held for 20 ms each: together they take 70 ms and not 1000."""

    async def scenario(proxy, echo, client):
        loop = asyncio.get_running_loop()
        proxy.delay = 0.02
        started = loop.time()
        for _ in range(50):
            client.send(b"x")
            await asyncio.sleep(0.001)
        await client.receive(b"x" * 50)
        assert loop.time() - started < 0.9

    run(scenario)


@pytest.mark.parametrize("size", [1, 3])
def test_fragments_arrive_one_by_one(size):
    async def scenario(proxy, echo, client):
        proxy.fragment = size
        client.send(b"VALUE 12")
        await until(lambda: client.got == b"VALUE 12")
        assert client.chunks == [b"VALUE 12"[at : at + size] for at in range(0, 8, size)]
        proxy.fragment = None
        client.chunks = []
        client.send(b"VALUE 12")
        await until(lambda: client.got == b"VALUE 12")
        assert client.chunks == [b"VALUE 12"]

    run(scenario)
