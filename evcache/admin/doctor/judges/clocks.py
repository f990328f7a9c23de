"""Judge of clocks: those of the servers, of this host, and of the clients that wrote the items."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from evcache.admin.doctor.catalog import HOST_CLOCK, ITEM_VERSIONS_AHEAD, ITEM_VERSIONS_REFUSED, SERVER_CLOCK
from evcache.admin.doctor.facts import Facts, NodeFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, duration, listed
from evcache.replication.hlc import MAX_AHEAD_MS, WRITER_BITS, HybridLogicalClock, milliseconds_of

# Servers report whole seconds of a clock that ticks once a second, and the reply takes time on its way.
TOLERATED_SECONDS = 5.0

# Number of servers that must agree before this host's clock is the wrong one.
LEAST_AGREEING = 2

# NTP keeps machines within milliseconds, and a version may run ahead by as much as the clients' clocks differ.
AHEAD_MS = 5_000


def judge(facts: Facts) -> list[Finding]:
    """Return clocks that differ, and writers whose items have versions in the future."""
    offsets = [(node, node.clock_offset) for node in facts.nodes if node.clock_offset is not None]
    host_is_wrong = is_host_wrong([offset for _, offset in offsets])
    reference_ms = facts.now_ms
    found: list[Finding] = []
    if host_is_wrong:
        offset = median(offset for _, offset in offsets)
        reference_ms += round(offset * 1000)
        found.append(
            HOST_CLOCK.found(
                f"host clock differs: {count(len(offsets), 'server')} agree, and are {_ahead(offset)} this host"
            )
        )
    else:
        found += [
            SERVER_CLOCK.found(
                f"server clock differs: {node.name} is {_ahead(offset)} this host", zone=node.zone, node=node.label
            )
            for node, offset in offsets
            if abs(offset) > TOLERATED_SECONDS
        ]
    versions = list(_versions(facts))
    found += _judge_writers(versions, reference_ms)
    if found or not offsets:
        return found
    return [
        ok(
            Subject.CLOCKS,
            f"{count(len(offsets), 'server')} and {count(len(versions), 'sampled version')} agree with this host",
        )
    ]


def is_host_wrong(offsets: list[float]) -> bool:
    """Return True if the clocks of all servers agree, and that of this host differs from them."""
    if len(offsets) < LEAST_AGREEING or max(offsets) - min(offsets) > TOLERATED_SECONDS:
        return False
    return abs(median(offsets)) > TOLERATED_SECONDS


def _ahead(offset: float) -> str:
    return f"{duration(abs(offset))} {'ahead of' if offset > 0 else 'behind'}"


def _versions(facts: Facts) -> Iterator[tuple[NodeFacts, int]]:
    for node in facts.nodes:
        for item in node.sample:
            version = None if item.cas is None else HybridLogicalClock.decode(item.cas)
            if version is not None:
                yield node, version


def _judge_writers(versions: list[tuple[NodeFacts, int]], reference_ms: int) -> list[Finding]:
    """Return one finding for each writer id with versions in the future."""
    of_writers: dict[int, list[tuple[NodeFacts, int]]] = {}
    for node, version in versions:
        ahead = milliseconds_of(version) - reference_ms
        if ahead > AHEAD_MS:
            of_writers.setdefault(version & (1 << WRITER_BITS) - 1, []).append((node, ahead))
    found = []
    for writer, items in sorted(of_writers.items()):
        most = max(ahead for _, ahead in items)
        zones = listed(sorted({node.zone for node, _ in items}))
        fault = ITEM_VERSIONS_REFUSED if most > MAX_AHEAD_MS else ITEM_VERSIONS_AHEAD
        found.append(
            fault.found(
                f"item versions ahead: {count(len(items), 'sampled item')} in {zones} by writer {writer}, "
                f"up to {duration(most / 1000)} ahead"
            )
        )
    return found
