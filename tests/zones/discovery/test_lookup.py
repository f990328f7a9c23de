"""Zones whose nodes are looked up one zone at a time, each from sources that fail on their own."""

import asyncio
import logging

import pytest

from evcache.zones.discovery import polling
from evcache.zones.discovery.lookup import (
    LONGEST_PAUSE_SECONDS,
    LOOKUP_SECONDS,
    LOOKUP_TIMEOUT_SECONDS,
    NOT_FOUND,
    RETRY_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    LookupDiscovery,
)
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Mode, Topology
from tests.support.scripted_nodes import HANG, ScriptedNodes, found, zone
from tests.support.virtual_time import in_virtual_time, now, settle
from tests.support.watching import Watching

WRITE_ONLY = Mode.WRITE_ONLY
DOWN = OSError("down")


def discovery(*zones, **options):
    source = LookupDiscovery(zones, **options)
    source._draw = lambda: 0.5  # no jitter
    return source


def topology(text):
    return Topology.from_node_list(text)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _all_levels(caplog):
    caplog.set_level(logging.DEBUG, "evcache")


# The first load.


@in_virtual_time
async def test_a_load_looks_all_zones_up():
    source = discovery(
        zone("a", ScriptedNodes(found("h2,h1"))),
        zone("b", "fixed", ScriptedNodes(found("h9")), ScriptedNodes(found("h3,h9"))),
        zone("c", "only", mode=WRITE_ONLY),
    )
    loaded = await source.load()
    assert loaded == topology("a=h1,h2;b=fixed,h3,h9;c!=only")
    assert source.status.error is None
    assert source.status.confirmed_at is not None


@in_virtual_time
async def test_zones_are_looked_up_at_the_same_time():
    class Slow:
        async def nodes(self):
            await asyncio.sleep(3)
            return found("h1")

    source = discovery(*(zone(name, Slow()) for name in "abcd"))
    await source.load()
    assert now() == 3


@pytest.mark.parametrize("failure", [DOWN, HANG, found("")], ids=["error", "hang", "no nodes"])
@in_virtual_time
async def test_a_zone_that_was_never_found_is_a_zone_that_is_down_until_its_lookup_succeeds(failure, caplog):
    source = discovery(
        zone("a", ScriptedNodes(found("h1", 60))), zone("b", ScriptedNodes(failure, failure, found("h2", 60)))
    )
    assert await source.load() == topology(f"a=h1;b={NOT_FOUND}")
    assert source.status.error.startswith("lookup of zones: zone b: ")
    assert source.status.confirmed_at is None
    async with Watching(source) as watching:
        await asyncio.sleep(2 * (RETRY_SECONDS + LOOKUP_TIMEOUT_SECONDS) + 1)
        assert watching.topologies == [topology("a=h1;b=h2")]
        assert len(messages(caplog)) == 2
        assert messages(caplog)[1] == "topology source recovered: lookup of zones"


@in_virtual_time
async def test_a_first_load_without_any_zone_is_an_error_and_asks_again_only_after_a_second():
    sources = [ScriptedNodes(DOWN, found("h1")), ScriptedNodes(RuntimeError(), found("h2"))]
    source = discovery(*(zone(name, nodes) for name, nodes in zip("ab", sources, strict=True)))
    for _ in range(3):
        with pytest.raises(DiscoveryError, match=r"^lookup of zones: zone a: down; zone b: RuntimeError$"):
            await source.load()
    assert [nodes.asked for nodes in sources] == [[0], [0]]
    await asyncio.sleep(polling.FIRST_RETRY_SECONDS)
    assert await source.load() == topology("a=h1;b=h2")


@in_virtual_time
async def test_a_first_load_without_a_zone_to_read_is_an_error():
    source = discovery(zone("a", ScriptedNodes(DOWN)), zone("b", ScriptedNodes(found("h2")), mode=WRITE_ONLY))
    with pytest.raises(DiscoveryError, match=r"zone a: down$"):
        await source.load()


