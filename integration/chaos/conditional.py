"""Conditional writes as a history of compare-and-set. Plain functions: no I/O, no clock.

Each successful `cas` names the version that it replaced, `add` names an absence. The replaced version must be the
latest acknowledged one that the deciding client could see. A write is overwritten unseen if it was acknowledged before the
call, is newer than the named version, and is held by a reachable zone. That must not happen. No two of them replace one version.
Refusals are checked the other way round. Both hold as long as clients agree which nodes can be reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from integration.chaos.history import SHORT_SECONDS, Call, Kind, Outcome, may_be_newer
from integration.chaos.keys import is_counter
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances, Span
from integration.chaos.values import spell


def check_conditional(calls: Iterable[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check the conditional writes of values. Those of counters are checked by their numbers."""
    of_key: defaultdict[str, list[Call]] = defaultdict(list)
    touched: set[str] = set()
    for call in calls:
        if call.is_write and not is_counter(call.key):
            of_key[call.key].append(call)
        elif call.kind is Kind.TOUCH and (call.ttl or 0.0) < SHORT_SECONDS:
            touched.add(call.key)
    for key, writes in of_key.items():
        writes.sort(key=lambda write: write.invoked)
        yield from _check_pairs(writes, circumstances)
        if key in touched:
            continue  # values may have expired at any time
        yield from _check_overwritten(writes, circumstances)
        yield from _check_refusals(writes, circumstances)


def span_of(call: Call) -> Span:
    """Return the time in which a write may have been sent to any zone by its client."""
    return Span(call.invoked, call.sent_by)


def disagreed(one: Call, other: Call, circumstances: Circumstances) -> bool:
    """Return True if the clients of two calls may have disagreed, at either call, about where the key is decided."""
    return circumstances.disagreed_about(one.key, one.client, other.client, span_of(one), span_of(other))


def is_on_its_way(write: Call, call: Call, circumstances: Circumstances) -> bool:
    """Return True if another client's set or delete may not have reached every zone when a call began.

    No zone decides about a set, so a conditional write may come before it in the deciding zone though it was acknowledged.
    """
    return (
        write.kind in (Kind.SET, Kind.DELETE)
        and write.client != call.client
        and not set(circumstances.zones) <= set(write.acknowledged)
        and call.invoked <= circumstances.latest_arrival(write)
    )


def _check_pairs(writes: Sequence[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that no two successful `cas` replace one version."""
    by_base: defaultdict[int, list[Call]] = defaultdict(list)
    for write in writes:
        if write.kind is Kind.CAS and write.is_acknowledged and write.base is not None:
            by_base[write.base].append(write)
    for base, together in by_base.items():
        for one, two in pairwise(together):
            if disagreed(one, two, circumstances):
                continue
            if not circumstances.known_to(one, two):
                continue
            if two.invoked <= one.completed and not circumstances.known_to(two, one):
                continue
            yield Violation(
                Promise.COMPARE,
                one.key,
                f"{tell_write(one)} and {tell_write(two)} both replaced version {base}",
                "cas twice",
            )
        if len(together) == 1:
            yield Kept(Promise.COMPARE, "cas once")


def _check_overwritten(writes: Sequence[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that a successful `cas` or `add` replaced the latest acknowledged write that it could see."""
    deletes = [write for write in writes if write.kind is Kind.DELETE]
    for write, newest in with_newest_before(writes):
        if not write.is_acknowledged or write.kind not in (Kind.CAS, Kind.ADD):
            continue
        if write.kind is Kind.CAS and write.base is None:
            continue
        if newest is None or not _is_unseen(write, newest, deletes, circumstances):
            yield Kept(Promise.COMPARE, f"{write.kind} over the latest")
            continue
        named = f"over version {write.base}" if write.kind is Kind.CAS else "over nothing"
        story = f"{tell_write(write)} succeeded {named}, though {tell_write(newest)} had been acknowledged by {', '.join(newest.acknowledged)}"
        yield Violation(Promise.COMPARE, write.key, story, f"{write.kind} over the latest")


def with_newest_before(writes: Sequence[Call]) -> Iterator[tuple[Call, Call | None]]:
    """Pair each write with the newest acknowledged one that had returned before it. `writes`: in the order of their begin."""
    returned = sorted(
        (write for write in writes if write.is_acknowledged and write.version), key=lambda write: write.completed
    )
    newest: Call | None = None
    position = 0
    for write in writes:
        while position < len(returned) and returned[position].completed < write.invoked:
            candidate = returned[position]
            if newest is None or (candidate.version or 0) > (newest.version or 0):
                newest = candidate
            position += 1
        yield write, newest


def _is_unseen(write: Call, newest: Call, deletes: Iterable[Call], circumstances: Circumstances) -> bool:
    """Return True if a successful `cas` or `add` replaced an acknowledged write that it must have seen."""
    if newest.ttl is not None:  # it may have expired
        return False
    if write.kind is Kind.ADD and (newest.kind is Kind.DELETE or _may_be_absent(newest, deletes, write)):
        return False
    if write.kind is Kind.CAS and (newest.version or 0) <= (write.base or 0):
        return False
    if disagreed(newest, write, circumstances) or is_on_its_way(newest, write, circumstances):
        return False
    return circumstances.known_to(newest, write)


def _may_be_absent(newest: Call, deletes: Iterable[Call], call: Call) -> bool:
    """Return True if some delete may have come after the newest acknowledged write."""
    return any(delete.invoked < call.completed and may_be_newer(delete, newest) for delete in deletes)


def _check_refusals(writes: Sequence[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that each refusal agrees with the latest version: absent if the key is absent, another version if it has another."""
    for call, latest in with_newest_before(writes):
        if call.outcome is not Outcome.REFUSED:
            continue
        if latest is None or latest.ttl is not None:
            continue
        if any(
            write.invoked < call.completed
            and write is not latest
            and write.outcome is not Outcome.REFUSED
            and may_be_newer(write, latest)
            for write in reversed(writes)
        ):
            continue
        if disagreed(latest, call, circumstances) or is_on_its_way(latest, call, circumstances):
            continue
        if not circumstances.known_to(latest, call):
            continue
        what = f"{call.kind} refused"
        if _is_right(call, latest):
            yield Kept(Promise.REFUSAL, what)
        else:
            story = f"{tell_write(call)} was refused as {call.refusal}, though {tell_write(latest)}, version {latest.version}, is the latest"
            yield Violation(Promise.REFUSAL, call.key, story, what)


def _is_right(call: Call, latest: Call) -> bool:
    is_value = latest.kind is not Kind.DELETE
    if call.kind is Kind.ADD:
        return is_value
    if call.kind is Kind.CAS:
        return call.base != latest.version and not (is_value and call.refusal == "not_found")
    return not is_value


def tell_write(call: Call) -> str:
    """Describe a write for people."""
    what = "" if call.value is None else f" of {spell(call.value)}"
    return f"{call.client}'s {call.kind}{what} at {call.invoked:.3f} to {call.completed:.3f} s"
