"""Circuit breaker of one node, fed by the results of real requests. No I/O; the time is an argument.

    closed ----- timeouts in a row, a share of failures, no connection -----> open
    open ------- a pause has ended: exactly one probe, never of a caller ---> half-open
    half-open -- the probe was answered in time --> closed, else --> open, with a longer pause

A cancelled request says nothing about the node, and is not counted.
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

# Share of an ordinary pause while no healthy zone is left for failover. The first pause is 0.1 s, as of a retrying client.
URGENT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """Limits at which the circuit of a node opens, and the pauses between probes."""

    timeouts_in_a_row: int = 3
    """Number of timeouts without a reply between them that opens the circuit. mcrouter's `failures_until_tko`."""

    failure_share: float = 0.5
    """Share of failed requests within `window` that opens the circuit. Envoy and resilience4j eject at a half or above."""

    window: float = 10.0
    """Seconds over which that share is taken. Interval of outlier detection in Envoy and gRPC."""

    least_requests: int = 20
    """Number of requests within the window below which the share is not judged."""

    first_pause: float = 1.0
    """Seconds before the first probe. Each failed probe doubles the pause, as in Finagle's fail-fast."""

    longest_pause: float = 30.0
    """Longest pause in seconds. Finagle has 32, mcrouter 60."""

    urgent_pause: float = 2.0
    """Longest pause in seconds while no healthy zone is left for failover: all zones are ejected, or more than one. Such a
    pause is a tenth of an ordinary one, at first 0.1 s, and does not double. A cache of one zone would otherwise fail for a
    second after a short stall. An outage of the client's own network would keep all zones ejected after its end."""

    jitter: float = 0.5
    """Largest share by which a pause is longer, drawn at random, so that the clients of a node do not probe it together."""

    calm: float = 10.0
    """Seconds without an outage after which the next one begins with `first_pause`. Within that time the pauses continue
    with the last one, halved for each quarter of this time. A node that answers only probes is therefore not asked every
    second. A node with several short outages in a minute is not ejected for longer each time. Envoy's ejection times decay
    in the same way."""

    probe_timeout: float | None = None
    """Seconds for the reply to a probe. If None, the connect timeout applies. `EVCache` sets the time that a read waits for
    a zone before it asks the next one, because reads would leave a slower server."""

    slow_start: float = 60.0
    """Longest time in seconds for which a recovered node gets a share of its reads only. 0 returns all reads at once."""

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
    """The circuit of one node. It decides, and the node acts."""

    def __init__(self, limits: CircuitLimits, now: float, draw: Callable[[], float] = random.random) -> None:
        """Begin closed at the time `now`. `draw` gives a number from 0 to 1."""
        self.state: CircuitState = "closed"
        self._limits = limits
        self.ends_early = False
        """True if a byte from the node may end the present pause. That holds for the first pause of an outage, and for all
        pauses while no healthy zone is left. A node that always answers late would otherwise be probed with each reply."""
        self._draw = draw
        self._pause = limits.first_pause  # seconds before the next probe, without jitter
        self._closed_at: float | None = None  # time of the last recovery
        # Failures, and requests ever sent, in this half of the window and the one before.
        self._half_began = now
        self._failures = 0
        self._failures_before = 0
        self._sent_at_begin = 0
        self._sent_before = 0

    def count_failures(self, now: float, failures: int, in_a_row: int, sent: int) -> str | None:
        """Count requests that have just failed.

        Args:
            now: The time.
            failures: Number of these requests.
            in_a_row: Number of timeouts since the last reply.
            sent: Number of requests ever sent to the node.

        Returns:
            The reason why the circuit should open, or None.
        """
        if self.state != "closed":
            return None
        self._roll(now, sent - failures)
        self._failures += failures
        if in_a_row >= self._limits.timeouts_in_a_row:
            return f"{in_a_row} requests in a row had no reply in time"
        failed = self._failures + self._failures_before
        requests = sent - self._sent_before
        if requests >= self._limits.least_requests and failed > self._limits.failure_share * requests:
            return f"{failed} of {requests} requests failed"
        return None

    def _roll(self, now: float, sent: int) -> None:
        """Begin a new half of the window if the present one has ended. `sent` excludes the requests that just failed."""
        half = self._limits.window / 2
        elapsed = now - self._half_began
        if elapsed < half:
            return
        if elapsed < self._limits.window:
            self._failures_before, self._sent_before = self._failures, self._sent_at_begin
        else:
            # The window is not updated while no request fails. Requests since then are assumed to be spread evenly. If they
            # did not count, the loss of one connection with twenty requests would be a share of all.
            recent = round((sent - self._sent_at_begin) * half / elapsed)
            self._failures_before, self._sent_before = 0, sent - recent
        self._failures = 0
        self._sent_at_begin = sent
        self._half_began = now

    def open(self, now: float) -> None:
        """Open the circuit. Soon after a recovery, the pauses continue near the last one."""
        if self.state == "closed":
            up = math.inf if self._closed_at is None else now - self._closed_at
            first, calm = self._limits.first_pause, self._limits.calm
            self._pause = first if up >= calm else max(first, self._pause / 2 ** int(4 * up / calm))
        self.state = "open"

    def next_pause(self, *, urgent: bool = False) -> float:
        """Return the seconds to wait before the next probe, and double the pause after it.

        While the circuit is closed, a connect has failed beside a connection that works. The pause then does not double.

        Args:
            urgent: True if no healthy zone is left. The pause is then short, and does not double.
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

    def begin_probe(self) -> None:
        """Change from open to half-open."""
        if self.state == "open":
            self.state = "half-open"

    def fail_probe(self) -> None:
        """Change from half-open to open."""
        if self.state == "half-open":
            self.state = "open"

    def close(self, now: float, sent: int) -> None:
        """Close the circuit and forget earlier failures. `sent` is the number of requests ever sent to the node."""
        self.state = "closed"
        self._closed_at = self._half_began = now
        self._failures = self._failures_before = 0
        self._sent_at_begin = self._sent_before = sent
