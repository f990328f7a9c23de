"""The figures that are to be reached, and whether they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.measuring import ARRIVAL, OURS, VALKEY_GLIDE, Result, ratio
from benchmarks.works import LARGE, MEDIUM, NODES, ZONES, Work

AIOMCACHE, EMCACHE, AUTOBATCHING = "aiomcache", "emcache", "emcache, autobatching"
BEST = "the best asyncio peer"
ASYNCIO_PEERS = (AIOMCACHE, EMCACHE, AUTOBATCHING)
"""Clients of memcached. A client of the Redis protocol is not one of them, because its rate depends on another server."""

Results = Mapping[str, Result]
"""By contender."""


@dataclass(frozen=True)
class Figure:
    """Ratio of one contender's rate to another's, for one kind of work."""

    work: Work
    ours: str
    against: str
    at_least: float
    of: Literal["per_second", "p99"] = "per_second"

    @property
    def title(self) -> str:
        """What is compared."""
        what = "" if self.of == "per_second" else f"{self.of} of "
        inverse = "" if self.of == "per_second" else ", theirs / ours"
        return f"{what}{self.work.title}: {self.ours} / {self.against}{inverse}"

    def reached(self, rows: Mapping[str, Results]) -> tuple[float, float] | None:
        """What it came to, and the same ratio of processor time; None where it was not measured.

        A latency is better when it is lower, and so is processor time: theirs over ours.
        """
        results = rows.get(self.work.title, {})
        peers = ASYNCIO_PEERS if self.against == BEST else (self.against,)
        present = [results[peer] for peer in peers if peer in results]
        if self.ours not in results or not present:
            return None
        ours = results[self.ours]
        if self.of == "p99":
            came_to = min(ratio(peer.p99, ours.p99) for peer in present)
        else:
            came_to = min(ratio(ours.per_second, peer.per_second) for peer in present)
        return came_to, min(ratio(peer.cpu_microseconds, ours.cpu_microseconds) for peer in present)


def figures() -> Iterator[Figure]:
    """All of them: asyncio's own loop, values of 100 bytes unless it says otherwise.

    Ours is a client with its defaults, whose writes are guarded, or one that writes by arrival. Peers write blindly.
    """
    for callers, against, at_least in (
        (32, AIOMCACHE, 5.5),
        (32, EMCACHE, 4.5),
        (32, AUTOBATCHING, 1.4),
        (32, VALKEY_GLIDE, 6),
        (256, AIOMCACHE, 8),
        (256, EMCACHE, 7),
        (256, AUTOBATCHING, 1.3),
        (1, BEST, 1.05),
    ):
        yield Figure(Work("get hit", callers=callers), OURS, against, at_least)
    yield Figure(Work("get hit", callers=32), OURS, BEST, 1, "p99")
    for callers, at_least in ((1, 1.4), (32, 2)):
        yield Figure(Work("get_many", keys=100, callers=callers), OURS, EMCACHE, at_least)
    yield Figure(Work("get_many", keys=1000, nodes=NODES), OURS, BEST, 1.2)
    yield Figure(Work("set_many", keys=100, zones=ZONES), OURS, BEST, 2)
    for ours, callers, against, at_least in (
        (OURS, 32, AIOMCACHE, 6),
        (OURS, 32, EMCACHE, 5),
        (OURS, 256, AIOMCACHE, 8),
        (OURS, 256, EMCACHE, 7),
        (ARRIVAL, 32, AIOMCACHE, 7),
        (ARRIVAL, 32, EMCACHE, 6),
        (ARRIVAL, 256, AIOMCACHE, 11),
        (ARRIVAL, 256, EMCACHE, 9),
    ):
        yield Figure(Work("set", zones=ZONES, callers=callers), ours, against, at_least)
    yield Figure(Work("set", zones=ZONES, size=MEDIUM, callers=32), OURS, EMCACHE, 1.5)
    for callers, get, store in ((1, 1.2, 0.9), (32, 0.95, 1)):
        yield Figure(Work("get hit", size=LARGE, callers=callers), OURS, BEST, get)
        yield Figure(Work("set", size=LARGE, callers=callers), OURS, BEST, store)


def verdict(figure: Figure, rows: Mapping[str, Results]) -> dict[str, object]:
    """The figure, what it came to, and which of the two it is; as it goes into the JSON."""
    came_to, cpu_ratio = figure.reached(rows) or (None, None)
    return {
        "figure": figure.title,
        "at_least": figure.at_least,
        "came_to": came_to,
        "cpu_ratio": cpu_ratio,
        "verdict": "not measured" if came_to is None else "reached" if came_to >= figure.at_least else "missed",
    }
