"""Later calls read a zone with too many nodes down last, and the listener is notified."""

import asyncio
import logging

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from tests.support.cluster_bench import Bench, ask, zones
from tests.support.virtual_time import in_virtual_time, now, settle

THREE = "a=h1;b=h2;c=h3"


@in_virtual_time
async def test_while_all_is_well_nothing_is_out():
    async with Bench(THREE, local="b") as bench:
        await bench.connect()
        view = bench.cluster.view
        assert (view.preferred_zone, view.ejected, view.max_attempts, view.gutter) == ("b", frozenset(), 3, None)
        assert bench.events == []


@pytest.mark.parametrize("nodes", range(1, 7))
@in_virtual_time
async def test_a_zone_is_out_when_more_than_a_third_of_its_nodes_are_down_and_more_than_one(nodes):
    """By whichever order they go and come back, the zone's own changes are two."""
    hosts = [f"h{number}" for number in range(1, nodes + 1)]
    async with Bench(f"a={','.join(hosts)};b=h7", local="a") as bench:
        fewest = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 3}[nodes]
        await bench.connect()
        for down, host in enumerate(hosts, 1):
            await bench.die(host)
            assert ("a" in bench.cluster.view.ejected) is (down >= fewest), down
            assert (bench.readers[0] == "a") is (down < fewest)
            assert bench.cluster.view.preferred_zone == "a"
        for down, host in reversed([*enumerate(hosts)]):
            await bench.live(host)
            assert ("a" in bench.cluster.view.ejected) is (down >= fewest), down
        assert [out for what, zone, out in bench.events if (what, zone) == ("zone", "a")] == [True, False]


@in_virtual_time
async def test_a_zone_that_is_out_comes_last_and_its_place_waits_for_it():
    async with Bench("a=h1;b=h2;c=h3;d=h4", local="c") as bench:
        order = list(bench.readers)
        assert order[0] == "c"
        await bench.die("h3")
        assert bench.readers == [*order[1:], "c"]
        second = order[1]
        host = {"a": "h1", "b": "h2", "d": "h4"}[second]
        await bench.die(host)
        assert bench.readers == [*order[2:], "c", second]
        assert bench.cluster.view.preferred_zone == "c"
        assert bench.cluster.view.local == "c"
        await bench.live("h3")
        assert bench.readers == ["c", *order[2:], second]
        await bench.live(host)
        assert bench.readers == order


@in_virtual_time
async def test_when_all_zones_are_out_they_are_read_in_their_order():
    async with Bench(THREE, local="b") as bench:
        order = bench.readers
        await bench.die("h1", "h2", "h3")
        assert bench.readers == order
        assert bench.cluster.view.ejected == {"a", "b", "c"}


@in_virtual_time
async def test_without_a_local_zone_home_is_the_first_of_this_clients_order():
    async with Bench(THREE) as bench:
        order = bench.readers
        assert bench.cluster.view.preferred_zone == order[0]
        await bench.die({"a": "h1", "b": "h2", "c": "h3"}[order[0]])
        assert bench.cluster.view.preferred_zone == order[0]
        assert bench.readers == [*order[1:], order[0]]


@in_virtual_time
async def test_calls_under_way_keep_their_view():
    """What they began with stays as it was; those that begin later get another."""
    async with Bench(THREE, local="a") as bench:
        before = bench.cluster.view
        readers = before.readers
        await bench.die("h1")
        after = bench.cluster.view
        assert after is not before
        assert (before.readers, before.ejected) == (readers, frozenset())
        assert (after.writers, after.topology, after.health, after.preferred_zone) == (
            before.writers,
            before.topology,
            before.health,
            before.preferred_zone,
        )
        assert set(after.readers) == set(readers)  # the same pools, with the same nodes
        assert after.coordinators(b"k") == before.coordinators(b"k")


@in_virtual_time
async def test_a_node_that_is_down_in_a_zone_that_is_not_out_changes_no_view():
    async with Bench("a=h1,h2,h3;b=h4", local="a") as bench:
        view = bench.cluster.view
        await bench.die("h2")
        assert bench.cluster.view is view
        assert view.health.unhealthy == 1
        assert bench.events == [("node", "a h2", True)]


@in_virtual_time
async def test_an_ejected_zone_is_read_before_standby_zones_and_those_are_never_ejected():
    async with Bench("a=h1;b=h2;c?=h3", local="a") as bench:
        await bench.connect()
        await bench.die("h1", "h3")
        view = bench.cluster.view
        assert [pool.name for pool in view.read_order] == ["b", "a", "c"]
        assert view.ejected == {"a"}
        assert not view.health.all_out
        await bench.live("h1")
        assert [pool.name for pool in bench.cluster.view.read_order] == ["a", "b", "c"]


