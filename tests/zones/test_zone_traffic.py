"""Bytes by the name of a zone. A count never falls, whatever nodes and zones come, leave and return."""

import asyncio
import random
from contextlib import suppress

import pytest

from evcache.zones.errors import NodeError
from tests.support.cluster_bench import Bench, ask, zones
from tests.support.virtual_time import in_virtual_time, settle


def totals(bench):
    return {zone: (counter.sent, counter.received) for zone, counter in bench.cluster.traffic.by_zone().items()}


def of_servers(bench, *hosts):
    """Return the bytes that these servers have read and written."""
    counts = [bench.servers[host].store.counts for host in hosts]
    return sum(count["bytes_read"] for count in counts), sum(count["bytes_written"] for count in counts)


async def use(bench):
    """Read from each node once."""
    for node in [*bench.cluster.nodes.values()]:
        await node.connected(asyncio.get_running_loop().time() + 1)
        await ask(node)
    await settle()


@in_virtual_time
async def test_each_zone_has_the_bytes_of_its_servers():
    async with Bench("a=h1,h2;b=h3;c!=h4") as bench:
        assert totals(bench) == {"a": (0, 0), "b": (0, 0), "c": (0, 0)}
        await use(bench)
        assert totals(bench) == {
            "a": of_servers(bench, "h1", "h2"),
            "b": of_servers(bench, "h3"),
            "c": of_servers(bench, "h4"),
        }
        assert min(totals(bench)["c"]) > 0


@in_virtual_time
async def test_the_bytes_of_the_gutter_have_its_name():
    async with Bench("a=h1", gutter="h2") as bench:
        await use(bench)
        assert totals(bench) == {"a": of_servers(bench, "h1"), "gutter": (0, 0)}
        node = bench.cluster.view.gutter.nodes[0]
        await node.connected(asyncio.get_running_loop().time() + 1)
        await ask(node)
        await settle()
        assert totals(bench) == {"a": of_servers(bench, "h1"), "gutter": of_servers(bench, "h2")}
        assert min(totals(bench)["gutter"]) > 0


@in_virtual_time
async def test_a_node_that_is_replaced_leaves_its_bytes_to_the_zone():
    async with Bench("a=h1,h2") as bench:
        await use(bench)
        bench.cluster.apply(zones("a=h1,h3"))
        await use(bench)
        assert totals(bench) == {"a": of_servers(bench, "h1", "h2", "h3")}


@in_virtual_time
async def test_replies_to_a_node_that_left_count():
    async with Bench("a=h1;b=h2") as bench:
        await use(bench)
        bench.servers["h1"].pause()
        answer = ask(bench.node("a h1"))
        await settle()
        before = totals(bench)["a"]
        bench.cluster.apply(zones("b=h2"))
        bench.servers["h1"].resume()
        await answer
        assert totals(bench)["a"][1] > before[1]
        assert totals(bench)["a"] == of_servers(bench, "h1")


@in_virtual_time
async def test_a_zone_that_returns_continues_its_count():
    async with Bench("a=h1;b=h2") as bench:
        await use(bench)
        before = totals(bench)
        bench.cluster.apply(zones("b=h2"))
        await asyncio.sleep(60)
        assert totals(bench)["a"] == before["a"]
        bench.cluster.apply(zones("a=h1,h3;b=h2"))
        await use(bench)
        assert totals(bench)["a"] == of_servers(bench, "h1", "h3")
        assert all(late > early for late, early in zip(totals(bench)["a"], before["a"], strict=True))


@in_virtual_time
async def test_a_server_that_moves_to_another_zone_counts_there_from_then_on():
    async with Bench("a=h1;b=h2") as bench:
        await use(bench)
        before = totals(bench)["a"]
        bench.cluster.apply(zones("b=h1,h2"))
        await use(bench)
        assert totals(bench)["a"] == before
        assert totals(bench)["b"] == tuple(
            both - first for both, first in zip(of_servers(bench, "h1", "h2"), before, strict=True)
        )


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "abandoned"])
@in_virtual_time
async def test_counts_stay_when_the_cluster_is_opened_again(closes):
    async with Bench("a=h1;b=h2", gutter="h3") as bench:
        await use(bench)
        before = totals(bench)
        nodes = list(bench.cluster.nodes.values())
        if closes:
            await bench.cluster.close(0.0)
            assert totals(bench) == before
        bench.cluster.reopen()
        assert totals(bench) == before
        bench.cluster.apply(zones("a=h1;b=h2"))
        await use(bench)
        assert totals(bench) == {zone: (2 * sent, 2 * received) for zone, (sent, received) in before.items()}
        for node in nodes:  # the loop of an abandoned cluster would have ended with its sockets
            node.abort()


TOPOLOGIES = ("a=h1;b=h2", "a=h1,h3;b=h2", "b=h2", "a=h4;b=h2,h5", "c!=h6;a=h1", "b=h1;a=h2")


async def disturb(bench, choose):
    """Do what happens to a cluster, in any order: use, stalls, lost connections, other topologies, an end."""
    match choose.choice(["use", "use", "stall", "lose", "change", "close", "wait"]):
        case "use":
            with suppress(NodeError):
                await use(bench)
        case "stall":
            server = bench.servers[choose.choice(["h1", "h2"])]
            server.pause()
            for node in bench.cluster.nodes.values():
                if node.connection() is not None:
                    ask(node, within=0.1).add_done_callback(lambda answer: answer.exception())
            await asyncio.sleep(choose.choice([0, 0.2, 2]))
            server.resume()
        case "lose":
            for transport in list(bench.servers[choose.choice(["h1", "h2", "h3"])]._memory):
                transport.hang_up(ConnectionResetError(104, "reset"))
        case "change":
            bench.cluster.apply(zones(choose.choice(TOPOLOGIES)))
        case "close":
            await bench.cluster.close(0.0)
            bench.cluster.reopen()
            bench.cluster.apply(zones(choose.choice(TOPOLOGIES)))
        case "wait":
            await asyncio.sleep(10)


@pytest.mark.parametrize("seed", range(20))
@in_virtual_time
async def test_no_count_ever_falls(seed):
    choose = random.Random(seed)
    async with Bench(TOPOLOGIES[0]) as bench:
        before = {}
        for _ in range(40):
            await disturb(bench, choose)
            after = totals(bench)
            assert before.keys() <= after.keys()
            for zone, (sent, received) in before.items():
                assert after[zone][0] >= sent
                assert after[zone][1] >= received
            before = after
        assert min(before["a"]) > 100
