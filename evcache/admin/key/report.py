"""Judgement of what the zones hold under one key: agreement, the deciding zone, the reads, the repairs. No I/O, no clock."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evcache.consistency import Consistency
from evcache.reads.failover.policy import should_ask_next
from evcache.reads.quorum_read import in_order
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import Answer, ZoneHit, count_answered, failure_of, latest_of, stale_replicas
from evcache.values.ttl import exptime_of_copy
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.protocol.replies import AnyReply, read_hit


class Relation(enum.StrEnum):
    """Item of a zone, compared with the item that decides."""

    SAME_VERSION = "same version"
    SAME_VALUE = "same value"
    """Equal bytes and flags. At least one of the two items has no version."""
    OLDER = "older version"
    NEWER = "newer version"
    """Only a zone that does not decide can hold one: a write-only zone, or a standby zone."""
    OTHER_VALUE = "other value"
    """Other bytes or flags. At least one of the two items has no version, so their order is unknown."""
    MISSING = "missing"
    NOTHING = "nothing"
    """The zone holds nothing, and no item decides."""
    UNKNOWN = "unknown"
    """The zone did not answer, or it holds an item and no item decides."""


class Agreement(enum.StrEnum):
    """Comparison of the zones that reads may ask. Zones without an answer have no part in it."""

    SAME_VERSION = "same version"
    SAME_VALUE = "same value"
    """Equal bytes and flags. At least one item has no version."""
    DIFFERENT = "different"
    """A zone holds another version, or nothing."""
    UNORDERED = "different, order unknown"
    """Two zones hold other values, and at least one of them has no version."""
    NOTHING = "nothing"
    """Each zone that answered holds nothing."""
    UNKNOWN = "unknown"
    """Fewer than two zones answered."""


@dataclass(frozen=True, slots=True)
class ZoneRoles:
    """Names of the zones by their use, each in the order in which they are read."""

    readable: Sequence[str]
    """Read-write zones."""
    standby: Sequence[str] = ()
    write_only: Sequence[str] = ()

    @property
    def read(self) -> Sequence[str]:
        """Zones that a read may ask."""
        return (*self.readable, *self.standby)


@dataclass(frozen=True, slots=True)
class KeyJudgement:
    """Verdict about one key."""

    agreement: Agreement
    decider: str | None
    """Zone whose item a read of all zones returns. None if there is no such item."""
    served_by: str | None
    """Zone whose item a read at `ONE` of a new client returns. None if that read misses or fails."""
    relations: Mapping[str, Relation]
    repairs: Sequence[str]
    """Zones that a read repair changes."""
    unrepaired: Mapping[str, str]
    """Zones that lack the latest item and that a read repair does not change, each with the reason."""


def answer_of(zone: str, reply: AnyReply, clock: HybridLogicalClock) -> Answer:
    """Return the answer in a zone's reply to a read, as clients understand it: the stub of a lease is a miss.

    Args:
        zone: Name of the zone.
        reply: Its reply.
        clock: Clock that refuses versions which are too far ahead.

    Raises:
        NodeError: The reply is an error.
    """
    hit = read_hit(reply)
    return None if hit is None or hit.leased else ZoneHit(hit, zone, clock.observe(hit.cas))


def judge_key(
    answers: Mapping[str, Answer], roles: ZoneRoles, servers: Mapping[str, Capabilities | None], now: float
) -> KeyJudgement:
    """Return what the answers of the zones mean.

    Args:
        answers: Answer of each zone.
        roles: The zones.
        servers: Features of the zones' servers. None for a server without a handshake.
        now: Unix time.
    """
    decider = deciding_item(answers, roles)
    relations = {zone: relation_of(answer, decider) for zone, answer in answers.items()}
    repairs, unrepaired = judge_repairs(answers, roles, servers, now)
    return KeyJudgement(
        agreement=agreement_of([answers[zone] for zone in roles.read], [relations[zone] for zone in roles.read]),
        decider=None if decider is None else decider.zone,
        served_by=served_by(answers, roles),
        relations=relations,
        repairs=repairs,
        unrepaired=unrepaired,
    )


def deciding_item(answers: Mapping[str, Answer], roles: ZoneRoles) -> ZoneHit | None:
    """Return the item that a read of all zones returns: that of the read-write zones, or of enough standby zones."""
    decider = latest_of(in_order(roles.readable, answers).values())
    if decider is None and roles.standby and _confirms_standby(answers, roles):
        decider = latest_of(in_order(roles.standby, answers).values())
    return decider


def _confirms_standby(answers: Mapping[str, Answer], roles: ZoneRoles) -> bool:
    standby = in_order(roles.standby, answers)
    return count_answered(standby, len(standby)) >= Consistency.QUORUM.required(len(standby))


def relation_of(answer: Answer, decider: ZoneHit | None) -> Relation:
    """Return the relation of a zone's answer to the item that decides."""
    if failure_of(answer) is not None:
        return Relation.UNKNOWN
    if not isinstance(answer, ZoneHit):
        return Relation.NOTHING if decider is None else Relation.MISSING
    if decider is None:
        return Relation.UNKNOWN
    if answer.version is not None and decider.version is not None:
        if answer.version == decider.version:
            return Relation.SAME_VERSION
        return Relation.OLDER if answer.version < decider.version else Relation.NEWER
    same = (answer.hit.value, answer.hit.flags) == (decider.hit.value, decider.hit.flags)
    return Relation.SAME_VALUE if same else Relation.OTHER_VALUE


