"""The guard holds back a topology that removes too much at once: the decision, and the gate that acts on it."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.cluster import DOWN_SECONDS
from evcache.zones.discovery.base import SourceStatus
from evcache.zones.discovery.guard import RemovalLimiter, TopologyGuard, restrained
from evcache.zones.discovery.lookup import NOT_FOUND
from evcache.zones.errors import InvalidArgument
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from tests.support.cluster_bench import Bench, ScriptedDiscovery, zones
from tests.support.virtual_time import in_virtual_time, settle

HOLD = TopologyGuard().hold


def topology(**nodes):
    """Zones by name. A node is `label` at a host of its own, or `label@host`."""
    return Topology(tuple(Zone(name, tuple(node_of(text) for text in texts.split())) for name, texts in nodes.items()))


def node_of(text):
    label, _, host = text.partition("@")
    return Endpoint(host or f"host-of-{label}", 11211, "", label)


SIX = topology(a="1 2 3 4 5 6", b="1 2 3 4 5 6")
PAIR = topology(a="1 2", b="1 2")
SINGLE = topology(a="1", b="1")


def apply(limiter, current, new, now):
    limiter.applied(current, new, now, limiter.removals(current, new, now))


CASES = {
    # What the source reports, and the reasons for holding it back.
    "the same": (SIX, SIX, []),
    "more nodes": (SIX, topology(a="1 2 3 4 5 6 7 8 9", b="1 2 3 4 5 6"), []),
    "one more zone": (SIX, topology(a="1 2 3 4 5 6", b="1 2 3 4 5 6", c="1"), []),
    "one node less": (SIX, topology(a="1 2 3 4 5", b="1 2 3 4 5 6"), []),
    "a third of a zone": (SIX, topology(a="1 2 3 4", b="1 2 3 4 5 6"), []),
    "a third of each zone": (SIX, topology(a="1 2 3 4", b="3 4 5 6"), []),
    "half of a zone": (SIX, topology(a="1 2 3", b="1 2 3 4 5 6"), ["zone a loses 3 of 6 nodes"]),
    "half of each zone": (SIX, topology(a="1 2 3", b="4 5 6"), ["zone a loses 3 of 6 nodes", "zone b loses 3 of 6 nodes"]),
    "half of each small zone": (
        topology(a="1 2", b="1 2", c="1 2"),
        topology(a="1", b="1", c="1"),
        [f"zone {zone} is one of several that lose 3 of 6 nodes" for zone in "abc"],
    ),
    "every only node moves": (
        topology(a="1", b="1", c="1"),
        topology(a="1@x", b="1@x", c="1@x"),
        [f"zone {zone} is one of several that lose 3 of 3 nodes" for zone in "abc"],
    ),
    "a zone less": (SIX, topology(a="1 2 3 4 5 6"), ["zone b is missing"]),
    "another cluster": (SIX, topology(a="x y z", b="u v w"), ["zone a loses 6 of 6 nodes", "zone b loses 6 of 6 nodes"]),
    "another cluster with the same labels": (
        SIX,
        topology(a="1@x 2@x 3@x 4@x 5@x 6@x", b="1 2 3 4 5 6"),
        ["zone a loses 6 of 6 nodes"],
    ),
    "zones of other names": (SIX, topology(c="1 2 3 4 5 6"), ["zone a is missing", "zone b is missing"]),
    "one node of two": (PAIR, topology(a="1", b="1 2"), []),
    "both nodes of two": (PAIR, topology(a="3 4", b="1 2"), ["zone a loses 2 of 2 nodes"]),
    "the only node moves": (SINGLE, topology(a="1@elsewhere", b="1"), []),
    "the only node is another one": (SINGLE, topology(a="2", b="1"), []),
}


@pytest.mark.parametrize(("current", "new", "reasons"), CASES.values(), ids=CASES)
def test_verdict_on_one_change(current, new, reasons):
    verdict = RemovalLimiter(TopologyGuard()).judge(current, new, 0.0)
    assert list(verdict.held.values()) == reasons
    assert verdict.again_at == (HOLD if reasons else 0.0)


@pytest.mark.parametrize("row", [row for row, (_, _, reasons) in CASES.items() if reasons])
def test_held_topology_is_accepted_when_its_nodes_were_absent_for_the_hold(row):
    current, new, _ = CASES[row]
    limiter = RemovalLimiter(TopologyGuard())
    limiter.judge(current, new, 0.0)
    assert limiter.judge(current, new, HOLD - 0.1).held
    assert not limiter.judge(current, new, HOLD).held


def test_hold_begins_again_for_a_node_that_was_there_between():
    limiter = RemovalLimiter(TopologyGuard())
    half = topology(a="1 2 3", b="1 2 3 4 5 6")
    limiter.judge(SIX, half, 0.0)
    limiter.judge(SIX, SIX, 50.0)
    assert limiter.judge(SIX, half, 55.0).again_at == 55.0 + HOLD


def test_node_that_leaves_later_has_a_hold_of_its_own():
    limiter = RemovalLimiter(TopologyGuard())
    limiter.judge(SIX, topology(a="1 2 3", b="1 2 3 4 5 6"), 0.0)
    two = topology(a="1 2", b="1 2 3 4 5 6")
    assert limiter.judge(SIX, two, 30.0).again_at == HOLD
    assert not limiter.judge(SIX, two, HOLD).held  # three have waited, and one alone may leave
    assert limiter.judge(SIX, topology(a="1", b="1 2 3"), HOLD).again_at == 30.0 + HOLD


def test_removals_one_by_one_count_together():
    """A source that forgets a node at each look would empty a zone in small steps."""
    limiter = RemovalLimiter(TopologyGuard())
    current = SIX
    for step, labels in enumerate(("1 2 3 4 5", "1 2 3 4"), 1):
        new = topology(a=labels, b="1 2 3 4 5 6")
        assert not limiter.judge(current, new, float(step)).held
        apply(limiter, current, new, float(step))
        current = new
    verdict = limiter.judge(current, topology(a="1 2 3", b="1 2 3 4 5 6"), 3.0)
    assert verdict.held == {"a": "zone a loses 3 of 6 nodes"}
    assert verdict.again_at == 1.0 + HOLD  # when the first removal counts no more


def test_rolling_replacement_at_a_usual_pace_is_never_held_for_longer_than_the_hold():
    """A StatefulSet replaces its pods one by one, each with a new address, every 30 s."""
    limiter = RemovalLimiter(TopologyGuard())
    hosts = ["old"] * 3
    current = topology(a="0@old 1@old 2@old")
    late = 0.0
    for number in range(3):
        hosts[number] = "new"
        new = topology(a=" ".join(f"{label}@{host}" for label, host in enumerate(hosts)))
        now = began = 30.0 * number
        while (verdict := limiter.judge(current, new, now)).held:
            assert verdict.again_at > now
            now = verdict.again_at
        late = max(late, now - began)
        apply(limiter, current, new, now)
        current = new
    assert late == 30.0


def test_removal_that_was_waited_for_does_not_count_against_the_next():
    limiter = RemovalLimiter(TopologyGuard())
    half = topology(a="1 2 3", b="1 2 3 4 5 6")
    limiter.judge(SIX, half, 0.0)
    limiter.judge(SIX, half, HOLD)
    apply(limiter, SIX, half, HOLD)
    assert not limiter.judge(half, topology(a="1 2", b="1 2 3 4 5 6"), HOLD + 1).held


def test_write_only_zone_that_is_promoted_loses_nothing():
    before = Topology((Zone("a", (node_of("1"),)), Zone("b", (node_of("1"), node_of("2")), Mode.WRITE_ONLY)))
    after = Topology((Zone("a", (node_of("1"),), Mode.WRITE_ONLY), Zone("b", (node_of("1"), node_of("2")))))
    assert not RemovalLimiter(TopologyGuard()).judge(before, after, 0.0).held


LABELS = st.lists(st.sampled_from("123456"), min_size=1, max_size=6, unique=True).map(" ".join)
TOPOLOGIES = st.dictionaries(st.sampled_from("abc"), LABELS, min_size=1).map(lambda nodes: topology(**nodes))


@given(current=TOPOLOGIES, new=TOPOLOGIES, share=st.floats(0, 1))
def test_verdict_follows_from_the_removed_share(current, new, share):
    held = RemovalLimiter(TopologyGuard(max_removed=share)).judge(current, new, 0.0).held
    removed = {zone.name: len(set(zone.nodes) - set(nodes_of(new, zone.name))) for zone in current.zones}
    total = sum(len(zone.nodes) for zone in current.zones)
    expected = {
        zone.name
        for zone in current.zones
        if new.zone(zone.name) is None or removed[zone.name] > max(1, int(len(zone.nodes) * share))
    }
    if sum(removed.values()) > max(1, int(total * share)):
        expected = {zone for zone, number in removed.items() if number}
    assert held.keys() == expected


def nodes_of(topology, name):
    zone = topology.zone(name)
    return () if zone is None else zone.nodes


def test_nodes_that_are_down_may_leave():
    """Their data is lost for now in any case, and the new nodes of a cluster that restarts must not wait."""
    after = topology(a="1@x 2@x 3@x 4@x 5@x 6", b="1 2 3 4 5 6")
    down = {("a", node) for node in SIX.zone("a").nodes[:4]}
    assert RemovalLimiter(TopologyGuard()).judge(SIX, after, 0.0).held
    assert not RemovalLimiter(TopologyGuard(), lambda zone, node: (zone, node) in down).judge(SIX, after, 0.0).held


def test_zone_that_is_down_does_not_leave_at_once():
    """Another process may reach it, and what it missed is kept for it."""
    assert RemovalLimiter(TopologyGuard(), lambda *_: True).judge(SIX, topology(a="1 2 3 4 5 6"), 0.0).held


def test_nodes_that_have_just_come_have_no_data_and_do_not_count():
    limiter = RemovalLimiter(TopologyGuard())
    three, nine = topology(a="1 2 3"), topology(a="1 2 3 4 5 6 7 8 9")
    assert not limiter.judge(three, nine, 0.0).held
    apply(limiter, three, nine, 0.0)
    assert limiter.judge(nine, topology(a="4 5 6 7 8 9"), 1.0).held == {"a": "zone a loses 3 of 3 nodes"}
    assert not limiter.judge(nine, topology(a="1 2 3 4 5 6"), 1.0).held
    assert limiter.judge(nine, topology(a="1 2 3 4 5"), HOLD).held == {"a": "zone a loses 4 of 9 nodes"}


def test_zones_that_are_held_back_keep_their_nodes_and_get_their_modes():
    new = Topology(
        (
            Zone("a", (node_of("1"),), Mode.WRITE_ONLY),
            Zone("b", (*SIX.zone("b").nodes, node_of("7"))),
            Zone("x", (node_of("1"),)),
        )
    )
    assert restrained(SIX, new, {"a"}) == Topology(
        (Zone("a", SIX.zone("a").nodes, Mode.WRITE_ONLY), Zone("b", (*SIX.zone("b").nodes, node_of("7"))))
    )
    gone = topology(a="1 2 3 4 5 6")
    assert restrained(SIX, gone, {"b"}) == SIX


@given(reports=st.lists(st.tuples(st.floats(0, 100), TOPOLOGIES), min_size=1, max_size=8))
def test_any_topology_that_stays_is_accepted_in_the_end(reports):
    limiter = RemovalLimiter(TopologyGuard())
    current, now = SIX, 0.0
    for pause, new in reports:
        now += pause
        if not limiter.judge(current, new, now).held:
            apply(limiter, current, new, now)
            current = new
    last = reports[-1][1]
    looks = 0
    while (verdict := limiter.judge(current, last, now)).held:
        assert now < verdict.again_at <= now + HOLD
        now, looks = verdict.again_at, looks + 1
        assert looks < 100
    assert not limiter.judge(current, last, now).held


@pytest.mark.parametrize("options", [{"max_removed": -0.1}, {"max_removed": 1.1}, {"hold": 0}, {"hold": float("nan")}])
def test_limits_that_cannot_be_used(options):
    with pytest.raises(InvalidArgument) as caught:
        TopologyGuard(**options)
    assert caught.value.argument in options


# The gate in a cluster.


FULL = "a=h1,h2,h3;b=h4,h5,h6"
REPORTS = {
    # What the source suddenly reports, and its zones and nodes after the hold.
    "half of a zone": "a=h1;b=h4,h5,h6",
    "half of each zone": "a=h1;b=h4",
    "a zone less": "b=h4,h5,h6",
    "another cluster": "a=h4,h5,h6;b=h1,h2,h3",
}


class Guarded(Bench):
    def __init__(self, **options):
        super().__init__(guard=TopologyGuard(), **options)

    async def follow(self, text=FULL):
        self.source = ScriptedDiscovery(zones(text))
        await self.cluster.start(self.source)

    async def report(self, text):
        self.source.put(zones(text))
        await settle()

    @property
    def topology(self):
        return self.cluster.view.topology


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@in_virtual_time
async def test_suspicious_topology_is_held_back_logged_once_and_applied_after_the_hold(report, caplog):
    async with Guarded() as bench:
        await bench.follow()
        await bench.report(report)
        await bench.report(report)
        assert bench.topology == zones(FULL)
        assert bench.cluster.topology_held
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("evcache.zones.discovery", logging.WARNING)
        assert "topology held back" in record.getMessage()
        await asyncio.sleep(HOLD - 1)
        assert bench.topology == zones(FULL)
        await asyncio.sleep(2)
        assert bench.topology == zones(report)
        assert bench.cluster.topology_held == ()


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@in_virtual_time
async def test_suspicious_topology_that_goes_away_was_never_in_use(report):
    async with Guarded() as bench:
        await bench.follow()
        await bench.report(report)
        await asyncio.sleep(HOLD / 2)
        await bench.report(FULL)
        assert bench.cluster.topology_held == ()
        await asyncio.sleep(HOLD * 3)
        assert bench.topology == zones(FULL)
        assert len(bench.names) == 6


@in_virtual_time
async def test_confirmed_topology_is_applied_at_once():
    async with Guarded() as bench:
        await bench.follow()
        assert bench.cluster.confirm_topology() is False
        await bench.report("b=h4,h5,h6")
        assert bench.cluster.confirm_topology() is True
        assert bench.topology == zones("b=h4,h5,h6")
        assert bench.cluster.confirm_topology() is False
        await asyncio.sleep(HOLD * 2)
        assert bench.topology == zones("b=h4,h5,h6")


@in_virtual_time
async def test_small_change_after_a_suspicious_one_is_applied_at_once():
    async with Guarded() as bench:
        await bench.follow()
        await bench.report("a=h1;b=h4,h5,h6")
        await bench.report("a=h1,h2;b=h4,h5,h6")
        assert bench.topology == zones("a=h1,h2;b=h4,h5,h6")
        assert bench.cluster.topology_held == ()


@in_virtual_time
async def test_other_changes_of_a_suspicious_topology_are_applied_at_once():
    """Such as the step of a migration, which other processes take too."""
    async with Guarded() as bench:
        await bench.follow()
        await bench.report("a!=h1;b=h4,h5,h6,h7;c=h2")
        assert bench.topology == zones("a!=h1,h2,h3;b=h4,h5,h6,h7")
        assert bench.cluster.topology_held == ("zone a loses 2 of 3 nodes",)
        await bench.report("a=h1;b=h4,h5,h6,h7;c=h2")
        assert bench.topology == zones("a=h1,h2,h3;b=h4,h5,h6,h7")
        await asyncio.sleep(HOLD + 1)
        assert bench.topology == zones("a=h1;b=h4,h5,h6,h7;c=h2")


@in_virtual_time
async def test_nodes_that_are_down_for_a_while_leave_although_they_are_held_back():
    async with Guarded() as bench:
        await bench.follow()
        await bench.report("a=h3,h7;b=h4,h5,h6")
        assert bench.cluster.topology_held
        await bench.die("h1")
        await asyncio.sleep(DOWN_SECONDS / 2)  # a network that fails for a moment looks the same
        assert bench.topology == zones(FULL)
        await asyncio.sleep(DOWN_SECONDS)
        assert bench.topology == zones("a=h3,h7;b=h4,h5,h6")
        assert bench.cluster.topology_held == ()


@in_virtual_time
async def test_report_of_a_source_that_has_failed_since_is_not_applied(caplog):
    """A source that loses most of its entries, and then answers nothing, has not confirmed them."""
    async with Guarded() as bench:
        await bench.follow()
        bench.source.status = SourceStatus("a source")
        await bench.report("a=h1;b=h4,h5,h6")
        bench.source.status.fail(OSError("refused"))
        await asyncio.sleep(HOLD * 10)
        assert bench.topology == zones(FULL)
        bench.source.status.confirm()
        await asyncio.sleep(HOLD)
        assert bench.topology == zones("a=h1;b=h4,h5,h6")


@in_virtual_time
async def test_zone_whose_own_source_works_is_applied_while_another_one_fails():
    async with Guarded() as bench:
        await bench.follow()
        bench.source.status = SourceStatus("a source")
        await bench.report("a=h1;b=h4,h5,h6")
        bench.source.status.fail(OSError("refused"), ("b",))
        await asyncio.sleep(HOLD + 10)
        assert bench.topology == zones("a=h1;b=h4,h5,h6")
        await bench.report("a=h1;b=h4")
        await asyncio.sleep(HOLD * 10)
        assert bench.topology == zones("a=h1;b=h4,h5,h6")


@in_virtual_time
async def test_source_that_alternates_between_two_reports_removes_no_more_than_it_may():
    async with Guarded() as bench:
        await bench.follow("a=h1,h2,h3;b=h4,h5,h6,h7")
        for _ in range(10):
            await bench.report("a=h1,h2,h3;b=h4")
            await asyncio.sleep(1)
            await bench.report(f"a=h1,h2,h3;b={','.join(sorted(node.host for node in bench.topology.zone('b').nodes)[:-1])}")
            await asyncio.sleep(1)
        assert len(bench.topology.zone("b").nodes) == 3


@in_virtual_time
async def test_server_of_a_zone_that_is_held_back_joins_no_other_zone():
    """It would hold two copies of one set of zones, and count as two."""
    async with Guarded() as bench:
        await bench.follow("a=h1,h2;b=h3,h4;c=h5,h6")
        await bench.report("a=h1,h2,h3,h4,h5,h6")
        assert bench.topology == zones("a=h1,h2;b=h3,h4;c=h5,h6")
        await asyncio.sleep(HOLD + 1)
        assert bench.topology == zones("a=h1,h2,h3,h4,h5,h6")


def test_zones_that_are_found_at_last_are_used_at_once():
    unknown = Topology((Zone("a", (node_of("1"),)), Zone("b", (NOT_FOUND,)), Zone("c", (NOT_FOUND,))))
    assert not RemovalLimiter(TopologyGuard()).judge(unknown, topology(a="1", b="1", c="1"), 0.0).held


@in_virtual_time
async def test_confirmed_topology_that_cannot_be_used_is_not_in_use():
    async with Guarded(gutter="h7") as bench:
        await bench.follow()
        await bench.report("a=h1;gutter=h2")
        assert bench.cluster.confirm_topology() is False
        assert bench.topology == zones(FULL)


@in_virtual_time
async def test_close_drops_the_topology_that_is_held_back():
    async with Guarded() as bench:
        await bench.follow()
        await bench.report("b=h4,h5,h6")
        await bench.cluster.close(0)
        assert bench.cluster.topology_held == ()
        await asyncio.sleep(HOLD * 2)
        assert bench.topology == zones(FULL)


@in_virtual_time
async def test_without_a_guard_every_change_is_applied():
    async with Bench() as bench:
        source = ScriptedDiscovery(zones(FULL))
        await bench.cluster.start(source)
        source.put(zones("b=h4"))
        await settle()
        assert bench.cluster.view.topology == zones("b=h4")
