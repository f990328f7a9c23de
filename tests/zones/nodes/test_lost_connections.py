"""Nodes with several connections, and connections that end."""

import asyncio
import logging

import pytest

from evcache.zones.errors import ConnectionLost, NodeUnavailable
from evcache.zones.testing import FakeMemcached
from tests.support.node_bench import LONGEST_PAUSE, Bench
from tests.support.scripted import outcome
from tests.support.virtual_time import in_virtual_time, now, settle


@in_virtual_time
async def test_several_connections_are_opened_and_used_in_turn():
    async with Bench(connections=3) as bench:
        await bench.connected()
        await settle(100)
        assert bench.server.connections == 3
        used = [bench.node.connection() for _ in range(9)]
        assert set(used[:3]) == set(bench.dialer.made)
        assert used[:3] == used[3:6] == used[6:]
        await asyncio.sleep(60)
        assert bench.attempts == 3


@in_virtual_time
async def test_one_of_several_that_ends_is_replaced_at_the_next_call():
    async with Bench(connections=3) as bench:
        await bench.connected()
        await settle(100)
        bench.dialer.made[0].abort()
        await settle(100)
        others = {bench.node.connection() for _ in range(10)}
        await settle(100)
        assert bench.dialer.made[0] not in others
        assert len({bench.node.connection() for _ in range(9)}) == 3
        assert bench.attempts == 4


@in_virtual_time
async def test_one_connection_is_enough_to_go_on_while_more_are_refused():
    async with Bench(connections=2) as bench:
        await bench.connected()
        await settle(100)
        assert bench.attempts == 2
        bench.refuse()
        bench.dialer.made[0].abort()
        for _ in range(10):
            assert (await (await bench.ask())).status == b"EN"
            await asyncio.sleep(1)
        assert bench.attempts > 5
        assert not bench.node.is_down
        assert bench.node.state == "ready"
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE + 0.001)
        assert bench.server.connections == 2


@in_virtual_time
async def test_it_is_down_only_when_the_last_of_several_connections_has_ended(caplog):
    """Being refused another one is no outage; with none left it is one at once, without a further attempt."""
    caplog.set_level(logging.INFO, "evcache.zones.nodes")
    async with Bench(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.refuse()
        bench.dialer.made[0].abort()
        assert bench.node.connection() is bench.dialer.made[1]  # and asks for another
        await asyncio.sleep(LONGEST_PAUSE)
        assert (bench.node.state, bench.health.unhealthy, caplog.messages) == ("ready", 0, [])
        bench.dialer.made[1].abort()
        assert (bench.node.state, bench.health.unhealthy) == ("down", 1)
        assert len(caplog.messages) == 1
        with pytest.raises(NodeUnavailable, match="refused"):
            await bench.connected()


@in_virtual_time
async def test_lost_while_idle_it_is_connected_again_on_demand_only():
    async with Bench() as bench:
        await bench.connected()
        await bench.hang_up()
        await asyncio.sleep(600)
        assert bench.attempts == 1
        assert bench.node.state == "idle"
        assert not bench.node.is_down
        assert bench.node.connection() is None
        assert (await bench.connected()).is_open
        assert bench.attempts == 2


@in_virtual_time
async def test_lost_while_busy_it_is_connected_again_at_once():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        await settle()
        other = bench.dialer.servers["host"] = FakeMemcached()
        await bench.server.kill()
        await settle(100)
        assert type(outcome(waits)) is ConnectionLost
        assert bench.attempts == 2
        assert bench.node.state == "ready"
        assert other.connections == 1
        assert now() == 0


@in_virtual_time
async def test_lost_by_an_answer_that_makes_no_sense_it_is_connected_again_at_once():
    """It was in use, also when the request that got the answer was the only one."""
    async with Bench() as bench:
        connection = await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        bench.server.resume()
        connection.data_received(b"garbage\r\n")
        assert outcome(waits).problem
        await settle(100)
        assert bench.attempts == 2
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_server_that_hangs_up_after_the_first_words_gives_its_callers_a_reason():
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        while bench.node.state != "ready":
            await asyncio.sleep(0)
        assert not caller.done()
        bench.dialer.made[0].abort("gone again")
        with pytest.raises(NodeUnavailable, match="as soon as it was made"):
            await caller
        assert not bench.node.is_down
        assert (await bench.connected()).is_open


@pytest.mark.parametrize("turns", range(60))
@in_virtual_time
async def test_a_connection_that_ends_at_any_moment_leaves_the_node_usable(turns):
    """The server closes the connection `turns` turns of the loop after the connect began."""
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        await settle(turns)
        await bench.server.stop()
        bench.server.revive()
        try:
            await caller
        except NodeUnavailable as error:
            assert "None" not in str(error)
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert (await bench.connected()).is_open
