"""Answers of zones about a key, and the result of several answers. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from evcache.errors import CacheUnavailable, ConsistencyError, StaleReplica
from evcache.replication.hlc import MILLISECONDS_SHIFT
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.zones.errors import CacheError
from evcache.zones.protocol.replies import Hit

# Flags of items that are a miss to the caller: a delete, and a key that is known to have no value.
ABSENCES = frozenset({FLAG_TOMBSTONE, FLAG_ABSENT})


class ZoneHit(NamedTuple):
    """An item of one zone: a value, a tombstone, or a known absence."""

    hit: Hit
    zone: str
    version: int | None
    """Version of the write. None if the item has none."""

    @property
    def written_at(self) -> float | None:
        """Unix time of the write, from the version. None if the item has no version."""
        return None if self.version is None else (self.version >> MILLISECONDS_SHIFT) / 1000

    @property
    def is_value(self) -> bool:
        """True for a value, False for a tombstone, a known absence, and the stub of a lease."""
        return self.hit.flags not in ABSENCES and not self.hit.leased


# Answer of one zone about one key: an item, None for a miss, or the error if the zone did not answer.
Answer = ZoneHit | None | CacheError


def failure_of(answer: Answer) -> CacheError | None:
    """Return the error if the zone did not answer, else None."""
    return answer if isinstance(answer, CacheError) else None


def reject_if_older(answer: Answer, known: int) -> Answer:
    """Return the answer, or `StaleReplica` if it is older than the version that this client knows. 0 means none."""
    if isinstance(answer, ZoneHit) and answer.version is not None and answer.version < known:
        return StaleReplica(answer.version, known)
    return answer


def count_answered(answers: Mapping[str, Answer], zones: int) -> int:
    """Return how many of the zones answered.

    A stale replica counts as a failure. But if every zone misses or is stale, the newer version is gone from all of them.
    That is an answer of all zones: a miss.
    """
    if len(answers) == zones and all(answer is None or isinstance(answer, StaleReplica) for answer in answers.values()):
        return zones
    return sum(not isinstance(answer, CacheError) for answer in answers.values())


def is_decided(answers: Mapping[str, Answer], required: int, zones: int, known: int) -> bool:
    """Return True if a read of several zones can end: these answers suffice, or `required` is out of reach.

    Stale answers do not suffice while a zone without an answer may hold the version `known`. Misses do: a key that has
    expired everywhere must not wait for a zone that hangs.
    """
    answered = count_answered(answers, zones)
    if answered < required:
        return answered + zones - len(answers) < required
    latest = latest_of(answers.values())
    return latest is None or latest.version is None or latest.version >= known


def check_answered(operation: str, answers: Mapping[str, Answer], required: int, zones: int) -> None:
    """Raise an error if fewer than `required` of the zones answered.

    A zone without an entry in `answers` was not waited for, because the call could not succeed any more.

    Raises:
        CacheUnavailable: Every zone failed.
        ConsistencyError: Some zones answered, or were not waited for.
    """
    answered = count_answered(answers, zones)
    if answered >= required:
        return
    failures = {zone: answer for zone, answer in answers.items() if isinstance(answer, CacheError)}
    if len(failures) == zones:
        raise CacheUnavailable(operation, failures)
    raise ConsistencyError(operation, answered, required, failures)


def latest_of(answers: Iterable[Answer]) -> ZoneHit | None:
    """Return the item that wins, or None if no zone has one. The local zone's answer comes first.

    The item with the latest version wins. If no item has a version, the majority value wins, and the first of them on a tie.
    """
    items = [answer for answer in answers if isinstance(answer, ZoneHit)]
    versioned = [item for item in items if item.version is not None]
    if versioned:
        return max(versioned, key=lambda item: item.version or 0)  # the first of equal ones
    if not items:
        return None
    votes = Counter((item.hit.value, item.hit.flags) for item in items)
    return max(items, key=lambda item: votes[item.hit.value, item.hit.flags])


def stale_replicas(winner: ZoneHit, answers: Mapping[str, Answer]) -> tuple[list[str], list[str]]:
    """Return the zones that missed, and the zones that hold an older version than the winner's."""
    missed = [zone for zone, answer in answers.items() if answer is None]
    stale = [
        zone
        for zone, answer in answers.items()
        if isinstance(answer, StaleReplica)
        or (
            isinstance(answer, ZoneHit)
            and winner.version is not None
            and answer.version is not None
            and answer.version < winner.version
        )
    ]
    return missed, stale
