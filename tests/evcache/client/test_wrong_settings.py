"""Wrong values for every setting: `InvalidArgument` names it before anything is opened.

The table is made from the signatures, so a new setting cannot be forgotten: a wrong value that a class accepts has to be listed.
"""

import asyncio
import inspect
import math
from datetime import timedelta

import pytest

from evcache import (
    CircuitLimits,
    ConfigEndpoint,
    DnsLookup,
    EVCache,
    Failover,
    Gutter,
    Hedging,
    Hints,
    InvalidArgument,
    KubernetesDiscovery,
    Loaded,
    LoadPolicy,
    LocalChannel,
    LocalZone,
    LookupDiscovery,
    LookupZone,
    Migration,
    NearCache,
    NodeSettings,
    StandardCodec,
    Telemetry,
    TopologyGuard,
    WriteBehind,
)
from evcache.channels.redis import RedisChannel
from evcache.zones import Endpoint, Topology, Zone
from evcache.zones.discovery.base import StaticDiscovery
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.transport.classic.pool import PoolLimits
from evcache.zones.transport.dialer import SocketDialer
from evcache.zones.transport.limits import ConnectionLimits

ZONES = {"a": ["127.0.0.1:1"]}
ENDPOINT = Endpoint.parse("127.0.0.1:1")
ZONE = Zone("a", (ENDPOINT,))


class NoMethods:
    """An object of a wrong kind. Its name is short in the ids of tests."""

    def __repr__(self):
        return "an object"


OBJECT = NoMethods()

WRONG = {
    "None": None,
    "'x'": "x",
    "''": "",
    "-1": -1,
    "0": 0,
    "nan": math.nan,
    "inf": math.inf,
    "True": True,
    "object": OBJECT,
    "[]": [],
    "{}": {},
    "'1'": "1",
    "-1 s": timedelta(seconds=-1),
}

# What makes the class, apart from the argument that is wrong.
CLASSES = {
    EVCache: {"namespace": "t", "zones": ZONES},
    CircuitLimits: {},
    ConfigEndpoint: {"address": "127.0.0.1:1"},
    ConnectionLimits: {},
    DnsLookup: {"text": "dns+cache.example"},
    EnvironmentDiscovery: {},
    Failover: {},
    FileDiscovery: {"path": "zones.toml"},
    Gutter: {"nodes": ["127.0.0.1:1"]},
    Hedging: {},
    Hints: {},
    KubernetesDiscovery: {"service": "cache"},
    LoadPolicy: {},
    Loaded: {"value": 1},
    LocalChannel: {},
    LocalZone: {},
    LookupDiscovery: {"zones": [LookupZone("a", (ENDPOINT,))]},
    Migration: {"old": "a=h1", "new": "a=h2"},
    NearCache: {},
    NodeSettings: {},
    PoolLimits: {},
    RedisChannel: {"url": "redis://127.0.0.1:1"},
    SocketDialer: {},
    StandardCodec: {},
    StaticDiscovery: {"topology": Topology((ZONE,))},
    Telemetry: {},
    Topology: {"zones": (ZONE,)},
    TopologyGuard: {},
    WriteBehind: {"cache": None, "writer": print},
    Zone: {"name": "a", "nodes": (ENDPOINT,)},
    Endpoint: {"host": "127.0.0.1", "port": 1, "path": "", "label": "n1"},
}

ANYTHING = set(WRONG)

