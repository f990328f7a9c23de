"""Bytes that a node counts, on each transport: the server has read and written as many."""

import asyncio

import pytest

from evcache.zones.errors import NodeError
from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.byte_counter import ByteCounter
from tests.support.cores import TRANSPORTS, name_of, running
from tests.support.node_bench import TIMEOUT, Bench, ask, bench_of, call, kinds, time_out
from tests.support.odd_servers import BinarySession, Restarting, Server, Twemproxy
from tests.support.operations import delete, get, get_many, store, touch
from tests.support.virtual_time import in_virtual_time, settle


@pytest.fixture(params=TRANSPORTS, ids=name_of)
def classic_only(request):
    name, core = request.param
    with running(core):
        yield name == "classic"


def of_server(bench):
    """Return the bytes that the server has read and written."""
    counts = bench.server.store.counts
    return counts["bytes_read"], counts["bytes_written"]


def of_node(bench):
    return bench.traffic.sent, bench.traffic.received


@in_virtual_time
async def test_a_handshake_counts(classic_only):
    async with bench_of(classic_only) as bench:
        assert of_node(bench) == (0, 0)
        await bench.connected()
        assert of_node(bench) == of_server(bench)
        assert min(of_node(bench)) > 0


@in_virtual_time
async def test_operations_count(classic_only):
    """Among them is a value that is larger than the buffer of the socket."""
    async with bench_of(classic_only) as bench:
        connection = await bench.connected()
        operations = [
            store(b"k", b"value"),
            store(b"l", bytes(300_000)),
            get(b"k"),
            get(b"l"),
            get(b"nothing"),
            get_many([b"k", b"l", b"nothing"]),
            touch(b"k"),
            delete(b"l"),
        ]
        for operation in operations * 2:
            before = of_node(bench)
            answer = bench.loop.create_future()
            operation(connection, answer, bench.loop.time() + 60)
            await answer
            await settle()
            assert of_node(bench) == of_server(bench)
            assert of_node(bench) > before


@in_virtual_time
async def test_requests_whose_caller_is_cancelled_count(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        before = of_node(bench)
        bench.server.pause()
        answers = [await bench.ask() for _ in range(5)]
        await settle()
        for answer in answers:
            answer.cancel()
        bench.server.resume()
        await settle(100)
        assert of_node(bench) == of_server(bench)
        assert of_node(bench) > before


@in_virtual_time
async def test_counts_go_on_after_a_reconnect(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        first = of_node(bench)
        for number in range(2, 5):
            await bench.hang_up()
            await bench.connected()
            await settle()
            assert of_node(bench) == of_server(bench)
            assert of_node(bench) == (number * first[0], number * first[1])


@in_virtual_time
async def test_timeouts_and_probes_count(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        before = of_node(bench)
        await time_out(bench)
        assert bench.node.circuit == "open"
        while_stalled = of_node(bench)
        assert while_stalled[0] > before[0]
        await asyncio.sleep(5)
        assert of_node(bench)[0] > while_stalled[0], "probes"
        bench.server.resume()
        await asyncio.sleep(5)
        assert bench.node.state == "ready"
        # Replies on connections that the client has given up reach no socket of it.
        assert of_node(bench)[0] == of_server(bench)[0]
        assert of_node(bench)[1] <= of_server(bench)[1]


@kinds
@in_virtual_time
async def test_a_handshake_that_fails_counts(classic_only):
    """A server that is not used has had its bytes too."""
    auth = ("alice", "s3cret")
    async with Bench(FakeMemcached(auth=auth), transport="classic" if classic_only else "meta") as bench:
        with pytest.raises(NodeError, match=r"unauthenticated"):
            await bench.connected()
        await settle()
        assert of_node(bench) == of_server(bench)
        assert min(of_node(bench)) > 0


@in_virtual_time
async def test_a_handshake_that_finds_a_classic_server_counts_both_transports():
    async with bench_of(True) as both, bench_of(True, transport="classic") as one:
        await both.connected()
        await one.connected()
        await settle()
        assert of_node(both) == of_server(both)
        assert of_node(both) > of_node(one) == of_server(one)


class Measured:
    """A session that adds up what it reads and writes."""

    def __init__(self, session, total):
        self._session = session
        self._total = total

    @property
    def closed(self):
        return self._session.closed

    def receive(self, data):
        replies = self._session.receive(data)
        self._total.sent += len(data)
        self._total.received += len(replies)
        return replies


@pytest.mark.parametrize("make", [lambda _: BinarySession(sasl=True), Twemproxy, lambda _: Restarting()])
@in_virtual_time
async def test_the_diagnosis_of_a_server_that_closes_counts(make):
    """The client asks on two connections of their own why the server closed."""
    total = ByteCounter()
    server = Server(lambda _, session: Measured(make(session), total))
    async with Bench(server) as bench:
        with pytest.raises(NodeError):
            await bench.connected()
        await settle()
        assert server.made >= 3
        assert of_node(bench) == (total.sent, total.received)


@in_virtual_time
async def test_counts_stay_when_the_node_is_closed(classic_only):
    async with bench_of(classic_only) as bench:
        await call(bench)
        waiter = await ask(bench)
        await settle()
        before = of_node(bench)
        await bench.node.close(TIMEOUT)
        assert waiter.told
        assert of_node(bench) >= before
        assert of_node(bench) == of_server(bench)
