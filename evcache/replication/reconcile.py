"""What zones say about a key, and what follows from several of them. Plain functions: no I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from evcache.errors import CacheUnavailable, ConsistencyError, StaleReplica
from evcache.replication.hlc import milliseconds_of
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.zones.errors import CacheError
from evcache.zones.protocol.replies import Hit

# To a caller there is nothing under the key.
ABSENCES = frozenset({FLAG_TOMBSTONE, FLAG_ABSENT})


class ZoneHit(NamedTuple):
    """An item, the zone that it came from, and its version if it has one. It may be a tombstone, or a known absence."""

    hit: Hit
    zone: str
    version: int | None

    @property
    def written_at(self) -> float | None:
        """Unix time of the write, from the version. None if the item has no version."""
        return None if self.version is None else milliseconds_of(self.version) / 1000

    @property
    def is_value(self) -> bool:
        """Whether there is something: not a tombstone or a known absence, not the stub of a lease."""
        return self.hit.flags not in ABSENCES and not self.hit.leased


# What one zone said about one key: an item, None for a miss, or why it said nothing.
Answer = ZoneHit | None | CacheError


def failed(answer: Answer) -> CacheError | None:
    """Why a zone did not answer, or None when it did."""
    return answer if isinstance(answer, CacheError) else None


def reject_if_older(answer: Answer, known: int) -> Answer:
    """The answer, or `StaleReplica` in its place when it is older than the version that this client knows of (0: none)."""
    if isinstance(answer, ZoneHit) and answer.version is not None and answer.version < known:
        return StaleReplica(answer.version, known)
    return answer


def count_answered(answers: Mapping[str, Answer], zones: int) -> int:
    """How many zones answered, of so many.

    A zone that is behind has not, as if it had failed. But when every zone has said something, and all are behind or miss,
    what was newer is gone everywhere, and that is an answer: a miss.
    """
    if len(answers) == zones and all(answer is None or isinstance(answer, StaleReplica) for answer in answers.values()):
        return zones
    return sum(not isinstance(answer, CacheError) for answer in answers.values())


def is_decided(answers: Mapping[str, Answer], required: int, zones: int, known: int) -> bool:
    """Return whether a read of several zones can end: with these answers, or because `required` can't be reached any more.

    Answers that are behind what this client knows (the version `known`) are not enough while a zone that has not answered
    may be not behind. A miss is enough: a key that has expired everywhere must not wait for a zone that hangs.
    """
    answered = count_answered(answers, zones)
    if answered < required:
        return answered + zones - len(answers) < required
    latest = latest_of(answers.values())
    return latest is None or latest.version is None or latest.version >= known


def check_answered(operation: str, answers: Mapping[str, Answer], required: int, zones: int) -> None:
    """Raise `ConsistencyError` when fewer than `required` of the `zones` answered, `CacheUnavailable` when all failed.

    A zone that is not among the answers was not waited for: the call had become impossible before.
    """
    answered = count_answered(answers, zones)
    if answered >= required:
        return
    failures = {zone: answer for zone, answer in answers.items() if isinstance(answer, CacheError)}
    if len(failures) == zones:
        raise CacheUnavailable(operation, failures)
    raise ConsistencyError(operation, answered, required, failures)


def latest_of(answers: Iterable[Answer]) -> ZoneHit | None:
    """What holds, of what several zones said (the local zone first); None when none has anything.

    The newest version. Where no item has one, the value that most zones hold, and the first of those on a tie.
    """
    items = [answer for answer in answers if isinstance(answer, ZoneHit)]
    versioned = [item for item in items if item.version is not None]
    if versioned:
        return max(versioned, key=lambda item: item.version or 0)  # the first of the newest
    if not items:
        return None
    votes = Counter((item.hit.value, item.hit.flags) for item in items)
    return max(items, key=lambda item: votes[item.hit.value, item.hit.flags])


def stale_replicas(winner: ZoneHit, answers: Mapping[str, Answer]) -> tuple[list[str], list[str]]:
    """Return the zones that answered with nothing, and those that answered with an older version than the winner's."""
    missed = [zone for zone, answer in answers.items() if answer is None]
    behind = [
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
    return missed, behind