# By class and argument: which of the values above have a meaning. Others are in none.
ACCEPTED = {
    (CircuitLimits, "calm"): {"0"},
    (CircuitLimits, "jitter"): {"0"},
    (CircuitLimits, "probe_timeout"): {"None"},
    (CircuitLimits, "slow_start"): {"0"},
    (ConfigEndpoint, "address"): {"'x'", "'1'"},
    (ConfigEndpoint, "dialer"): {"None"},
    (ConfigEndpoint, "tls"): {"None"},
    (DnsLookup, "resolver"): {"None"},
    (EVCache, "read_repair_chance"): {"0"},
    (EVCache, "codec"): {"None"},
    (EVCache, "fallback_on_miss"): {"True"},
    (EVCache, "gutter"): {"None"},
    (EVCache, "hedging"): {"None"},
    (EVCache, "hints"): {"None"},
    (EVCache, "hooks"): {"None"},
    (EVCache, "interop"): {"True"},
    (EVCache, "invalidation"): {"None"},
    (EVCache, "local_zone"): {"None", "'x'", "'1'"},
    (EVCache, "namespace"): {"'x'", "'1'"},
    (EVCache, "near_cache"): {"None"},
    (EVCache, "nodes"): {"None"},
    (EVCache, "remember_versions"): {"0"},
    (EVCache, "repair"): {"True"},
    (EVCache, "telemetry"): {"None"},
    (EVCache, "tombstone_ttl"): {"inf"},
    (EVCache, "topology_guard"): {"None"},
    (EVCache, "transport"): {"None"},
    (EVCache, "ttl"): {"inf"},
    (Endpoint, "host"): {"'x'", "'1'"},
    (Endpoint, "label"): {"'x'", "'1'"},
    (Endpoint, "path"): {"''"},
    (EnvironmentDiscovery, "environment"): {"None", "{}"},
    (EnvironmentDiscovery, "variable"): {"'x'", "'1'"},
    (Failover, "burst"): {"0"},
    (Failover, "ratio"): {"0"},
    (FileDiscovery, "path"): {"'x'", "'1'"},
    (Hints, "path"): {"None", "'x'", "'1'"},
    (KubernetesDiscovery, "api_server"): {"None"},
    (KubernetesDiscovery, "ca_path"): {"None", "'x'", "'1'"},
    (KubernetesDiscovery, "default_zone"): {"None", "'x'", "'1'"},
    (KubernetesDiscovery, "linger"): {"0"},
    (KubernetesDiscovery, "modes"): {"None", "{}"},
    (KubernetesDiscovery, "namespace"): {"None", "'x'", "'1'"},
    (KubernetesDiscovery, "port"): {"None", "'x'", "'1'"},
    (KubernetesDiscovery, "service"): {"'x'", "'1'"},
    (KubernetesDiscovery, "token_path"): {"None", "'x'", "'1'"},
    (LoadPolicy, "xfetch_beta"): {"0"},
    (LoadPolicy, "stale_if_error"): {"0"},
    (LoadPolicy, "jitter"): {"0"},
    (LoadPolicy, "lease"): {"True"},
    (LoadPolicy, "lease_wait"): {"0"},
    (LoadPolicy, "negative_ttl"): {"0"},
    (LoadPolicy, "refresh_after"): {"0"},
    (LoadPolicy, "soft_timeout"): {"None"},
    (LoadPolicy, "stale_while_revalidate"): {"0"},
    (LoadPolicy, "failure_backoff"): {"0"},
    (Loaded, "ttl"): {"None", "0", "inf"},
    (Loaded, "value"): ANYTHING,
    (LocalZone, "name"): {"'x'", "'1'"},
    (LocalZone, "strict"): {"True"},
    (Migration, "suffix"): {"'x'", "'1'"},
    (NearCache, "hot_reads"): {"None"},
    (NearCache, "negative_share"): {"0"},
    (NearCache, "revalidate_over"): {"None", "0"},
    (NearCache, "ttl"): {"None"},
    (NodeSettings, "auth"): {"None"},
    (NodeSettings, "lookup_interval"): {"None", "0"},
    (NodeSettings, "tap"): {"None"},
    (PoolLimits, "operation"): {"None"},
    (SocketDialer, "server_hostname"): {"None", "'x'", "'1'"},
    (SocketDialer, "tls"): {"None"},
    (StandardCodec, "compress_over"): {"None", "0"},
    (StandardCodec, "packed_ints"): {"True"},
    (Telemetry, "durations_per_second"): {"None"},
    (Telemetry, "meter_provider"): {"None"},
    (Telemetry, "metrics"): {"True"},
    (Telemetry, "node_spans"): {"True"},
    (Telemetry, "traces"): {"True"},
    (Telemetry, "tracer_provider"): {"None"},
    (TopologyGuard, "max_removed"): {"0"},
    (WriteBehind, "cache"): {"None"},
    (WriteBehind, "codec"): {"None"},
    (WriteBehind, "merge"): {"None"},
    (WriteBehind, "on_lost"): {"None"},
    (WriteBehind, "path"): {"None", "'x'", "'1'"},
    (WriteBehind, "timeout"): {"None", "0"},
    (Zone, "location"): {"None", "'x'", "'1'"},
    (Zone, "name"): {"'x'", "'1'"},
}

