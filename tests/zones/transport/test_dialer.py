"""Connecting to a name with several addresses."""

import asyncio
import contextlib
import socket

import pytest

from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport import dialer
from evcache.zones.transport.dialer import ALL_BEGUN, ATTEMPT_DELAY, SocketDialer, connect_first, in_turn
from tests.support.virtual_time import in_virtual_time, now, settle

HANG = None


class Network:
    """Outcome of a connect to each address: a time, and an error or None."""

    def __init__(self, monkeypatch, *ways):
        self.ways = ways
        self.begun = []
        self.sockets = []
        monkeypatch.setattr(dialer, "_connect", self._connect)

    @property
    def addresses(self):
        return [(socket.AF_INET, (f"10.0.0.{number}", 1)) for number in range(len(self.ways))]

    async def _connect(self, address):
        number = int(address[1][0].rpartition(".")[2])
        self.begun.append((number, now()))
        sock = socket.socket()
        self.sockets.append(sock)
        try:
            way = self.ways[number]
            if way is HANG:
                await asyncio.get_running_loop().create_future()
            after, error = way
            await asyncio.sleep(after)
            if error is not None:
                raise error
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def open(self):
        return [number for number, sock in enumerate(self.sockets) if sock.fileno() != -1]


REFUSED = (0.001, ConnectionRefusedError(111, "refused"))
AT_ONCE = (0.001, None)
CASES = {
    # How each address answers, which one is used, and when.
    "one": ([AT_ONCE], 0, 0.001),
    "the first of two": ([AT_ONCE, AT_ONCE], 0, 0.001),
    "the first refuses": ([REFUSED, AT_ONCE], 1, 0.002),
    "the first swallows packets": ([HANG, AT_ONCE], 1, ATTEMPT_DELAY + 0.001),
    "two swallow packets": ([HANG, HANG, AT_ONCE], 2, 2 * ATTEMPT_DELAY + 0.001),
    "the first is slow, and still the first": ([(0.15, None), (0.1, None)], 0, 0.15),
    "the first is slower than the second": ([(0.3, None), (0.1, None)], 1, ATTEMPT_DELAY + 0.1),
    "the first fails after the second has begun": ([(0.15, OSError("no route")), (0.1, None)], 1, ATTEMPT_DELAY + 0.1),
    "nine swallow packets": ([*[HANG] * 9, AT_ONCE], 9, 9 * ALL_BEGUN / 10 + 0.001),
}


@pytest.mark.parametrize("name", CASES)
@in_virtual_time
async def test_the_first_address_that_answers_is_used(name, monkeypatch):
    ways, winner, when = CASES[name]
    network = Network(monkeypatch, *ways)
    sock = await connect_first(network.addresses)
    assert now() == pytest.approx(when)
    assert network.sockets[winner] is sock
    await settle()
    assert network.open == [winner]
    sock.close()


@pytest.mark.parametrize("ways", [[REFUSED], [REFUSED] * 3])
@in_virtual_time
async def test_if_no_address_answers_the_error_names_each(ways, monkeypatch):
    network = Network(monkeypatch, *ways)
    with pytest.raises(OSError, match="refused") as caught:
        await connect_first(network.addresses)
    assert all(address[0] in str(caught.value) for _, address in network.addresses) or len(ways) == 1
    assert network.open == []


@pytest.mark.parametrize("when", [0.0, 0.05, 0.15, 0.2, 0.2005, 0.25])
@in_virtual_time
async def test_cancelling_closes_every_socket(when, monkeypatch):
    network = Network(monkeypatch, HANG, (0.1, None), HANG)
    task = asyncio.create_task(connect_first(network.addresses))
    await asyncio.sleep(when)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await task).close()
    await settle()
    assert network.open == []


@in_virtual_time
async def test_two_that_connect_at_the_same_moment_leave_one_socket(monkeypatch):
    network = Network(monkeypatch, (ATTEMPT_DELAY + 0.05, None), (0.05, None))
    sock = await connect_first(network.addresses)
    await settle()
    assert len(network.open) == 1
    sock.close()


def test_families_take_turns_from_the_preferred_one():
    v6 = [(socket.AF_INET6, (f"::{number}", 1, 0, 0)) for number in range(3)]
    v4 = [(socket.AF_INET, (f"10.0.0.{number}", 1)) for number in range(2)]
    assert in_turn([*v6, *v4]) == [v6[0], v4[0], v6[1], v4[1], v6[2]]
    assert in_turn([*v4, v6[0]]) == [v4[0], v6[0], v4[1]]
    assert in_turn(v4) == v4


def resolving_to(monkeypatch, *addresses):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_a_name_whose_first_address_refuses_is_connected_to_on_sockets(monkeypatch):
    async def main():
        async with FakeMemcached() as server:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                closed_at = closed.getsockname()
                resolving_to(monkeypatch, closed_at, ("127.0.0.1", server.port))
                dial, endpoint = SocketDialer(), Endpoint.parse("cache.example")
                protocol = asyncio.Protocol()
                assert await dial(endpoint, lambda: protocol) is protocol
            assert server.connections_total == 1
            assert await dial.addresses(endpoint) == {closed_at, ("127.0.0.1", server.port)}

    asyncio.run(main())


def test_small_requests_leave_at_once(monkeypatch):
    """Nagle's algorithm is off, on each kind of loop."""
    made = []

    class Watch(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    async def main():
        async with FakeMemcached() as server:
            await SocketDialer()(Endpoint.parse(server.address), Watch)
            sock = made[0].get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            made[0].abort()
            await asyncio.sleep(0)

    asyncio.run(main())
