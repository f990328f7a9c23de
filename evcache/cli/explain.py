"""Command `evcache explain`: the place of a key, what each zone holds under it, and what that means for reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from evcache.admin.key.look import ZoneLook, look_at_key, roles_of
from evcache.admin.key.report import Agreement, Relation, answer_of, judge_key
from evcache.admin.key.zone_item import Content, ZoneItem, item_of
from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import to_json
from evcache.cli.runner import Status, run_command
from evcache.cli.target import Target, targeted
from evcache.compatibility import supported
from evcache.replication.hlc import HybridLogicalClock
from evcache.values.keys import Keys
from evcache.zones.errors import CacheError
from evcache.zones.routing.ketama import ring_position
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.validation import positive_seconds


@dataclass(frozen=True, slots=True)
class ZoneReport:
    """Node that holds the key in one zone, its features, and its item."""

    mode: str
    local: bool
    node: str
    """Label of the node that holds the key."""
    address: str
    nodes: int
    """Number of nodes in the zone."""
    state: str
    problem: str | None
    """Cause for which the node did not answer. None if it did."""
    relation: Relation
    item: ZoneItem | None
    """Item of the zone. None if it holds nothing or did not answer."""
    transport: str | None
    server: str | None
    item_bytes: int | None
    features: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Placement of one key, and the items of its nodes."""

    key: str
    """Key with its namespace, as servers store it."""
    hashed: str | None
    """Reason for which servers store a hash of the key. None if they store the key itself."""
    position: int
    """Position on the ring, a number of 32 bits."""
    read_order: list[str]
    coordinator_order: list[str]
    """Zones in the order in which one is chosen as the coordinator of conditional writes."""
    agreement: Agreement
    decider: str | None
    """Zone whose item a read of all zones returns."""
    served_by: str | None
    """Zone whose item a read at the level `one` returns."""
    repairs: list[str]
    """Zones that a read repair changes."""
    unrepaired: dict[str, str]
    """Zones that lack the latest item and that no repair changes, each with the reason."""
    zones: dict[str, ZoneReport]

    @property
    def reachable(self) -> bool:
        """True if at least one zone answered."""
        return any(zone.problem is None for zone in self.zones.values())


