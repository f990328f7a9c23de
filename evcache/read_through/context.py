"""Parts of one client that its loads share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from evcache._helpers.background import BackgroundTasks
from evcache.hooks import HookDispatcher
from evcache.near_cache.coherence import CoherentNearCache, FetchToken
from evcache.options import Options
from evcache.read_through.loads.concurrency_limit import LoaderCalls
from evcache.read_through.loads.failure_backoff import FailureBackoff
from evcache.read_through.loads.leases import Leases
from evcache.read_through.loads.single_flight import Call, SingleFlight
from evcache.reads.decoding import Decoding
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import ZoneHit
from evcache.writes.writer import Writer
from evcache.zones.snapshot import ClusterSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadContext:
    """Parts of one client that its loads share."""

    hlc: HybridLogicalClock
    single_flight: SingleFlight
    leases: Leases
    backoff: FailureBackoff
    calls: LoaderCalls
    writer: Writer
    write_options: Options
    """Options of the stores of loaded values."""
    decoding: Decoding
    background: BackgroundTasks
    hooks: HookDispatcher
    near: CoherentNearCache | None
    has_versions: bool
    """True if the writes of this client have versions, and no other kind of client writes its namespace."""
    tombstone_ttl: float
    """Seconds that a tombstone lives."""
    current_zones: Callable[[], ClusterSnapshot | None]
    known_version: Callable[[bytes], int]
    """Returns the latest version of a key that this client wrote or read, or 0."""
    unix_time: Callable[[], float]
    draw: Callable[[], float] = field(default=random.random)
    """Returns a random number from 0 up to 1."""

    def back_off(self, call: Call, seconds: float) -> None:
        """Keep this process from calling the loader of a key for a time, while it can serve an old value."""
        # The failure of a load that began before a write of the key says nothing about the next load.
        if not call.is_forgotten:
            self.backoff.failed(call.key, asyncio.get_running_loop().time() + seconds)

    def begin_fetch(self, key: bytes) -> FetchToken | None:
        """Begin the fetch of a key. A write of the key ends it. Return None without a near cache."""
        return None if self.near is None else self.near.begin_fetch(key)

    def abandon_fetch(self, token: FetchToken | None) -> None:
        """End a fetch without a value for the near cache."""
        if token is not None and self.near is not None:
            self.near.abandon(token)

    def end_fetch(self, token: FetchToken | None, found: ZoneHit | None, age: float) -> None:
        """End a fetch with what it found. `age` is the number of seconds since the value was loaded."""
        if token is not None and self.near is not None:
            self.near.complete(token, found, age)
