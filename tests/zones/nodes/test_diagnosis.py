"""Servers that close at the first question: the error says what they are, and what to do."""

import struct

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.nodes.diagnosis import BINARY, CLOSES_ON_UNKNOWN, SASL
from evcache.zones.testing import FakeMemcached
from tests.support.node_bench import Bench
from tests.support.virtual_time import in_virtual_time, now, settle

HEADER = struct.Struct(">BBHBBHIIQ")


class BinarySession:
    """As memcached 1.6 with `-B binary` or `-S`, before a login."""

    def __init__(self, *, sasl):
        self.closed = False
        self._sasl = sasl
        self._buffer = b""

    def receive(self, data):
        self._buffer += data
        replies = b""
        while len(self._buffer) >= HEADER.size and not self.closed:
            magic, opcode, *_ = HEADER.unpack(self._buffer[: HEADER.size])
            self._buffer = self._buffer[HEADER.size :]
            if magic != 0x80:
                self.closed = True
            elif opcode == 0x0B:
                replies += self._response(opcode, 0, b"1.6.38")
            elif opcode == 0x20 and self._sasl:
                replies += self._response(opcode, 0, b"PLAIN")
            else:
                replies += self._response(opcode, 0x81, b"Unknown command")
        return replies

    def _response(self, opcode, status, body):
        return HEADER.pack(0x81, opcode, 0, 0, 0, status, len(body), 0, 0) + body


class Twemproxy:
    """Knows the classic commands, and closes without a word on any that is not among them."""

    def __init__(self, behind):
        self.closed = False
        self._behind = behind

    def receive(self, data):
        if not data.startswith((b"get ", b"gets ", b"set ", b"delete ")):
            self.closed = True
            return b""
        return self._behind.receive(data)


class Restarting:
    """Closes its first connection, and is a memcached as ever on the next ones."""

    def __init__(self):
        self.closed = False

    def receive(self, _):
        self.closed = True
        return b""


class Server(FakeMemcached):
    """A server in memory whose connections are made by `make(session)`."""

    def __init__(self, make):
        super().__init__()
        self._make = make
        self.made = 0

    def session(self):
        self.made += 1
        return self._make(self, super().session())


SERVERS = {
    "-B binary": (lambda *_: BinarySession(sasl=False), BINARY),
    "-S": (lambda *_: BinarySession(sasl=True), SASL),
    "twemproxy": (lambda _, session: Twemproxy(session), CLOSES_ON_UNKNOWN),
}


@pytest.mark.parametrize("auth", [None, ("ada", "secret")], ids=["no login", "login"])
@pytest.mark.parametrize("transport", ["auto", "meta", "classic"])
@pytest.mark.parametrize("name", SERVERS)
@in_virtual_time
async def test_the_error_names_what_was_found_and_the_remedy(name, transport, auth):
    make, remedy = SERVERS[name]
    async with Bench(Server(make), transport=transport, auth=auth) as bench:
        if (name, transport) == ("twemproxy", "classic"):
            assert (await (await bench.ask())).status == b"EN"
            return
        with pytest.raises(NodeUnavailable) as caught:
            await bench.connected()
        assert remedy in str(caught.value)
        assert "secret" not in str(caught.value)
        assert now() < 0.5
        await settle()
        assert bench.server.connections == 0


@in_virtual_time
async def test_a_server_that_closes_once_is_not_taken_for_a_proxy():
    async with Bench(Server(lambda server, session: Restarting() if server.made == 1 else session)) as bench:
        with pytest.raises(NodeUnavailable, match="closed by the server"):
            await bench.connected()


@pytest.mark.parametrize("transport", ["auto", "classic"])
@in_virtual_time
async def test_a_server_that_always_closes_is_reported_as_it_is(transport):
    async with Bench(Server(lambda *_: Restarting()), transport=transport) as bench:
        with pytest.raises(NodeUnavailable, match="closed by the server"):
            await bench.connected()


@pytest.mark.parametrize("turns", range(0, 24, 2))
@in_virtual_time
async def test_close_in_the_middle_of_a_diagnosis_leaves_nothing(turns):
    """`Bench` and `in_virtual_time` look for connections and tasks that are left."""
    async with Bench(Server(lambda *_: BinarySession(sasl=False))) as bench:
        bench.node._reconnector.start()  # noqa: SLF001
        await settle(turns)
        await bench.node.close()


@in_virtual_time
async def test_a_diagnosis_that_gets_no_answer_takes_a_quarter_of_the_connect_timeout():
    class Silent:
        closed = False

        def receive(self, _):
            return b""

    async with Bench(Server(lambda server, _: Restarting() if server.made == 1 else Silent()), connect_timeout=1.0) as bench:
        with pytest.raises(NodeUnavailable, match="closed by the server"):
            await bench.connected()
        assert now() == pytest.approx(0.25)
