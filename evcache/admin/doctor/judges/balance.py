"""Judge of balance: items, bytes and hit ratios of zones, and of the nodes of a zone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evcache.admin.doctor.catalog import HIT_RATIOS_DIFFER, NODES_UNEVEN, ZONES_UNEVEN
from evcache.admin.doctor.facts import Facts, ZoneFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import duration
from evcache.zones.admin.statistics import ServerStatistics
from evcache.zones.topology.model import Mode

# Factor between two zones, or between a node and the average of its zone. With 160 points for each node, ketama's shares
# differ by about a tenth.
UNEVEN_FACTOR = 2.0

# Below these numbers, a factor is chance.
LEAST_ITEMS = 1_000
LEAST_READS = 1_000

# Factor between the hit ratios of two zones.
HIT_RATIO_FACTOR = 1.5


def judge(facts: Facts) -> list[Finding]:
    """Return zones and nodes that hold much less, or much more, than the others."""
    # A write-only zone is being filled.
    whole = [zone for zone in facts.zones if zone.mode is not Mode.WRITE_ONLY and _is_whole(zone)]
    found = [*_judge_amounts(whole), *_judge_hit_ratios(whole)]
    for zone in facts.zones:
        found += _judge_nodes(zone)
    if found or not whole:
        return found
    items = [_total(zone, "curr_items") for zone in whole]
    return [ok(Subject.BALANCE, f"{min(items):,} to {max(items):,} items in each zone")]


def _statistics(zone: ZoneFacts) -> list[ServerStatistics]:
    return [node.statistics for node in zone.nodes if node.statistics is not None]


def _is_whole(zone: ZoneFacts) -> bool:
    """Return True if all nodes of the zone reported statistics."""
    return len(_statistics(zone)) == len(zone.nodes)


def _total(zone: ZoneFacts, name: str) -> int:
    return sum(getattr(statistics, name) or 0 for statistics in _statistics(zone))


def _judge_amounts(zones: Sequence[ZoneFacts]) -> Iterator[Finding]:
    if len(zones) < 2:
        return
    items = sorted(zones, key=lambda zone: _total(zone, "curr_items"))
    least, most = items[0], items[-1]
    if _total(most, "curr_items") < LEAST_ITEMS:
        return
    for name, unit in (("curr_items", "items"), ("bytes", "bytes")):
        ordered = sorted(zones, key=lambda zone: _total(zone, name))
        least, most = ordered[0], ordered[-1]
        low, high = _total(least, name), _total(most, name)
        if high >= UNEVEN_FACTOR * low:
            yield ZONES_UNEVEN.found(
                f"zones uneven: {least.name} has {low:,} {unit}, {most.name} has {high:,}{_since(least)}", zone=least.name
            )
            return  # bytes follow items


def _since(zone: ZoneFacts) -> str:
    """Return the shortest uptime of a zone's nodes. A restart explains missing items."""
    uptimes = [statistics.uptime for statistics in _statistics(zone) if statistics.uptime is not None]
    return f"; {zone.name} was last restarted {duration(min(uptimes))} ago" if uptimes else ""


def _judge_hit_ratios(zones: Sequence[ZoneFacts]) -> Iterator[Finding]:
    ratios = {zone.name: ratio for zone in zones if (ratio := _hit_ratio(zone)) is not None}
    if len(ratios) < 2:
        return
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    if ratios[high] >= HIT_RATIO_FACTOR * ratios[low]:
        yield HIT_RATIOS_DIFFER.found(
            f"hit ratios differ: {ratios[low]:.0%} in {low}, {ratios[high]:.0%} in {high}", zone=low
        )


def _hit_ratio(zone: ZoneFacts) -> float | None:
    """Return the share of reads that found an item. None with few reads."""
    hits, misses = _total(zone, "get_hits"), _total(zone, "get_misses")
    return hits / (hits + misses) if hits + misses >= LEAST_READS else None


def _judge_nodes(zone: ZoneFacts) -> Iterator[Finding]:
    known = [(node, node.statistics.curr_items) for node in zone.nodes if node.statistics is not None]
    counts = [(node, items) for node, items in known if items is not None]
    if len(counts) < 2:
        return
    average = sum(items for _, items in counts) / len(counts)
    if average < LEAST_ITEMS:
        return
    for node, items in counts:
        if not average / UNEVEN_FACTOR < items < average * UNEVEN_FACTOR:
            yield NODES_UNEVEN.found(
                f"nodes uneven: {node.name} has {items:,} items, the average of its zone is {average:,.0f}",
                zone=zone.name,
                node=node.label,
            )
