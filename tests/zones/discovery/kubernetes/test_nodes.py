"""Slices become zones with nodes: ports, labels, families, zones, and nodes that left a short time ago."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.discovery.kubernetes.nodes import NodeRules, ServiceNodes, find_nodes
from evcache.zones.topology.model import Mode, Topology
from tests.support.endpoint_slices import decoded, endpoint, endpoint_slice

ONE = endpoint("memcached-0", "10.0.0.1")
TWO = endpoint("memcached-1", "10.0.0.2")
OTHER = endpoint("memcached-2", "10.0.0.3", "eu-1b")


def nodes_of(*slices, **rules):
    """Nodes as texts, by zone."""
    found = find_nodes(decoded(*slices), NodeRules(**rules))
    return {zone: [str(node) for node in nodes.values()] for zone, nodes in found.zones.items()}


def problems_of(*slices, **rules):
    return find_nodes(decoded(*slices), NodeRules(**rules)).problems


def test_slices_are_joined_and_sorted_by_zone_and_label():
    slices = endpoint_slice("b", OTHER, TWO), endpoint_slice("a", ONE), endpoint_slice("empty", ports=None)
    assert nodes_of(*slices) == {
        "eu-1a": ["memcached-0:11211@10.0.0.1:11211", "memcached-1:11211@10.0.0.2:11211"],
        "eu-1b": ["memcached-2:11211@10.0.0.3:11211"],
    }


@pytest.mark.parametrize(
    "state",
    [
        {"ready": True},
        {"ready": None},
        {"ready": False},
        {"ready": False, "serving": True, "terminating": True},
        {"ready": False, "serving": False, "terminating": True},
    ],
    ids=["ready", "unknown", "not ready", "terminating and serving", "terminating"],
)
def test_an_endpoint_keeps_its_place_in_each_condition(state):
    assert nodes_of(endpoint_slice("a", endpoint("memcached-0", "10.0.0.1", **state))) == {
        "eu-1a": ["memcached-0:11211@10.0.0.1:11211"]
    }


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"terminating": True, "ready": False, "serving": True}),
        ({"ready": False}, {"terminating": True, "ready": False, "serving": True}),
        ({}, {"ready": False}),
        ({"ready": None}, {"ready": False}),
        ({"terminating": True, "ready": False, "serving": True}, {"terminating": True, "ready": False}),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_with_two_addresses_has_the_one_that_stays_and_serves(better, worse, order):
    """A pod that was replaced may be in two slices."""
    slices = [
        endpoint_slice("a", endpoint("memcached-0", "10.0.0.1", **better)),
        endpoint_slice("b", endpoint("memcached-0", "10.0.0.2", **worse)),
    ]
    assert nodes_of(*slices[::order]) == {"eu-1a": ["memcached-0:11211@10.0.0.1:11211"]}


@pytest.mark.parametrize(
    ("rules", "made", "label"),
    [
        pytest.param({}, endpoint("memcached-0", "10.0.0.1", hostname="host-0"), "host-0:11211", id="hostname"),
        pytest.param({}, endpoint("memcached-0", "10.0.0.1"), "memcached-0:11211", id="pod"),
        pytest.param({}, endpoint(None, "10.0.0.1"), "10.0.0.1:11211", id="no pod"),
        pytest.param({}, endpoint("outside", "10.0.0.1", kind="Node"), "10.0.0.1:11211", id="no pod, but a reference"),
        pytest.param({"labels": "address"}, endpoint("memcached-0", "10.0.0.1"), "10.0.0.1:11211", id="address"),
    ],
)
def test_the_label_comes_from(rules, made, label):
    found = find_nodes(decoded(endpoint_slice("a", made)), NodeRules(**rules))
    assert list(found.zones["eu-1a"]) == [label]


@pytest.mark.parametrize(
    ("ports", "wanted", "port"),
    [
        pytest.param([("", 11311)], None, 11311, id="the only one"),
        pytest.param([("cache", 11311)], None, 11311, id="the only one, whatever its name"),
        pytest.param([("metrics", 9150), ("memcached", 11311)], None, 11311, id="memcached among several"),
        pytest.param([("memcache", 11311), ("metrics", 9150)], None, 11311, id="memcache among several"),
        pytest.param([("memcached-udp", 1, "UDP"), ("cache", 11311)], None, 11311, id="the only one of TCP"),
        pytest.param(None, None, 11211, id="a headless Service without ports"),
        pytest.param([("memcached", 11211), ("tls", 11311)], "tls", 11311, id="a name"),
        pytest.param([("memcached", 11211)], 11311, 11311, id="a number"),
        pytest.param(None, 11311, 11311, id="a number, and no ports"),
    ],
)
def test_the_port_is(ports, wanted, port):
    assert nodes_of(endpoint_slice("a", ONE, ports=ports), port=wanted) == {"eu-1a": [f"memcached-0:{port}@10.0.0.1:{port}"]}


@pytest.mark.parametrize(
    ("ports", "wanted", "problem"),
    [
        ([("x", 1), ("y", 2)], None, "the Service has 2 TCP ports; give one as port; its named ports: x, y"),
        ([("x", 1)], "y", "the Service has no TCP port 'y'; its named ports: x"),
        ([("x", 1, "UDP")], "x", "the Service has no TCP port 'x'; its named ports: none"),
        ([("x", None)], None, "the Service has 0 TCP ports; give one as port; its named ports: none"),
        (None, "x", "the Service has no TCP port 'x'; its named ports: none"),
    ],
)
def test_a_port_that_is_missing_or_ambiguous_is_a_problem(ports, wanted, problem):
    slices = [endpoint_slice("a", ONE, ports=ports)]
    assert nodes_of(*slices, port=wanted) == {}
    assert problems_of(*slices, port=wanted) == (problem,)


def test_an_endpoint_without_a_zone_is_ignored_with_its_reason():
    slices = endpoint_slice("a", ONE, endpoint("memcached-1", "10.0.0.2", None))
    assert nodes_of(slices) == {"eu-1a": ["memcached-0:11211@10.0.0.1:11211"]}
    assert problems_of(slices) == ("endpoint memcached-1 has no zone: its node lacks the label topology.kubernetes.io/zone",)


def test_an_endpoint_without_a_zone_is_in_the_default_zone_if_there_is_one():
    slices = endpoint_slice("a", endpoint("memcached-1", "10.0.0.2", None))
    assert nodes_of(slices, default_zone="eu-1c") == {"eu-1c": ["memcached-1:11211@10.0.0.2:11211"]}
    assert problems_of(slices, default_zone="eu-1c") == ()


@pytest.mark.parametrize("zone", ["no zone", "x" * 64])
def test_an_endpoint_that_cannot_be_a_node_is_ignored_with_its_reason(zone):
    assert nodes_of(endpoint_slice("a", ONE, endpoint("memcached-1", "10.0.0.2", zone))) == {
        "eu-1a": ["memcached-0:11211@10.0.0.1:11211"]
    }
    assert "zone name" in problems_of(endpoint_slice("a", endpoint("memcached-1", "10.0.0.2", zone)))[0]


SIX = endpoint_slice("six", endpoint("memcached-0", "fd00::1"), family="IPv6")
FOUR = endpoint_slice("four", ONE)
NAMES = endpoint_slice("names", endpoint("memcached-9", "cache.example"), family="FQDN")


@pytest.mark.parametrize(
    ("slices", "family", "address"),
    [
        ([FOUR, SIX], "IPv4", "10.0.0.1:11211"),
        ([SIX, FOUR], "IPv6", "[fd00::1]:11211"),
        ([SIX, endpoint_slice("four")], "IPv4", "[fd00::1]:11211"),
        ([FOUR, NAMES], "IPv6", "10.0.0.1:11211"),
    ],
)
def test_a_pod_of_two_families_is_one_node(slices, family, address):
    assert nodes_of(*slices, family=family) == {"eu-1a": [f"memcached-0:11211@{address}"]}


endpoints = st.builds(
    endpoint,
    st.sampled_from(["memcached-0", "memcached-1", "memcached-2", None]),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    st.sampled_from(["eu-1a", "eu-1b", None]),
    ready=st.sampled_from([True, False, None]),
    terminating=st.booleans(),
)


@given(st.lists(endpoints, max_size=12), st.data())
def test_order_and_slices_of_the_endpoints_have_no_influence(made, data):
    """All clients have the same rings, whatever slices the controller chose."""
    whole = find_nodes(decoded(endpoint_slice("a", *made)), NodeRules())
    shuffled = data.draw(st.permutations(made))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(made)), max_size=3)))
    parts = [shuffled[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(made)])]
    repeated = data.draw(st.lists(st.sampled_from(parts), max_size=2))
    split = [endpoint_slice(f"s{number}", *part) for number, part in enumerate([*parts, *repeated])]
    assert find_nodes(decoded(*split), NodeRules()) == whole


# Nodes that left.


def service(linger=30.0, modes=(), **rules):
    return ServiceNodes(NodeRules(**rules), dict(modes), linger)


def see(nodes, now, *endpoints_):
    return nodes.update(decoded(endpoint_slice("a", *endpoints_)), now)


def topology(text):
    return Topology.from_node_list(text)


def pod(number, host, zone="eu-1a"):
    return endpoint(f"memcached-{number}", f"10.0.0.{host}", zone)


BOTH = topology("eu-1a=memcached-0:11211@10.0.0.1,memcached-1:11211@10.0.0.2")
FIRST = topology("eu-1a=memcached-0:11211@10.0.0.1")


def test_a_pod_that_restarts_keeps_its_place_until_it_is_back():
    nodes = service()
    assert see(nodes, 0.0, pod(0, 1), pod(1, 2)) == (BOTH, None, None)
    assert see(nodes, 1.0, pod(0, 1)) == (BOTH, None, 31.0)
    assert see(nodes, 9.0, pod(0, 1), pod(1, 9)) == (
        topology("eu-1a=memcached-0:11211@10.0.0.1,memcached-1:11211@10.0.0.9"),
        None,
        None,
    )


def test_a_pod_that_stays_away_loses_its_place_after_the_linger_time():
    nodes = service()
    see(nodes, 0.0, pod(0, 1), pod(1, 2))
    see(nodes, 1.0, pod(0, 1))
    assert see(nodes, 30.9, pod(0, 1)) == (BOTH, None, 31.0)
    assert see(nodes, 31.0, pod(0, 1)) == (FIRST, None, None)
    assert see(nodes, 90.0, pod(0, 1)) == (FIRST, None, None)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        pytest.param(
            [pod(0, 1), pod(2, 2)],
            "eu-1a=memcached-0:11211@10.0.0.1,memcached-2:11211@10.0.0.2",
            id="its address belongs to another pod",
        ),
        pytest.param(
            [pod(0, 1), pod(1, 9, "eu-1b")],
            "eu-1a=memcached-0:11211@10.0.0.1;eu-1b=memcached-1:11211@10.0.0.9",
            id="it is in another zone",
        ),
    ],
)
def test_a_pod_loses_its_place_at_once_if(later, expected):
    nodes = service()
    see(nodes, 0.0, pod(0, 1), pod(1, 2))
    assert see(nodes, 1.0, *later) == (topology(expected), None, None)


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"linger": 0.0}, pod(1, 2)),
        ({"labels": "address"}, pod(1, 2)),
        ({}, endpoint("memcached-7d9f8c6b5-x2lqp", "10.0.0.2")),
        ({}, endpoint(None, "10.0.0.2")),
    ],
    ids=["no linger time", "labels are addresses", "pod of a Deployment", "no pod"],
)
def test_an_endpoint_that_does_not_return_under_its_label_loses_its_place_at_once(options, gone):
    nodes = service(**options)
    see(nodes, 0.0, pod(0, 1), gone)
    after = see(nodes, 1.0, pod(0, 1))
    assert [node.host for node in after.topology.zones[0].nodes] == ["10.0.0.1"]
    assert after.again_at is None


def test_a_service_without_endpoints_reports_it_at_once_and_keeps_its_nodes_for_the_linger_time():
    nodes = service()
    see(nodes, 0.0, pod(0, 1))
    assert see(nodes, 1.0) == (FIRST, "there are no endpoints", 31.0)
    assert see(nodes, 31.0) == (None, "there are no endpoints", None)


def test_a_zone_whose_pods_restart_stays_in_its_place_among_the_zones():
    nodes = service()
    both = see(nodes, 0.0, pod(0, 1), pod(2, 3, "eu-1b")).topology
    assert see(nodes, 1.0, pod(2, 3, "eu-1b")).topology == both


def test_a_zone_of_the_modes_is_write_only():
    found = see(service(modes={"eu-1b": Mode.WRITE_ONLY}), 0.0, pod(0, 1), pod(2, 3, "eu-1b")).topology
    assert [(zone.name, zone.mode) for zone in found.zones] == [("eu-1a", Mode.READ_WRITE), ("eu-1b", Mode.WRITE_ONLY)]


def test_zones_that_cannot_be_read_are_no_topology():
    found = see(service(modes={"eu-1a": Mode.WRITE_ONLY}), 0.0, pod(0, 1))
    assert found.topology is None
    assert "write-only" in found.problem


def test_problems_are_counted_if_there_are_many():
    zoneless = [endpoint(f"memcached-{number}", f"10.0.0.{number}", None) for number in range(9)]
    found = see(service(), 0.0, *zoneless)
    assert found.topology is None
    assert found.problem.count("has no zone") == 3
    assert found.problem.endswith("; and 6 more")


@given(st.lists(st.tuples(st.sets(st.integers(0, 4)), st.floats(0.1, 20.0)), max_size=12))
def test_a_pod_has_a_place_while_it_was_there_less_than_the_linger_time_ago(history):
    """The model: the last time at which each pod was absent for the first time."""
    nodes, now, absent_since = service(), 0.0, {}
    present = set()
    for pods, seconds in history:
        for number in present - pods:
            absent_since[number] = now
        for number in pods:
            absent_since.pop(number, None)
        present = pods
        found = see(nodes, now, *(pod(number, number + 1) for number in sorted(pods)))
        expected = pods | {number for number, since in absent_since.items() if now < since + 30.0}
        got = set() if found.topology is None else {int(node.label[10]) for node in found.topology.zones[0].nodes}
        assert got == expected
        absent_since = {number: since for number, since in absent_since.items() if number in expected}
        now += seconds
