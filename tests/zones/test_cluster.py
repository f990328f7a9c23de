"""One topology becomes the next under way: kept nodes keep their connections, and no request is lost."""

import asyncio
import random

import pytest

from evcache.zones.cluster import RETIRE_SECONDS
from evcache.zones.errors import ConnectionLost, NodeUnavailable
from evcache.zones.routing.ketama import Ring, ring_position
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.cluster_bench import Bench, ScriptedDiscovery, ask, zones
from tests.support.scripted import outcome
from tests.support.virtual_time import in_virtual_time, now, settle


@in_virtual_time
async def test_nothing_is_connected_before_it_is_asked_for():
    async with Bench("a=h1;b=h2") as bench:
        await asyncio.sleep(60)
        assert bench.attempts == []
        await bench.connect()
        assert bench.attempts == ["h1", "h2"]


@in_virtual_time
async def test_a_view_shows_the_zones():
    async with Bench("a=h1,h2;b=h3;c!=h4", local="b") as bench:
        view = bench.cluster.view
        assert [pool.name for pool in view.writers] == ["a", "b", "c"]
        assert {pool.name for pool in view.readers} == {"a", "b"}
        assert view.readers[0].name == view.local == "b"
        assert [pool.readable for pool in view.writers] == [True, True, False]
        assert [[node.label for node in pool.nodes] for pool in view.writers] == [
            ["h1:11211", "h2:11211"],
            ["h3:11211"],
            ["h4:11211"],
        ]
        assert view.topology == zones("a=h1,h2;b=h3;c!=h4")
        assert view.health.unhealthy == 0


@in_virtual_time
async def test_clients_differ_in_which_zone_they_ask_second():
    text = ";".join(f"z{number}=h1" for number in range(8))
    seconds = set()
    for _ in range(40):
        async with Bench(text, local="z0") as bench:
            assert bench.cluster.view.readers[0].name == "z0"
            seconds.add(bench.cluster.view.readers[1].name)
    assert len(seconds) > 2


@in_virtual_time
async def test_a_client_asks_in_one_order_whatever_changes():
    async with Bench("a=h1;b=h2;c=h3;d=h4") as bench:
        before = [pool.name for pool in bench.cluster.view.readers]
        after = [pool.name for pool in bench.cluster.apply(zones("d=h4;c=h3,h1;b=h2;a=h1")).readers]
        assert after == before


@in_virtual_time
async def test_keys_are_where_the_ring_says():
    async with Bench("a=h1,h2,h3;b=h4") as bench:
        view = bench.cluster.view
        ring = Ring([node.label for node in view.writers[0].nodes])
        found = set()
        for number in range(200):
            place = view.ring_position(b"key:%d" % number)
            assert place == ring_position(b"key:%d" % number)
            assert view.writers[0].node(place) is view.writers[0].nodes[ring.owner(place)]
            assert view.writers[1].node(place) is view.writers[1].nodes[0]
            found.add(view.writers[0].node(place).label)
        assert len(found) == 3


@in_virtual_time
async def test_where_no_zone_has_two_nodes_nothing_is_hashed():
    async with Bench("a=h1;b=h2") as bench:
        view = bench.cluster.view
        assert not view.sharded
        assert {view.ring_position(b"key:%d" % number) for number in range(100)} == {0}
        assert bench.cluster.apply(zones("a=h1;b=h2,h3")).sharded


@in_virtual_time
async def test_coordinators_are_the_readable_zones_in_the_order_of_the_key():
    async with Bench("a=h1;b=h2;c=h3;d!=h4", local="c") as bench:
        for number in range(20):
            key = b"key:%d" % number
            found = [pool.name for pool in bench.cluster.view.coordinators(key)]
            assert tuple(found) == coordinator_order(key, ("a", "b", "c"))


@in_virtual_time
async def test_standby_zones_are_read_last_and_decide_nothing():
    async with Bench("a=h1;b=h2;c?=h3;d?=h4;e!=h5", local="d") as bench:
        view = bench.cluster.view
        assert [(pool.readable, pool.standby) for pool in view.writers] == [
            (True, False),
            (True, False),
            (False, True),
            (False, True),
            (False, False),
        ]
        assert {pool.name for pool in view.readers} == {"a", "b"}
        assert [pool.name for pool in view.standby] == ["d", "c"]  # the zone of this process first
        assert view.read_order == (*view.readers, *view.standby)
        assert view.local is None
        assert view.preferred_zone == view.readers[0].name
        assert view.max_attempts == 4
        assert {pool.name for pool in view.coordinators(b"key")} == {"a", "b"}


