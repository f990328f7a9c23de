"""Detection of lost invalidation messages. Pure: no I/O, and the caller passes the time.

A publisher numbers its messages of changes from 1. It repeats its last number in a heartbeat each second, until it sends a
BYE. So after a few heartbeats a receiver knows all publishers, and can detect three kinds of *gaps*:

- a number that does not follow the last one;
- missing heartbeats without a BYE;
- an unknown publisher with a number over 1.

The receiver may forget a publisher at any time. When it receives from it again, the publisher is unknown, which is a gap.
"""

from __future__ import annotations

from typing import NamedTuple

from evcache.invalidation.messages import InvalidationMessage, Kind

# Live publishers that are remembered, and ended ones. Each takes 200 bytes.
MAX_PUBLISHERS = 4_096


class Observation(NamedTuple):
    """Conclusions from one message."""

    is_new: bool
    """True if its changes were not received before."""
    gap: str | None
    """Description of the gap before the message, or None."""


class _PeerState:
    __slots__ = ("ended", "last_number", "seen_at")

    def __init__(self) -> None:
        self.last_number = 0
        self.seen_at = 0.0
        self.ended = False  # its last message was a BYE


class GapDetector:
    """Publishers of which one subscription has received messages."""

    __slots__ = ("_began", "_ended", "_limit", "_live", "_restarted_at", "_timeout")

    def __init__(self, timeout: float, limit: int = MAX_PUBLISHERS) -> None:
        """Create it without publishers.

        Args:
            timeout: Seconds without a message after which a publisher has missed its heartbeats.
            limit: Largest number of live publishers, and of ended ones.
        """
        self._timeout = timeout
        self._limit = limit
        self._began = 0.0
        self._restarted_at = 0.0
        # Both ordered by the time of the last message.
        self._live: dict[int, _PeerState] = {}
        self._ended: dict[int, _PeerState] = {}

    def __len__(self) -> int:
        """Number of publishers that send heartbeats."""
        return len(self._live)

    def reset(self, now: float) -> None:
        """Forget all publishers, because a subscription begins."""
        self._began = self._restarted_at = now
        self._live.clear()
        self._ended.clear()

    def observe(self, message: InvalidationMessage, now: float) -> Observation:
        """Record a message, and return what follows from it."""
        kind, identity, number, _ = message
        has_changes = kind is Kind.CHANGES
        expected = number - 1 if has_changes else number  # last number before this message
        peer = self._live.pop(identity, None) or self._ended.pop(identity, None)
        gap = None
        if peer is None:
            peer = _PeerState()
            if expected and now - self._began > self._timeout:
                gap = f"unknown publisher has sent {expected} messages before"
        elif expected > peer.last_number:
            gap = f"{expected - peer.last_number} messages of a publisher are missing"
        elif peer.ended and number <= peer.last_number:
            self._ended[identity] = peer  # a late duplicate: no heartbeats follow
            return Observation(is_new=False, gap=None)
        is_new = has_changes and number > peer.last_number
        peer.last_number = max(peer.last_number, number)
        peer.seen_at = now
        peer.ended = kind is Kind.BYE
        peers = self._ended if peer.ended else self._live
        peers[identity] = peer
        if len(peers) > self._limit:
            del peers[next(iter(peers))]
        return Observation(is_new, gap)

    def restart_timeouts(self, now: float) -> None:
        """Restart the timeout of each publisher at `now`."""
        self._restarted_at = now

    def end_silent(self, now: float) -> int:
        """End the publishers that have missed their heartbeats. Return their number."""
        if now - self._restarted_at <= self._timeout:
            return 0
        silent = []
        for identity, peer in self._live.items():
            if now - peer.seen_at <= self._timeout:
                break
            silent.append(identity)
        for identity in silent:
            self._ended[identity] = self._live.pop(identity)
        while len(self._ended) > self._limit:
            del self._ended[next(iter(self._ended))]
        return len(silent)
