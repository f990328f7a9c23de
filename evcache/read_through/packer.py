"""What a loader has returned, made ready: what callers get of it, what the zones are to hold, and what the near cache
may.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from evcache.load_policy import Loaded
from evcache.near_cache.coherence import reported_ttl
from evcache.near_cache.settings import TTL_SECONDS
from evcache.read_through.fill import Filled
from evcache.read_through.leases import Lease
from evcache.read_through.request import LoadRequest, LoadTask
from evcache.read_through.single_flight import Result
from evcache.reads.decoding import Decoding
from evcache.replication.hlc import cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, Lifetime
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.writes.draft import Draft
from evcache.zones.protocol.replies import Hit


class Packer:
    """How one client's loaded values are packed."""

    def __init__(
        self,
        decoding: Decoding,
        *,
        versions: bool,
        tombstone_ttl: float,
        wire_ttl: Callable[[float], int],
        wall: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`versions`: whether this client's writes have them, and it is alone in its namespace. `wire_ttl`: seconds as
        servers want them said. `wall`: unix time. `draw`: uniform from 0 up to 1.
        """
        self._decoding = decoding
        self._versions = versions
        self._tombstone_ttl = tombstone_ttl
        self._wire_ttl = wire_ttl
        self._wall = wall
        self._draw = draw

    def loaded(self, errand: LoadTask, value: Any, took: float, asked: LoadRequest) -> tuple[Result, Draft | None]:
        """What callers get, and what is to be stored; None for what is not. `took`: seconds.

        Raises `EncodeError`, also for a value that would come back as something else than the loader returned.
        """
        key, policy = errand.flight.key, asked.policy
        value, ttl = _with_ttl(value, asked)
        now = self._wall()
        ttl *= 1.0 - policy.jitter * self._draw()
        life = Lifetime(now, now + ttl, now + ttl + policy.stale_while_revalidate, took)
        result = None
        if value is not None:
            data, flags = self._decoding.codec.encode(value)
            self._decoding.check(value, data, flags, asked.decoder, same_type=asked.same_type)
            result = Content(data, flags, life)
        if not ttl:
            return result, self._removal(errand)
        if result is None:
            # Other kinds of clients would take it for an empty value.
            return None, Draft(key, b"", FLAG_ABSENT, self._wire_ttl(ttl)) if self._versions else None
        if self._versions and (policy.max_staleness or (policy.xfetch_beta and not policy.lease)):
            wrapped = wrap(Envelope(result.data, result.flags, now, life.expires_at, life.stale_until, took))
            # Servers let go up to a second early, and just then readers draw, or have only this to serve. The envelope
            # decides.
            kept = ttl + policy.max_staleness + TTL_GRANULARITY_SECONDS
            return result, Draft(key, wrapped, FLAG_ENVELOPE, self._wire_ttl(kept))
        return result, Draft(key, result.data, result.flags, self._wire_ttl(ttl))

    def _removal(self, errand: LoadTask) -> Draft | None:
        """For a value that is not kept, where an older one is, which would be served on."""
        if not self._versions or not (errand.serves or errand.flight.background):
            return None
        return Draft(errand.flight.key, b"", FLAG_TOMBSTONE, self._wire_ttl(self._tombstone_ttl))


def _with_ttl(value: Any, asked: LoadRequest) -> tuple[Any, float]:
    """The value itself, and how long it lives."""
    ttl = None
    if isinstance(value, Loaded):
        value, ttl = value.value, value.ttl
    if ttl is None:
        ttl = min(asked.ttl, asked.policy.negative_ttl) if value is None else asked.ttl
    return value, ttl


def near_entry_for(draft: Draft, version: int | None, lease: Lease | None, filled: Filled) -> ZoneHit | None:
    """What the near cache may keep of it."""
    ttl = reported_ttl(draft.ttl)
    if not filled.stored:
        if not filled.unreachable or version is None:
            return None
        # Without the zones, callers would load it one after another. For a moment only: nobody else has it.
        ttl = min(ttl, math.ceil(TTL_SECONDS) + TTL_GRANULARITY_SECONDS) if ttl >= 0 else math.ceil(TTL_SECONDS)
    cas = 0 if version is None else cas_of(version)
    hit = Hit(draft.data, draft.flags, cas, ttl, stale=False, leased=False)
    return ZoneHit(hit, "" if lease is None else lease.pool.name, version)