@in_virtual_time
async def test_two_sets_of_zones_exchange_their_modes():
    async with Bench("a=h1;b?=h2", local="a") as bench:
        await bench.connect()
        before = bench.cluster.view
        bench.cluster.apply(zones("a?=h1;b=h2"))
        await settle()
        view = bench.cluster.view
        assert [pool.name for pool in view.read_order] == ["b", "a"]
        assert [pool.name for pool in before.read_order] == ["a", "b"]
        assert bench.attempts == ["h1", "h2"]  # nodes keep their connections


# Changes.


@in_virtual_time
async def test_nodes_that_stay_keep_their_connections():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        node, connection = bench.node("a h1"), bench.node("a h1").connection()
        bench.cluster.apply(zones("b=h3;a=h1,h4"))
        await settle()
        assert bench.names == ["a h1", "a h4", "b h3"]
        assert bench.node("a h1") is node
        assert node.connection() is connection
        assert bench.attempts == ["h1", "h2"]
        assert bench.servers["h2"].connections == 0


@in_virtual_time
async def test_a_node_with_a_new_label_or_in_another_zone_is_another_node():
    async with Bench("a=h1") as bench:
        await bench.connect()
        for text in ("a=x@h1", "b=x@h1", "b=h1"):
            before = next(iter(bench.cluster.nodes.values()))
            bench.cluster.apply(zones(text))
            assert next(iter(bench.cluster.nodes.values())) is not before
            assert before.state == "closed"


@in_virtual_time
async def test_a_zone_may_change_its_mode_without_losing_a_connection():
    async with Bench("a=h1;b!=h2") as bench:
        await bench.connect()
        connection = bench.node("b h2").connection()
        view = bench.cluster.apply(zones("a!=h1;b=h2"))
        assert [pool.name for pool in view.readers] == ["b"]
        assert bench.node("b h2").connection() is connection
        assert bench.attempts == ["h1", "h2"]


@in_virtual_time
async def test_a_node_that_left_answers_what_it_was_asked_and_is_then_closed():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        node = bench.node("b h2")
        bench.servers["h2"].pause()
        waits = ask(node)
        old_view = bench.cluster.view
        bench.cluster.apply(zones("a=h1"))
        assert bench.names == ["a h1"]
        assert node.state == "closed"
        assert old_view.writers[1].nodes == (node,)  # calls under way keep their view
        await asyncio.sleep(1)
        assert not waits.done()
        bench.servers["h2"].resume()
        assert (await waits).status == b"EN"
        await settle()
        assert bench.servers["h2"].connections == 0


@in_virtual_time
async def test_a_node_that_left_and_does_not_answer_is_closed_after_a_while():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        bench.servers["h2"].pause()
        waits = ask(bench.node("b h2"))
        bench.cluster.apply(zones("a=h1"))
        await asyncio.sleep(RETIRE_SECONDS - 0.1)
        assert not waits.done()
        await asyncio.sleep(0.2)
        assert type(outcome(waits)) is ConnectionLost


@in_virtual_time
async def test_a_node_that_left_while_it_was_down_is_forgotten(caplog):
    async with Bench("a=h1;b=h2") as bench:
        del bench.dialer.servers["h2"]
        with pytest.raises(NodeUnavailable):
            await bench.connect()
        assert bench.cluster.view.health.unhealthy == 1
        bench.cluster.apply(zones("a=h1"))
        await settle()
        assert bench.cluster.view.health.unhealthy == 0
        attempts = len(bench.attempts)
        await asyncio.sleep(600)
        assert len(bench.attempts) == attempts


@in_virtual_time
async def test_a_node_that_comes_back_while_it_still_retires_is_a_new_one():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        old = bench.node("b h2")
        bench.servers["h2"].pause()
        waits = ask(old)
        bench.cluster.apply(zones("a=h1"))
        new = bench.cluster.apply(zones("a=h1;b=h2")).writers[1].nodes[0]
        assert new is not old
        bench.servers["h2"].resume()
        await bench.connect()
        assert (await waits).status == b"EN"
        assert new.state == "ready"
        assert old.state == "closed"


