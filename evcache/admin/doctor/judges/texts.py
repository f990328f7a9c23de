"""Texts that several judges use: names of nodes, and durations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from evcache.admin.doctor.facts import Facts, NodeFacts

T = TypeVar("T", bound=Hashable)

# Names in one line. A zone of a hundred nodes would otherwise fill the screen.
MOST_NAMES = 5


def listed(names: Sequence[str]) -> str:
    """Return the names as a list, which ends with the number of those that were left out."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def where(nodes: Sequence[NodeFacts], facts: Facts) -> str:
    """Return the place of these nodes: zones of which they are all nodes, and the other nodes."""
    chosen = {(node.zone, node.label) for node in nodes}
    whole = [zone.name for zone in facts.zones if all((zone.name, node.label) in chosen for node in zone.nodes)]
    return listed([*whole, *(node.name for node in nodes if node.zone not in whole)])


def groups(found: Mapping[T, Sequence[NodeFacts]], facts: Facts, unit: str = "") -> str:
    """Return each value with the place of its nodes, the most frequent value first."""
    ordered = sorted(found.items(), key=lambda group: -len(group[1]))
    return "; ".join(f"{_number(value)}{unit} in {where(nodes, facts)}" for value, nodes in ordered)


def _number(value: Hashable) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.2g} s"
