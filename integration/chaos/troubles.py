"""Troubles of a run, as far as they excuse violations. Plain functions: no I/O, no clock.

A conditional write is decided by one zone as long as clients agree which nodes can be reached. Each client's view of each node
is recorded as it changes. The intervals of possible disagreement are therefore known, with the time of detection and recovery. A client that makes no calls decides nothing, so its view does not count.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from integration.chaos.fault_plan import DELAYING, HANGING, HOLDING, UNREAD, Fault
from integration.chaos.history import Call

BEFORE_DOWN_SECONDS = 1.5
"""Before a client counts a node as down, its calls may go to other zones because they get no connection in time."""
AFTER_CHANGE_SECONDS = 0.1
"""Checks compare the whole span of a call, so calls that began before a change need no longer margin."""
AFTER_TROUBLE_SECONDS = 1.5
"""Time after a fault in which connections may still be made, or cut by a pending cut."""

LATENESS_SECONDS = 0.5
"""Time by which a slow link makes a copy's ttl too long: the slowest way there and back, and scheduling."""


class Trouble(NamedTuple):
    """One fault as it happened, on one zone."""

    fault: Fault
    zone: str
    node: int | None
    """None: all nodes of the zone."""
    client: str | None
    """None: for all clients."""
    begin: float
    end: float


class View(NamedTuple):
    """A change of a client's view of a node."""

    at: float
    client: str
    zone: str
    node: int
    down: bool


class Span(NamedTuple):
    """An interval of time."""

    begin: float
    end: float


@dataclass
class Circumstances:
    """The troubles of a run."""

    zones: Sequence[str]
    node_of: Callable[[str, str], int]
    """Gives the node of a zone that holds a key."""
    troubles: list[Trouble] = field(default_factory=list)
    emptied: list[tuple[str, int, float]] = field(default_factory=list)
    """Zone, node and time of each start of an empty server."""
    views: list[View] = field(default_factory=list)
    rearranged: list[tuple[str, Span]] = field(default_factory=list)
    """A zone, and from when until when some clients may have seen another topology than others."""
    active: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    """Intervals in which each client made calls."""

    def __post_init__(self) -> None:
        self._disagreements: dict[tuple[str, int], list[Span]] | None = None
        self._pairs: dict[tuple[str, str, str, int], list[Span]] = {}
        self._of_keys: dict[str, list[Trouble]] = {}
        self._bad: dict[tuple[str, str, int], list[Span]] = {}

    # Disagreement.

    @property
    def disagreements(self) -> Mapping[tuple[str, int], Sequence[Span]]:
        """Disjoint intervals in which active clients may have disagreed about a node, by zone and node."""
        if self._disagreements is None:
            found = _disagreements(self.views, self.active)
            self._disagreements = {}
            nodes = {node for _, node in found} | {0, 1}
            for zone in self.zones:
                changes = self._rearranged(zone)
                for node in nodes:
                    if spans := _merged([*found[zone, node], *changes]):
                        self._disagreements[zone, node] = spans
        return self._disagreements

    def disagreed(self, key: str, *spans: Span) -> bool:
        """Return True if clients may have disagreed, within one of the spans, about a node that holds the key."""
        return any(
            _overlaps(self.disagreements.get((zone, self.node_of(zone, key)), ()), span)
            for zone in self.zones
            for span in spans
        )

    def disagreed_about(self, key: str, one: str, other: str, *spans: Span) -> bool:
        """Return True if two clients may have disagreed, within one of the spans, about a node that holds the key."""
        return any(
            _overlaps(self._between(*sorted((one, other)), zone, self.node_of(zone, key)), span)
            for zone in self.zones
            for span in spans
        )

    def _between(self, one: str, other: str, zone: str, node: int) -> Sequence[Span]:
        place = one, other, zone, node
        spans = self._pairs.get(place)
        if spans is None:
            views = [view for view in self.views if view.client in (one, other) and (view.zone, view.node) == (zone, node)]
            found = _disagreements(views, {name: self.active.get(name, ()) for name in (one, other)})[zone, node]
            spans = self._pairs[place] = _merged(found if one == other else [*found, *self._rearranged(zone)])
        return spans

    def _rearranged(self, zone: str) -> list[Span]:
        return [Span(begin, end + AFTER_CHANGE_SECONDS) for each, (begin, end) in self.rearranged if each == zone]

    # Reach.

    def of_key(self, key: str) -> Sequence[Trouble]:
        """Return the troubles of the nodes that hold a key, for any client, by the time at which they began."""
        found = self._of_keys.get(key)
        if found is None:
            found = self._of_keys[key] = sorted(
                (each for each in self.troubles if each.node in (None, self.node_of(each.zone, key))),
                key=lambda trouble: trouble.begin,
            )
        return found

    def had_trouble(self, zone: str, key: str, client: str, span: Span) -> bool:
        """Return True if a fault hit the client's way to the zone's node of the key, or the client saw it as down."""
        node = self.node_of(zone, key)
        bad = self._bad.get((client, zone, node))
        if bad is None:
            bad = self._bad[client, zone, node] = _merged(self._bad_spans(client, zone, node))
        return _overlaps(bad, Span(span.begin - AFTER_TROUBLE_SECONDS, span.end))

    def _bad_spans(self, client: str, zone: str, node: int) -> Iterator[Span]:
        for trouble in self.troubles:
            if trouble.zone == zone and trouble.node in (None, node) and trouble.client in (None, client):
                yield Span(trouble.begin, trouble.end)
        down: float | None = None
        for view in sorted(self.views, key=lambda view: view.at):
            if (view.client, view.zone, view.node) == (client, zone, node):
                if view.down and down is None:
                    down = view.at
                elif not view.down and down is not None:
                    yield Span(down, view.at)
                    down = None
        if down is not None:
            yield Span(down, math.inf)

    def lost(self, zone: str, key: str, span: Span) -> bool:
        """Return True if the zone's node of the key was started empty within the span, or another node held the key."""
        node = self.node_of(zone, key)
        return any(
            each == zone and number == node and span.begin <= at <= span.end for each, number, at in self.emptied
        ) or any(
            trouble.fault is Fault.NODE_LEAVES and trouble.zone == zone and _overlap(trouble, span)
            for trouble in self.troubles
        )

    def required_acks(self, span: Span) -> int:
        """Return the least number of acknowledgements for a write to succeed: all readable zones but one."""
        unread = any(trouble.fault in UNREAD and _overlap(trouble, span) for trouble in self.troubles)
        return max(1, len(self.zones) - (2 if unread else 1))

    def well(self, key: str, client: str, span: Span) -> set[str]:
        """Return the zones whose node of the key the client can have reached throughout the span."""
        return {zone for zone in self.zones if not self.had_trouble(zone, key, client, span)}

    def known_to(self, write: Call, call: Call) -> bool:
        """Return True if a call can have seen an acknowledged write that had returned before.

        That is so if a zone that acknowledged the write could be reached throughout the call, and was not emptied since.
        """
        span = Span(call.invoked, call.completed)
        return any(
            not self.had_trouble(zone, write.key, call.client, span)
            and not self.lost(zone, write.key, Span(write.invoked, call.completed))
            for zone in write.acknowledged
            if zone in self.zones
        )

    # Lateness.

    def latest_end(self, key: str, begin: float, end: float) -> float:
        """Return the latest time at which copies that expire at `end` by rights may really be gone.

        Requests that a fault holds back arrive when the fault ends, and their values then live for the full TTL. Each such
        fault that begins before the end delays it by the duration of the fault since `begin`, the start of the write.
        """
        for trouble in self.of_key(key):
            if trouble.begin > end or trouble.end < begin:
                continue
            lasted = trouble.end - max(trouble.begin, begin)
            if trouble.fault in HOLDING:
                end += lasted
            elif trouble.fault is Fault.NO_REPLIES:
                end += min(lasted, 1.0)  # a reply that says how long an item has left is waited for no longer
            elif trouble.fault in DELAYING:
                end += LATENESS_SECONDS
        return end

    def latest_arrival(self, call: Call) -> float:
        """Return the time by which every request of a call had arrived, or never will."""
        arrived = call.sent_by
        for trouble in self.of_key(call.key):
            if trouble.begin <= arrived and trouble.end >= call.invoked and (trouble.fault in HOLDING | DELAYING):
                arrived = max(arrived, trouble.end + LATENESS_SECONDS)
        return arrived

    def is_resuming(self, key: str, span: Span) -> bool:
        """Return True if a server of the key resumed after a hang within the span. Its clock is behind until it next ticks."""
        return any(
            trouble.fault in HANGING and span.begin <= trouble.end + LATENESS_SECONDS and span.end >= trouble.end
            for trouble in self.of_key(key)
        )


