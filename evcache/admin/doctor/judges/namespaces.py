"""Judge of namespaces: sampled keys of the zones against each other."""

from __future__ import annotations

from collections import Counter

from evcache.admin.doctor.catalog import NAMESPACE_MISSING, NAMESPACE_UNKNOWN, NAMESPACES_DIFFER, NAMESPACES_FOREIGN
from evcache.admin.doctor.facts import Facts, ZoneFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, listed
from evcache.zones.topology.model import Mode

# With fewer keys of a zone, a missing namespace says nothing.
LEAST_KEYS = 20

# Share of the keys of a zone that a namespace must have, before its absence elsewhere is no accident of the samples.
LARGE_SHARE = 0.2

# A namespace in a line. Keys of other programs may have no colon, and their first part any length.
MOST_CHARACTERS = 40


def judge(facts: Facts) -> list[Finding]:
    """Return zones that hold other namespaces than the others."""
    counts = {zone.name: namespaces(zone) for zone in facts.zones}
    sampled = {name: each for name, each in counts.items() if each.total() >= LEAST_KEYS}
    foreign = _foreign(sampled)
    found = []
    if foreign:
        texts = "; ".join(f"{name} has {_names(sampled[name])}" for name in foreign)
        rest = [name for name in sampled if name not in foreign]
        if rest:
            texts += f"; {', '.join(rest)} {'has' if len(rest) == 1 else 'have'} {_names(_union(sampled, rest))}"
        only = foreign[0] if len(foreign) == 1 else None
        found.append(NAMESPACES_FOREIGN.found(f"no common namespace: {texts}", zone=only))
    else:
        readable = {zone.name for zone in facts.zones if zone.mode is not Mode.WRITE_ONLY}  # others are being filled
        found += _differing({name: each for name, each in sampled.items() if name in readable})
    if facts.namespace is not None:
        found += _judge_named(facts.namespace, sampled)
    if found or not sampled:
        return found
    total = sum(each.total() for each in sampled.values())
    return [ok(Subject.NAMESPACES, f"{_names(_union(sampled, list(sampled)))} in {count(total, 'sampled key')}")]


def namespaces(zone: ZoneFacts) -> Counter[bytes]:
    """Return the namespaces of the sampled keys of a zone, with their numbers. A key without a colon has none."""
    keys = (item.key for node in zone.nodes for item in node.sample)
    return Counter(key.partition(b":")[0] if b":" in key else b"" for key in keys)


def _foreign(sampled: dict[str, Counter[bytes]]) -> list[str]:
    """Return the zones that have no namespace in common with any other zone."""
    if len(sampled) < 2:
        return []
    return [
        name for name in sampled if not sampled[name].keys() & _union(sampled, [each for each in sampled if each != name])
    ]


def _union(sampled: dict[str, Counter[bytes]], names: list[str]) -> Counter[bytes]:
    return sum((sampled[name] for name in names), Counter[bytes]())


def _differing(sampled: dict[str, Counter[bytes]]) -> list[Finding]:
    found = []
    for space in sorted(_union(sampled, list(sampled))):
        large = [name for name, each in sampled.items() if each[space] >= LARGE_SHARE * each.total()]
        absent = [name for name, each in sampled.items() if space not in each]
        if large and absent:
            found.append(
                NAMESPACES_DIFFER.found(
                    f"namespaces differ: {_shown(space)} is missing in {', '.join(absent)}, {large[0]} has many keys of it",
                    zone=absent[0] if len(absent) == 1 else None,
                )
            )
    return found


def _judge_named(namespace: str, sampled: dict[str, Counter[bytes]]) -> list[Finding]:
    """Return the zones whose samples lack the namespace that the command names."""
    absent = [name for name, each in sampled.items() if namespace.encode() not in each]
    if sampled and len(absent) == len(sampled):
        return [NAMESPACE_UNKNOWN.found(f"namespace unknown: no zone has sampled keys of {namespace}")]
    return [
        NAMESPACE_MISSING.found(
            f"namespace missing: {name} has no sampled key of {namespace}, but {_names(sampled[name])}", zone=name
        )
        for name in absent
    ]


def _names(counts: Counter[bytes]) -> str:
    return listed([_shown(space) for space, _ in counts.most_common()])


def _shown(space: bytes) -> str:
    """Return a namespace as text. It is shortened, and has no control characters that could act on a terminal."""
    if not space:
        return "(no namespace)"
    text = space[:MOST_CHARACTERS].decode("ascii", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
