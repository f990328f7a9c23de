"""Record of received invalidations, and judgement of near hits against it. Plain functions: no client, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """What all clients of a run have seen."""

    reads: int = 0
    hits: int = 0
    """Reads that the near cache answered."""
    stale: int = 0
    """Hits that were older than an invalidation message that their client had received."""
    kept: int = 0
    """Stale entries, by key and client. One entry may cause many hits, or few."""
    worst: float = 0.0
    """Most seconds between the receipt of the message and such a hit."""
    behind: int = 0
    """Hits that were older than a write whose invalidation was published, received or not."""
    worst_behind: float = 0.0
    """Most seconds between that publication and such a hit."""
    torn: int = 0
    """Reads of a value that belongs to another key."""
    heard: int = 0
    """Invalidation messages, counted once for each client that receives one."""
    writes: int = 0
    gaps: int = 0
    """Times when a client may have missed something: no more than one each, when it begins to listen."""

    @property
    def ppm(self) -> float:
        return 1e6 * self.stale / max(1, self.hits)

    @property
    def ppm_behind(self) -> float:
        return 1e6 * self.behind / max(1, self.hits)


@dataclass
class Truth:
    """Latest version of each key whose invalidation was published, with the time. Versions only rise."""

    _times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _marks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def announced(self, key: str, mark: int, now: float) -> None:
        marks = self._marks[key]
        if not marks or mark > marks[-1]:
            self._times[key].append(now)
            marks.append(mark)

    def since(self, key: str, mark: int) -> float | None:
        """Return the time of the first publication of a newer version, or None if there was none."""
        place = bisect_right(self._marks[key], mark)
        return self._times[key][place] if place < len(self._times[key]) else None


class Judge:
    """Invalidation messages that one client has received or published."""

    def __init__(self, counts: Counts, truth: Truth) -> None:
        self._counts = counts
        self._truth = truth
        self._heard = Truth()
        self._stale: set[tuple[str, int]] = set()

    def heard(self, key: str, mark: int, now: float) -> None:
        """Whatever is served from now on is as new as this."""
        self._counts.heard += 1
        self._heard.announced(key, mark, now)

    def wrote(self, key: str, mark: int, now: float) -> None:
        """The same, of what this client has written itself."""
        self._heard.announced(key, mark, now)

    def hit(self, key: str, mark: int, now: float) -> None:
        """The near cache has answered with this."""
        counts = self._counts
        counts.hits += 1
        since = self._heard.since(key, mark)
        if since is not None:
            counts.stale += 1
            counts.kept += (key, mark) not in self._stale
            self._stale.add((key, mark))
            counts.worst = max(counts.worst, now - since)
        since = self._truth.since(key, mark)
        if since is not None:
            counts.behind += 1
            counts.worst_behind = max(counts.worst_behind, now - since)
