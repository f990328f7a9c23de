"""Judge of placement: sampled keys against the ring of their zone."""

from __future__ import annotations

from collections import Counter

from evcache.admin.doctor.catalog import KEYS_MISPLACED, LABEL_WRONG, LABELS_SWAPPED
from evcache.admin.doctor.facts import Facts, NodeFacts, ZoneFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count
from evcache.read_through.loads.leases import BESIDE

# With fewer keys, a share says little.
LEAST_KEYS = 10

# Share of a node's keys that belong to one other node, above which the label is wrong. Nodes that another client places by
# other labels have a share of `1 / nodes`, which is a half at most.
WRONG_LABEL_SHARE = 0.7

# A change of a zone's nodes moves keys, which stay behind until their TTL ends. Below this share, they soon are gone.
MISPLACED_SHARE = 0.02


def judge(facts: Facts) -> list[Finding]:
    """Return nodes that hold the keys of other nodes."""
    found = [finding for zone in facts.zones if len(zone.nodes) > 1 for finding in _judge_zone(zone)]
    sampled = sum(len(owners(node)) for node in facts.nodes)
    if found or not sampled:
        return found
    return [ok(Subject.PLACEMENT, f"{count(sampled, 'sampled key')} on the nodes of their rings")]


def owners(node: NodeFacts) -> list[str]:
    """Return the owner of each sampled key of a node, by its label. A lease beside a key lives on the node of that key."""
    return [item.owner for item in node.sample if BESIDE not in item.key]


def _judge_zone(zone: ZoneFacts) -> list[Finding]:
    by_label = {node.label: node for node in zone.nodes}
    wrong = {node.label: other for node in zone.nodes if (other := _owner_of_most(node)) is not None}
    found = []
    done: set[str] = set()
    for label, other in wrong.items():
        if label in done:
            continue
        first, second = by_label[label], by_label[other]
        if wrong.get(other) == label:
            done |= {label, other}
            found.append(
                LABELS_SWAPPED.found(
                    f"labels swapped: {first.name} has {_share(first, other):.0%} keys of {other}, "
                    f"and {second.name} has {_share(second, label):.0%} keys of {label}",
                    zone=zone.name,
                )
            )
        else:
            done.add(label)
            found.append(
                LABEL_WRONG.found(
                    f"label wrong: {_share(first, other):.0%} of the keys of {first.name} belong to {other}",
                    zone=zone.name,
                    node=label,
                )
            )
    return [*found, *(finding for node in zone.nodes if node.label not in done for finding in _judge_rest(node))]


def _judge_rest(node: NodeFacts) -> list[Finding]:
    """Return the share of misplaced keys of a node whose label is right."""
    places = owners(node)
    elsewhere = sum(owner != node.label for owner in places)
    if len(places) < LEAST_KEYS or elsewhere < max(1, MISPLACED_SHARE * len(places)):
        return []
    share = f"{elsewhere / len(places):.0%} of {count(len(places), 'sampled key')}"
    text = f"keys misplaced: {share} of {node.name} belong to other nodes"
    return [KEYS_MISPLACED.found(text, zone=node.zone, node=node.label)]


def _owner_of_most(node: NodeFacts) -> str | None:
    """Return the other label that owns most keys of this node, or None if there is none."""
    places = Counter(owners(node))
    if places.total() < LEAST_KEYS:
        return None
    label, number = places.most_common(1)[0]
    return label if label != node.label and number >= WRONG_LABEL_SHARE * places.total() else None


def _share(node: NodeFacts, owner: str) -> float:
    places = owners(node)
    return places.count(owner) / len(places) if places else 0.0
