"""What a client has to do at this moment, and what it has done, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from evcache.invalidation.bus import BusStats
from evcache.near_cache.settings import NearStats


@dataclass(frozen=True, slots=True)
class LoadStats:
    """What `get_or_load` and its kin have done."""

    running: int
    """Loaders that run at this moment."""
    waiting: int
    """Keys that are being loaded at this moment, those whose loader waits for its turn too."""
    loads: int
    """Calls of loaders."""
    failed: int
    """Of them, those that raised, took too long, or were cancelled."""
    leases_won: int
    leases_lost: int
    """How often another process was loading already."""
    stale_served: int
    """Values that were returned after they had gone out of date."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A client at one moment. Counts are since it was made."""

    nodes_down: int
    """Nodes that are not asked."""
    zones_out: tuple[str, ...]
    """Zones that are read last, since too many of their nodes are down."""
    zones_without_versions: tuple[str, ...]
    """Zones in which at least one server keeps no versions: memcached before 1.6.27, a classic one, or one run with `-C`.

    There writes are ordered by arrival. Tombstones, repair, hints and monotonic reads are off.
    """
    writes_resent: int
    """Writes that were sent again, since a zone held a newer version that this client had not seen."""
    versions_refused: int
    """Versions seen that were more than 60 s ahead of this client's clock. One of the two clocks is wrong."""
    hints: int
    """Writes that are kept for zones that missed them."""
    hint_bytes: int
    hints_delivered: int
    """Of those that were kept: the zone has the write, or a newer one."""
    hints_dropped: int
    """Given up: too old, too many, or refused by the server."""
    hint_file_error: str | None
    """Why hints are kept in memory only although `Hints(path=...)` names a file; None if the file is in use."""
    repairs_running: int
    repairs: int
    """Zones that were brought what they lacked."""
    repairs_skipped: int
    """Left to a later read: too many at once, or in a second."""
    failovers: int
    """Requests of reads to other zones than the local one or, without a local zone, the preferred one."""
    failovers_denied: int
    """Requests that the failover budget did not allow."""
    decode_errors: int
    """Values that were found and could not be decoded."""
    hedges: int
    """Reads that asked a second zone while they waited for the first."""
    background_tasks: int
    loop_lag: float
    """Seconds by which the event loop was late when it was last looked at."""
    worst_loop_lag: float
    near: NearStats | None
    """Of the near cache; None: there is none."""
    near_entries: int
    near_bytes: int
    """What its entries count for."""
    loads: LoadStats
    invalidation: BusStats | None
    """Of the invalidation channel; None: there is none."""
