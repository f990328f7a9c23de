"""While calls have nowhere to go, nodes that are down are looked at every few seconds, however long it has lasted."""

import asyncio

import pytest

from evcache.zones.errors import NodeTimeout
from evcache.zones.health.circuit_breaker import URGENT_SHARE, CircuitLimits
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.routing.zone_order import is_emergency
from tests.support.cluster_bench import Bench
from tests.support.virtual_time import in_virtual_time, now

LIMITS = CircuitLimits()
URGENT = LIMITS.urgent_pause * (1 + LIMITS.jitter)  # upper bound in seconds
FIRST_URGENT = LIMITS.first_pause * URGENT_SHARE * (1 + LIMITS.jitter)
MINUTES = 600.0  # an outage after which ordinary pauses are as long as they get


@pytest.mark.parametrize(
    ("out", "zones", "urgent"),
    [(0, 1, False), (1, 1, True), (1, 2, False), (2, 2, True), (1, 3, False), (2, 3, True), (3, 3, True), (1, 5, False)],
)
def test_one_zone_is_what_the_others_are_there_for(out, zones, urgent):
    assert is_emergency(out, zones) is urgent


async def urgent_for(bench, *hosts):
    """The hosts answer again; seconds until calls have somewhere to go."""
    for host in hosts:
        bench.servers[host].revive()
        bench.dialer.servers[host] = bench.servers[host]
    began = now()
    while bench.cluster.view.health.urgent:
        await asyncio.sleep(0.1)
    return now() - began


@in_virtual_time
async def test_after_minutes_in_which_all_zones_were_out_they_are_back_soon():
    async with Bench("a=h1;b=h2;c=h3", local="a") as bench:
        await bench.die("h1", "h2", "h3")
        await asyncio.sleep(MINUTES)
        assert bench.cluster.view.health.urgent
        assert await urgent_for(bench, "h1", "h2", "h3") <= URGENT + 0.2
        assert len(bench.cluster.view.ejected) <= 1


@in_virtual_time
async def test_one_zone_of_three_is_not_looked_at_more_often():
    async with Bench("a=h1;b=h2;c=h3", local="a") as bench:
        await bench.die("h1")
        await asyncio.sleep(MINUTES)
        assert not bench.cluster.view.health.urgent
        before = len(bench.attempts)
        await asyncio.sleep(MINUTES)
        assert len(bench.attempts) - before <= MINUTES / LIMITS.longest_pause + 1


@in_virtual_time
async def test_a_node_in_the_middle_of_a_long_pause_is_looked_at_when_it_becomes_urgent():
    """One zone has been out for minutes; it answers again, unnoticed, and then a second one dies."""
    async with Bench("a=h1;b=h2;c=h3", local="a") as bench:
        await bench.die("h1")
        await asyncio.sleep(MINUTES)
        attempts = len(bench.attempts)
        while len(bench.attempts) == attempts:  # the next probe is then half a minute away
            await asyncio.sleep(0.1)
        bench.servers["h1"].revive()
        bench.dialer.servers["h1"] = bench.servers["h1"]
        await bench.die("h2")
        assert await urgent_for(bench) <= URGENT + 0.2
        assert bench.cluster.view.ejected == {"b"}


@in_virtual_time
async def test_a_cache_of_one_zone_that_stood_still_for_a_moment_is_back_in_a_moment():
    """There is nowhere else to go: to be without it for a second would be worse than a probe too many."""
    async with Bench("a=h1", local="a") as bench:
        (node,) = bench.cluster.nodes.values()
        loop = asyncio.get_running_loop()
        connection = await node.connected(loop.time() + 1)
        bench.servers["h1"].pause()
        answers = [loop.create_future() for _ in range(3)]
        for answer in answers:
            connection.get(b"k", READ_FIELDS, answer, loop.time() + 0.03)
        await asyncio.wait(answers)
        assert [type(answer.exception()) for answer in answers] == [NodeTimeout] * 3
        assert node.is_down
        bench.servers["h1"].resume()
        began = now()
        while node.is_down:
            await asyncio.sleep(0.01)
        assert now() - began <= FIRST_URGENT + 0.01
        assert node.connection() is connection
