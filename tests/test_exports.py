"""Public names and signatures. A change of one of them breaks code that users have written."""

import importlib
import inspect
import re
import tomllib
import typing
from pathlib import Path

import pytest

import evcache
from evcache import EVCache

ROOT = Path(__file__).parents[1]

NAMES = {
    "evcache": """
        Batch BufferFull BusStats CacheError CacheUnavailable Cached CachedDecorator CheckResult CircuitLimits Codec
        CodecError ConfigEndpoint ConnectionLimits ConnectionLost Consistency ConsistencyError DecodeError Dialer
        Discovery DiscoveryError DnsLookup EVCache EncodeError Endpoint EnvironmentDiscovery Failover FailoverDenied
        FileDiscovery Gutter Hedging HintEnd Hints Hooks Interop InvalidArgument InvalidKey InvalidTopology
        InvalidationChannel Item KubernetesDiscovery LoadAborted LoadPolicy LoadStats LoadTimeout Loaded
        LocalChannel LocalZone LookupDiscovery LookupZone Migration MigrationStep Mode NearCache NearStats NodeCheck
        NodeError NodeSettings NodeSilent NodeTimeout NodeUnavailable Outcome PoolLimits ProtocolError QueueFull
        RemovalCause ServerError SocketDialer Source StaleReplica StandardCodec StaticDiscovery Stats Subscription
        Telemetry Topology TopologyGuard Unsupported UsageError ValueTooLarge WriteBehind WriteBehindStats
        WriteResult Zone ZoneCheck ZoneTraffic
    """,
    "evcache.interop": """
        GroupInterop Interop InteropCodec JavaByte JavaFloat JavaInteger JavaLong JavaObject JavaShort KeyHash
    """,
    "evcache.zones": """
        Discovery Endpoint EnvironmentDiscovery FileDiscovery FoundNodes Look LookupDiscovery LookupZone Mode
        NodeSource PolledDiscovery SocketDialer SourceStatus StaticDiscovery Topology Zone
    """,
    "evcache.testing": """
        BackendUnavailable FakeMemcached FaultProxy LocalZones RunningZones
    """,
}

# Parameters by name; those after `*` by keyword only.
SIGNATURES = {
    "__init__": """
        namespace zones * local_zone topology_guard read_consistency write_consistency read_timeout write_timeout ttl fallback_on_miss
        errors ordering interop codec tombstone_ttl near_cache invalidation loading max_loads nodes transport
        repair read_repair_chance hints remember_versions failover hedging gutter hooks telemetry wall_clock
    """,
    "confirm_topology": "",
    "get": "key default * as_ consistency timeout fallback_on_miss errors near_cache",
    "get_item": "key * as_ consistency timeout fallback_on_miss errors near_cache for_update",
    "get_many": "keys * as_ consistency timeout fallback_on_miss errors near_cache",
    "get_and_touch": "key ttl default * as_ consistency timeout errors",
    "set": "key value * ttl consistency timeout ordering errors",
    "set_many": "values * ttl consistency timeout ordering errors",
    "delete": "key * consistency timeout errors",
    "delete_many": "keys * consistency timeout errors",
    "touch": "key ttl * consistency timeout errors",
    "add": "key value * ttl consistency timeout",
    "replace": "key value * ttl consistency timeout",
    "cas": "key value expected * ttl consistency timeout",
    "append": "key value * consistency timeout",
    "prepend": "key value * consistency timeout",
    "incr": "key delta * initial ttl consistency timeout",
    "decr": "key delta * initial ttl consistency timeout",
    "get_or_load": "key loader * as_ ttl policy consistency timeout near_cache",
    "get_or_load_many": "keys loader * as_ ttl policy consistency timeout near_cache",
    "cached": "* key ttl policy timeout near_cache stale_while_revalidate",
    "invalidate": "key * stale_while_revalidate consistency timeout",
    "write_through": "key value writer * ttl consistency timeout",
    "close": "drain",
    "check": "* timeout",
    "stats": "",
    "__aenter__": "",
    "__aexit__": "kind error traceback",
}
PROPERTIES = "namespace topology"


