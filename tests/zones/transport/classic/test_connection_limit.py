"""A server at its limit of connections: the connections that a pool has serve every call."""

import asyncio
import logging

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.replies import Reply
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.classic.pool import RETRY_SECONDS, PoolLimits
from tests.support.operations import get
from tests.support.scripted import FAR, MemoryDialer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle

CONNECTIONS = 3
GET = get(b"k")


class LimitedDialer(MemoryDialer):
    """Connects to a server at its limit as one run with `no_maxconns_fast` does: over the limit, nothing is ever answered."""

    def __init__(self, server):
        super().__init__(host=server)
        self.limit = CONNECTIONS
        self.backlog = FakeMemcached(classic_only=True)  # connections that the kernel has, and the server has not accepted
        self.backlog.pause()

    async def __call__(self, endpoint, factory):
        server = self.servers["host"]
        self.attempts.append((endpoint.host, now()))
        _, connection = await (self.backlog if server.connections >= self.limit else server).connect(factory)
        return connection


class Bench:
    """A classic node on a server that takes three connections. `how`: `refused` or `silent` are those over the limit."""

    def __init__(self, how):
        self.loop = asyncio.get_running_loop()
        self.server = FakeMemcached(classic_only=True, max_connections=CONNECTIONS if how == "refused" else None)
        self.dialer = MemoryDialer(host=self.server) if how == "refused" else LimitedDialer(self.server)
        self.node = Node(Endpoint.parse("host"), NodeSettings(dialer=self.dialer, transport="classic"))

    async def __aenter__(self):
        self.connection = await self.node.connected(self.loop.time() + FAR)
        return self

    async def __aexit__(self, *_):
        await self.node.close()
        await settle()
        assert self.server.connections == 0

    def ask(self, operation=GET, *, within=FAR):
        answer = self.loop.create_future()
        operation(self.connection, answer, self.loop.time() + within)
        return answer

    async def burst(self, calls=60):
        """Make calls at once; what came of each."""
        answers = [self.ask() for _ in range(calls)]
        return await asyncio.gather(*answers, return_exceptions=True)

    def lift(self, limit=None):
        """Take more connections from now on."""
        self.server.max_connections = limit
        self.dialer.limit = FAR if limit is None else limit

    @property
    def attempts(self):
        return len(self.dialer.attempts)


HOW = pytest.mark.parametrize("how", ["refused", "silent"])


@HOW
def test_no_call_fails_while_connections_work(how, caplog):
    @in_virtual_time
    async def scenario():
        async with Bench(how) as bench:
            for _ in range(5):
                began = now()
                assert {type(told) for told in await bench.burst()} == {Reply}
                assert now() == began, "no call waits for a connection that does not open"
                await asyncio.sleep(0.3)
            assert bench.node.connection() is bench.connection
            assert bench.connection.connections == CONNECTIONS
        (warning,) = [record for record in caplog.records if record.name == "evcache.zones.transport"]
        assert warning.levelno == logging.WARNING
        assert "host:11211 takes no more than 3 connections" in warning.getMessage()

    scenario()


@HOW
def test_new_connections_are_tried_again_after_a_pause_one_at_a_time(how):
    @in_virtual_time
    async def scenario():
        async with Bench(how) as bench:
            await bench.burst()
            await asyncio.sleep(1)
            before, seconds = bench.attempts, 20
            for _ in range(seconds * 10):
                await bench.burst()
                await asyncio.sleep(0.1)
            assert 5 <= bench.attempts - before <= seconds / RETRY_SECONDS + 1
            bench.lift()
            for _ in range(40):
                await bench.burst()
                await asyncio.sleep(0.1)
            assert bench.connection.connections == PoolLimits().connections

    scenario()


@in_virtual_time
async def test_callers_that_wait_get_a_connection_when_the_pause_is_over():
    """The connections that work are all busy with requests that take long."""
    async with Bench("silent") as bench:
        await bench.burst()
        bench.server.pause()
        slow = [bench.ask() for _ in range(CONNECTIONS)]
        waiting = bench.ask()
        await asyncio.sleep(1)
        assert (outcome(waiting), bench.node.is_down) == (None, False)
        spare = FakeMemcached(classic_only=True)
        bench.dialer.backlog = spare
        await asyncio.sleep(1)
        assert outcome(waiting).status == b"EN"
        assert [outcome(answer) for answer in slow] == [None] * CONNECTIONS
        bench.server.resume()
        assert {(await answer).status for answer in slow} == {b"EN"}


@HOW
def test_call_waits_for_a_connection_until_its_deadline(how):
    @in_virtual_time
    async def scenario():
        async with Bench(how) as bench:
            await bench.burst()
            bench.server.pause()
            holding = [bench.ask() for _ in range(CONNECTIONS)]
            await settle()
            waiting = [bench.ask(within=0.2 + number / 100) for number in range(2)]
            began = now()
            for number, answer in enumerate(waiting):
                with pytest.raises(NodeTimeout):
                    await answer
                assert now() - began == pytest.approx(0.2 + number / 100)
            bench.server.resume()
            assert {(await answer).status for answer in holding} == {b"EN"}

    scenario()


@in_virtual_time
async def test_without_any_connection_the_calls_fail_and_the_node_looks():
    async with Bench("refused") as bench:
        await bench.burst()
        bench.server.pause()
        answers = [bench.ask() for _ in range(40)]
        await settle()
        await bench.server.stop()
        await settle(100)
        assert {type(outcome(answer)) for answer in answers} == {ConnectionLost, NodeUnavailable}
        assert now() == 0
        bench.server.revive()
        await asyncio.sleep(5)
        assert not bench.node.is_down


async def use(pool, until=None):
    """Borrow a connection, until the event is set if there is one."""
    async with pool.lend():
        if until is not None:
            await until.wait()


@in_virtual_time
async def test_a_cancelled_caller_takes_no_connection_with_it():
    """The caller is cancelled before, while and after the pool lends a connection to it."""
    async with Bench("refused") as bench:
        await bench.burst()
        pool = bench.connection._client._pool
        for turns in range(30):
            returned = asyncio.Event()
            holders = [asyncio.create_task(use(pool, returned)) for _ in range(CONNECTIONS)]
            waiting = [asyncio.create_task(use(pool)) for _ in range(4)]
            await settle(2)
            returned.set()
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            for task in waiting[:: 1 + turns % 3]:
                task.cancel()
            await asyncio.wait([*holders, *waiting])
            await settle()
            assert pool.size() == CONNECTIONS
            assert len(pool._idle) == CONNECTIONS


@in_virtual_time
async def test_closing_ends_those_who_wait_and_what_is_being_opened():
    async with Bench("silent") as bench:
        await bench.burst()
        bench.server.pause()
        answers = [bench.ask() for _ in range(10)]
        await asyncio.sleep(1.2)  # the next attempt is under way
        await bench.node.close()
        await settle()
        assert {type(outcome(answer)) for answer in answers} == {ConnectionLost}
        bench.server.resume()
        bench.dialer.backlog.resume()
        await settle()
        assert bench.dialer.backlog.connections == 0
