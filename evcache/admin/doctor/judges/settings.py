"""Judge of the options with which the servers run."""

from __future__ import annotations

from collections.abc import Callable

from evcache.admin.doctor.catalog import (
    EVICTIONS_DISABLED,
    HASH_TABLE_SMALL,
    IDLE_TIMEOUT_SHORT,
    ITEM_SIZE_DIFFERS,
    LISTS_DISABLED,
)
from evcache.admin.doctor.facts import Facts, NodeFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, groups, where
from evcache.zones.admin.statistics import ServerSettings, ServerStatistics
from evcache.zones.transport.classic.pool import PoolLimits

# Seconds for which the client keeps a connection of its pool that no request uses.
IDLE_SECONDS = PoolLimits().idle

# memcached's hash table has 2^16 buckets at first. It doubles when there are 1.5 items for each bucket.
DEFAULT_HASH_POWER = 16
ITEMS_PER_BUCKET = 1.5
# Number of doublings that are no fault: the table then holds 16 times the items for which it was made.
DOUBLINGS = 4


def judge(facts: Facts) -> list[Finding]:
    """Return options that differ between nodes or stand against the use as a cache in zones."""
    settings = list(facts.with_settings())
    found = []
    sizes = facts.grouped(lambda node: None if node.settings is None else node.settings.item_size_max)
    if len(sizes) > 1:
        found.append(ITEM_SIZE_DIFFERS.found(f"item size differs: {groups(sizes, facts, ' bytes')}"))

    def nodes_with(is_so: Callable[[ServerSettings], bool]) -> list[NodeFacts]:
        return [node for node, of_node in settings if is_so(of_node)]

    if nodes := nodes_with(lambda of_node: of_node.evictions is False):
        found.append(EVICTIONS_DISABLED.found(f"evictions disabled (-M): {where(nodes, facts)}"))
    if nodes := nodes_with(lambda of_node: of_node.dump_enabled is False):
        found.append(LISTS_DISABLED.found(f"lists of keys disabled (-X): {where(nodes, facts)}"))
    elif nodes := [node for node in facts.nodes if node.sample_refusal is not None]:
        text = f"lists of keys refused: {where(nodes, facts)}: {nodes[0].sample_refusal}"
        found.append(LISTS_DISABLED.found(text))
    for node, of_node in settings:
        if of_node.idle_timeout is not None and 0 < of_node.idle_timeout < IDLE_SECONDS:
            found.append(
                IDLE_TIMEOUT_SHORT.found(
                    f"idle timeout short: {node.name} closes connections after {of_node.idle_timeout} s, "
                    f"clients keep them for {IDLE_SECONDS:g} s",
                    zone=node.zone,
                    node=node.label,
                )
            )
        if (power := hash_power_needed(of_node, node.statistics)) is not None and node.statistics is not None:
            found.append(
                HASH_TABLE_SMALL.found(
                    f"hash table small: {node.name} has {node.statistics.curr_items:,} items, which need hashpower={power}",
                    zone=node.zone,
                    node=node.label,
                )
            )
    if found or not settings:
        return found
    return [ok(Subject.SETTINGS, f"items up to {next(iter(sizes), 0):,} bytes on {count(len(settings), 'node')}")]


def hash_power_needed(settings: ServerSettings, statistics: ServerStatistics | None) -> int | None:
    """Return the `hashpower` for the present items, or None if the configured one is large enough."""
    if statistics is None or not statistics.curr_items:
        return None
    power = settings.hashpower_init or DEFAULT_HASH_POWER
    if statistics.curr_items <= ITEMS_PER_BUCKET * 2 ** (power + DOUBLINGS):
        return None
    while statistics.curr_items > ITEMS_PER_BUCKET * 2**power:
        power += 1
    return power
