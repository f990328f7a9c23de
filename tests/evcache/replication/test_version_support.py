"""Zones whose servers keep no versions: one warning for each, and the list in `stats`."""

import pytest

from evcache.zones import Topology
from tests.support.memory_zones import TOMBSTONE, ChangingTopology, Listener, cut_off, on_zones, pass_time

OLD = {"version": "1.6.18"}
NEW = {"version": "1.6.38"}
LOGGER = "evcache.replication"


def warnings(caplog):
    """Return the warnings about versions, and check that each is one WARNING."""
    records = [record for record in caplog.records if record.name == LOGGER]
    assert {record.levelname for record in records} <= {"WARNING"}
    return [record.getMessage() for record in records]


def text(zone, node, reason, remedy):
    return (
        f"zone {zone} keeps no versions: node {node} {reason}. Off in this zone: latest write wins, tombstones, repair, "
        f'hints, monotonic reads. Remedy: {remedy}; or ordering="arrival", if writes may be ordered by arrival'
    )


@pytest.mark.parametrize(
    ("server", "reason", "remedy"),
    [
        (OLD, "runs memcached 1.6.18", "memcached 1.6.27 or newer"),
        ({"version": "1.6.26"}, "runs memcached 1.6.26", "memcached 1.6.27 or newer"),
        ({"version": "1.6.27"}, None, None),
        (NEW, None, None),
        ({"cas_enabled": False, **NEW}, "runs memcached 1.6.38 without CAS (-C)", "memcached without -C"),
        (
            {"classic_only": True, "version": "1.5.6"},
            "runs memcached 1.5.6 over the classic protocol",
            "memcached 1.6.27 or newer over the meta protocol",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_warning_names_server_and_remedy(server, reason, remedy, caplog):
    @on_zones(versions=server["version"], **{name: value for name, value in server.items() if name != "version"})
    async def main(zones):
        cache = await zones.ready()
        without = () if reason is None else ("a", "b", "c")
        assert cache.stats().zones_without_versions == without
        assert sorted(warnings(caplog)) == [text(zone, f"{zone}0:11211", reason, remedy) for zone in without]

    main()


@pytest.mark.parametrize("options", [{}, {"transport": "classic"}])
@on_zones(zones=2, versions="1.6.38")
async def test_classic_transport_counts_as_a_server_without_versions(zones, options, caplog):
    cache = await zones.ready(**options)
    assert cache.stats().zones_without_versions == (("a", "b") if options else ())
    assert len(warnings(caplog)) == (2 if options else 0)


@pytest.mark.parametrize("options", [{"ordering": "arrival"}, {"interop": True}])
@on_zones(zones=2, versions="1.6.18")
async def test_no_warning_without_need_of_versions(zones, options, caplog):
    """`stats` lists the zones all the same."""
    cache = await zones.ready(**options)
    assert cache.stats().zones_without_versions == ("a", "b")
    assert warnings(caplog) == []


@on_zones(zones=2, nodes=3, versions="1.6.18")
async def test_one_warning_for_all_nodes_connections_and_reconnects(zones, caplog):
    cache = await zones.ready(connections=3)
    assert len(warnings(caplog)) == 2
    await zones.kill("a", "b")
    for _ in range(5):
        await cache.get_many([f"k{number}" for number in range(50)], errors="miss")
        await pass_time(1)
    zones.restart("a", "b")
    await pass_time(60)
    await cache.set_many({f"k{number}": 1 for number in range(50)})
    assert cache.stats().nodes_down == 0
    assert len(warnings(caplog)) == 2


@on_zones(zones=2, versions="1.6.18")
async def test_each_client_warns(zones, caplog):
    for _ in range(2):
        await zones.ready()
    assert len(warnings(caplog)) == 4


@on_zones(zones=2, nodes=2)
async def test_one_old_node_of_a_zone_counts(zones, caplog):
    await zones.replace("b", 1, **OLD)
    cache = await zones.ready()
    assert cache.stats().zones_without_versions == ("b",)
    assert warnings(caplog) == [text("b", "b1:11211", "runs memcached 1.6.18", "memcached 1.6.27 or newer")]


@on_zones(zones=2, write_only="b", versions={"a": "1.6.38", "b": "1.6.18"})
async def test_a_zone_that_is_only_written_counts(zones, caplog):
    cache = await zones.ready()
    assert cache.stats().zones_without_versions == ("b",)
    assert len(warnings(caplog)) == 1


@on_zones(zones=2, nodes=2, versions="1.6.18")
async def test_an_upgraded_zone_leaves_the_list_with_its_last_old_node(zones, caplog):
    cache = await zones.ready()

    async def replace(zone, number, server):
        await zones.replace(zone, number, **server)
        for _ in range(2):
            await cache.set_many({f"k{number}": 1 for number in range(50)}, errors="miss")
            await pass_time(60)
        assert cache.stats().nodes_down == 0

    await replace("a", 0, NEW)
    assert cache.stats().zones_without_versions == ("a", "b")
    await replace("a", 1, NEW)
    assert cache.stats().zones_without_versions == ("b",)
    await replace("a", 1, OLD)
    assert cache.stats().zones_without_versions == ("a", "b")
    assert len(warnings(caplog)) == 2  # once for each zone, whatever happened since


@on_zones(zones=2, versions={"a": "1.6.38", "b": "1.6.18"})
async def test_a_zone_that_leaves_the_topology_leaves_the_list(zones):
    source = ChangingTopology(zones.topology)
    cache = await zones.ready(zones=source, topology_guard=None)
    assert cache.stats().zones_without_versions == ("b",)
    source.change(Topology(zones.topology.zones[:1]))
    await pass_time()
    assert cache.stats().zones_without_versions == ()


@on_zones(zones=2, versions="1.6.18")
async def test_servers_that_were_never_reached_do_not_count(zones, caplog):
    await zones.kill("a", "b")
    cache = zones.client()
    assert cache.stats().zones_without_versions == ()
    await cache.set("k", 1, errors="miss")
    assert cache.stats().zones_without_versions == ()
    assert warnings(caplog) == []


# What such a zone misses.

MIXED = {"a": "1.6.38", "b": "1.6.18", "c": "1.6.38"}


@pytest.mark.parametrize(
    ("server", "end", "held"),
    [(OLD, "refused", {"a": "new", "b": None, "c": "new"}), (NEW, "delivered", {"a": "new", "b": "new", "c": "new"})],
)
@on_zones(versions=MIXED)
async def test_hint_is_delivered_only_if_the_server_came_back_newer(zones, server, end, held):
    hooks = Listener()
    cache = await zones.ready(hooks=hooks)
    await cut_off(zones, cache, "b")
    assert await cache.set("k", "new")
    assert hooks.hints == ["b"]
    await zones.replace("b", **server)
    await pass_time(60)
    assert hooks.ended == [("b", end)]
    stats = cache.stats()
    assert (stats.hints, stats.hints_delivered, stats.hints_dropped) == ((0, 1, 0) if server is NEW else (0, 0, 1))
    assert zones.values("k") == held
    assert stats.zones_without_versions == (("b",) if server is OLD else ())


@on_zones(versions=MIXED)
async def test_zone_without_versions_leaves_hints_and_repair_of_others(zones):
    hooks = Listener()
    cache = await zones.ready(hooks=hooks)
    assert await cache.set("k", "v", consistency="all")
    zones.evict("k", "a", "b")
    assert await cache.get("k", consistency="all") == "v"
    await pass_time(1)
    assert zones.values("k") == {"a": "v", "b": None, "c": "v"}
    await cut_off(zones, cache, "a")
    assert await cache.delete("k")
    zones.resume("a")
    await pass_time(20)
    assert zones.values("k") == {"a": TOMBSTONE, "b": None, "c": TOMBSTONE}
    assert hooks.ended == [("a", "delivered")]
