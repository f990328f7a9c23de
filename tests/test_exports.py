"""The public names and signatures. Whoever changes one of these changes what others have written against."""

import importlib
import inspect

import pytest

from evcache import EVCache

NAMES = {
    "evcache": """
        Batch BufferFull CacheError CacheUnavailable CircuitLimits Codec CodecError Consistency ConsistencyError DecodeError EVCache EncodeError
        Failover Gutter Hedging Hints Hooks InvalidationChannel LoadAborted LoadPolicy LoadTimeout Loaded LocalChannel
        InvalidArgument InvalidKey InvalidTopology Item NearCache NodeSettings Outcome ServerError StandardCodec Stats Telemetry Unsupported
        UsageError ValueTooLarge WriteBehind WriteBehindStats WriteResult
    """,
    "evcache.zones": """
        Discovery Endpoint EnvironmentDiscovery FileDiscovery Mode SocketDialer StaticDiscovery Topology Zone
    """,
    "evcache.testing": """
        BackendUnavailable FakeMemcached FaultProxy LocalZones RunningZones
    """,
}

# Parameters by name; those after `*` by keyword only.
SIGNATURES = {
    "__init__": """
        namespace zones * local_zone read_consistency write_consistency read_timeout write_timeout ttl fallback_on_miss
        errors ordering interop codec tombstone_ttl near_cache invalidation loading max_loads nodes transport
        repair read_repair_chance hints remember_versions failover hedging gutter hooks telemetry wall_clock
    """,
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
    for method in set(SIGNATURES) - {"__init__", "close", "stats", "cached", "__aenter__", "__aexit__"}:
        parameters = inspect.signature(getattr(EVCache, method)).parameters
        for name in ("consistency", "timeout"):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[name].default is None


@pytest.mark.parametrize("package", NAMES)
def test_everything_public_says_what_it_is(package):
    """Public classes have docstrings, and so have a client's operations."""
    module = importlib.import_module(package)
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name
    for method in SIGNATURES:
        assert inspect.getdoc(getattr(EVCache, method)), method
