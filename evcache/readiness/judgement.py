"""Judgement of a check: which zones are usable, which problems there are. Plain functions of replies, without I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from evcache.compatibility import VERSIONS, missing
from evcache.readiness.report import CheckResult, NodeCheck, ZoneCheck
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.routing.zone_order import is_ejected
from evcache.zones.topology.model import Mode, Zone


def judge_zone(
    zone: Zone,
    nodes: Sequence[NodeCheck],
    capabilities: Iterable[Capabilities],
    *,
    local_zone: str | None,
    ejected: Collection[str],
) -> ZoneCheck:
    """Return the state of a zone.

    Args:
        zone: The zone.
        nodes: Replies of its nodes.
        capabilities: Results of the last handshakes of its nodes.
        local_zone: Zone of this process. None without one.
        ejected: Names of the zones that the client reads last.
    """
    return ZoneCheck(
        name=zone.name,
        mode=zone.mode,
        is_local=zone.name == local_zone,
        is_ejected=zone.name in ejected,
        is_usable=not is_ejected(_failed(nodes), len(nodes)),
        nodes=tuple(nodes),
        missing=missing(capabilities),
    )


def judge(
    zones: Sequence[ZoneCheck],
    gutter: Sequence[NodeCheck],
    *,
    local_zone: str | None,
    needs_versions: bool,
    topology_problems: Sequence[str] = (),
) -> CheckResult:
    """Return the result of a check.

    Args:
        zones: All zones, in the order of the topology. Empty if the topology is unknown.
        gutter: Replies of the gutter's nodes.
        local_zone: Zone of this process. None without one.
        needs_versions: True if the client orders writes by version, so that a zone without versions is a problem.
        topology_problems: Problems of the topology and its source.
    """
    names = [zone.name for zone in zones]
    missing_zones = (local_zone,) if names and local_zone is not None and local_zone not in names else ()
    problems = list(topology_problems)
    problems += [f"zone {name} missing: the topology has {', '.join(names)}" for name in missing_zones]
    for zone in zones:
        problems += _problems_of_nodes(f"zone {zone.name}", zone.nodes)
        if needs_versions and VERSIONS in zone.missing:
            problems.append(f"zone {zone.name} keeps no versions: {zone.missing[VERSIONS]}")
    problems += _problems_of_nodes("gutter", gutter)
    return CheckResult(
        ready=any(zone.is_usable and zone.mode is Mode.READ_WRITE for zone in zones),
        local_zone=local_zone,
        zones=tuple(zones),
        missing_zones=missing_zones,
        gutter=tuple(gutter),
        problems=tuple(problems),
    )


def _problems_of_nodes(place: str, nodes: Sequence[NodeCheck]) -> list[str]:
    """Return at most one problem, with the first cause. A zone of a hundred nodes would otherwise hide all others."""
    first = next((node for node in nodes if not node.ok), None)
    if first is None:
        return []
    failed, total = _failed(nodes), len(nodes)
    state = "unusable" if is_ejected(failed, total) else "degraded"
    return [f"{place} {state}: {failed} of {total} nodes failed, the first is {first.node}: {first.error}"]


def _failed(nodes: Sequence[NodeCheck]) -> int:
    return sum(not node.ok for node in nodes)
