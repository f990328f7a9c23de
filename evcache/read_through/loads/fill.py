"""Fill: a loaded value is encoded, stored in the zone of its lease, and then in the other zones.

A loaded value has the version of the moment at which its load began. Any write or delete since then is newer, and wins in
every zone, so a value that was loaded before a change never hides that change.

Where there is a lease, its zone decides this exactly, without clocks. The store succeeds only over the item that was there
when the lease was granted. If that item was written over or deleted, the value is stored in no zone. If it has expired, the
version decides as in the other zones.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, NamedTuple

from evcache.load_policy import Loaded
from evcache.near_cache.coherence import reported_ttl
from evcache.near_cache.settings import TTL_SECONDS
from evcache.options import Options
from evcache.read_through.loads.leases import Lease
from evcache.read_through.loads.single_flight import Result
from evcache.read_through.request import LoadRequest
from evcache.reads.decoding import Decoding
from evcache.replication.commands import node_requests
from evcache.replication.commands.guarded_store import StoreCommand, interpret_store
from evcache.replication.hlc import cas_of
from evcache.replication.lanes import Flow
from evcache.replication.reconcile import ZoneHit
from evcache.results import Outcome
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, Lifetime
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size
from evcache.writes.writer import Writer
from evcache.zones.errors import CacheError, ServerError
from evcache.zones.protocol.replies import Hit
from evcache.zones.snapshot import ClusterSnapshot


class Fill(NamedTuple):
    """Item that a loaded value makes of its key."""

    data: bytes
    flags: int
    seconds: float
    """Seconds that servers keep the item."""


class FillResult(NamedTuple):
    """Outcome of storing a loaded value."""

    is_stored: bool
    """True if the zones hold the value."""
    is_unreachable: bool = False
    """True if no zone could be reached."""


NOT_STORED = FillResult(is_stored=False)


def prepare(
    value: Any,
    request: LoadRequest,
    decoding: Decoding,
    *,
    took: float,
    now: float,
    draw: float,
    has_versions: bool,
    tombstone_ttl: float | None,
) -> tuple[Result, Fill | None]:
    """Return what callers get of a loaded value, and the item to store. None stores nothing.

    Args:
        value: What the loader returned for the key.
        request: The call that began the load.
        decoding: Codec, and check of the encoded value.
        took: Seconds that the loader took.
        now: Unix time.
        draw: Random number from 0 up to 1, for the jitter.
        has_versions: True if the writes of this client have versions.
        tombstone_ttl: Lifetime of the tombstone that replaces an old value, if the loaded one is not to be stored. None if
            there is no old value to replace.

    Raises:
        EncodeError: The value cannot be encoded, or would come back as a different value.
    """
    policy = request.policy
    value, ttl = _with_ttl(value, request)
    ttl *= 1.0 - policy.jitter * draw
    life = Lifetime(now, now + ttl, now + ttl + policy.stale_while_revalidate, took)
    result = None
    if value is not None:
        data, flags = decoding.codec.encode(value)
        decoding.check(value, data, flags, request.decoder, same_type=request.same_type)
        result = Content(data, flags, life)
    if not ttl:
        # The old value would be served for longer, so a tombstone replaces it.
        return result, Fill(b"", FLAG_TOMBSTONE, tombstone_ttl) if has_versions and tombstone_ttl is not None else None
    if result is None:
        # Clients of another kind would read a stored absence as an empty value.
        return None, Fill(b"", FLAG_ABSENT, ttl) if has_versions else None
    if has_versions and (policy.max_staleness or (policy.xfetch_beta and not policy.lease)):
        wrapped = wrap(Envelope(result.data, result.flags, now, life.expires_at, life.stale_until, took))
        # A server may drop an item up to a second early. In that second readers draw for the refresh, or have only the old
        # value. The item therefore lives a second longer than its envelope says.
        return result, Fill(wrapped, FLAG_ENVELOPE, ttl + policy.max_staleness + TTL_GRANULARITY_SECONDS)
    return result, Fill(result.data, result.flags, ttl)


def _with_ttl(value: Any, request: LoadRequest) -> tuple[Any, float]:
    """Return the value without a `Loaded` around it, and its TTL."""
    ttl = None
    if isinstance(value, Loaded):
        value, ttl = value.value, value.ttl
    if ttl is None:
        ttl = min(request.ttl, request.policy.negative_ttl) if value is None else request.ttl
    return value, ttl


async def store_over_lease(
    writer: Writer,
    zones: ClusterSnapshot,
    draft: Draft,
    version: int | None,
    lease: Lease | None,
    options: Options,
    flow: Flow | None,
) -> FillResult:
    """Store a loaded value in every zone, in the zone of the lease first.

    Args:
        writer: Sends the store.
        zones: Zones of this moment.
        draft: The item.
        version: Version of the moment at which the load began. None if the client has none.
        lease: Lease of the load, or None.
        options: Options of the store. The timeout begins when `flow` admits it.
        flow: Flow control of the store, if it is one of many.

    Raises:
        ValueTooLarge: A server would refuse the value.
    """
    loop = asyncio.get_running_loop()
    if flow is not None:
        position = zones.ring_position(draft.key)
        await flow.room(pool.node(position) for pool in zones.writers)
    deadline = loop.time() + options.timeout
    options = await check_size(zones, draft, options)
    store = writer.store_at(draft, version)
    stored_in = None
    if lease is not None and lease.over is not None:
        asked_at = loop.time()
        outcome = await _store_over(lease, lease.over, store, deadline)
        if outcome is Outcome.STORED:
            stored_in = lease.pool.name
        elif outcome is Outcome.EXISTS:
            return NOT_STORED  # the key was written or deleted since the lease
        elif outcome is Outcome.NOT_FOUND and (not store.carried or asked_at < lease.over_until):
            return NOT_STORED  # the key was written or deleted, and that item is gone again
        # Otherwise the item has expired, or its server is unreachable. The version decides.
    write = await writer.replicate(zones, store, stored_in, deadline, options, flow)
    is_superseded = Outcome.SUPERSEDED in write.outcomes.values()
    return FillResult(write.met and not is_superseded, is_unreachable=write.unreachable)


async def _store_over(lease: Lease, seen: int, store: StoreCommand, deadline: float) -> Outcome | None:
    """Store over exactly the item with the CAS `seen`. Return None if the outcome is unknown."""
    capabilities = lease.node.capabilities
    store.note_sent(versioned=capabilities is not None and capabilities.versions)
    cas = cas_of(store.version) if store.carried and store.version is not None else None
    try:
        reply = await node_requests.store(
            lease.node, store.key, store.data, store.flags, store.ttl, deadline, compare=seen, cas=cas
        )
        return interpret_store(reply)
    except ServerError:
        return Outcome.NOT_STORED
    except CacheError:
        return None


def near_entry_for(draft: Draft, version: int | None, lease: Lease | None, filled: FillResult) -> ZoneHit | None:
    """Return the item that the near cache may keep of a loaded value, or None."""
    ttl = reported_ttl(draft.ttl)
    if not filled.is_stored:
        if not filled.is_unreachable or version is None:
            return None
        # Without the zones, one caller after another would load the value. It is kept briefly, because no other process
        # has it.
        brief = math.ceil(TTL_SECONDS)
        ttl = brief if ttl < 0 else min(ttl, brief + TTL_GRANULARITY_SECONDS)
    cas = 0 if version is None else cas_of(version)
    hit = Hit(draft.data, draft.flags, cas, ttl, stale=False, leased=False)
    return ZoneHit(hit, "" if lease is None else lease.pool.name, version)
