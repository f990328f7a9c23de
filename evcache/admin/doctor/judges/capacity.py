"""Judges of capacity: connections against their limit, memory, and evictions."""

from __future__ import annotations

from evcache.admin.doctor.catalog import (
    CONNECTION_LIMIT_LOW,
    CONNECTIONS_NEAR_LIMIT,
    CONNECTIONS_REFUSED,
    EVICTED_UNREAD,
    EVICTIONS_FAST,
    MEMORY_DIFFERS,
)
from evcache.admin.doctor.facts import Facts, NodeFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, duration, groups
from evcache.zones.admin.statistics import ServerStatistics

# Share of the usable connections. A deployment that starts new processes before it stops old ones needs more for a moment.
NEAR_LIMIT = 0.8

# memcached's default of `-c`.
DEFAULT_CONNECTIONS = 1024

# Evictions below this number are noise, and so is their rate.
LEAST_EVICTIONS = 1_000

# The client's default TTL is 15 minutes. With this margin, an eviction is unlikely to end an item before its TTL.
LEAST_SECONDS_TO_EVICT_ALL = 3_600

# Share of evicted items that no client has read.
UNREAD_SHARE = 0.5

# Descriptors beside the reserved ones: standard streams, listeners and the event loop take 4 to 8 of them.
OTHER_DESCRIPTORS = 8

# The reply of memcached to a connection above its limit.
_TOO_MANY = "Too many open connections"


def judge_connections(facts: Facts) -> list[Finding]:
    """Return servers near their limit of connections, at it, or with a low limit."""
    found = [
        CONNECTIONS_NEAR_LIMIT.found(
            f"connections near limit: {node.name} refuses this command: {_TOO_MANY}", zone=node.zone, node=node.label
        )
        for node in facts.nodes
        if any(text is not None and _TOO_MANY.lower() in text.lower() for text in (node.error, node.refusal))
    ]
    highest = 0.0
    examined = 0
    for node, statistics in facts.with_statistics():
        free = usable_connections(node)
        if free is None or statistics.curr_connections is None:
            continue
        examined += 1
        share = statistics.curr_connections / free
        highest = max(highest, share)
        found += _judge_connections(node, statistics, free, share)
    if found or not examined:
        return found
    return [ok(Subject.CONNECTIONS, f"at most {highest:.0%} of the limit in use on {count(examined, 'node')}")]


def usable_connections(node: NodeFacts) -> int | None:
    """Return the number of connections that a server accepts, or None if it reports no limit.

    memcached refuses a connection whose descriptor reaches the limit less one (measured on 1.6.18 and 1.6.38).
    """
    if node.statistics is None or node.statistics.max_connections is None:
        return None
    return max(1, node.statistics.max_connections - 1 - _own(node))


def _own(node: NodeFacts) -> int:
    """Return the number of the server's own descriptors, which is an estimate if the server does not list them."""
    if node.own_descriptors is not None:
        return node.own_descriptors
    reserved = 0 if node.statistics is None else node.statistics.reserved_fds or 0
    return reserved + OTHER_DESCRIPTORS


def _judge_connections(node: NodeFacts, statistics: ServerStatistics, free: int, share: float) -> list[Finding]:
    place = {"zone": node.zone, "node": node.label}
    limit = f"-c {statistics.max_connections} less {_own(node)} descriptors of its own"
    found = []
    if share >= NEAR_LIMIT:
        text = f"connections near limit: {node.name} has {statistics.curr_connections} of {free} ({limit})"
        found.append(CONNECTIONS_NEAR_LIMIT.found(text, **place))
    refused = max(statistics.rejected_connections or 0, statistics.listen_disabled_num or 0)
    if refused:
        since = "" if statistics.uptime is None else f" in {duration(statistics.uptime)} since its start"
        text = f"connections refused: {node.name} refused {count(refused, 'connection')}{since}"
        found.append(CONNECTIONS_REFUSED.found(text, **place))
    if statistics.max_connections is not None and statistics.max_connections < DEFAULT_CONNECTIONS:
        text = f"connection limit low: {node.name} accepts {free} ({limit}), the default of -c is {DEFAULT_CONNECTIONS}"
        found.append(CONNECTION_LIMIT_LOW.found(text, **place))
    return found


def judge_memory(facts: Facts) -> list[Finding]:
    """Return memory that differs between nodes, and servers that evict too much."""
    limits = facts.grouped(lambda node: None if node.statistics is None else node.statistics.limit_maxbytes)
    found = []
    if len(limits) > 1:
        found.append(MEMORY_DIFFERS.found(f"memory differs: {groups(limits, facts, ' bytes')}"))
    total = 0
    for node, statistics in facts.with_statistics():
        total += statistics.evictions or 0
        found += _judge_evictions(node, statistics)
    if found or not limits:
        return found
    return [ok(Subject.MEMORY, f"{next(iter(limits)):,} bytes on each node, {count(total, 'eviction')}")]


def _judge_evictions(node: NodeFacts, statistics: ServerStatistics) -> list[Finding]:
    evictions = statistics.evictions or 0
    if evictions < LEAST_EVICTIONS:
        return []
    found = []
    if statistics.uptime and statistics.curr_items:
        to_evict_all = statistics.curr_items * statistics.uptime / evictions
        if to_evict_all < LEAST_SECONDS_TO_EVICT_ALL:
            found.append(
                EVICTIONS_FAST.found(
                    f"evictions fast: {node.name} evicts as many items as it holds in {duration(to_evict_all)}",
                    zone=node.zone,
                    node=node.label,
                )
            )
    unread = (statistics.evicted_unfetched or 0) / evictions
    if unread > UNREAD_SHARE:
        found.append(
            EVICTED_UNREAD.found(
                f"evicted unread: {unread:.0%} of {evictions:,} evicted items of {node.name} were never read",
                zone=node.zone,
                node=node.label,
            )
        )
    return found
