"""Freshness of a value: the decision to serve it, to refresh it, or both.

Plain functions without a clock and without chance: both are arguments. Times are unix seconds.

There are two rules for a refresh before a value is out of date. With a lease, the first reader after a share of the TTL
refreshes. Without leases, each reader draws, which is XFetch: few readers refresh, at a time that fits the duration of a
load. Source: Vattani et al., "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
"""

from __future__ import annotations

import math
from enum import Enum

from evcache.load_policy import LoadPolicy
from evcache.values.lifetime import Lifetime


class State(Enum):
    """Freshness of a value. RFC 5861 defines the two stale states."""

    FRESH = "fresh"
    REFRESH_DUE = "refresh due"
    """Fresh. A reader serves it and loads it in the background."""
    STALE = "stale"
    """Past its TTL. A reader serves it and loads it in the background (stale-while-revalidate)."""
    STALE_IF_ERROR = "stale if error"
    """Past its TTL. A reader loads it, and serves the old value if the load fails."""
    EXPIRED = "expired"
    """Past its TTL, and not to be served."""


def state_of(life: Lifetime, now: float, policy: LoadPolicy, ttl: float, draw: float) -> State:
    """Return the state of a value with this lifetime.

    Args:
        life: Lifetime of the value.
        now: Unix time.
        policy: Policy of the reader.
        ttl: TTL of the reader, in seconds. It stands in for the value's own where the time of the write is unknown.
        draw: Random number over 0 and up to 1, for XFetch.
    """
    if now < life.expires_at:
        due = now >= _refresh_at(life, policy.refresh_after, ttl) if policy.lease else _is_drawn(life, now, policy, draw)
        return State.REFRESH_DUE if due else State.FRESH
    if now < life.stale_until:
        return State.STALE
    return State.STALE_IF_ERROR if now < life.expires_at + policy.stale_if_error else State.EXPIRED


def _refresh_at(life: Lifetime, refresh_after: float, ttl: float) -> float:
    if math.isinf(life.expires_at) or refresh_after >= 1:
        return math.inf
    whole = max(0.0, ttl if life.made_at is None else life.expires_at - life.made_at)
    # The server may drop the item up to `slack` seconds early, so the share is taken of the lifetime that is certain. Of a
    # lifetime of two seconds or less, half is taken as certain.
    certain = whole - min(life.slack, whole / 2)
    return life.expires_at - whole + refresh_after * certain


def _is_drawn(life: Lifetime, now: float, policy: LoadPolicy, draw: float) -> bool:
    return now - life.load_seconds * policy.xfetch_beta * math.log(draw) >= life.expires_at