# Parts of the `zones` argument of a client: errors name that one.
PARTS_OF_ZONES = (DnsLookup, Topology, Zone, Endpoint)


def cases():
    for kind in CLASSES:
        for parameter in inspect.signature(kind).parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD:
                yield kind, parameter.name


@pytest.mark.parametrize(("kind", "name"), list(cases()), ids=lambda it: it if isinstance(it, str) else it.__name__)
def test_wrong_values_are_refused(kind, name):
    """Each value of the table, in place of one argument, without a running loop."""
    accepted = set()
    for label, value in WRONG.items():
        try:
            kind(**CLASSES[kind] | {name: value})
        except InvalidArgument as error:
            expected = "zones" if kind in PARTS_OF_ZONES and name != "resolver" else name
            assert error.argument == expected, f"{label}: {error}"
            assert str(error).startswith(error.argument)
        else:
            accepted.add(label)
    assert accepted == ACCEPTED.get((kind, name), set())


def test_every_dataclass_of_settings_is_in_the_table():
    """What `EVCache` takes as an instance is a class with settings of its own."""
    settings = {
        type(parameter.default)
        for parameter in inspect.signature(EVCache).parameters.values()
        if type(parameter.default).__module__.startswith(("evcache", "zones")) and parameter.name not in _NO_SETTINGS
    }
    assert settings <= CLASSES.keys()


_NO_SETTINGS = {"read_consistency", "write_consistency"}

BAD_ZONES = {
    "None": None,
    "no zones": {},
    "a list": ["127.0.0.1:1"],
    "an address": "127.0.0.1:1",
    "a URL": "memcached://127.0.0.1:1",
    "a zone without nodes": {"a": []},
    "a zone that is a text": {"a": "127.0.0.1:1"},
    "a zone that is None": {"a": None},
    "a zone that is a number": {"a": 1},
    "a node that is None": {"a": [None]},
    "a node that is a tuple": {"a": [("127.0.0.1", 1)]},
    "a node that is bytes": {"a": [b"127.0.0.1:1"]},
    "a node that is a URL": {"a": ["memcached://127.0.0.1:1"]},
    "port 0": {"a": ["127.0.0.1:0"]},
    "port 65536": {"a": ["127.0.0.1:65536"]},
    "port -1": {"a": ["127.0.0.1:-1"]},
    "port x": {"a": ["127.0.0.1:x"]},
    "no port after the colon": {"a": ["127.0.0.1:"]},
    "one node twice": {"a": ["127.0.0.1:1", "127.0.0.1:1"]},
    "two nodes with one label": {"a": ["x@127.0.0.1:1", "x@127.0.0.1:2"]},
    "a zone twice in a node list": "a=127.0.0.1:1;a=127.0.0.1:2",
    "a name that is None": {None: ["127.0.0.1:1"]},
    "a name with a space": {"a b": ["127.0.0.1:1"]},
    "an empty name": {"": ["127.0.0.1:1"]},
    "only write-only zones": "a!=127.0.0.1:1",
    "a class": FileDiscovery,
    "an object": OBJECT,
    "half a discovery": type("Half", (), {"load": print, "watch": None})(),
}


@pytest.mark.parametrize("zones", BAD_ZONES.values(), ids=BAD_ZONES)
def test_zones_that_cannot_be_used(zones):
    """Named as `zones`, with what is wrong about them."""
    with pytest.raises(InvalidArgument) as caught:
        EVCache("t", zones)
    assert caught.value.argument == "zones"


@pytest.mark.parametrize("codec", ["json", OBJECT, StandardCodec, type("Half", (), {"encode": print})()])
def test_a_codec_has_two_methods(codec):
    with pytest.raises(InvalidArgument, match="codec"):
        EVCache("t", ZONES, codec=codec)


@pytest.mark.parametrize("drain", [None, "x", -1, math.nan, math.inf, True])
def test_the_drain_of_close(drain):
    """Refused before anything is closed."""

    async def main():
        cache = EVCache("t", ZONES)
        with pytest.raises(InvalidArgument, match="drain"):
            await cache.close(drain)
        assert await cache.get("k", "default", errors="miss", timeout=5) == "default"
        await cache.close(0)

    asyncio.run(main())
