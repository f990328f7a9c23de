"""Who else announces, and whether anything of it was missed. Pure: no I/O, and the time is passed in.

A publisher numbers its messages of changes from 1, and says its last number once a second, until it says BYE. So whoever
has listened for longer than a few heartbeats knows every publisher there is, and a number that does not follow, a silence
without a BYE, and a stranger who has spoken before, are each a *gap*: announcements have been missed.

A publisher may be forgotten at any time without a risk: when it is heard of again, it is such a stranger.
"""

from __future__ import annotations

from typing import NamedTuple

from evcache.invalidation.messages import InvalidationMessage, Kind

# Publishers that are remembered, of those that speak and again of those that are silent or gone. 200 bytes each.
MAX_PUBLISHERS = 4_096


class Heard(NamedTuple):
    """What follows from a message."""

    news: bool
    """Whether its changes have not been heard before."""
    gap: str | None
    """How it shows that something was missed before it; None: it does not."""


class _Publisher:
    __slots__ = ("ended", "heard_at", "last")

    def __init__(self) -> None:
        self.last = 0
        self.heard_at = 0.0
        self.ended = False  # it said BYE


class GapDetector:
    """The publishers that one subscription has heard of."""

    __slots__ = ("_began", "_forgiven_at", "_gone", "_limit", "_live", "_silence")

    def __init__(self, silence: float, limit: int = MAX_PUBLISHERS) -> None:
        """`silence`: seconds without a message after which a publisher has missed its heartbeats."""
        self._silence = silence
        self._limit = limit
        self._began = 0.0
        self._forgiven_at = 0.0
        # In both, whoever was heard last comes last.
        self._live: dict[int, _Publisher] = {}
        self._gone: dict[int, _Publisher] = {}

    def __len__(self) -> int:
        """Those that are expected to send heartbeats."""
        return len(self._live)

    def begin(self, now: float) -> None:
        """A subscription begins: of what was said before nothing is known."""
        self._began = self._forgiven_at = now
        self._live.clear()
        self._gone.clear()

    def heard(self, announcement: InvalidationMessage, now: float) -> Heard:
        """Take note of a message."""
        kind, identity, number, _ = announcement
        changes = kind is Kind.CHANGES
        before = number - 1 if changes else number  # what must have been heard before this
        publisher = self._live.pop(identity, None) or self._gone.pop(identity, None)
        gap = None
        if publisher is None:
            publisher = _Publisher()
            if before and now - self._began > self._silence:
                gap = "a publisher has announced something before it was first heard of"
        elif before > publisher.last:
            gap = f"{before - publisher.last} announcements of a publisher are missing"
        elif publisher.ended and number <= publisher.last:
            self._gone[identity] = publisher  # a copy that comes late; heartbeats are not to be expected again
            return Heard(news=False, gap=None)
        news = changes and number > publisher.last
        publisher.last = max(publisher.last, number)
        publisher.heard_at = now
        publisher.ended = kind is Kind.BYE
        place = self._gone if publisher.ended else self._live
        place[identity] = publisher
        if len(place) > self._limit:
            del place[next(iter(place))]
        return Heard(news, gap)

    def forgive(self, now: float) -> None:
        """What did not come until now is nobody's fault: their silence begins now."""
        self._forgiven_at = now

    def silent(self, now: float) -> int:
        """How many have missed their heartbeats since this was last asked."""
        if now - self._forgiven_at <= self._silence:
            return 0
        late = []
        for identity, publisher in self._live.items():
            if now - publisher.heard_at <= self._silence:
                break
            late.append(identity)
        for identity in late:
            self._gone[identity] = self._live.pop(identity)
        while len(self._gone) > self._limit:
            del self._gone[next(iter(self._gone))]
        return len(late)
