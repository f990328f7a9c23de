"""Judges of the servers: their releases, and the features that they lack."""

from __future__ import annotations

from evcache.admin.doctor.catalog import (
    CAS_DISABLED,
    CLASSIC_PROTOCOL,
    NO_VERSIONS,
    VERSIONS_DIFFER_BETWEEN_ZONES,
    VERSIONS_DIFFER_IN_ZONE,
)
from evcache.admin.doctor.facts import Facts, NodeFacts, ZoneFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import groups, where
from evcache.compatibility import VERSIONS, missing


def judge_versions(facts: Facts) -> list[Finding]:
    """Return releases that differ, and servers that keep no versions."""
    mixed = [zone for zone in facts.zones if len(_releases(zone)) > 1]
    found = [
        VERSIONS_DIFFER_IN_ZONE.found(
            f"memcached versions differ in {zone.name}: {groups(_releases(zone), facts)}", zone=zone.name
        )
        for zone in mixed
    ]
    if not mixed and len(facts.grouped(_release)) > 1:
        text = groups(facts.grouped(_release), facts)
        found.append(VERSIONS_DIFFER_BETWEEN_ZONES.found(f"memcached versions differ between zones: {text}"))
    if facts.needs_versions:
        found += [
            NO_VERSIONS.found(f"no versions kept in {where(nodes, facts)}: {reason}", zone=_zone(nodes), node=_node(nodes))
            for reason, nodes in facts.grouped(_no_versions).items()
        ]
    releases = ", ".join(sorted(facts.grouped(_release)))
    return found or ([ok(Subject.VERSIONS, f"memcached {releases}")] if releases else [])


def judge_features(facts: Facts) -> list[Finding]:
    """Return servers that are used over the classic protocol or have no CAS. Other missing features are no fault."""
    known = [node for node in facts.answering if node.capabilities is not None]
    classic = [node for node in known if node.capabilities is not None and node.capabilities.transport == "classic"]
    no_cas = [node for node in known if node.capabilities is not None and not node.capabilities.cas]
    found = []
    if classic:
        text = f"classic protocol in use: {where(classic, facts)}"
        found.append(CLASSIC_PROTOCOL.found(text, zone=_zone(classic), node=_node(classic)))
    if no_cas:
        found.append(CAS_DISABLED.found(f"CAS disabled: {where(no_cas, facts)}", zone=_zone(no_cas), node=_node(no_cas)))
    if found or not known:
        return found
    reasons: dict[str, list[str]] = {}  # one reason, such as an old release, turns off many features
    for name, reason in missing(node.capabilities for node in known if node.capabilities is not None).items():
        reasons.setdefault(reason, []).append(name)
    off = "; ".join(f"{', '.join(names)} off: {reason}" for reason, names in reasons.items())
    return [ok(Subject.FEATURES, off or "all on")]


def _release(node: NodeFacts) -> str | None:
    return None if node.capabilities is None else node.capabilities.server


def _releases(zone: ZoneFacts) -> dict[str, list[NodeFacts]]:
    found: dict[str, list[NodeFacts]] = {}
    for node in zone.nodes:
        if (release := _release(node)) is not None:
            found.setdefault(release, []).append(node)
    return found


def _no_versions(node: NodeFacts) -> str | None:
    return None if node.capabilities is None else missing([node.capabilities]).get(VERSIONS)


def _zone(nodes: list[NodeFacts]) -> str | None:
    zones = {node.zone for node in nodes}
    return zones.pop() if len(zones) == 1 else None


def _node(nodes: list[NodeFacts]) -> str | None:
    return nodes[0].label if len(nodes) == 1 else None