@in_virtual_time
async def test_events_come_in_order_once_for_each_change(caplog):
    caplog.set_level(logging.INFO, "evcache.zones.cluster")

    def messages():
        return [record.getMessage() for record in caplog.records if record.name == "evcache.zones.cluster"]

    async with Bench("a=h1,h2;b=h3;c!=h4", local="a") as bench:
        await bench.connect()
        await bench.die("h1", "h2", "h4")
        await asyncio.sleep(600)
        assert bench.events == [
            ("node", "a h1", True),
            ("node", "a h2", True),
            ("zone", "a", True),
            ("node", "c h4", True),  # a write-only zone is never ejected
        ]
        assert messages() == ["zone a is ejected: 2 of 2 nodes are down; it is read last"]
        bench.events.clear()
        await bench.live("h1")
        assert bench.events == [("node", "a h1", False), ("zone", "a", False)]
        assert messages()[1:] == ["zone a recovered: it is read in its usual order"]
        bench.events.clear()
        await bench.live("h2", "h4")
        assert sorted(bench.events) == [("node", "a h2", False), ("node", "c h4", False)]


@in_virtual_time
async def test_a_zone_whose_nodes_answer_nothing_in_time_is_out():
    """Its servers take connections, and are stalled."""
    async with Bench(THREE, local="a", circuit=CircuitLimits(slow_start=0)) as bench:
        await bench.connect()
        bench.servers["h1"].pause()
        for _ in range(3):
            answer = ask(bench.node("a h1"), within=0.1)
            await asyncio.wait([answer])
            answer.exception()
        assert bench.readers[-1] == "a"
        bench.servers["h1"].resume()
        await asyncio.sleep(2)
        assert bench.readers[0] == "a"
        assert bench.cluster.view.health.unhealthy == 0


@in_virtual_time
async def test_whoever_waits_for_nodes_is_called_for_each_return_and_for_nothing_else():
    async with Bench("a=h1,h2;b=h3") as bench:
        calls = []
        bench.cluster.on_node_recovered(lambda: calls.append(("first", now())))
        bench.cluster.on_node_recovered(lambda: calls.append(("second", now())))
        await bench.connect()
        await bench.die("h1", "h3")
        await asyncio.sleep(100)
        assert calls == []
        await bench.live("h1")
        assert [name for name, _ in calls] == ["first", "second"]
        await bench.live("h3")
        assert len(calls) == 4
        await asyncio.sleep(600)
        assert len(calls) == 4


@in_virtual_time
async def test_when_they_are_called_the_view_has_the_zone_again():
    async with Bench(THREE, local="a") as bench:
        seen = []
        bench.cluster.on_node_recovered(lambda: seen.append((bench.cluster.view.ejected, bench.node("a h1").is_down)))
        await bench.die("h1")
        await bench.live("h1")
        assert seen == [(frozenset(), False)]


# Topologies change.


@pytest.mark.parametrize(
    ("before", "dead", "after", "events", "out"),
    [
        # Nodes that are down become too many of the zone, or fewer.
        ("a=h1,h2,h3;b=h4", ["h1"], "a=h1;b=h4", [("zone", "a", True)], "a"),
        ("a=h1,h2,h3;b=h4", ["h1"], "a=h1,h2;b=h4", [], ""),
        ("a=h1;b=h4", ["h1"], "a=h1,h2,h3;b=h4", [("zone", "a", False)], ""),
        ("a=h1,h2;b=h4", ["h1", "h2"], "a=h3;b=h4", [("zone", "a", False)], ""),
        # A zone becomes one that is read.
        ("a!=h1;b=h4", ["h1"], "a=h1;b=h4", [("zone", "a", True)], "a"),
        # One that is not read any more, or is gone, is neither out nor back.
        ("a=h1;b=h4", ["h1"], "a!=h1;b=h4", [], ""),
        ("a=h1;b=h4", ["h1"], "b=h4", [], ""),
        # Others come and go.
        ("a=h1;b=h4", ["h1"], "a=h1;b=h4;c=h5", [], "a"),
        ("a=h1;b=h4", [], "a=h1;c=h5", [], ""),
    ],
)
@in_virtual_time
async def test_a_zone_that_is_out_or_back_by_a_new_topology_is_told_too(before, dead, after, events, out):
    async with Bench(before) as bench:
        await bench.connect()
        await bench.die(*dead)
        bench.events.clear()
        view = bench.cluster.apply(zones(after))
        assert bench.events == events
        assert view.ejected == {pool.name for pool in view.readers if pool.is_ejected} == set(out)
        assert set(bench.readers[len(bench.readers) - len(out) :]) == set(out)
        assert bench.cluster.view is view


