"""Judge of reachability: nodes that do not answer, and TLS."""

from __future__ import annotations

from evcache.admin.doctor.catalog import (
    CERTIFICATE_REFUSED,
    EXAMINATION_INCOMPLETE,
    NODE_DOWN,
    TLS_MISSING,
    TLS_REQUIRED,
    ZONE_DOWN,
)
from evcache.admin.doctor.facts import Facts, NodeFacts, ZoneFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, listed


def judge(facts: Facts) -> list[Finding]:
    """Return the nodes that do not answer, each with its reason."""
    found = [finding for node in facts.nodes for finding in _judge_tls(node, facts)]
    for zone in facts.zones:
        found += _judge_zone(zone)
    found += [
        EXAMINATION_INCOMPLETE.found(
            f"examination incomplete: {node.name} did not answer all questions in {facts.seconds:g} s",
            zone=node.zone,
            node=node.label,
        )
        for node in facts.answering
        if not node.is_complete
    ]
    return found or [ok(Subject.REACHABILITY, f"{len(facts.answering)} of {count(len(facts.nodes), 'node')} answer")]


def _judge_tls(node: NodeFacts, facts: Facts) -> list[Finding]:
    """Return why a node that failed answers other kinds of connections."""
    place = {"zone": node.zone, "node": node.label}
    if not facts.uses_tls and node.tls.answers_tls:
        return [TLS_REQUIRED.found(f"TLS required: {node.name} answers with TLS only{_others(facts, 'without')}", **place)]
    if facts.uses_tls and node.tls.answers_tls:
        return [CERTIFICATE_REFUSED.found(f"certificate refused: {node.name}: {node.error}", **place)]
    if facts.uses_tls and node.tls.answers_plain:
        return [TLS_MISSING.found(f"TLS missing: {node.name} answers without TLS only{_others(facts, 'with')}", **place)]
    return []


def _others(facts: Facts, how: str) -> str:
    number = len(facts.answering)
    return f"; {count(number, 'node')} {'answers' if number == 1 else 'answer'} {how} TLS" if number else ""


def _judge_zone(zone: ZoneFacts) -> list[Finding]:
    """Return one finding for the nodes of a zone whose failure TLS does not explain."""
    failed = [node for node in zone.nodes if not node.answers and not node.tls.answers_tls and not node.tls.answers_plain]
    if not failed:
        return []
    if len(failed) == len(zone.nodes):
        first = failed[0]
        total = len(zone.nodes)
        text = f"zone down: {zone.name}: {total} of {total} nodes failed, the first is {first.label}: {first.error}"
        return [ZONE_DOWN.found(text, zone=zone.name)]
    names = listed([f"{node.name}: {node.error}" for node in failed])
    only = failed[0].label if len(failed) == 1 else None
    return [NODE_DOWN.found(f"node down: {names}", zone=zone.name, node=only)]
