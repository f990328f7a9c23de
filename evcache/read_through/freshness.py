"""Freshness of a value: the decision to serve it, to refresh it, or both.

Plain functions without a clock and without chance: both are arguments. Times are unix seconds.

There are two rules for a refresh before a value is out of date. With a lease, the first reader after a share of the TTL
refreshes. Without leases, each reader draws: XFetch (Vattani et al., "Optimal Probabilistic Cache Stampede Prevention",
VLDB 2015) lets few readers refresh, at a time that fits the duration of a load.
"""

from __future__ import annotations

import math
from enum import Enum

from evcache.load_policy import LoadPolicy
from evcache.values.lifetime import Lifetime


class State(Enum):
    """What may be done with a value."""

    FRESH = "fresh"
    DUE = "due"
    """Fresh, and to be loaded anew in the background."""
    STALE = "stale"
    """Out of date, and served all the same while it is loaded anew in the background."""
    LAST_RESORT = "last resort"
    """Out of date: only for when it can't be loaded."""
    GONE = "gone"
    """Out of date, and not to be served."""


def state_of(life: Lifetime, now: float, policy: LoadPolicy, ttl: float, draw: float) -> State:
    """What may be done with a value of this life. `ttl`: how long it was to live, where it does not say when it was made.

    `draw`: uniform over 0 and up to 1.
    """
    if now < life.expires_at:
        due = now >= _soft_at(life, policy.soft, ttl) if policy.lease else _is_drawn(life, now, policy.early, draw)
        return State.DUE if due else State.FRESH
    if now < life.stale_until:
        return State.STALE
    return State.LAST_RESORT if now < life.expires_at + policy.fail_safe else State.GONE


def _soft_at(life: Lifetime, soft: float, ttl: float) -> float:
    if math.isinf(life.expires_at) or soft >= 1:
        return math.inf
    whole = max(0.0, ttl if life.made_at is None else life.expires_at - life.made_at)
    # Of a life of two seconds, the one that may be missing is half: then the soft time is a share of what is left for
    # certain.
    surely = whole - min(life.slack, whole / 2)
    return life.expires_at - whole + soft * surely


def _is_drawn(life: Lifetime, now: float, beta: float, draw: float) -> bool:
    return now - life.load_seconds * beta * math.log(draw) >= life.expires_at
