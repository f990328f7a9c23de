"""State and counts of a client, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evcache.invalidation.bus import BusStats
from evcache.near_cache.settings import NearStats
from evcache.zones.transport.core.selected import CoreName


@dataclass(frozen=True, slots=True)
class LoadStats:
    """Loads of `get_or_load`, `get_or_load_many` and cached functions."""

    running: int
    """Number of loaders that run now."""
    waiting: int
    """Number of keys that are loaded now, those included whose loader waits for its turn."""
    loads: int
    """Number of calls of loaders."""
    failed: int
    """Number of calls that raised, took too long or were cancelled."""
    leases_won: int
    """Number of leases that this client got."""
    leases_lost: int
    """Number of leases that another process held."""
    stale_served: int
    """Number of values that were returned past their TTL."""


@dataclass(frozen=True, slots=True)
class ZoneTraffic:
    """Bytes on the connections to the nodes of one zone, those of handshakes and probes included.

    They are the bytes of the memcached protocol. TLS and TCP add their own, which the client does not see. Bytes that the
    client handed to a socket are sent, also if the connection then ended.
    """

    sent: int
    """Bytes of requests."""
    received: int
    """Bytes of replies."""
    is_local: bool
    """True for the zone of `local_zone`. False for all zones of a client that has none, and for the gutter."""


@dataclass(frozen=True, slots=True)
class Stats:
    """State of a client at one moment. Counts begin with the creation of the client."""

    core: CoreName
    """The core that decodes replies: "compiled", or "pure" for its twin in Python (see docs/performance.md)."""
    nodes_down: int
    """Number of nodes with an open circuit."""
    zones_out: tuple[str, ...]
    """Ejected zones. They are read last, because too many of their nodes are down."""
    topology_age: float | None
    """Seconds since the source of the topology last answered. None if the source does not report it, or never changes."""
    topology_error: str | None
    """Reason for which the source did not answer, or not for all zones. None if it did."""
    topology_held: tuple[str, ...]
    """Reasons for which the guard holds back the latest topology. Empty if the latest one is in use."""
    zones_without_versions: tuple[str, ...]
    """Zones with a server that keeps no versions: memcached before 1.6.27, a classic server, or one that runs with `-C`.

    These zones order writes by arrival. Tombstones, repair, hints and monotonic reads are off there.
    """
    traffic: Mapping[str, ZoneTraffic]
    """Bytes to and from each zone, by its name. The gutter has the name `gutter`.

    A zone has an entry from the first topology with it on, also after it left the topology. The counts never fall: they
    continue when the zone returns, and after the client is closed and opened again.
    """
    writes_resent: int
    """Number of writes that were sent again, because a zone held a newer version that this client had not seen."""
    versions_refused: int
    """Number of versions that were more than 60 s ahead of this client's clock. One of the two clocks is wrong."""
    hints: int
    """Number of missed writes that wait for their zone."""
    hints_by_zone: Mapping[str, int]
    """Number of hints by zone. A zone that never missed a write may be absent."""
    hint_bytes: int
    """Size of these writes in bytes."""
    hints_delivered: int
    """Number of hints whose zone has the write, or a newer one."""
    hints_dropped: int
    """Number of hints that were dropped: too old, too many, or refused by the server."""
    hint_file_error: str | None
    """Reason for which hints stay in memory although `Hints(path=...)` names a file. None if the file is in use."""
    repairs_running: int
    """Number of repairs under way."""
    repairs: int
    """Number of copies that were repaired."""
    repairs_skipped: int
    """Number of repairs that were left to a later read, because too many ran at once or in a second."""
    failovers: int
    """Number of requests of reads to other zones than the local one or, without a local zone, the preferred one."""
    failovers_denied: int
    """Number of requests that the failover budget refused."""
    decode_errors: int
    """Number of values that could not be decoded."""
    hedges: int
    """Number of reads that asked a second zone while they waited for the first."""
    background_tasks: int
    """Number of tasks that outlive their calls."""
    loop_lag: float
    """Delay of the event loop in seconds, at the last measurement."""
    worst_loop_lag: float
    """Longest delay of the event loop in seconds, since the opening."""
    near: NearStats | None
    """Counts of the near cache, or None without one."""
    near_entries: int
    """Number of entries of the near cache."""
    near_bytes: int
    """Size of these entries in bytes, as `NearCache(max_bytes)` counts them."""
    loads: LoadStats
    """Counts of loads."""
    invalidation: BusStats | None
    """Counts of the invalidation channel, or None without one."""
