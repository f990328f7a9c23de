"""How long what was found lives: when it was made, when it is out of date, and whether it may be served, or ought to be
loaded anew.

Plain functions: no clock, no chance; both come in as numbers. Times are unix seconds.

Two rules for loading anew before a value is out of date. With a *soft* time to live, the first reader after a share of
the life has passed does it. Where nobody sees to it that only one does, each reader draws: XFetch (Vattani et al.,
"Optimal Probabilistic Cache Stampede Prevention", VLDB 2015), by which few of them do, at a time that fits how long
loading takes.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from evcache.answers import Found
from evcache.codec import FLAG_ENVELOPE
from evcache.envelope import unwrap
from evcache.errors import DecodeError
from evcache.load_policy import LoadPolicy
from evcache.ttl import TTL_GRANULARITY_SECONDS
from evcache.versions import milliseconds_of


class Life(NamedTuple):
    """The times of a value."""

    made_at: float | None
    """None: not known, which is so where an item has no version."""
    expires_at: float
    """From then on it is out of date; `math.inf`: never."""
    stale_until: float
    """Until then it may be served all the same, while it is loaded anew; `expires_at`, where nobody has said more."""
    load_seconds: float
    """What it took to load it; 0.0: not known."""
    slack: float = 0.0
    """Seconds by which it may be gone earlier: a server that says "1 second left" means one that has begun."""


class Content(NamedTuple):
    """What was found: as codecs see it, and how long it lives."""

    data: bytes
    flags: int
    life: Life
    zone: str = ""
    """Where it was found; empty: it has just been loaded."""


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


def content_of(found: Found, read_at: float, key: bytes = b"") -> Content:
    """What was found. `read_at`: when it was read, for what says only how many seconds it has left.

    Raises `DecodeError` for an envelope that can't be read.
    """
    hit = found.hit
    if hit.flags == FLAG_ENVELOPE:
        try:
            data, flags, *times = unwrap(hit.value)
        except DecodeError as error:
            raise DecodeError(error.problem, key=key, zone=found.zone, flags=hit.flags) from error
        return Content(data, flags, Life(*times), found.zone)
    made_at = None if found.version is None else milliseconds_of(found.version) / 1000
    expires_at = math.inf if hit.ttl is None or hit.ttl < 0 else read_at + hit.ttl
    return Content(hit.value, hit.flags, Life(made_at, expires_at, expires_at, 0.0, TTL_GRANULARITY_SECONDS), found.zone)


def state_of(life: Life, now: float, policy: LoadPolicy, ttl: float, draw: float) -> State:
    """What may be done with a value of this life. `ttl`: how long it was to live, where it does not say when it was made.

    `draw`: uniform over 0 and up to 1.
    """
    if now < life.expires_at:
        due = now >= _soft_at(life, policy.soft, ttl) if policy.lease else _is_drawn(life, now, policy.early, draw)
        return State.DUE if due else State.FRESH
    if now < life.stale_until:
        return State.STALE
    return State.LAST_RESORT if now < life.expires_at + policy.fail_safe else State.GONE


def _soft_at(life: Life, soft: float, ttl: float) -> float:
    if math.isinf(life.expires_at) or soft >= 1:
        return math.inf
    whole = max(0.0, ttl if life.made_at is None else life.expires_at - life.made_at)
    # Of a life of two seconds, the one that may be missing is half: then the soft time is a share of what is left for
    # certain.
    surely = whole - min(life.slack, whole / 2)
    return life.expires_at - whole + soft * surely


def _is_drawn(life: Life, now: float, beta: float, draw: float) -> bool:
    return now - life.load_seconds * beta * math.log(draw) >= life.expires_at
