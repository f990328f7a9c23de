"""Command `evcache check`: the state of every zone and node, and the features that their servers lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import click

from evcache.cli.output import to_json
from evcache.cli.runner import Status, run_command
from evcache.cli.target import Target, for_zones
from evcache.client import EVCache
from evcache.options import Ordering
from evcache.readiness.report import CheckResult, NodeCheck, ZoneCheck
from evcache.zones.discovery.local_zone import LocalZone
from evcache.zones.topology.model import Mode
from evcache.zones.validation import positive_seconds


@click.command(short_help="Show the state of every zone and node.")
@click.option(
    "--ordering",
    type=click.Choice(get_args(Ordering)),
    default="newest",
    show_default=True,
    help="Ordering of the clients. arrival: a zone that keeps no versions is no problem.",
)
@for_zones
def check(target: Target, ordering: Literal["newest", "arrival"]) -> None:
    """Ask every node of every zone, and show which of them reply and which features they lack.

    \b
    Examples:
        evcache check
        evcache check --zones 'eu-1a=10.0.1.4:11211;eu-1b=10.0.2.4:11211' --local-zone eu-1a
        evcache check --tls-ca ca.pem --timeout 5 --json

    Exit status 0: ready, without a problem; 1: ready, with a problem; 3: not ready, because no zone can be read.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    found = run_command(_check(target, ordering))
    click.echo(to_json(found) if target.as_json else "\n".join(lines(found)))
    raise SystemExit(status(found))


async def _check(target: Target, ordering: Literal["newest", "arrival"]) -> CheckResult:
    timeout = positive_seconds(target.timeout, "timeout")
    cache = EVCache(
        target.namespace,
        target.zones,
        local_zone=None
        if target.local_zone is None
        else LocalZone(target.local_zone),  # the check reports one that is missing
        ordering=ordering,
        nodes=target.node_settings(connect_timeout=timeout),
    )
    try:
        # Not `async with`, which raises if the topology is unknown. The check reports that.
        return await cache.check(timeout=timeout)
    finally:
        await cache.close(0)


def status(found: CheckResult) -> Status:
    """Return the exit status of a check."""
    if not found.ready:
        return Status.UNAVAILABLE
    return Status.NO if found.problems else Status.DONE


def lines(found: CheckResult) -> list[str]:
    """Return the lines of a check: the verdict, a table for each zone, and the problems."""
    readable = [zone for zone in found.zones if zone.mode is Mode.READ_WRITE]
    number = f"{sum(zone.is_usable for zone in readable)} of {len(readable)} zones can be read"
    text = [f"{'ready' if found.ready else 'not ready'}: {number if found.zones else 'the topology is unknown'}"]
    for zone in found.zones:
        text += ["", _title(zone), *_rows(zone.nodes)]
        text += [f"  lacks {'; '.join(names)}: {reason}" for reason, names in _by_reason(zone.missing).items()]
    if found.problems:
        text += ["", "problems", *(f"  {problem}" for problem in found.problems)]
    return text


def _title(zone: ZoneCheck) -> str:
    marks = [zone.mode.value, *(["local"] if zone.is_local else []), *([] if zone.is_usable else ["unusable"])]
    return f"{zone.name}  {', '.join(marks)}"


def _rows(nodes: Sequence[NodeCheck]) -> list[str]:
    """Return one row for each node, in columns."""
    names = [node.node if node.node == node.address else f"{node.node} at {node.address}" for node in nodes]
    width = max(map(len, names))
    return [f"  {name:<{width}}  {_state(node)}" for name, node in zip(names, nodes, strict=True)]


def _state(node: NodeCheck) -> str:
    if node.error is not None:
        return f"failed  {node.error}"
    return f"ok      memcached {node.server}, {node.transport} protocol, {node.seconds * 1000:.1f} ms"


def _by_reason(missing: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the features by the reason for which they are missing. One old server lacks several for one reason."""
    found: dict[str, list[str]] = {}
    for name, reason in missing.items():
        found.setdefault(reason, []).append(name)
    return found
