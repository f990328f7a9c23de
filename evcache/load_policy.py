"""Settings of read-through loads, and the return type by which a loader sets a TTL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import flag, fraction, positive_seconds, zero_or_more

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V_co = TypeVar("V_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    V_co = TypeVar("V_co", covariant=True)

# Servers count in whole seconds: a lease of one second can end at once.
LEAST_LEASE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """Rules by which a value is loaded, refreshed and served. Durations are in seconds.

    With the defaults, no value is served after its `ttl`. `stale_while_revalidate` and `stale_if_error` relax that, each
    for its own case. Values are then stored in an envelope with their times, which only this SDK reads.

    Raises:
        InvalidArgument: A field is out of its range.
    """

    refresh_after: float = 0.8
    """Share of the lifetime after which the next read triggers a refresh in the background. 1 disables it. Applies where
    there are leases; without them, readers draw by `xfetch_beta`. Caches with this feature advise 0.8 to 0.9."""
    stale_while_revalidate: float = 0
    """Seconds past its `ttl` for which a value is served while a load refreshes it in the background (RFC 5861)."""
    stale_if_error: float = 0
    """Seconds past its `ttl` for which a value is served if its load fails (RFC 5861)."""
    failure_backoff: float = 30
    """Seconds for which a loader that failed is not called again while an old value can be served. The default is
    FusionCache's."""
    negative_ttl: float = 10
    """Lifetime of an absence, which a loader reports by None. Never longer than the `ttl`. 0 disables storing absences."""
    jitter: float = 0.1
    """Maximum share by which the TTL is randomly shortened, so that values loaded together do not expire together. The TTL
    is never extended."""

    lease: bool = True
    """Limit to one loading process per zone. The other processes wait for its value. Leases require servers that speak the
    meta protocol. Without them, each process loads once."""
    lease_seconds: float = 10
    """Seconds after which a process that holds a lease is taken for dead, rounded up to whole seconds, at least 2. A loader
    that takes longer may run in two processes. The default is that of Facebook's memcache."""
    lease_wait: float = 2
    """Seconds that a process waits for the load of another process. After that it loads, and does not store the value."""
    xfetch_beta: float = 1.0
    """Beta of XFetch, which applies where there are no leases. 1 is optimal, a higher value refreshes earlier. 0 disables
    early refreshes."""

    soft_timeout: float | None = None
    """Seconds that a caller waits for a load while `stale_if_error` allows an old value. The load then continues in the
    background. If None, `hard_timeout` applies."""
    hard_timeout: float = 10
    """Seconds that a caller waits for a load. The argument `timeout` overrides it. The caller then gets `LoadTimeout`, and
    the load continues."""
    load_timeout: float = 30
    """Seconds after which a loader is cancelled, even if callers wait for it."""

    def __post_init__(self) -> None:
        for name in ("refresh_after", "jitter"):
            fraction(getattr(self, name), name)
        for name in (
            "stale_while_revalidate",
            "stale_if_error",
            "failure_backoff",
            "negative_ttl",
            "lease_wait",
            "xfetch_beta",
        ):
            zero_or_more(getattr(self, name), name)
        for name in ("lease_seconds", "hard_timeout", "load_timeout"):
            positive_seconds(getattr(self, name), name)
        if self.soft_timeout is not None:
            positive_seconds(self.soft_timeout, "soft_timeout")
        flag(self.lease, "lease")

    @property
    def max_staleness(self) -> float:
        """Seconds past its `ttl` for which an item remains on the servers."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    @property
    def whole_lease_seconds(self) -> int:
        """Duration of a lease as sent to servers, in whole seconds."""
        return max(LEAST_LEASE_SECONDS, math.ceil(self.lease_seconds))


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V_co]):
    """Value that a loader returns together with its own TTL."""

    value: V_co
    """The value. None reports an absence."""
    ttl: float | None = None
    """Lifetime in seconds. If None, the call's `ttl` applies. 0 disables storing."""

    def __post_init__(self) -> None:
        number = isinstance(self.ttl, int | float) and not isinstance(self.ttl, bool)
        if self.ttl is not None and not (number and self.ttl >= 0):
            raise InvalidArgument("ttl", f"seconds, 0 or more, are needed, not {self.ttl!r}")