@in_virtual_time
async def test_a_zone_with_fixed_nodes_is_not_found_until_its_lookup_succeeds():
    """With a part of its nodes, all keys of the zone would be at other nodes."""
    source = discovery(zone("a", "fixed", ScriptedNodes(DOWN, found("h1"))), zone("b", "h2"))
    assert await source.load() == topology(f"a={NOT_FOUND};b=h2")
    async with Watching(source) as watching:
        await asyncio.sleep(6)
        assert watching.topologies == [topology("a=fixed,h1;b=h2")]


# Failures.


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (DOWN, "down"),
        (RuntimeError(), "RuntimeError"),
        (DiscoveryError("the source", "has gone"), "the source: has gone"),
        (TimeoutError("110 connection timed out"), "110 connection timed out"),
        (found(""), "the answer names no nodes"),
        (None, "'NoneType' object has no attribute 'nodes'"),
        (HANG, "no answer in 5 s"),
    ],
    ids=str,
)
@in_virtual_time
async def test_a_zone_that_fails_keeps_its_nodes_and_the_others_change(failure, problem, caplog):
    source = discovery(
        zone("a", ScriptedNodes(found("h1"), failure, failure, failure, found("h1"))),
        zone("b", ScriptedNodes(found("h2"), found("h3"), found("h3"), found("h4"))),
    )
    await source.load()
    async with Watching(source) as watching:
        await asyncio.sleep(70)
        assert watching.topologies == [topology("a=h1;b=h3"), topology("a=h1;b=h4")]
        assert messages(caplog) == [
            f"topology update failed: lookup of zones: zone a: {problem}; keeping the previous topology",
            "topology source recovered: lookup of zones",
        ]


@in_virtual_time
async def test_all_zones_that_fail_keep_the_topology(caplog):
    source = discovery(*(zone(name, ScriptedNodes(found(name), DOWN, DOWN, DOWN, found("new"))) for name in "ab"))
    await source.load()
    confirmed_at = source.status.confirmed_at
    async with Watching(source) as watching:
        await asyncio.sleep(41)
        assert watching.seen == []
        assert source.status.confirmed_at == confirmed_at
        await asyncio.sleep(10)
        assert watching.topologies == [topology("a=new;b=new")]
        assert len(messages(caplog)) == 2


@in_virtual_time
async def test_a_zone_that_hangs_delays_the_others_for_its_timeout_only():
    source = discovery(zone("a", ScriptedNodes(HANG)), zone("b", ScriptedNodes(found("h2"))), timeout=2)
    assert await source.load() == topology(f"a={NOT_FOUND};b=h2")
    assert now() == 2


@in_virtual_time
async def test_sources_of_a_zone_share_its_timeout():
    class Slow:
        async def nodes(self):
            await asyncio.sleep(3)
            return found("h1")

    source = discovery(zone("a", Slow(), Slow()), zone("b", "h2"))
    assert await source.load() == topology(f"a={NOT_FOUND};b=h2")
    assert now() == 5


@in_virtual_time
async def test_a_load_that_is_cancelled_leaves_no_lookup():
    source = discovery(zone("a", ScriptedNodes(HANG)), zone("b", ScriptedNodes(HANG)))
    task = asyncio.create_task(source.load())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_a_watch_that_is_cancelled_leaves_no_lookup():
    source = discovery(zone("a", ScriptedNodes(found("h1"), HANG)))
    await source.load()
    async with Watching(source):
        await asyncio.sleep(31)
        assert len(asyncio.all_tasks()) == 3
    assert len(asyncio.all_tasks()) == 1


# What a change is.


@in_virtual_time
async def test_an_answer_in_another_order_is_no_change():
    source = discovery(zone("a", ScriptedNodes(found("h1,h2,h3"), found("h3,h1,h2"), found("h2,h3,h1"))))
    await source.load()
    async with Watching(source) as watching:
        await asyncio.sleep(100)
        assert watching.seen == []


