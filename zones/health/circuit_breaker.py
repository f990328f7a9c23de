"""Whether a node is asked: a circuit breaker over what became of real requests. No I/O; the time is an argument.

    closed ----- timeouts in a row, a share of failures, no connection -----> open
    open ------- a pause is over: exactly one probe, never a caller's ------> half-open
    half-open -- the probe was answered in time --> closed, else --> open, with a longer pause

A caller who gave up says nothing about the node, and counts neither way.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import at_least_one, positive_fraction, positive_seconds, zero_or_more

CircuitState = Literal["closed", "open", "half-open"]

# Of an ordinary pause, while calls have nowhere to go: 0.1 s at first, as soon as a client may well try again.
URGENT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """When a node is not asked any more, and when it is looked whether it can be again."""

    timeouts_in_a_row: int = 3
    """Requests without a reply in time, with none in between that got one. mcrouter's `failures_until_tko`."""

    failure_share: float = 0.5
    """The share of requests that may fail within `window` (Envoy and resilience4j eject at a half or above)."""

    window: float = 10.0
    """Seconds over which that share is taken. Envoy's and gRPC's interval for outliers."""

    least_requests: int = 20
    """Requests within the window below which a share says nothing."""

    first_pause: float = 1.0
    """Seconds before the first probe, doubled with each that fails (Finagle's fail-fast)."""

    longest_pause: float = 30.0
    """Seconds up to which they double (Finagle: 32, mcrouter: 60)."""

    urgent_pause: float = 2.0
    """Longest pause in seconds while calls have nowhere to go: all zones are out, or more than one. Pauses are then a tenth
    of an ordinary pause, at first 0.1 s, and do not double. A cache of one zone that stood still for a moment must not be
    out for a second, and an outage of the client's own network must not keep every zone out after its end."""

    jitter: float = 0.5
    """The share of a pause by which it may be longer, drawn at random: the clients of a node must not all knock at once."""

    calm: float = 10.0
    """Seconds up after which the next outage is one of its own. Before, its pauses go on where they were, halved for each
    quarter of this time: a node that answers probes and nothing else would otherwise be back every second, and one
    that has several troubles in a minute must not be kept out for longer each time. (Envoy's ejections decay so, too.)"""

    probe_timeout: float | None = None
    """Seconds for the answer to a probe; None: the connect timeout. `EVCache` gives it as little as a read waits for a zone
    before it goes to the next: a server that is slower than that is up, and of no use."""

    slow_start: float = 60.0
    """Seconds at the most for which a node that returned gets a share of the reads only; 0: all at once."""

    def __post_init__(self) -> None:
        at_least_one(self.timeouts_in_a_row, "timeouts_in_a_row")
        at_least_one(self.least_requests, "least_requests")
        for name in ("window", "first_pause", "longest_pause", "urgent_pause"):
            positive_seconds(getattr(self, name), name)
        if self.longest_pause < self.first_pause:
            raise InvalidArgument("longest_pause", f"{self.longest_pause:g} s is less than first_pause")
        if self.probe_timeout is not None:
            positive_seconds(self.probe_timeout, "probe_timeout")
        for name in ("jitter", "calm", "slow_start"):
            zero_or_more(getattr(self, name), name)
        positive_fraction(self.failure_share, "failure_share")


class CircuitBreaker:
    """The circuit of one node. It decides; the node carries out."""

    def __init__(self, limits: CircuitLimits, now: float, draw: Callable[[], float] = random.random) -> None:
        """`now`: when the node is asked from. `draw` gives a number from 0 to 1."""
        self.state: CircuitState = "closed"
        self._limits = limits
        self.ends_early = False
        """True if a sign of life from the node may end the present pause. Only the first pause of an outage ends early, and
        any pause while calls have nowhere to go: a node that always answers late would else be probed with each answer."""
        self._draw = draw
        self._pause = limits.first_pause  # seconds before the next probe, without jitter
        self._closed_at: float | None = None  # when it last closed again
        # Failures, and requests ever asked, in this half of the window and the one before.
        self._half_began = now
        self._failures = 0
        self._failures_before = 0
        self._asked_at_begin = 0
        self._asked_before = 0

    def failed(self, now: float, failures: int, in_a_row: int, asked: int) -> str | None:
        """Why the circuit should open, or None: so many requests have just failed.

        `in_a_row`: timeouts since a request was last answered. `asked`: requests that the node was ever sent.
        """
        if self.state != "closed":
            return None
        self._roll(now, asked - failures)
        self._failures += failures
        if in_a_row >= self._limits.timeouts_in_a_row:
            return f"{in_a_row} requests in a row had no reply in time"
        failed = self._failures + self._failures_before
        requests = asked - self._asked_before
        if requests >= self._limits.least_requests and failed > self._limits.failure_share * requests:
            return f"{failed} of {requests} requests failed"
        return None

    def _roll(self, now: float, asked: int) -> None:
        """Begin a new half of the window when it is time; `asked` without those that have just failed."""
        half = self._limits.window / 2
        elapsed = now - self._half_began
        if elapsed < half:
            return
        if elapsed < self._limits.window:
            self._failures_before, self._asked_before = self._failures, self._asked_at_begin
        else:
            # Nobody looks while nothing fails: what was asked in all that time is taken to have come evenly. As nothing it
            # must not count: one connection that ends under twenty requests would be a share of all.
            recent = round((asked - self._asked_at_begin) * half / elapsed)
            self._failures_before, self._asked_before = 0, asked - recent
        self._failures = 0
        self._asked_at_begin = asked
        self._half_began = now

    def open(self, now: float) -> None:
        """Stop asking. Soon after a return, the pauses go on about where they were."""
        if self.state == "closed":
            up = math.inf if self._closed_at is None else now - self._closed_at
            first, calm = self._limits.first_pause, self._limits.calm
            self._pause = first if up >= calm else max(first, self._pause / 2 ** int(4 * up / calm))
        self.state = "open"

    def pause(self, *, urgent: bool = False) -> float:
        """Return the seconds to wait before the next probe, and double the pause after it.

        `urgent`: calls have nowhere else to go, and the pause does not double. With the circuit closed the node is only
        short of a connection, and the client tries that again at an even pace.
        """
        limits = self._limits
        longer = 1 + limits.jitter * self._draw()
        if self.state == "closed":
            self.ends_early = False
            return limits.first_pause * longer
        pause = self._pause
        self.ends_early = urgent or pause == limits.first_pause
        if urgent:
            return min(pause * URGENT_SHARE, limits.urgent_pause) * longer
        self._pause = min(2 * pause, limits.longest_pause)
        return pause * longer

    def probe(self) -> None:
        """A probe is on its way."""
        if self.state == "open":
            self.state = "half-open"

    def probe_failed(self) -> None:
        """It was not answered in time."""
        if self.state == "half-open":
            self.state = "open"

    def close(self, now: float, asked: int) -> None:
        """The node is asked again. What it did before counts no more; `asked`: requests that it was ever sent."""
        self.state = "closed"
        self._closed_at = self._half_began = now
        self._failures = self._failures_before = 0
        self._asked_at_begin = self._asked_before = asked