def agreement_of(answers: Sequence[Answer], relations: Sequence[Relation]) -> Agreement:
    """Return the agreement of zones, from their answers and the relations of those."""
    answered = [relation for answer, relation in zip(answers, relations, strict=True) if failure_of(answer) is None]
    if len(answered) < 2:
        return Agreement.UNKNOWN
    found = set(answered)
    if found == {Relation.NOTHING}:
        return Agreement.NOTHING
    if found == {Relation.SAME_VERSION}:
        return Agreement.SAME_VERSION
    if found <= {Relation.SAME_VERSION, Relation.SAME_VALUE}:
        return Agreement.SAME_VALUE
    return Agreement.UNORDERED if Relation.OTHER_VALUE in found else Agreement.DIFFERENT


def served_by(answers: Mapping[str, Answer], roles: ZoneRoles) -> str | None:
    """Return the zone that serves a read at `ONE`. None if no zone does."""
    return next((zone for zone in roles.read if not should_ask_next(answers[zone], fallback_on_miss=True)), None)


def judge_repairs(
    answers: Mapping[str, Answer], roles: ZoneRoles, servers: Mapping[str, Capabilities | None], now: float
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the zones that a read repair changes, and those that it does not change although they lack the latest item.

    The arguments are those of `judge_key`. A repair compares all zones, write-only ones included.
    """
    latest = latest_of(in_order((*roles.read, *roles.write_only), answers).values())
    if latest is None:
        return (), {}
    missed, stale = stale_replicas(latest, answers)
    repairs: list[str] = []
    unrepaired: dict[str, str] = {}
    for zone, answer in answers.items():
        if zone in missed or zone in stale:
            why = _obstacle(latest, servers[zone], now, holds_older=zone in stale)
            if not _is_confirmed(answers, roles):
                why = "too few standby zones answered"
        elif relation_of(answer, latest) is Relation.OTHER_VALUE:
            why = "an item without a version is never replaced"
        else:
            continue
        if why is None:
            repairs.append(zone)
        else:
            unrepaired[zone] = why
    return tuple(repairs), unrepaired


def _is_confirmed(answers: Mapping[str, Answer], roles: ZoneRoles) -> bool:
    """Return False if standby zones decide about the key, and too few of them answered."""
    if not roles.standby or any(isinstance(answers[zone], ZoneHit) for zone in roles.readable):
        return True
    return _confirms_standby(answers, roles)


def _obstacle(latest: ZoneHit, server: Capabilities | None, now: float, *, holds_older: bool) -> str | None:
    """Return the reason for which a zone does not receive the latest item, or None if it does."""
    if latest.version is None:
        return "the item has no version"
    if server is None or not server.versions:
        return "its server keeps no versions"
    if latest.hit.ttl is None:
        return "the seconds left of the item are unknown"
    if exptime_of_copy(latest.hit.ttl, 0.0, now) is None:
        return None if holds_older else "the item is about to expire"  # an older version is removed
    return None
