"""Budget of requests to remote zones. It protects the remaining zones from the load of a failed one.

The budget is a token bucket: each read adds `ratio` tokens, and each request to a remote zone takes one. A remote zone is
any zone but the local one or, without a local zone, the preferred one.
"""

from __future__ import annotations

from dataclasses import dataclass

from evcache.zones.validation import zero_or_more


@dataclass(frozen=True, slots=True)
class Failover:
    """Limit on the requests of reads to remote zones.

    Standby zones have a limit of their own with the same settings. A read that missed in the read-write zones may always ask
    one standby zone.
    """

    ratio: float = 1.0
    """Average number of requests to remote zones for each read. With 1, one remote zone can serve every read of a failed
    local zone, and no zone gets more than that. A lower ratio lowers the load on the remaining zones, and reads fail."""

    burst: float = 4000.0
    """Number of further requests, saved while reads stay in their zone. mcrouter's failover limiter saves 1,000. Half of
    the burst is for zones that a read asks after its first remote zone. A client of 10,000 reads per second needs 1,000
    of those until it notices that a second zone hangs."""

    def __post_init__(self) -> None:
        zero_or_more(self.ratio, "ratio")
        zero_or_more(self.burst, "burst")


class TokenBucket:
    """Tokens that reads add and that requests to remote zones take."""

    __slots__ = ("_burst", "_ratio", "_tokens", "denied", "taken")

    def __init__(self, ratio: float, burst: float) -> None:
        """Make a full bucket.

        Args:
            ratio: Tokens that each read adds.
            burst: Number of tokens that the bucket holds between requests.
        """
        self.taken = 0
        """Number of requests allowed."""
        self.denied = 0
        """Number of requests refused."""
        self._ratio = ratio
        self._burst = burst
        self._tokens = burst

    def add_reads(self, count: int = 1) -> None:
        """Add the tokens of reads that have begun."""
        # No limit here: a bulk read may take all the tokens that its own keys add. `try_take` applies the limit.
        self._tokens += count * self._ratio

    def try_take(self, wanted: int = 1, *, spare: bool = False) -> int:
        """Take up to `wanted` tokens, and return their number. The rest counts as refused.

        Args:
            wanted: Number of requests.
            spare: True takes from the upper half of the bucket alone. It is for requests after the first remote one of a
                read. With a zone down, each read has to send the first, and further ones must not use up the tokens of the
                next read. gRPC's retry throttling has the same rule.
        """
        reserve = self._burst / 2 if spare else 0.0
        granted = min(wanted, max(0, int(self._tokens - reserve)))
        self.taken += granted
        self.denied += wanted - granted
        # One token over the limit: the fraction that a ratio such as 0.25 adds must not be lost each time.
        self._tokens = min(self._burst + 1.0, self._tokens - granted)
        return granted

    def count_exempt(self, count: int = 1) -> None:
        """Count requests as allowed that take no token."""
        self.taken += count

    def try_take_all(self, wanted: int = 1) -> bool:
        """Take `wanted` tokens, or none. Return False if there are too few, which does not count as a refusal."""
        if self._tokens < wanted:
            return False
        self.taken += wanted
        self._tokens = min(self._burst + 1.0, self._tokens - wanted)
        return True
