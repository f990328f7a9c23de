"""Which faults come when: drawn from a seed, before the first of them happens. Plain functions: no I/O, no clock."""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


class Fault(enum.StrEnum):
    """What goes wrong."""

    NODE_DIES = "a node dies, and comes back empty"
    ZONE_DIES = "a zone dies, and comes back empty"
    NODE_HANGS = "a node hangs"
    ZONE_HANGS = "a zone hangs"
    ZONE_CUT_OFF = "a zone is cut off from all clients"
    LINK_CUT_OFF = "a zone is cut off from one client"
    CLIENT_CUT_OFF = "a client is cut off from all zones"
    NO_REPLIES = "a zone does what it is asked, and its replies are held back"
    REFUSED = "a zone's connections are reset, and new ones refused"
    RESETS = "a zone's connections are reset again and again"
    SLOW_ZONE = "a zone is slow"
    SLOW_LINK = "a zone is slow for one client"
    CUT_REPLIES = "a zone's connections end within replies"
    CUT_REQUESTS = "a zone's connections end within requests"
    WRITE_ONLY = "a zone is write-only"
    ZONE_LEAVES = "a zone leaves the topology, and comes back empty"
    NODE_LEAVES = "a zone's last node leaves, and the zone comes back complete and empty"


# The network between one client and the zones, the only faults that other clients don't feel.
_OF_ONE_CLIENT = frozenset({Fault.LINK_CUT_OFF, Fault.CLIENT_CUT_OFF, Fault.SLOW_LINK})
_OF_ONE_NODE = frozenset({Fault.NODE_DIES, Fault.NODE_HANGS})

ZONE_WIDE = tuple(fault for fault in Fault if fault not in _OF_ONE_CLIENT)
"""The faults that all clients feel alike."""

HANGING = frozenset({Fault.NODE_HANGS, Fault.ZONE_HANGS})
"""With these a server is stalled, and its clock stops until it resumes."""
HOLDING = HANGING | {Fault.ZONE_CUT_OFF, Fault.LINK_CUT_OFF, Fault.CLIENT_CUT_OFF}
"""With these requests wait, and arrive when the fault ends."""
DELAYING = frozenset({Fault.SLOW_ZONE, Fault.SLOW_LINK})
"""With these requests and replies arrive late, by `DELAY_SECONDS`."""

UNREAD = frozenset({Fault.WRITE_ONLY, Fault.ZONE_LEAVES, Fault.NODE_LEAVES})
"""With these a zone is not read at times, and so fewer zones must acknowledge a write."""

DELAY_SECONDS = (0.05, 0.3)
"""That what is slow takes to answer: least and most."""

# With one of these in effect when the last writes are made, a zone misses them, and keeps what it had before.
_LAST = (Fault.ZONE_HANGS, Fault.ZONE_CUT_OFF, Fault.REFUSED)
# Beyond the end of the plan: until the last writes have ended.
_LAST_OUTLIVES_SECONDS = 10.0


@dataclass(frozen=True)
class Pace:
    """How often faults come, in seconds (least and most)."""

    lasting: tuple[float, float] = (1.0, 6.0)
    between: tuple[float, float] = (1.0, 3.0)
    overlapping: float = 0.2
    """How likely, from 0 to 1, the next fault begins while one is in effect, in another zone. Never while two are."""


@dataclass(frozen=True)
class PlannedFault:
    """One fault: from when, for how long, and what it hits."""

    number: int
    fault: Fault
    start: float
    """Seconds from the beginning of the plan."""
    seconds: float
    zone: str | None
    """None: all zones."""
    node: int | None
    """None: every node of the zone."""
    client: int | None
    """None: all clients."""
    amount: float
    """From 0 to 1: how slow, how many bytes; its meaning is the fault's."""

    @property
    def end(self) -> float:
        """Seconds from the beginning of the plan."""
        return self.start + self.seconds

    def __str__(self) -> str:
        hit = [
            self.zone or "",
            "" if self.node is None else f"node {self.node}",
            "" if self.client is None else f"client-{self.client}",
        ]
        return f"{self.fault} ({', '.join(filter(None, hit))})"


def plan_faults(
    seed: int,
    seconds: float,
    zones: Sequence[str],
    nodes: int,
    clients: int,
    pace: Pace,
    kinds: Sequence[Fault] = tuple(Fault),
) -> list[PlannedFault]:
    """Plan faults of these kinds for `seconds`, on zones of these numbers of nodes.

    In the last fault a zone misses writes. The caller of the plan has to end that fault.
    """
    chooser = random.Random(f"faults {seed}")
    planned = list(_draw(chooser, zones, nodes, clients, pace, kinds, seconds))
    if planned:
        last = planned.pop()
        lasting = seconds + _LAST_OUTLIVES_SECONDS - last.start
        zone = last.zone or chooser.choice(zones)
        planned.append(replace(last, fault=chooser.choice(_LAST), seconds=lasting, zone=zone, node=None, client=None))
    return planned


def _draw(
    chooser: random.Random,
    zones: Sequence[str],
    nodes: int,
    clients: int,
    pace: Pace,
    kinds: Sequence[Fault],
    seconds: float,
) -> Iterator[PlannedFault]:
    start = chooser.uniform(*pace.between)
    before: PlannedFault | None = None
    overlaps = False
    deck: list[Fault] = []
    for number in itertools.count():
        if start >= seconds:
            return
        if not deck:  # every kind comes once before any comes again
            deck = list(kinds)
            chooser.shuffle(deck)
        fault = deck.pop()
        zone = chooser.choice([zone for zone in zones if before is None or zone != before.zone])
        planned = PlannedFault(
            number,
            fault,
            start,
            seconds=chooser.uniform(*pace.lasting),
            zone=None if fault is Fault.CLIENT_CUT_OFF else zone,
            node=chooser.randrange(nodes) if fault in _OF_ONE_NODE else None,
            client=chooser.randrange(clients) if fault in _OF_ONE_CLIENT else None,
            amount=chooser.random(),
        )
        yield planned
        ends = [planned.end]
        if overlaps and before is not None:
            ends.append(before.end)
        overlaps = planned.zone is not None and not overlaps and chooser.random() < pace.overlapping
        pause = chooser.uniform(*pace.between)
        start = planned.start + planned.seconds / 2 if overlaps else max(ends) + pause
        before = planned
