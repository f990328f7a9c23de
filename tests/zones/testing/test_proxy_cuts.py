"""Ends of connections through a fault proxy: cuts, resets, refusals, and the end of the proxy."""

import asyncio
import gc

import pytest

from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from tests.support.proxy_peers import AN_HOUR, Client, Echo, run, turns_of_the_loop, until


@pytest.mark.parametrize("fragment", [None, 1])
@pytest.mark.parametrize("reply_bytes", [0, 1, 3, 8])
def test_a_cut_ends_the_connection_after_so_many_reply_bytes(reply_bytes, fragment):
    async def scenario(proxy, echo, client):
        proxy.fragment = fragment
        proxy.cut_after(reply_bytes)
        client.send(b"VALUE 12")
        assert await client.end() == "end"
        assert client.got == b"VALUE 12"[:reply_bytes]
        assert echo.got == b"VALUE 12"
        await until(lambda: proxy.connections == 0)

    run(scenario)


@pytest.mark.parametrize("reply_bytes", [0, 3])
def test_a_reset_ends_the_connection_with_an_error(reply_bytes):
    async def scenario(proxy, echo, client):
        proxy.reset_after(reply_bytes)
        client.send(b"VALUE 12")
        assert await client.end() == "reset"
        assert client.got == b"VALUE 12"[:reply_bytes]

    run(scenario)


def test_a_cut_counts_over_replies_and_connections_and_happens_once():
    async def scenario(proxy, echo, first, second):
        proxy.cut_after(5)
        first.send(b"123")
        await first.receive(b"123")
        second.send(b"123")
        assert await second.end() == "end"
        assert second.got == b"12"
        first.send(b"123456")
        await first.receive(b"123456")

    run(scenario, clients=2)


@pytest.mark.parametrize("request_bytes", [0, 3])
def test_a_cut_of_requests_leaves_the_server_with_a_part(request_bytes):
    async def scenario(proxy, echo, client):
        proxy.stall_replies = True
        proxy.cut_requests_after(request_bytes)
        client.send(b"set key")
        assert await client.end() == "end"
        await until(lambda: not echo.writers)
        assert echo.got == b"set key"[:request_bytes]

    run(scenario)


def test_injected_bytes_come_right_before_the_next_reply_and_once():
    async def scenario(proxy, echo, client):
        proxy.inject(b"garbage\r\n")
        await turns_of_the_loop()
        assert client.got == b""
        client.send(b"HD\r\n")
        await client.receive(b"garbage\r\nHD\r\n")
        client.send(b"HD\r\n")
        await client.receive(b"HD\r\n")

    run(scenario)


def test_refused_connections_are_reset_and_open_ones_go_on():
    async def scenario(proxy, echo, client):
        client.send(b"x")
        await client.receive(b"x")
        proxy.refuse = True
        refused = await Client.connect(proxy.address)
        assert await refused.end() == "reset"
        client.send(b"y")
        await client.receive(b"y")
        proxy.refuse = False
        welcome = await Client.connect(proxy.address)
        welcome.send(b"z")
        await welcome.receive(b"z")
        welcome.transport.abort()
        assert proxy.connections_total == 2

    run(scenario)


@pytest.mark.parametrize(("reset", "seen"), [(False, "end"), (True, "reset")])
def test_dropped_connections_are_closed_when_the_call_returns(reset, seen):
    async def scenario(proxy, echo, first, second):
        await until(lambda: proxy.connections == 2)
        proxy.stall = True
        first.send(b"lost")
        await turns_of_the_loop()
        await proxy.drop_connections(reset=reset)
        assert proxy.connections == 0
        assert (await first.end(), await second.end()) == (seen, seen)
        assert echo.got == b""

    run(scenario, clients=2)


def test_stop_closes_a_connection_whose_client_does_not_read():
    async def scenario(proxy, echo, client):
        client.transport.pause_reading()
        client.send(b"x" * 20_000_000)
        await until(lambda: len(echo.got) > 1_000_000)
        await proxy.stop()
        assert proxy.connections == 0

    run(scenario)


def test_it_starts_again_on_the_same_address():
    async def scenario(proxy, echo, client):
        address = proxy.address
        await proxy.stop()
        await proxy.stop()
        assert await client.end() == "reset"
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(address)
        await proxy.start()
        await proxy.start()
        assert proxy.address == address
        again = await Client.connect(address)
        again.send(b"x")
        await again.receive(b"x")
        again.transport.abort()

    run(scenario)


def test_a_start_that_is_cancelled_leaves_no_socket():
    async def main():
        for turns in range(8):
            proxy = FaultProxy("127.0.0.1:11211")
            starting = asyncio.create_task(proxy.start())
            await turns_of_the_loop(turns)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                await proxy.stop()

    asyncio.run(main())
    gc.collect()


@pytest.mark.parametrize("turns", range(8))
def test_a_stop_after_one_that_was_cancelled_waits_for_connections(turns):
    async def scenario(proxy, echo, client):
        client.send(b"x")
        await client.receive(b"x")
        stopping = asyncio.create_task(proxy.stop())
        await turns_of_the_loop(turns)
        stopping.cancel()
        await asyncio.wait([stopping])
        await proxy.stop()
        assert proxy.connections == 0
        assert await client.end() == "reset"

    run(scenario)


def test_a_loop_that_ends_without_stop_leaves_no_socket():
    async def main():
        async with Echo() as echo:
            proxy = FaultProxy(echo.address)
            await proxy.start()
            proxy.delay = AN_HOUR
            client = await Client.connect(proxy.address)
            client.send(b"x")
            await until(lambda: echo.got == b"x")
            client.transport.abort()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await until(lambda: proxy.connections == 0)
            await proxy.stop()

    asyncio.run(main())
    gc.collect()


def test_mistakes_are_errors():
    for target in ("", "host", "host:", ":11211", "host:port"):
        with pytest.raises(ValueError):
            FaultProxy(target)

    async def main():
        proxy = FaultProxy("127.0.0.1:11211")
        with pytest.raises(RuntimeError):
            str(proxy.address)
        with pytest.raises(ValueError):
            proxy.delay = -1
        with pytest.raises(ValueError):
            proxy.delay_requests = float("nan")
        with pytest.raises(ValueError):
            proxy.fragment = 0
        with pytest.raises(ValueError):
            proxy.cut_after(-1)

    asyncio.run(main())