@in_virtual_time
async def test_each_time_that_a_zone_is_back_it_was_out_before():
    """A count of ejected zones by events ends at its first value."""
    async with Bench("a=h1,h2,h3;b=h4") as bench:
        await bench.connect()
        await bench.die("h1")
        bench.cluster.apply(zones("a=h1;b=h4"))
        await bench.live("h1")
        assert [event for event in bench.events if event[0] == "zone"] == [("zone", "a", True), ("zone", "a", False)]


@in_virtual_time
async def test_nodes_that_left_are_not_heard_of_any_more():
    async with Bench("a=h1;b=h2") as bench:
        await bench.connect()
        bench.cluster.apply(zones("b=h2"))
        del bench.dialer.servers["h1"]
        await bench.servers["h1"].stop()
        await asyncio.sleep(600)
        assert bench.events == []
        assert bench.cluster.view.health.unhealthy == 0


# Spare nodes.


@in_virtual_time
async def test_spare_nodes_belong_to_no_zone_and_are_one_more_place():
    async with Bench(THREE, local="a", gutter="h4,h5") as bench:
        view = bench.cluster.view
        assert [node.label for node in view.gutter.nodes] == ["h4:11211", "h5:11211"]
        assert view.max_attempts == 4
        assert {pool.name for pool in view.writers} == {pool.name for pool in view.readers} == {"a", "b", "c"}
        assert bench.names == ["a h1", "b h2", "c h3"]
        assert not view.sharded
        assert len({view.gutter.node(view.gutter_position(b"key:%d" % number)).label for number in range(100)}) == 2


@pytest.mark.parametrize(("gutter", "hashed"), [(None, False), ("h4", False), ("h4,h5", True)])
@in_virtual_time
async def test_a_place_among_spare_nodes_is_sought_only_where_there_are_several(gutter, hashed):
    async with Bench(THREE, gutter=gutter) as bench:
        places = {bench.cluster.view.gutter_position(b"key:%d" % number) for number in range(20)}
        assert (len(places) > 1) is hashed
        assert hashed or places == {0}
        assert bench.cluster.view.max_attempts == 3 + (gutter is not None)


@in_virtual_time
async def test_spare_nodes_are_made_once_and_stay_whatever_the_zones_do():
    async with Bench(THREE, gutter="h4") as bench:
        gutter = bench.cluster.view.gutter
        (node,) = gutter.nodes
        await node.connected(asyncio.get_running_loop().time() + 1)
        view = bench.cluster.apply(zones("a=h1;b=h2,h3"))
        assert view.gutter is gutter
        assert view.max_attempts == 3
        await bench.die("h1")
        assert bench.cluster.view.gutter is gutter
        assert bench.attempts.count("h4") == 1


@in_virtual_time
async def test_spare_nodes_that_are_down_are_nobodys_business():
    """They settle nothing: calls look at zones only."""
    async with Bench(THREE, gutter="h4") as bench:
        del bench.dialer.servers["h4"]
        (node,) = bench.cluster.view.gutter.nodes
        with pytest.raises(NodeUnavailable):
            await node.connected(asyncio.get_running_loop().time() + 1)
        assert node.is_down
        assert (bench.events, bench.cluster.view.health.unhealthy, bench.cluster.view.ejected) == ([], 0, frozenset())


@pytest.mark.parametrize("connected", [False, True])
@in_virtual_time
async def test_close_closes_spare_nodes(connected):
    async with Bench(THREE, gutter="h4") as bench:
        (node,) = bench.cluster.view.gutter.nodes
        if connected:
            await node.connected(asyncio.get_running_loop().time() + 1)
        await bench.cluster.close(0.0)
        await settle()
        assert node.state == "closed"
        assert bench.servers["h4"].connections == 0


@in_virtual_time
async def test_close_leaves_no_timer():
    """Neither of a node that warms up, nor of one that is down, nor of the look at the loop."""
    async with Bench(THREE) as bench:
        await bench.connect()
        await bench.die("h1", "h2")
        await bench.live("h1")
        await bench.die("h2")
        answer = ask(bench.node("c h3"))
        assert (await answer).status == b"EN"
        await bench.cluster.close(1.0)
        await settle()
        loop = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # noqa: SLF001
        assert bench.cluster.view.health.unhealthy == 0


@in_virtual_time
async def test_the_lag_of_the_loop_is_that_of_all_nodes():
    async with Bench(THREE) as bench:
        lag = bench.cluster.view.lag
        assert bench.cluster.apply(zones("a=h1;b=h2")).lag is lag
        await bench.connect()
        answer = ask(bench.node("a h1"))
        asyncio.get_running_loop().advance(0.5)
        await answer
        assert lag.stalled_lately(asyncio.get_running_loop().time())
