"""Servers that close at the first question: the error says what they are, and what to do."""

import asyncio
import gc
import warnings

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.nodes.diagnosis import BINARY, CLOSES_ON_UNKNOWN, SASL, diagnose
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.byte_counter import ByteCounter
from tests.support.node_bench import Bench
from tests.support.odd_servers import BinarySession, Restarting, Server, Twemproxy
from tests.support.virtual_time import in_virtual_time, now, settle

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


@in_virtual_time
async def test_a_diagnosis_that_is_cancelled_before_its_questions_begin_leaves_no_coroutine():
    async def dialer(_endpoint, _factory):
        raise AssertionError("no question has begun")

    task = asyncio.create_task(diagnose(Endpoint.parse("127.0.0.1:1"), dialer, ByteCounter(), now() + 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
