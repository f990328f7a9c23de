"""Time to live: no value is read too late, and copies of one version expire together. Plain functions: no I/O, no clock.

A value may be seen until its ttl + 1 s after the last moment at which a server may have stored it. The second is added
because servers count in whole seconds, each from its own start. Usually that moment is the end of the write call. A request that a
fault held back arrives when the fault ends, and so may the copy that a repair or a hint sends. `Circumstances.latest_end`
adds that time. A touch moves the end to its own ttl + 1 s, if it began while the value may have been alive.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from integration.chaos.end_state import EndState
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.keys import is_counter, is_list
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances, Span
from integration.chaos.values import Value, spell

COPY_SECONDS = 1.0
"""Time by which a copy may outlive the original, as promised."""
SLACK_SECONDS = 0.5
"""The scheduler's and the checker's own lateness."""

APART_SECONDS = 8.0
"""Time by which a copy may expire early. Each copy of a copy may lose a second."""

Ends = Mapping[Value, float]
"""Latest time of expiry of each value, in seconds since the history began."""


def ends_of(calls: Iterable[Call], circumstances: Circumstances, default_ttl: float = math.inf) -> Ends:
    """Return the end of each written value's life, touches included."""
    writes: list[Call] = []
    touches: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind is Kind.TOUCH:
            touches[call.key].append(call)
        elif call.is_write and call.value is not None:
            writes.append(call)
    for of_key in touches.values():
        of_key.sort(key=lambda touch: touch.invoked)
    return {
        write.value: _end(write, touches[write.key], circumstances, default_ttl)
        for write in writes
        if write.value is not None
    }


def _end(write: Call, touches: Sequence[Call], circumstances: Circumstances, default_ttl: float) -> float:
    end = _end_of_one(write, circumstances, default_ttl)
    for touch in touches:
        if touch.invoked <= end and circumstances.latest_arrival(touch) >= write.invoked:
            end = max(end, _end_of_one(touch, circumstances, default_ttl))
    return end


def _end_of_one(call: Call, circumstances: Circumstances, default_ttl: float) -> float:
    ttl = default_ttl if call.ttl is None else call.ttl
    if math.isinf(call.completed) or math.isinf(ttl):
        return math.inf
    return circumstances.latest_end(call.key, call.invoked, call.sent_by + ttl + COPY_SECONDS)


def check_expiry(
    calls: Iterable[Call], ends: Ends, short: Collection[Value], circumstances: Circumstances
) -> Iterator[Finding]:
    """Check that no read, and no look at a server, finds a value after the end of its short life.

    Facts are counted of reads that found a short-lived value, and of reads that found nothing of one after its end.
    """
    ended: defaultdict[str, list[float]] = defaultdict(list)
    for call in calls:
        if call.is_write and call.value in short and call.value in ends:
            ended[call.key].append(ends[call.value])
    for of_key in ended.values():
        of_key.sort()
    for read in calls:
        if read.kind in (Kind.READ, Kind.LOOK) and not read.has_value and read.outcome is Outcome.OK:
            if bisect_right(ended.get(read.key, ()), read.invoked):
                yield Kept(Promise.TTL, "miss after an end")
            continue
        if not read.has_value or read.value is None or read.value not in short or math.isinf(ends.get(read.value, math.inf)):
            continue
        end = ends[read.value]
        seen = read.last_seen if read.last_seen is not None else read.invoked
        until = max(read.completed, seen + SLACK_SECONDS)
        if seen > end + SLACK_SECONDS and not circumstances.is_resuming(read.key, Span(seen, until)):
            story = f"{read.client} saw {spell(read.value)} at {seen:.3f} s, {seen - end:.3f} s after it had to be gone"
            yield Violation(Promise.TTL, read.key, story, read.operation)
        else:
            yield Kept(Promise.TTL, read.operation)


def check_end_ttls(calls: Sequence[Call], state: EndState, ends: Ends, default_ttl: float) -> Iterator[Finding]:
    """Check that no copy expires later than the original should, nor earlier by more than some seconds.

    Keys that were ever touched may expire earlier: a zone that missed a touch lets the item go at its former time.
    """
    written = {call.value: call for call in calls if call.is_write and call.value is not None}
    touched = {call.key for call in calls if call.kind is Kind.TOUCH}
    for key, copies in state.items():
        if is_counter(key):
            continue
        for zone, held in copies.items():
            if held is None or held.is_absence or held.expires is None or held.value not in written:
                continue
            write = written[held.value]
            latest = ends[write.value] if write.value is not None else math.inf
            earliest = write.invoked + (default_ttl if write.ttl is None else write.ttl) - APART_SECONDS
            story = f"{zone} holds {held}, written at {write.invoked:.3f} s, which expires at {held.expires:.3f} s"
            if held.expires > latest + SLACK_SECONDS:
                yield Violation(Promise.EQUAL_TTL, key, f"{story}, and ought to by {latest:.3f} s", "not too late")
            elif held.expires < earliest and key not in touched and not is_list(key):
                yield Violation(
                    Promise.EQUAL_TTL, key, f"{story}, and ought to live until {earliest:.3f} s", "not too early"
                )
            else:
                yield Kept(Promise.EQUAL_TTL, f"{'touched' if key in touched else 'untouched'} copies")


def short_lived(calls: Iterable[Call]) -> frozenset[Value]:
    """Return the values that were written with a ttl of seconds."""
    return frozenset(
        call.value
        for call in calls
        if call.is_write and call.value is not None and call.ttl is not None and call.outcome is not Outcome.REFUSED
    )
