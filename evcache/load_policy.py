"""How values are loaded, kept and served, where `get_or_load` and its kin are concerned: settings, with their sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import fraction, seconds, zero_or_more

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V_co = TypeVar("V_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    V_co = TypeVar("V_co", covariant=True)

# Servers count in whole seconds: a lease of one second may be over at once.
LEAST_LEASE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How a value is loaded, kept and served. Raises `InvalidArgument` for what can't be meant. Durations are in seconds.

    The defaults promise that nothing is served after its `ttl`. `stale_for` and `fail_safe` relax that, each for its own
    case; values are then stored with their times in front of them, which only this SDK reads.
    """

    soft: float = 0.8
    """The share of its life after which the next reader has a value loaded anew, in the background; 1: none does. With
    leases only; without, readers draw (`early`). 0.8 to 0.9 is what caches with this feature advise."""
    stale_for: float = 0
    """For how long after its `ttl` a value is still served, while it is loaded anew in the background."""
    fail_safe: float = 0
    """For how long after its `ttl` a value is still served when loading fails."""
    throttle: float = 30
    """How long a loader that has failed is left alone, as long as there is a value to serve (FusionCache's default)."""
    negative_ttl: float = 10
    """How long an absence is remembered: a loader that returned None. Never longer than the `ttl`; 0: not at all."""
    jitter: float = 0.1
    """The share of its `ttl` that an item's life is shortened by at the most, at random: so that what was loaded together
    does not go together. Never lengthened: `ttl` is a promise."""

    lease: bool = True
    """Whether one process in each zone loads, and the others wait for it. Servers have to speak the meta protocol; without,
    each process loads once."""
    lease_seconds: float = 10
    """How long others take a process for loading that says no more: 10 s is what Facebook's memcache uses. Whole seconds,
    rounded up, 2 at least, since servers count in seconds. A loader that takes longer may run in two processes."""
    lease_wait: float = 2
    """How long a process waits for another one that is loading, before it loads for itself, without storing the value."""
    early: float = 1.0
    """XFetch's beta, where there are no leases: 1 is optimal, more is earlier, 0: never before the value is out of date."""

    soft_timeout: float | None = None
    """How long a caller waits for a load when there is a value that `fail_safe` may serve; None: as for any other. The load
    goes on in the background."""
    hard_timeout: float = 10
    """How long a caller waits for a load, unless it says `timeout`. Then it gets `LoadTimeout`, and the load goes on."""
    load_timeout: float = 30
    """How long a load may take, waited for or not, until it is cancelled."""

    def __post_init__(self) -> None:
        for name in ("soft", "jitter"):
            fraction(getattr(self, name), name)
        for name in ("stale_for", "fail_safe", "throttle", "negative_ttl", "lease_wait", "early"):
            zero_or_more(getattr(self, name), name)
        for name in ("lease_seconds", "hard_timeout", "load_timeout"):
            seconds(getattr(self, name), name)
        if self.soft_timeout is not None:
            seconds(self.soft_timeout, "soft_timeout")
        if not isinstance(self.lease, bool):
            raise InvalidArgument("lease", f"True or False is needed, not {self.lease!r}")

    @property
    def kept_for(self) -> float:
        """Seconds that an item stays on the servers after its `ttl`."""
        return max(self.stale_for, self.fail_safe)

    @property
    def whole_lease_seconds(self) -> int:
        """What servers are told."""
        return max(LEAST_LEASE_SECONDS, math.ceil(self.lease_seconds))


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V_co]):
    """What a loader may return in place of a value, to say more about it."""

    value: V_co
    """None: there is none."""
    ttl: float | None = None
    """Seconds that this value lives; None: as the call says; 0: it is not to be kept at all."""

    def __post_init__(self) -> None:
        number = isinstance(self.ttl, int | float) and not isinstance(self.ttl, bool)
        if self.ttl is not None and not (number and self.ttl >= 0):
            raise InvalidArgument("ttl", f"seconds, 0 or more, are needed, not {self.ttl!r}")
