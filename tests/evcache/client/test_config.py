"""The forms of the `zones` argument, the local zone, and the checks that share a helper."""

import asyncio
import math

import pytest

from evcache import InvalidArgument, InvalidTopology, LocalZone
from evcache.config import Errors, discovery_from, local_zone_from
from evcache.zones import Endpoint, FileDiscovery, Mode, StaticDiscovery, Topology, Zone
from evcache.zones.validation import one_of, positive_seconds

TOPOLOGY = Topology((Zone("a", (Endpoint.parse("one:11211"),)), Zone("b", (Endpoint.parse("two:11212"),))))


class Source:
    async def load(self):
        return TOPOLOGY

    async def watch(self):
        return
        yield


@pytest.mark.parametrize(
    "zones",
    [
        {"a": ["one:11211"], "b": ["two:11212"]},
        {"a": ("one",), "b": [Endpoint.parse("two:11212")]},
        {"a": TOPOLOGY.zones[0], "b": TOPOLOGY.zones[1]},
        "a=one:11211;b=two:11212",
        " a = one ; b=two:11212; ",
        TOPOLOGY,
        StaticDiscovery(TOPOLOGY),
        Source(),
    ],
)
def test_every_form_gives_the_same_zones(zones):
    """A mapping, a node list, a Topology and a Discovery are ways to say the same."""
    discovery = discovery_from(zones, LocalZone("b"))
    assert asyncio.run(discovery.load()) == TOPOLOGY


@pytest.mark.parametrize("as_path", [True, False])
def test_a_file_is_read_with_the_first_call_only(tmp_path, as_path):
    """Making a client does no I/O, so a file that is not there yet is no error then."""
    path = tmp_path / "zones.toml"
    discovery = discovery_from(path if as_path else str(path), None)
    assert isinstance(discovery, FileDiscovery)
    path.write_text('[zones.a]\nnodes = ["one"]\n[zones.b]\nnodes = ["two:11212"]\n')
    assert asyncio.run(discovery.load()) == TOPOLOGY


def test_a_node_list_can_have_write_only_zones():
    """`!` behind the name: the zone is filled before it serves."""
    topology = asyncio.run(discovery_from("a=one;b!=two", None).load())
    assert [zone.mode for zone in topology.zones] == [Mode.READ_WRITE, Mode.WRITE_ONLY]


@pytest.mark.parametrize(
    "zones",
    [
        "",
        "somewhere",
        "zones.yaml",
        "one:11211",
        "a=",
        "=one",
        "a=one;b",
        "a=one;a=two",
        "a=one:0",
        "a=one:port",
        "a=x@one,x@two",
        "a!=one",
        {},
        {"a": []},
        {"a": "one:11211"},
        {"a": None},
        {"a": [5]},
        {"a": ["one", "one"]},
        {5: ["one"]},
        {"bad name": ["one"]},
        [],
        ["one:11211"],
        None,
        5,
        b"a=one",
    ],
)
def test_zones_that_cant_be_used(zones):
    """Refused when the client is made, naming `zones`."""
    with pytest.raises(InvalidTopology) as caught:
        discovery_from(zones, None)
    assert caught.value.argument == "zones"


def test_strict_local_zone_is_one_of_the_zones():
    with pytest.raises(InvalidTopology, match="a, b") as caught:
        discovery_from(TOPOLOGY, LocalZone("c", strict=True))
    assert caught.value.argument == "local_zone"


@pytest.mark.parametrize(
    ("said", "environment", "zone"),
    [
        ("a", {}, "a"),
        ("a", {"EVCACHE_ZONE": "b"}, "a"),
        (None, {"EVCACHE_ZONE": "b"}, "b"),
        (None, {"EVCACHE_ZONE": ""}, None),
        (None, {}, None),
        (None, {"EVCACHE_ZONE": "auto"}, "auto"),
    ],
)
def test_where_the_local_zone_comes_from(said, environment, zone):
    """The argument, else the environment, else nowhere."""
    assert local_zone_from(said, environment) == (None if zone is None else LocalZone(zone))


@pytest.mark.parametrize("zone", ["", 5, b"a", ["a"]])
def test_invalid_local_zone_is_refused(zone):
    """The error names the argument."""
    with pytest.raises(InvalidTopology) as caught:
        local_zone_from(zone, {})
    assert caught.value.argument == "local_zone"


@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, True, "1", None])
def test_invalid_time_span_is_refused(value):
    """Timeouts are finite and over 0."""
    with pytest.raises(InvalidArgument) as caught:
        positive_seconds(value, "read_timeout")
    assert caught.value.argument == "read_timeout"


def test_time_spans():
    """Whole and broken seconds."""
    assert (positive_seconds(1, "t"), positive_seconds(0.001, "t")) == (1.0, 0.001)


def test_one_of_lists_the_allowed_values():
    """The error says which values can be used."""
    one_of("miss", Errors, "errors")
    with pytest.raises(InvalidArgument, match="'raise', 'miss'") as caught:
        one_of("never", Errors, "errors")
    assert caught.value.argument == "errors"
