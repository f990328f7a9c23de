"""Forms of zones whose nodes are given, or looked up."""

import pytest

from evcache.zones.discovery.base import SourceStatus, StaticDiscovery
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.discovery.forms import discovery_of_mapping, discovery_of_text
from evcache.zones.discovery.kubernetes import KubernetesDiscovery
from evcache.zones.discovery.lookup import FoundNodes, LookupDiscovery
from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint
from evcache.zones.discovery.lookups.dns_names import DnsLookup
from evcache.zones.errors import DiscoveryError, InvalidTopology
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from tests.support.virtual_time import in_virtual_time


class Source:
    """A source of a service's own."""

    async def nodes(self):
        return FoundNodes((Endpoint.parse("s-1@h9"),))


def shape(discovery):
    """Return the zones of a `LookupDiscovery`: name, mode, and the class or the label of each source."""
    return [
        (zone.name, zone.mode, [source.label if isinstance(source, Endpoint) else type(source) for source in zone.sources])
        for zone in discovery._zones
    ]


RW, WO = Mode.READ_WRITE, Mode.WRITE_ONLY
LOOKUPS = {
    "a=dns+cache-a:11211;b=dns+cache-b": [("a", RW, [DnsLookup]), ("b", RW, [DnsLookup])],
    "a=dnssrv+_memcached._tcp.cache-a;b!=dnssrvnoa+_memcached._tcp.cache-b": [
        ("a", RW, [DnsLookup]),
        ("b", WO, [DnsLookup]),
    ],
    "a=elasticache+cfg-a:11211;b=memorystore+10.0.0.5:11211": [("a", RW, [ConfigEndpoint]), ("b", RW, [ConfigEndpoint])],
    "a=h1,n-2@h2;b=dns+cache-b,h3": [("a", RW, ["h1:11211", "n-2"]), ("b", RW, [DnsLookup, "h3:11211"])],
}


@pytest.mark.parametrize("text", LOOKUPS)
def test_node_list_with_lookups(text):
    discovery = discovery_of_text(text)
    assert isinstance(discovery, LookupDiscovery)
    assert shape(discovery) == LOOKUPS[text]


def test_node_list_without_lookups_never_changes():
    discovery = discovery_of_text("a=h1;b!=h2")
    assert isinstance(discovery, StaticDiscovery)
    assert discovery.topology == Topology.from_node_list("a=h1;b!=h2")


@pytest.mark.parametrize("text", ["kubernetes+cache", "kubernetes+cache.shop", " kubernetes+cache.shop:11211 "])
def test_service_of_kubernetes(text):
    assert isinstance(discovery_of_text(text), KubernetesDiscovery)


def test_mapping_with_lookups():
    zone = Zone("d", (Endpoint.parse("h4"),), WO)
    discovery = discovery_of_mapping(
        {
            "a": "dns+cache-a",
            "b": ["elasticache+cfg:11211", "h2", Endpoint.parse("n-3@h3")],
            "c": Source(),
            "d": zone,
            "e": (node for node in ["h5", "h6"]),
            "f": [Source(), "h7"],
        }
    )
    assert shape(discovery) == [
        ("a", RW, [DnsLookup]),
        ("b", RW, [ConfigEndpoint, "h2:11211", "n-3"]),
        ("c", RW, [Source]),
        ("d", WO, ["h4:11211"]),
        ("e", RW, ["h5:11211", "h6:11211"]),
        ("f", RW, [Source, "h7:11211"]),
    ]


def test_mapping_without_lookups_never_changes():
    discovery = discovery_of_mapping({"a": iter(["h1"]), "b": [Endpoint.parse("h2")]})
    assert isinstance(discovery, StaticDiscovery)
    assert discovery.topology == Topology.from_node_list("a=h1;b=h2")


@pytest.mark.parametrize(
    "zones",
    [
        {"a": "h1"},
        {"a": 5},
        {"a": [5, "dns+h"]},
        {"a": ["dns+"]},
        {"a": "dns+h:0"},
        {"a": ["other+h:11211"]},
        {"a": "dns+h", "b": []},
        {"a": "dns+h", 5: ["h1"]},
        {"a": "dns+h", "b": Zone("c", (Endpoint.parse("h"),))},
        {"a b": "dns+h"},
        {"a": Source},
    ],
)
def test_mappings_that_cannot_be_used(zones):
    with pytest.raises(InvalidTopology) as caught:
        discovery_of_mapping(zones)
    assert caught.value.argument == "zones"


@pytest.mark.parametrize(
    "text",
    ["a=dns+", "a=dnssrv+:1", "a=elasticache+", "a=x+h", "a=kubernetes+cache", "a!=dns+h", "a=dns+h;a=h2", "kubernetes+"],
)
def test_texts_that_cannot_be_used(text):
    with pytest.raises(InvalidTopology) as caught:
        discovery_of_text(text)
    assert caught.value.argument == "zones"


def test_toml_file_with_a_lookup_is_refused_with_the_reason():
    with pytest.raises(InvalidTopology, match="one that belongs in a node list or a mapping"):
        Topology.from_toml('[zones.a]\nnodes = ["dns+cache-a"]\n')


@in_virtual_time
async def test_environment_may_name_any_source():
    environment = {"EVCACHE_NODES": "a=h1"}
    discovery = EnvironmentDiscovery(environment)
    assert discovery.status is None
    assert await discovery.load() == Topology.from_node_list("a=h1")
    assert discovery.status is None
    environment["EVCACHE_NODES"] = "a=memorystore+127.0.0.1:1"
    with pytest.raises(DiscoveryError, match="zone a: configuration endpoint"):
        await discovery.load()
    assert isinstance(discovery.status, SourceStatus)
    assert [topology async for topology in EnvironmentDiscovery(environment).watch()] == []
