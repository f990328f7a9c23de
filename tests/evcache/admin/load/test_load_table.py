"""Totals of zones, and the order of a table."""

import pytest

from evcache.admin.load.rates import NO_RATES, Rates
from evcache.admin.load.table import SORTS, Figures, LoadTable, NodeLoad, ZoneLoad, sort_table
from evcache.zones.admin.statistics import ServerStatistics

STATISTICS = ServerStatistics(bytes=100, limit_maxbytes=1000, curr_connections=5, max_connections=50)


def node(name, rates=NO_RATES, latency=None, statistics=STATISTICS, error=None):
    return NodeLoad(name, name, "ready", "closed", error, rates, Figures.of(statistics, rates, latency))


def zone(name, *nodes):
    return ZoneLoad.of(name, "read-write", nodes, is_local=False)


DEAD = node("dead", statistics=None, error="refused")


def test_a_total_has_the_sums_and_the_slowest_node():
    busy = node("a", Rates(gets=9.0, hits=8.0, misses=2.0, sets=1.0, evictions=0.5, bytes_in=10.0, bytes_out=20.0), 0.001)
    calm = node("b", Rates(gets=1.0, hits=0.0, misses=10.0, sets=0.0, evictions=0.0, bytes_in=1.0, bytes_out=2.0), 0.003)
    assert zone("z", busy, calm, DEAD).total == Figures(
        gets=10.0,
        sets=1.0,
        hit_ratio=0.4,
        latency=0.003,
        memory_used=200,
        memory_limit=2000,
        evictions=0.5,
        connections=10,
        connection_limit=100,
        bytes_in=11.0,
        bytes_out=22.0,
    )


def test_a_zone_without_an_answer_has_no_figures():
    dead = zone("z", DEAD)
    assert dead.total == Figures()
    assert not LoadTable("now", [dead]).has_answer
    assert LoadTable("now", [dead, zone("y", DEAD, node("a"))]).has_answer


def test_a_node_whose_statistics_are_refused_has_answered_a_probe():
    assert node("a", latency=0.001, statistics=None, error="stats refused: ERROR").has_answer
    assert not DEAD.has_answer


def names(table):
    return {zone.name: "".join(node.node for node in zone.nodes) for zone in table.zones}


def ordered(by, *nodes):
    table = LoadTable("now", [zone("x", node("p")), zone("y", *nodes)])
    found = sort_table(table, by)
    return list(names(found)), names(found)["y"]


HIGH = Rates(gets=9.0, hits=1.0, misses=9.0, sets=9.0, evictions=9.0, bytes_in=9.0, bytes_out=9.0)
LOW = Rates(gets=1.0, hits=9.0, misses=1.0, sets=1.0, evictions=1.0, bytes_in=1.0, bytes_out=1.0)


@pytest.mark.parametrize("by", ["gets", "sets", "evictions", "in", "out", "hits"])
def test_rates_sort_zones_and_nodes(by):
    """The node with the most requests also has the lowest hit ratio here, which comes first."""
    assert ordered(by, node("a"), node("b", LOW), node("c", HIGH)) == (["y", "x"], "cba")


def test_latency_memory_and_connections_sort_by_the_share_of_the_limit():
    slow, quick = node("s", latency=0.2), node("q", latency=0.1)
    assert ordered("latency", node("n"), quick, slow) == (["y", "x"], "sqn")
    full = node("f", statistics=ServerStatistics(bytes=10, limit_maxbytes=10, curr_connections=1, max_connections=1))
    large = node("l", statistics=ServerStatistics(bytes=99, limit_maxbytes=1000, curr_connections=9, max_connections=99))
    for by in ("memory", "connections"):
        assert ordered(by, large, DEAD, full)[1] == "fldead"


def test_without_a_measure_the_order_of_the_topology_stays():
    assert ordered(None, node("b", LOW), node("a"), node("c", HIGH)) == (["x", "y"], "bac")
    assert set(SORTS) == {"gets", "sets", "hits", "latency", "memory", "evictions", "connections", "in", "out"}