@click.command(short_help="Show what each zone holds under KEY, and what a read returns.")
@click.argument("key")
@partial(targeted, levels=None)
def explain(target: Target, key: str) -> None:
    """Show the nodes of KEY, what each zone holds under it, and the zones that a read would be served from.

    Nothing is changed, and the read does not count as a use of the item.

    \b
    Examples:
        evcache explain user:42
        evcache explain user:42 --namespace sessions --json

    Exit status 0: at least one zone answered; 3: no zone could be reached.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    found = run_command(_explain(target, key))
    click.echo(to_json(found) if target.as_json else "\n".join(lines(found)))
    raise SystemExit(Status.DONE if found.reachable else Status.UNAVAILABLE)


async def _explain(target: Target, key: str) -> Explanation:
    keys = Keys(target.namespace)
    full = keys.qualify(key)
    timeout = positive_seconds(target.timeout, "timeout")
    clock = HybridLogicalClock()
    async with open_cluster(target, connect_timeout=timeout) as view:
        looks = await look_at_key(view, full, asyncio.get_running_loop().time() + timeout)
        now = time.time()
        judged = judge_key(
            {look.pool.name: _answer(look, clock) for look in looks},
            roles_of(view),
            {look.pool.name: look.node.capabilities for look in looks},
            now,
        )
        return Explanation(
            key=full.decode("ascii", "backslashreplace"),
            hashed=keys.hash_reason(key),
            position=ring_position(full),
            read_order=[pool.name for pool in view.read_order],
            coordinator_order=[pool.name for pool in view.coordinators(full)],
            agreement=judged.agreement,
            decider=judged.decider,
            served_by=judged.served_by,
            repairs=list(judged.repairs),
            unrepaired=dict(judged.unrepaired),
            zones={look.pool.name: _report(view, look, judged.relations[look.pool.name], clock, now) for look in looks},
        )


def _answer(look: ZoneLook, clock: HybridLogicalClock) -> Any:
    return look.reply if isinstance(look.reply, CacheError) else answer_of(look.pool.name, look.reply, clock)


def _report(view: ClusterSnapshot, look: ZoneLook, relation: Relation, clock: HybridLogicalClock, now: float) -> ZoneReport:
    pool, node, reply = look.pool, look.node, look.reply
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
        problem=str(reply) if isinstance(reply, CacheError) else None,
        relation=relation,
        item=None if isinstance(reply, CacheError) else item_of(reply, clock, now),
        transport=node.transport,
        server=None if known is None else known.server,
        item_bytes=None if known is None else known.item_bytes,
        features={} if known is None else supported(known),
    )


def lines(found: Explanation) -> list[str]:
    """Return the lines of an explanation."""
    text = [
        f"key          {found.key}",
        *([] if found.hashed is None else [f"             hashed: the key is {found.hashed}"]),
        f"position     {found.position} on the ring",
        f"reads        {', '.join(found.read_order)}",
        f"coordinator  the first reachable zone of {', '.join(found.coordinator_order)}",
        f"agreement    {found.agreement}",
        f"decides      {found.decider or '-'}",
        f"read at one  {_read_at_one(found)}",
        f"repair       {_repair(found)}",
    ]
    for name, zone in found.zones.items():
        text += ["", f"{name}  {zone.mode}{', local' if zone.local else ''}"]
        node = zone.node if zone.node == zone.address else f"{zone.node} at {zone.address}"
        text.append(f"  node       {node}{'' if zone.nodes == 1 else f', one of {zone.nodes}'}")
        text.append(f"  state      {zone.state}{'' if zone.problem is None else f': {zone.problem}'}")
        text += (f"  {label:<9}  {line}" for label, line in _held(zone))
        if zone.transport is not None:
            text.append(f"  transport  {zone.transport}")
            text.append(f"  server     memcached {zone.server}, items up to {zone.item_bytes} bytes")
            text.append(f"  has        {_list(zone.features, has=True)}")
            text.append(f"  lacks      {_list(zone.features, has=False)}")
    return text


def _read_at_one(found: Explanation) -> str:
    if found.served_by is None:
        missed = any(found.zones[zone].problem is None for zone in found.read_order)
        return "a miss: no zone holds an item" if missed else "an error: no zone of reads answered"
    item = found.zones[found.served_by].item
    if item is None or not item.is_miss:
        return f"the value of {found.served_by}"
    reason = "a value past its TTL" if item.content is Content.ENVELOPE else f"a {item.content}"
    return f"a miss: {found.served_by} holds {reason}"


def _repair(found: Explanation) -> str:
    parts = [f"{zone} ({found.zones[zone].relation})" for zone in found.repairs]
    parts += [f"not {zone}: {reason}" for zone, reason in found.unrepaired.items()]
    return "; ".join(parts) or "-"


def _held(zone: ZoneReport) -> Iterator[tuple[str, str]]:
    """Yield label and text of the lines about the item of a zone."""
    item = zone.item
    if zone.problem is not None:
        return
    if item is None:
        yield "holds", "nothing"
        return
    marks = "" if not item.is_stale else ", marked stale"
    yield "holds", f"{item.content}, {item.bytes} bytes, {zone.relation}{marks}"
    version = item.version
    if version is None:
        yield "version", "none"
    else:
        ignored = "" if version.is_believed else ", too far ahead: clients ignore it"
        parts = f"{version.written_at}, {_age(version.age)}, writer {version.writer}, counter {version.counter}"
        yield "version", f"{version.number}: {parts}{ignored}"
    yield "ttl", "unknown" if item.ttl is None else "does not expire" if item.ttl < 0 else f"{item.ttl} s left"
    yield "flags", f"{item.flags:#x}: {item.meaning}"
    if item.idle_seconds is not None:
        yield "last use", f"{item.idle_seconds} s ago, {'read' if item.was_read else 'not read'} since the write"
    if item.problem is not None:
        yield "envelope", item.problem
    times = item.envelope
    if times is not None:
        yield "envelope", f"made {times.made_at}, holds {times.bytes} bytes, {times.flags:#x}: {times.meaning}"
        state = ", over" if times.is_past_ttl else ""
        yield "fresh", f"until {times.expires_at or 'its eviction'}{state}"
        yield "stale", f"until {times.stale_until or 'its eviction'}"


def _age(seconds: float) -> str:
    return f"{seconds:.3f} s ago" if seconds >= 0 else f"{-seconds:.3f} s ahead"


def _list(features: dict[str, bool], *, has: bool) -> str:
    return "; ".join(name for name, had in features.items() if had is has) or "-"
