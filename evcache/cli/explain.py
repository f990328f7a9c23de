"""Command `evcache explain`: the nodes of a key, its coordinator, and the features of its servers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import click

from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import to_json
from evcache.cli.runner import Status, run_command
from evcache.cli.target import Target, targeted
from evcache.compatibility import supported
from evcache.values.keys import Keys
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.routing.ketama import ring_position
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.validation import positive_seconds
from evcache.zones.zone_pool import ZonePool


@dataclass(frozen=True, slots=True)
class ZoneReport:
    """State and features of the node that holds the key in one zone."""

    mode: str
    local: bool
    node: str
    """Label of the node that holds the key."""
    address: str
    nodes: int
    """Number of nodes in the zone."""
    state: str
    problem: str | None
    """Cause for which the node cannot be used. None if it can."""
    transport: str | None
    server: str | None
    item_bytes: int | None
    features: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Placement of one key, with the state of its nodes."""

    key: str
    """Key with its namespace, as servers store it."""
    position: int
    """Position on the ring, a number of 32 bits."""
    read_order: list[str]
    coordinator_order: list[str]
    """Zones in the order in which one is chosen as the coordinator of conditional writes."""
    zones: dict[str, ZoneReport]

    @property
    def reachable(self) -> bool:
        """True if at least one zone can be used."""
        return any(zone.problem is None for zone in self.zones.values())


def _without_levels(command: Any) -> Any:
    return targeted(command, levels=None)


@click.command()
@click.argument("key")
@_without_levels
def explain(target: Target, key: str) -> None:
    """Show the nodes of KEY, its coordinator, and the features of its servers.

    Exit status 0: at least one zone answered; 3: no zone could be reached.
    """
    found = run_command(_explain(target, key))
    click.echo(to_json(found) if target.as_json else "\n".join(lines(found)))
    raise SystemExit(Status.DONE if found.reachable else Status.UNAVAILABLE)


def lines(found: Explanation) -> list[str]:
    """Return the lines of an explanation."""
    text = [
        f"key          {found.key}",
        f"position     {found.position} on the ring",
        f"reads        {', '.join(found.read_order)}",
        f"coordinator  the first reachable zone of {', '.join(found.coordinator_order)}",
    ]
    for name, zone in found.zones.items():
        text += ["", f"{name}  {zone.mode}{', local' if zone.local else ''}"]
        node = zone.node if zone.node == zone.address else f"{zone.node} at {zone.address}"
        text.append(f"  node       {node}{'' if zone.nodes == 1 else f', one of {zone.nodes}'}")
        text.append(f"  state      {zone.state}{'' if zone.problem is None else f': {zone.problem}'}")
        if zone.transport is not None:
            text.append(f"  transport  {zone.transport}")
            text.append(f"  server     memcached {zone.server}, items up to {zone.item_bytes} bytes")
            text.append(f"  has        {_list(zone.features, has=True)}")
            text.append(f"  lacks      {_list(zone.features, has=False)}")
    return text


def _list(features: dict[str, bool], *, has: bool) -> str:
    return "; ".join(name for name, had in features.items() if had is has) or "-"


async def _explain(target: Target, key: str) -> Explanation:
    full = Keys(target.namespace).qualify(key)
    timeout = positive_seconds(target.timeout, "timeout")
    async with open_cluster(target, connect_timeout=timeout) as view:
        deadline = asyncio.get_running_loop().time() + timeout
        reports = await asyncio.gather(*(_report(view, pool, full, deadline) for pool in view.writers))
    return Explanation(
        key=full.decode("ascii", "backslashreplace"),
        position=ring_position(full),
        read_order=[pool.name for pool in view.read_order],
        coordinator_order=[pool.name for pool in view.coordinators(full)],
        zones={pool.name: report for pool, report in zip(view.writers, reports, strict=True)},
    )


async def _report(view: ClusterSnapshot, pool: ZonePool, full: bytes, deadline: float) -> ZoneReport:
    node: Node = pool.node(view.ring_position(full))
    problem = None
    try:
        await node.connected(deadline)
    except CacheError as error:
        problem = str(error)
    known = node.capabilities
    zone = view.topology.zone(pool.name)
    assert zone is not None
    return ZoneReport(
        mode=zone.mode.value,
        local=pool.name == view.local,
        node=node.label,
        address=node.endpoint.address,
        nodes=len(pool.nodes),
        state=node.state,
        problem=problem,
        transport=node.transport,
        server=None if known is None else known.server,
        item_bytes=None if known is None else known.item_bytes,
        features={} if known is None else supported(known),
    )
