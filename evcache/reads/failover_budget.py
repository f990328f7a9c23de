"""How many requests a client may send to other zones than its own, so that one zone's end is not the end of the next.

A bucket of tokens: each read brings some, each request to another zone takes one. Reads are counted as they begin, and
turned into tokens when somebody asks, which costs the ordinary read an addition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from evcache.zones.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Failover:
    """Limit on requests of reads to other zones than the local one or, without a local zone, the preferred one."""

    ratio: float = 1.0
    """Requests to other zones for each read, on average. 1: with the own zone gone every read is served by another, and
    those get no more than that, however often they miss or fail. Less saves the others, at the price of failed reads."""

    burst: float = 4000.0
    """Requests beyond that, saved up in better times. mcrouter's failover limiter has 1,000; half of it is for zones that a
    read asks after the first of the others, and a client of 10,000 reads a second needs 1,000 of those until it has noticed
    that a second zone hangs."""

    def __post_init__(self) -> None:
        for name in ("ratio", "burst"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidArgument(name, f"a number from 0 is needed, not {value!r}")


class TokenBucket:
    """Tokens that reads bring and that further requests take."""

    __slots__ = ("_burst", "_counted", "_ratio", "_tokens", "denied", "reads", "taken")

    def __init__(self, ratio: float, burst: float) -> None:
        self.reads = 0
        """Reads that have begun. Whoever begins one adds to it."""
        self.taken = 0
        """Requests that were allowed."""
        self.denied = 0
        """Requests that were not."""
        self._ratio = ratio
        self._burst = burst
        self._tokens = burst
        self._counted = 0  # of `reads`, those whose tokens are in

    def has(self, wanted: int = 1) -> bool:
        """Whether so many more requests may be sent."""
        return self._tokens + (self.reads - self._counted) * self._ratio >= wanted

    def take(self, wanted: int = 1, *, spare: bool = False) -> int:
        """How many of the wanted requests may be sent.

        `spare`: only from the upper half of the bucket, for what a read can do without: with a zone down each read has to
        ask another one, and what it asks beyond that must not use up what the next read needs (gRPC's retries throttle
        themselves in the same way).
        """
        tokens = self._tokens + (self.reads - self._counted) * self._ratio
        self._counted = self.reads
        least = self._burst / 2 if spare else 0.0
        granted = min(wanted, max(0, int(tokens - least)))
        # The limit comes last, and leaves room for one whole token: a call for many keys may spend what it has brought.
        self._tokens = min(self._burst + 1.0, tokens - granted)
        self.taken += granted
        self.denied += wanted - granted
        return granted