def _disagreements(views: Iterable[View], active: Mapping[str, Sequence[Span]]) -> defaultdict[tuple[str, int], list[Span]]:
    """Return the intervals in which active clients had different views of a node, with margins, by zone and node."""
    changes: defaultdict[tuple[str, int], list[View]] = defaultdict(list)
    for view in views:
        changes[view.zone, view.node].append(view)
    found: defaultdict[tuple[str, int], list[Span]] = defaultdict(list)
    for place, of_node in changes.items():
        of_node.sort(key=lambda view: view.at)
        moments = sorted({view.at for view in of_node} | {at for spans in active.values() for span in spans for at in span})
        down: set[str] = set()
        upcoming = iter(of_node)
        following = next(upcoming, None)
        for at, until in zip(moments, [*moments[1:], math.inf], strict=True):
            while following is not None and following.at <= at:
                (down.add if following.down else down.discard)(following.client)
                following = next(upcoming, None)
            acting = {name for name, spans in active.items() if any(span.begin <= at < span.end for span in spans)}
            if down & acting and acting - down:
                found[place].append(Span(at - BEFORE_DOWN_SECONDS, until + AFTER_CHANGE_SECONDS))
    return found


def _overlap(trouble: Trouble, span: Span) -> bool:
    return trouble.begin <= span.end and trouble.end >= span.begin


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.begin <= merged[-1].end:
            merged[-1] = Span(merged[-1].begin, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _overlaps(spans: Sequence[Span], span: Span) -> bool:
    """Return True if one of the sorted, disjoint spans overlaps this one."""
    index = bisect_left(spans, span.begin, key=lambda each: each.end)
    return index < len(spans) and spans[index].begin <= span.end
