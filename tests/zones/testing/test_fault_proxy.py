"""FaultProxy, in front of a server that answers every chunk with the same bytes."""

import asyncio
import contextlib
import gc
import socket

import pytest

from evcache.zones.testing.fault_proxy.pipes import HELD_BYTES_MAX
from evcache.zones.testing.fault_proxy.proxy import FaultProxy

AN_HOUR = 3600
LIMIT = 5  # seconds after which a test that hangs is ended


class Echo:
    """The server; it notes what it was sent, all connections together."""

    def __init__(self):
        self.got = bytearray()
        self.ends = 0
        self.writers = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = address_of(self.server.sockets[0])
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.server.wait_closed()
        await until(lambda: not self.writers)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    self.got += data
                    writer.write(data)
                self.ends += 1
        finally:
            writer.close()
            self.writers.discard(writer)


class Client(asyncio.Protocol):
    """Keeps the chunks it received apart, and says how the connection ended."""

    def __init__(self):
        self.chunks = []
        self.ended = None
        self._news = asyncio.Event()

    @classmethod
    async def connect(cls, address):
        host, port = address.split(":")
        transport, client = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        client.transport = transport
        return client

    @property
    def got(self):
        return b"".join(self.chunks)

    def send(self, data):
        self.transport.write(data)

    def data_received(self, data):
        self.chunks.append(data)
        self._news.set()

    def connection_lost(self, exc):
        self.ended = "reset" if isinstance(exc, ConnectionResetError) else exc or "end"
        self._news.set()

    async def receive(self, data):
        """Wait until exactly this has arrived since the last call."""
        while sum(map(len, self.chunks)) < len(data):
            assert self.ended is None, (self.ended, self.got)
            self._news.clear()
            await self._news.wait()
        assert self.got == data
        self.chunks = []

    async def end(self):
        while self.ended is None:
            self._news.clear()
            await self._news.wait()
        return self.ended


def address_of(listener):
    return "{}:{}".format(*listener.getsockname())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def turns_of_the_loop(number=50):
    """Let the loop do all that it can do without time passing."""
    for _ in range(number):
        await asyncio.sleep(0)


def run(scenario, clients=1):
    """Run `scenario(proxy, echo, *clients)`; afterwards no task and no socket may be left."""

    async def main():
        async with asyncio.timeout(LIMIT), Echo() as echo, FaultProxy(echo.address) as proxy:
            connected = [await Client.connect(proxy.address) for _ in range(clients)]
            try:
                await scenario(proxy, echo, *connected)
            finally:
                for client in connected:
                    client.transport.abort()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(main())
    gc.collect()  # an unclosed socket or transport is a ResourceWarning, and so an error


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
    """Neither side hears of it, and a new connection works."""

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