@pytest.mark.parametrize("seed", range(5))
@in_virtual_time
async def test_no_request_is_lost_while_the_topology_changes_under_load(seed):
    rng = random.Random(seed)
    texts = ["a=h1,h2;b=h3", "a=h2;b=h3,h4", "a=h1;b=h4", "a=h1,h2,h3,h4", "a=h2,h1;b!=h3;c=h4", "a=x@h1,y@h2;b=h3"]
    async with Bench(texts[0]) as bench:
        asked = []

        def ask_everywhere(count):
            for _ in range(count):
                key = b"key:%d" % len(asked)
                view = bench.cluster.view
                asked.append((key, ask(rng.choice(view.writers).node(view.ring_position(key)), key)))

        for _ in range(60):
            await bench.connect()
            for server in rng.sample(list(bench.servers.values()), 2):
                server.pause()
            ask_everywhere(10)
            await settle(rng.randrange(6))
            ask_everywhere(10)
            bench.cluster.apply(zones(rng.choice(texts)))
            await settle(rng.randrange(6))
            for server in bench.servers.values():
                server.resume()
            await asyncio.sleep(rng.random())
        replies = {key: await answer for key, answer in asked}
        assert len(replies) == 1_200
        assert all(b"k" + key in reply.tokens for key, reply in replies.items())


# The end.


@in_virtual_time
async def test_close_ends_everything_and_may_be_called_again():
    async with Bench("a=h1;b=h2") as bench:
        bench.cluster.follow(ScriptedDiscovery(zones("a=h1")))
        await bench.connect()
        nodes = list(bench.cluster.nodes.values())
        for _ in range(2):
            await bench.cluster.close(1.0)
        assert {node.state for node in nodes} == {"closed"}
        assert dict(bench.cluster.nodes) == {}
        assert now() == 0


@in_virtual_time
async def test_a_cluster_that_was_never_used_can_be_closed():
    async with Bench() as bench:
        await bench.cluster.close(1.0)


@pytest.mark.parametrize("resumed", [0.2, 99.0])
@in_virtual_time
async def test_close_drains_all_nodes_at_the_same_time(resumed):
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        answers = []
        for host, name in {"h1": "a h1", "h2": "b h2"}.items():
            bench.servers[host].pause()
            answers.append(ask(bench.node(name)))
            asyncio.get_running_loop().call_later(resumed, bench.servers[host].resume)
        await bench.cluster.close(0.5)
        assert now() == pytest.approx(min(resumed, 0.5))
        if resumed < 0.5:
            assert [outcome(answer).status for answer in answers] == [b"EN"] * 2
        else:
            assert [type(outcome(answer)) for answer in answers] == [ConnectionLost] * 2


@pytest.mark.parametrize("drain", [0.0, 0.5])
@in_virtual_time
async def test_close_waits_no_longer_for_nodes_that_left_before(drain):
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        bench.servers["h2"].pause()
        waits = ask(bench.node("b h2"))
        bench.cluster.apply(zones("a=h1"))
        await settle()
        await bench.cluster.close(drain)
        assert now() == pytest.approx(drain)
        assert type(outcome(waits)) is ConnectionLost


@in_virtual_time
async def test_close_that_is_cancelled_still_ends_the_connections():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        bench.servers["h2"].pause()
        waits = ask(bench.node("b h2"))
        closing = asyncio.create_task(bench.cluster.close(60))
        await settle()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await settle()
        assert type(outcome(waits)) is ConnectionLost
        assert bench.servers["h1"].connections == 0


@in_virtual_time
async def test_close_while_nodes_connect():
    async with Bench("a=h1;b=h2") as bench:
        bench.dialer.gate = asyncio.Event()
        callers = [asyncio.create_task(node.connected(now() + 2_000)) for node in bench.cluster.nodes.values()]
        await settle()
        await bench.cluster.close(1.0)
        assert {type(result) for result in await asyncio.gather(*callers, return_exceptions=True)} == {NodeUnavailable}