@in_virtual_time
async def test_a_node_that_moves_is_a_change():
    source = discovery(zone("a", ScriptedNodes(found("pod@10.0.0.1"), found("pod@10.0.0.2"))))
    await source.load()
    async with Watching(source) as watching:
        await asyncio.sleep(31)
        assert watching.topologies == [topology("a=pod@10.0.0.2")]


# Pauses.


@pytest.mark.parametrize(
    ("lifetimes", "pause"),
    [
        ([None], LOOKUP_SECONDS),
        ([60.0], 60),
        ([60.0, 20.0], 20),
        ([60.0, None], LOOKUP_SECONDS),
        ([20.0, None], 20),
        ([0.0], SHORTEST_PAUSE_SECONDS),
        ([SHORTEST_PAUSE_SECONDS - 0.1, 60.0], SHORTEST_PAUSE_SECONDS),
        ([-1.0], SHORTEST_PAUSE_SECONDS),
        ([604800.0], LONGEST_PAUSE_SECONDS),
        ([2.0**31], LONGEST_PAUSE_SECONDS),
    ],
    ids=str,
)
@pytest.mark.parametrize("in_one_zone", [True, False])
@in_virtual_time
async def test_the_shortest_lifetime_sets_the_pause_within_limits(lifetimes, pause, in_one_zone):
    nodes = [ScriptedNodes(found(f"h{number}", lifetime)) for number, lifetime in enumerate(lifetimes)]
    zones = [zone("a", *nodes)] if in_one_zone else [zone(f"z{number}", source) for number, source in enumerate(nodes)]
    source = discovery(*zones, zone("fixed", "h"))
    await source.load()
    async with Watching(source):
        await asyncio.sleep(2 * pause + 1)
        assert nodes[0].asked == [0, pause, 2 * pause]


@pytest.mark.parametrize(("interval", "pauses"), [(2.0, [2, 2]), (100.0, [100, RETRY_SECONDS])])
@in_virtual_time
async def test_a_zone_that_fails_is_asked_again_soon(interval, pauses):
    nodes = ScriptedNodes(found("h1"), DOWN)
    source = discovery(zone("a", nodes), zone("b", "h2"), interval=interval)
    await source.load()
    async with Watching(source):
        await asyncio.sleep(sum(pauses) + 1)
        assert nodes.asked[:3] == [0, pauses[0], sum(pauses)]


@in_virtual_time
async def test_a_zone_that_fails_is_asked_again_soon_also_if_the_others_live_for_long():
    nodes = ScriptedNodes(DOWN)
    source = discovery(zone("a", nodes), zone("b", ScriptedNodes(found("h2", 200.0))))
    await source.load()
    async with Watching(source):
        await asyncio.sleep(11)
        assert nodes.asked == [0, RETRY_SECONDS, 2 * RETRY_SECONDS]


# Arguments.


@pytest.mark.parametrize(
    ("zones", "problem"),
    [
        ([], "there are none"),
        ([zone("a", "h1"), zone("a", "h2")], "a zone is named twice"),
        ([zone("a", "h1", mode=WRITE_ONLY)], "all zones are write-only"),
        ([zone("a b", "h1")], "zone name 'a b'"),
        ([zone("a")], "zone 'a' has no nodes"),
        ([zone("a", "l@h1", "l@h2")], "zone 'a' has two nodes labelled 'l'"),
    ],
)
def test_wrong_zones_are_refused(zones, problem):
    with pytest.raises(InvalidTopology, match=problem):
        LookupDiscovery(zones)


@pytest.mark.parametrize("argument", ["interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, None, "5"])
def test_a_wrong_time_is_named(argument, value):
    with pytest.raises(InvalidArgument, match=rf"^{argument}: .*{value!r}$"):
        LookupDiscovery([zone("a", "h1")], **{argument: value})