@pytest.mark.parametrize("package", NAMES)
def test_public_names(package):
    """`__all__` is this list, sorted, and every name of it is there."""
    module = importlib.import_module(package)
    assert module.__all__ == sorted(NAMES[package].split())
    for name in module.__all__:
        assert hasattr(module, name), name


@pytest.mark.parametrize("method", SIGNATURES)
def test_parameters(method):
    """Each operation takes these parameters, in this order."""
    parameters = list(inspect.signature(getattr(EVCache, method)).parameters.values())
    assert parameters[0].name == "self"
    shown = []
    for parameter in parameters[1:]:
        assert parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}, parameter
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(parameter.name)
    assert shown == SIGNATURES[method].split()


def test_no_other_operations():
    """Everything public on a client is pinned here."""
    public = {name for name in dir(EVCache) if not name.startswith("_")}
    pinned = {name for name in SIGNATURES if not name.startswith("_")} | set(PROPERTIES.split())
    assert public == pinned


def test_every_operation_takes_consistency_and_timeout():
    """As the docs promise, by keyword and with a default. The decorator is none: it takes what `get_or_load` is called with."""
    for method in set(SIGNATURES) - {
        "__init__",
        "check",
        "close",
        "confirm_topology",
        "stats",
        "cached",
        "__aenter__",
        "__aexit__",
    }:
        parameters = inspect.signature(getattr(EVCache, method)).parameters
        for name in ("consistency", "timeout"):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[name].default is None


@pytest.mark.parametrize("package", NAMES)
def test_everything_public_says_what_it_is(package):
    """Public classes have docstrings, and so have a client's operations."""
    module = importlib.import_module(package)
    for name in module.__all__:
        if typing.get_origin(getattr(module, name)) is not typing.Literal:
            assert inspect.getdoc(getattr(module, name)), name
    for method in SIGNATURES:
        assert inspect.getdoc(getattr(EVCache, method)), method


def test_the_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert evcache.__version__ == project["version"]


MODULES = ["evcache", "evcache.channels", "evcache.channels.redis", "evcache.interop", "evcache.testing", "evcache.zones"]
# Pages about the inside of the package, and about its prose.
INSIDE = {"architecture.md", "glossary.md", "style.md"}
# Names in docs of Python, of libraries, of memcached and of examples.
NOT_OURS = {
    *("CancelledError", "RuntimeError", "TimeoutError", "TypeError", "ValueError"),
    *("InitVar", "IntEnum", "NamedTuple", "OrderedDict", "RootModel", "StrEnum", "TypedDict"),
    *("AmazonElastiCache", "AvailabilityZone", "HttpPutResponseHopLimit"),
    *("MessagePack", "OpenTelemetry", "ParentBased", "TestClient", "TraceIdRatioBased", "TracerProvider"),
    *("ClientException", "ValidationException"),  # aiomcache, as the three below: pages for users of these libraries
    *("JsonSerializer", "OptimisticLock", "PickleSerializer", "RedLock", "SimpleMemoryCache"),  # aiocache
    *("HashClient", "MemcacheClientError", "MemcacheIllegalInputError", "MemcacheServerError", "PooledClient"),  # pymemcache
    *("DataError", "ResponseError"),  # redis-py
}


def names_in(page):
    """Return the names in CamelCase that a page has in backticks, outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    names = set(re.findall(r"(?<![\w.])(?:[A-Z]+[a-z0-9]+){2,}(?!\w)", spans))
    return {name for name in names if not name.startswith("Evcache")}  # alerts, which tests/test_alerts.py compares


PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in INSIDE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_class_that_a_page_names_can_be_imported(page):
    public = {name for module in map(importlib.import_module, MODULES) for name in dir(module)}
    assert names_in(page) - NOT_OURS - public == set()


def test_names_in_pages_are_found():
    assert {"ConnectionLimits", "PoolLimits", "NodeSilent"} <= set().union(*map(names_in, PAGES))
    assert set().union(*map(names_in, PAGES)) >= NOT_OURS
