"""Judge of the topology: zones, nodes and addresses."""

from __future__ import annotations

from evcache.admin.doctor.catalog import ADDRESS_SHARED, LOCAL_ZONE_MISSING, NODE_COUNTS_DIFFER
from evcache.admin.doctor.facts import Facts, NodeFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, listed

# With twice the nodes in one zone, a node of the other zone gets twice the reads and data.
NODE_COUNT_FACTOR = 2


def judge(facts: Facts) -> list[Finding]:
    """Return the faults of the topology."""
    found = [
        ADDRESS_SHARED.found(f"address shared: {address} is the server of {listed([node.name for node in nodes])}")
        for address, nodes in facts.grouped(_place).items()
        if len(nodes) > 1
    ]
    sizes = sorted(facts.zones, key=lambda zone: len(zone.nodes))
    if sizes and len(sizes[-1].nodes) >= NODE_COUNT_FACTOR * len(sizes[0].nodes):
        most, least = sizes[-1], sizes[0]
        found.append(
            NODE_COUNTS_DIFFER.found(
                f"number of nodes differs: {most.name} has {len(most.nodes)}, {least.name} has {len(least.nodes)}",
                zone=least.name,
            )
        )
    names = [zone.name for zone in facts.zones]
    if facts.local_zone is not None and facts.local_zone not in names:
        found.append(
            LOCAL_ZONE_MISSING.found(
                f"local zone missing: the topology has {', '.join(names)}, not {facts.local_zone}", zone=facts.local_zone
            )
        )
    return found or [ok(Subject.TOPOLOGY, f"{count(len(names), 'zone')}, {count(len(facts.nodes), 'node')}")]


def _place(node: NodeFacts) -> str:
    """Return the address to which the node's name led, or its address as it is written."""
    return ", ".join(sorted(f"{host}:{port}" for host, port in node.peers)) or node.address
