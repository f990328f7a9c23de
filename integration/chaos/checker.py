"""From a history to the list of promises that were broken. Plain functions: no I/O, no clock.

Only calls of which one had returned before the other was made are ordered; of calls that overlap either may come first.
Violations are facts, but a history without any proves nothing beyond itself.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from evcache.versions import milliseconds_of
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.values import TORN, Value, spell


class Promise(enum.StrEnum):
    """What is promised, as a report names it."""

    WHOLE = "a value that is read was written under its key, whole"
    OWN_WRITES = "a client reads its own acknowledged writes, or a miss"
    NO_STEP_BACK = "a client never reads an older version than before"
    NEWEST_WINS = "in a zone, an older write never replaces a newer one"
    ONE_VERSION = "no two writes have one version"
    CONVERGENCE = "zones end with the same version"
    NOTHING_LOST = "an acknowledged write is lost only with its zones"
    DELETED = "a deleted key stays deleted"


class Violation(NamedTuple):
    """A promise that was broken."""

    promise: Promise
    key: str
    story: str


Versions = dict[Value, int]
"""Which version a value was written with, for those whose version anybody was told."""


def check_calls(calls: Sequence[Call]) -> list[Violation]:
    """Every broken promise about what single clients were told."""
    versions = versions_of(calls)
    return [*check_values(calls, versions), *check_unique_versions(calls, versions), *check_order(calls, versions)]


def versions_of(calls: Iterable[Call]) -> Versions:
    """The version of each value, as its writer was told, or else as it was first read."""
    versions: Versions = {}
    read: Versions = {}
    for call in calls:
        if call.value is not None and call.version is not None:
            (versions if call.is_write else read).setdefault(call.value, call.version)
    return read | versions


def check_values(calls: Iterable[Call], versions: Versions) -> Iterator[Violation]:
    """A value that was read is one that was written, under this key and version, and not before it was written."""
    written = {call.value: call for call in calls if call.is_write and call.value is not None}
    for read in calls:
        if read.value is None or read.is_write:
            continue
        write = written.get(read.value)
        if read.value == TORN:
            problem = "read bytes that no writer made"
        elif write is None:
            problem = f"read {spell(read.value)}, which was never written"
        elif write.key != read.key:
            problem = f"read {spell(read.value)}, which was written under {write.key}"
        elif write.invoked > read.completed:
            problem = f"read {spell(read.value)} before it was written"
        elif write.outcome is Outcome.REFUSED:
            problem = f"read {spell(read.value)}, which {write.kind} had refused to write"
        elif read.version is not None and read.version != versions[read.value]:
            problem = f"read {spell(read.value)} as version {read.version}, and it has version {versions[read.value]}"
        else:
            continue
        yield Violation(Promise.WHOLE, read.key, f"{read.client} {problem}, at {read.completed:.3f} s")


def check_unique_versions(calls: Iterable[Call], versions: Versions) -> Iterator[Violation]:
    """No version is given twice: not by one client, and not for one key.

    Two clients may give one version to two keys: a version holds 12 bits of its writer, which are drawn at random.
    """
    first: dict[int, Call] = {}
    for call in calls:
        if not call.is_write:
            continue
        version = call.version if call.value is None else versions.get(call.value)
        if version is None:
            continue
        other = first.setdefault(version, call)
        if other is not call and (other.client == call.client or other.key == call.key):
            pair = " and ".join(f"{each.client}'s {each.kind} of {_what(each)}" for each in (other, call))
            story = f"{pair} both have version {version}"
            yield Violation(Promise.ONE_VERSION, call.key, story)


def check_order(calls: Iterable[Call], versions: Versions) -> Iterator[Violation]:
    """What a client reads of a key is not older than what it has written, nor than what it has read, before that."""
    of_each: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        if call.outcome is Outcome.OK:
            of_each[call.client, call.key].append(call)
    for together in of_each.values():
        yield from _check_order_of_one(together, versions)


def _check_order_of_one(calls: list[Call], versions: Versions) -> Iterator[Violation]:
    returned = iter(sorted(calls, key=lambda call: call.completed))
    earlier = next(returned)
    newest: dict[Promise, tuple[int, Call]] = {}  # of the writes, and of the reads, that had returned
    for read in sorted((call for call in calls if call.has_value), key=lambda call: call.invoked):
        while earlier.completed < read.invoked:  # ends by itself at the latest: it has not returned before it was made
            version = _version(earlier, versions)
            promise = _ORDERED_AFTER.get(earlier.kind, Promise.OWN_WRITES)
            if version is not None and version > newest.get(promise, (0, earlier))[0]:
                newest[promise] = version, earlier
            earlier = next(returned)
        version = _version(read, versions)
        if version is None:
            continue
        for promise, (bound, before) in newest.items():
            if version < bound:
                behind = milliseconds_of(bound) - milliseconds_of(version)
                story = (
                    f"{read.client} read {_what(read)}, version {version}, at {read.invoked:.3f} s, which is {behind} ms older"
                    f" than its {before.kind} of {_what(before)}, version {bound}, which had returned at {before.completed:.3f} s"
                )
                yield Violation(promise, read.key, story)


# What a reader has seen before it; writes are those of its own.
_ORDERED_AFTER = {Kind.READ: Promise.NO_STEP_BACK, Kind.LOOK: Promise.NEWEST_WINS}


def _version(call: Call, versions: Versions) -> int | None:
    if call.version is not None or call.value is None:
        return call.version
    return versions.get(call.value)


def _what(call: Call) -> str:
    return "nothing" if call.value is None else spell(call.value)
