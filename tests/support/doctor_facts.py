"""Facts for tests of the judges of `evcache doctor`."""

from evcache.admin.doctor.facts import Facts, NodeFacts, SampledKey, ZoneFacts
from evcache.replication.hlc import MILLISECONDS_SHIFT, cas_of
from evcache.zones.admin.statistics import ServerSettings, ServerStatistics
from evcache.zones.nodes.capabilities import Capabilities

NOW_MS = 1_700_000_000_000


def node(zone="a", label="n1", *, version="1.6.40", **fields):
    """Return a healthy node, with the fields that differ. `stats` and `options` are fields of statistics and settings."""
    stats = {
        "pid": 7,
        "uptime": 100_000,
        "time": NOW_MS // 1000,
        "curr_items": 5_000,
        "bytes": 5_000_000,
        "limit_maxbytes": 64 << 20,
        "get_hits": 9_000,
        "get_misses": 1_000,
        "evictions": 0,
        "evicted_unfetched": 0,
        "curr_connections": 10,
        "max_connections": 1024,
        "reserved_fds": 20,
        "rejected_connections": 0,
        "listen_disabled_num": 0,
    }
    options = {
        "item_size_max": 1 << 20,
        "evictions": True,
        "dump_enabled": True,
        "cas_enabled": True,
        "idle_timeout": 0,
        "hashpower_init": 0,
        "proxy_enabled": False,
    }
    healthy = {
        "address": f"{zone}-{label}:11211",
        "capabilities": Capabilities(server=version, explicit_cas=version >= "1.6.27", cas=True),
        "statistics": ServerStatistics(**(stats | fields.pop("stats", {}))),
        "settings": ServerSettings(**(options | fields.pop("options", {}))),
        "clock_offset": 0.0,
        "local_address": "10.0.0.9:5000",
        "clients": ("tcp:10.0.0.9:5000", "tcp:10.0.0.8:5001"),
    }
    return NodeFacts(zone, label, **(healthy | fields))


def down(zone="a", label="n1", error="refused", **fields):
    """Return a node that does not answer."""
    return NodeFacts(zone, label, f"{zone}-{label}:11211", error=error, is_complete=False, **fields)


def facts(*nodes, modes=None, **fields):
    """Return facts about these nodes, by their zones."""
    names = dict.fromkeys(one.zone for one in nodes)
    modes = modes or {}
    zones = tuple(
        ZoneFacts(name, tuple(one for one in nodes if one.zone == name), *([modes[name]] if name in modes else []))
        for name in names
    )
    return Facts(zones, **({"now_ms": NOW_MS, "seconds": 2.0} | fields))


def sample(*owners, namespace="ns"):
    """Return sampled keys with these owners, without a CAS."""
    return tuple(SampledKey(f"{namespace}:{place}".encode(), owner, None) for place, owner in enumerate(owners))


def written_at(milliseconds, writer=5):
    """Return a sampled key whose version was made at that time."""
    return SampledKey(b"ns:k", "n1", cas_of(milliseconds << MILLISECONDS_SHIFT | writer))


def names(findings):
    """Return the names of the findings, without those that are no fault."""
    return [finding.name for finding in findings if finding.name != "ok"]
