"""The order of acknowledged writes in real time, for any clocks of the clients. Plain functions: no I/O, no clock.

Two writes are compared if one was acknowledged before the second began, and both must share a zone. A shared zone has
acknowledged the first write, was not emptied in between, and is needed for the success of the second. The second write has
therefore met the first one, and must be newer. Writes that
may have expired by then are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from integration.chaos.conditional import disagreed, with_newest_before
from integration.chaos.end_state import EndState
from integration.chaos.history import CONDITIONAL, SHORTER_SECONDS, Call, Kind, Outcome
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances, Span
from integration.chaos.values import Value, spell


def check_real_time(calls: Iterable[Call], state: EndState, circumstances: Circumstances) -> Iterator[Finding]:
    """Check that versions, later reads and the end follow the order of acknowledged writes."""
    of_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        of_key[call.key].append(call)
    for key, together in of_key.items():
        writes = [call for call in together if call.is_acknowledged and call.version is not None]
        touches = [call for call in together if call.ttl is not None and call.outcome is not Outcome.REFUSED]
        met = _Meetings(circumstances, touches)
        tried = [call for call in together if call.is_write and call.outcome is not Outcome.REFUSED]
        yield from _check_versions(writes, tried, met)
        reads = [
            call for call in together if call.kind is Kind.READ and call.outcome is Outcome.OK and call.value is not None
        ]
        yield from _check_reads(writes, reads, met)
        yield from _check_end(key, writes, state, met)


class _Meetings:
    """Tells if a write must have met another one in some zone."""

    def __init__(self, circumstances: Circumstances, endings: Sequence[Call]) -> None:
        """`endings`: the touches and the short-lived writes of the key."""
        self._circumstances = circumstances
        self._endings = endings

    def has(self, first: Call, second: Call) -> bool:
        """Return True if the second write cannot have succeeded without a zone that held the first one then, or a newer one."""
        there = self._circumstances
        span = Span(first.invoked, second.sent_by)
        had = {zone for zone in first.acknowledged if not there.lost(zone, first.key, span)}
        # The second write may have succeeded before the zones answered that had the first one.
        others = set(second.acknowledged) - had
        if had.isdisjoint(second.acknowledged) or len(others) >= there.required_acks(Span(second.invoked, second.sent_by)):
            return False
        if self._may_have_expired(first, second.sent_by):
            return False
        # A conditional write is decided before it meets most zones.
        return second.kind not in CONDITIONAL or (not disagreed(first, second, there) and there.known_to(first, second))

    def _may_have_expired(self, write: Call, by: float) -> bool:
        """Return True if zones may have forgotten a write: it was short-lived or touched, or a short-lived one replaced it."""
        return any(
            ending.ttl is not None
            and ending.invoked <= by
            and self._circumstances.latest_arrival(ending) >= write.invoked
            and by >= ending.invoked + ending.ttl - SHORTER_SECONDS
            for ending in self._endings
        )


def _check_versions(writes: Sequence[Call], tried: Sequence[Call], met: _Meetings) -> Iterator[Finding]:
    for write, newest in with_newest_before(sorted(writes, key=lambda write: write.invoked)):
        if newest is None:
            continue
        what = f"{write.kind} after {'its own' if newest.client == write.client else 'another client'}"
        if _version(newest) < _version(write):
            yield Kept(Promise.REAL_TIME, what)
        elif met.has(newest, write) and not _is_replaced(newest, write, tried):
            story = f"{_tell(write)} was acknowledged, and is older than {_tell(newest)}, which had returned at {newest.completed:.3f} s"
            yield Violation(Promise.REAL_TIME, write.key, story, what)


def _is_replaced(first: Call, second: Call, tried: Iterable[Call]) -> bool:
    """Return True if a third write, concurrent with the second, may have replaced both. The order of the two then has no effect."""
    return any(
        third is not second
        and third.invoked <= second.completed
        and third.completed >= second.invoked
        and (third.version is None or _version(third) > _version(first))
        for third in tried
    )


def _check_reads(writes: Iterable[Call], reads: Iterable[Call], met: _Meetings) -> Iterator[Finding]:
    """Check that a client reads no value that is followed by an acknowledged write of its own."""
    written: dict[Value, Call] = {write.value: write for write in writes if write.value is not None}
    own: defaultdict[str, list[Call]] = defaultdict(list)
    for write in writes:
        own[write.client].append(write)
    for of_client in own.values():
        of_client.sort(key=lambda write: write.completed)
    for read in reads:
        source = written.get(read.value) if read.value is not None else None
        before = [write for write in own[read.client] if write.completed < read.invoked]
        if source is None or not before:
            continue
        last = before[-1]
        if _is_inverted(source, last) and met.has(source, last):
            story = f"{read.client} read {spell(source.value or 0)} at {read.invoked:.3f} s; {_tell(last)} had begun after it was acknowledged"
            yield Violation(Promise.REAL_TIME, read.key, story, "later reads")
        else:
            yield Kept(Promise.REAL_TIME, "later reads")


def _check_end(key: str, writes: Sequence[Call], state: EndState, met: _Meetings) -> Iterator[Finding]:
    held = {copy.value for copy in state.get(key, {}).values() if copy is not None and copy.value is not None}
    written = {write.value: write for write in writes if write.value is not None}
    for value in held:
        source = written.get(value)
        if source is None:
            continue
        later = [write for write in writes if _is_inverted(source, write)]
        unmet = next((write for write in later if met.has(source, write)), None)
        if unmet is None:
            yield Kept(Promise.REAL_TIME, "the end")
        else:
            story = f"in the end zones hold {spell(value)}, and {_tell(unmet)} had begun after it was acknowledged"
            yield Violation(Promise.REAL_TIME, key, story, "the end")


def _is_inverted(first: Call, second: Call) -> bool:
    """Return True if the first returned before the second began, and has the newer version all the same."""
    return first.completed < second.invoked and _version(first) > _version(second)


def _version(call: Call) -> int:
    return call.version or 0


def _tell(call: Call) -> str:
    what = "" if call.value is None else f" of {spell(call.value)}"
    return f"{call.client}'s {call.kind}{what}, version {call.version}, at {call.invoked:.3f} s"
