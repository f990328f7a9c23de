"""From a history to the list of promises that were broken. Plain functions: no I/O, no clock.

Only calls of which one had returned before the other was made are ordered; of calls that overlap either may come first.
Violations are facts, but a history without any proves nothing beyond itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from evcache.replication.hlc import milliseconds_of
from integration.chaos.history import SHORTER_SECONDS, Call, Kind, Outcome
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.values import TORN, Value, spell

TOUCHED_LATE_SECONDS = 10.0
"""A touch that a fault held back takes effect by then."""

Versions = dict[Value, int]
"""Version that a value was written with, if any client received that version."""


def check_calls(calls: Sequence[Call], short_lived: Collection[Value] = ()) -> Iterator[Finding]:
    """Check every promise about the calls of single clients. `short_lived`: values that were written with a short ttl."""
    versions = versions_of(calls)
    yield from check_values(calls, versions)
    yield from check_unique_versions(calls, versions)
    yield from check_order(calls, versions, short_lived)


def versions_of(calls: Sequence[Call]) -> Versions:
    """Return the version of each value: the one returned to its writer, or else the one of its first read."""
    versions: Versions = {}
    read: Versions = {}
    renewed = {call.value for call in calls if call.floor is not None}
    for call in calls:
        if call.value is not None and call.version is not None:
            if call.is_write:
                versions[call.value] = call.version
            elif call.value in renewed:
                read[call.value] = max(call.version, read.get(call.value, 0))
            else:
                read.setdefault(call.value, call.version)
    return read | versions


def check_values(calls: Iterable[Call], versions: Versions) -> Iterator[Finding]:
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
        elif read.version is not None and not _is_version_of(write, read.version, versions[read.value]):
            problem = f"read {spell(read.value)} as version {read.version}, and it has version {versions[read.value]}"
        else:
            yield Kept(Promise.WHOLE, read.operation)
            continue
        yield Violation(Promise.WHOLE, read.key, f"{read.client} {problem}, at {read.completed:.3f} s", read.operation)


def _is_version_of(write: Call, read: int, version: int) -> bool:
    """Return True if a version is that of a write. A write that may be sent again has former versions too."""
    return read == version or (write.floor is not None and write.floor <= read < version)


def check_unique_versions(calls: Iterable[Call], versions: Versions) -> Iterator[Finding]:
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
            yield Violation(Promise.ONE_VERSION, call.key, story, str(call.kind))
        else:
            yield Kept(Promise.ONE_VERSION, str(call.kind))


def check_order(calls: Sequence[Call], versions: Versions, short_lived: Collection[Value] = ()) -> Iterator[Finding]:
    """What a client reads of a key is not older than what it has written, nor than what it has read, before that."""
    floors = {call.value: call.floor for call in calls if call.value is not None and call.floor is not None}
    of_each: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    touches: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.ttl is not None and call.outcome is not Outcome.REFUSED:
            touches[call.key].append(call)
        if call.kind is not Kind.TOUCH and call.outcome is Outcome.OK:
            of_each[call.client, call.key].append(call)
    for (_, key), together in of_each.items():
        yield from _check_order_of_one(together, versions, floors, short_lived, touches[key])


def _check_order_of_one(
    calls: list[Call],
    versions: Versions,
    floors: Mapping[Value, int],
    short_lived: Collection[Value],
    touches: Sequence[Call],
) -> Iterator[Finding]:
    returned = iter(sorted(calls, key=lambda call: call.completed))
    earlier = next(returned)
    newest: dict[Promise, tuple[int, Call]] = {}  # of the writes, and of the reads, that had returned
    for read in sorted((call for call in calls if call.has_value), key=lambda call: call.invoked):
        while earlier.completed < read.invoked:  # ends by itself at the latest: it has not returned before it was made
            version = _least_version(earlier, versions, floors)
            promise = _ORDERED_AFTER.get(earlier.kind, Promise.OWN_WRITES)
            if version is not None and version > newest.get(promise, (0, earlier))[0]:
                newest[promise] = version, earlier
            earlier = next(returned)
        version = _version(read, versions)
        if version is None:
            continue
        for promise, (bound, before) in newest.items():
            is_short = before.value in short_lived and promise is not Promise.NEWEST_WINS
            if version >= bound:
                yield Kept(promise, read.operation)
                if is_short:
                    yield Kept(Promise.SHORT_LIVED, read.operation)
                continue
            if promise is Promise.NEWEST_WINS and _may_have_expired(before, read, touches):
                continue  # so that nothing newer was replaced
            behind = milliseconds_of(bound) - milliseconds_of(version)
            story = (
                f"{read.client} read {_what(read)}, version {version}, at {read.invoked:.3f} s, which is {behind} ms older"
                f" than its {before.kind} of {_what(before)}, version {bound}, which had returned at {before.completed:.3f} s"
            )
            if is_short and read.value not in short_lived:
                promise = Promise.SHORT_LIVED
            yield Violation(promise, read.key, story, read.operation)


def _may_have_expired(before: Call, look: Call, touches: Iterable[Call]) -> bool:
    """Return True if the item of one look at a server, or what replaced it, may have expired before a later look.

    `touches`: the touches and the short-lived writes of the key.
    """
    if before.expires is None:
        return False
    return look.invoked >= before.expires - 1 or any(
        touch.invoked <= look.invoked
        and touch.sent_by + TOUCHED_LATE_SECONDS >= before.invoked
        and look.invoked >= touch.invoked + (touch.ttl or 0.0) - SHORTER_SECONDS
        for touch in touches
    )


# What a reader has seen before it; writes are those of its own.
_ORDERED_AFTER = {Kind.READ: Promise.NO_STEP_BACK, Kind.LOOK: Promise.NEWEST_WINS}


def _version(call: Call, versions: Versions) -> int | None:
    if call.version is not None or call.value is None:
        return call.version
    return versions.get(call.value)


def _least_version(call: Call, versions: Versions, floors: Mapping[Value, int]) -> int | None:
    """Return the oldest version that a call can have seen, if its result did not name the version."""
    if call.version is None and call.value in floors:
        return floors[call.value]
    return _version(call, versions)


def _what(call: Call) -> str:
    if call.value is not None:
        return spell(call.value)
    return "nothing" if call.number is None else str(call.number)
