"""Counters, checked by their numbers. Plain functions: no I/O, no clock.

`count-*` keys are only counted up by one from 1, so a result is the number of increments until then. Results of `incr` that
returned one after the other grow, none comes twice, and what is read later is not lower. An increment may be lost only in two
cases: clients could disagree about the deciding zone, or the zones that had it were lost. The client does not know which ones
had it. At most one of the zones that it could reach lacks a copy. Two of those zones therefore suffice, if the later call can
reach them and they were not emptied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from integration.chaos.end_state import EndState
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.keys import family_of, is_counter
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances, Span

ENOUGH_ZONES = 2
TOMBSTONE_SECONDS = 50.0
"""Time for which every zone that acknowledged a delete remembers it."""


def check_counters(calls: Iterable[Call], state: EndState, circumstances: Circumstances) -> Iterator[Finding]:
    """Check every promise about counters."""
    of_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if is_counter(call.key):
            of_key[call.key].append(call)
    for key, together in of_key.items():
        yield from _check_ints(together)
        if family_of(key) == "count":
            disputed = _disputed(together, circumstances)
            yield from _check_unique(together, disputed, circumstances)
            yield from _check_growth(together, disputed, circumstances)
            yield from _check_final(key, together, disputed, state, circumstances)
        else:
            yield from _check_deletes(together, circumstances)


def _check_ints(calls: Iterable[Call]) -> Iterator[Finding]:
    for call in calls:
        if call.kind is not Kind.READ or not call.has_value:
            continue
        if call.odd:
            yield Violation(Promise.INTEGER, call.key, f"{call.client} read {call.odd} at {call.invoked:.3f} s", "read")
        else:
            yield Kept(Promise.INTEGER, "read")


def _disputed(calls: Iterable[Call], circumstances: Circumstances) -> list[Span]:
    """Return the times of increments that were tried while clients could disagree about the deciding zone. Each may undo others."""
    return [
        Span(call.invoked, circumstances.latest_arrival(call))
        for call in calls
        if call.is_write and circumstances.disagreed(call.key, Span(call.invoked, call.sent_by))
    ]


def _counted(calls: Iterable[Call]) -> list[Call]:
    return [call for call in calls if call.kind is Kind.INCR and call.is_acknowledged and call.number is not None]


def _check_unique(calls: Iterable[Call], disputed: Sequence[Span], circumstances: Circumstances) -> Iterator[Finding]:
    first: dict[int, Call] = {}
    for call in _counted(calls):
        assert call.number is not None
        other = first.setdefault(call.number, call)
        if other is call:
            yield Kept(Promise.COUNTED, "unique result")
        elif other.completed >= call.invoked and call.completed >= other.invoked:  # else growth is checked
            window = Span(min(other.invoked, call.invoked), max(other.sent_by, call.sent_by))
            zones = circumstances.zones
            if _overlap(disputed, window) or any(circumstances.lost(zone, call.key, window) for zone in zones):
                continue
            yield Violation(
                Promise.COUNTED, call.key, f"{_tell(other)} and {_tell(call)} returned the same", "unique result"
            )


def _check_growth(calls: Sequence[Call], disputed: Sequence[Span], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that later results and reads are not lower than the result of an acknowledged increment."""
    counted = sorted(_counted(calls), key=lambda call: call.completed)
    reads = (call for call in calls if call.kind is Kind.READ and call.number is not None)
    highest: Call | None = None
    position = 0
    for call in sorted([*counted, *reads], key=lambda call: call.invoked):
        while position < len(counted) and counted[position].completed < call.invoked:
            if highest is None or _number(counted[position]) > _number(highest):
                highest = counted[position]
            position += 1
        if highest is None:
            continue
        is_read = call.kind is Kind.READ
        if is_read and not _sees_all(call) and highest.client != call.client:
            continue
        promise, what = (Promise.COUNT_READ, call.operation) if is_read else (Promise.COUNTED, "growing result")
        if is_read and highest.client == call.client and not _sees_all(call):
            what = f"own, {what}"
        if _number(call) > _number(highest) or (is_read and _number(call) == _number(highest)):
            yield Kept(promise, what)
        elif _must_be_seen(highest, call, disputed, circumstances):
            story = f"{_tell(call)} returned {_number(call)}, after {_tell(highest)} had returned {_number(highest)}"
            yield Violation(promise, call.key, story, what)
        elif not is_read:
            highest = call  # the count began again, which is excused: later results are measured by this one


def _sees_all(read: Call) -> bool:
    return "QUORUM" in read.operation or "ALL" in read.operation


def _must_be_seen(counted: Call, call: Call, disputed: Sequence[Span], circumstances: Circumstances) -> bool:
    until = call.completed
    if _overlap(disputed, Span(counted.invoked, until)):
        return False
    had = circumstances.well(call.key, counted.client, Span(counted.invoked, counted.sent_by))
    # Of a quorum one zone must be among those that acknowledged the increment, so all were well and none has forgotten.
    if call.kind is Kind.READ and len(had) < len(circumstances.zones):
        return False
    lost = {zone for zone in had if circumstances.lost(zone, call.key, Span(counted.invoked, until))}
    if call.kind is Kind.READ:
        return not lost and not any(
            circumstances.had_trouble(zone, call.key, call.client, Span(call.invoked, until)) for zone in circumstances.zones
        )
    reached = circumstances.well(call.key, call.client, Span(call.invoked, call.completed))
    return len((had & reached) - lost) >= ENOUGH_ZONES


def _check_final(
    key: str, calls: Sequence[Call], disputed: Sequence[Span], state: EndState, circumstances: Circumstances
) -> Iterator[Finding]:
    counted = _counted(calls)
    attempts = sum(call.kind is Kind.INCR and call.outcome is not Outcome.REFUSED for call in calls)
    numbers = {
        zone: held.number for zone, held in state.get(key, {}).items() if held is not None and held.number is not None
    }
    for zone, number in numbers.items():
        if number > attempts:
            yield Violation(Promise.COUNTED, key, f"{zone} ends with {number} after {attempts} increments", "final count")
    if not counted or not numbers:
        return
    highest = max(counted, key=_number)
    excused = bool(disputed) or any(circumstances.lost(zone, key, Span(0.0, float("inf"))) for zone in circumstances.zones)
    final = max(numbers.values())
    at_least = _number(highest) if not excused else _surely(counted, disputed, circumstances)
    if not excused and final < len(counted):
        yield Violation(
            Promise.COUNTED, key, f"ends with {final} after {len(counted)} acknowledged increments", "final count"
        )
    elif final < at_least:
        yield Violation(
            Promise.COUNTED, key, f"ends with {final}, after an increment had returned {at_least}", "final count"
        )
    else:
        yield Kept(Promise.COUNTED, "final count")


def _surely(counted: Sequence[Call], disputed: Sequence[Span], circumstances: Circumstances) -> int:
    """Return the highest result after which nothing happened that excuses a lower count."""
    for call in sorted(counted, key=_number, reverse=True):
        after = Span(call.invoked, float("inf"))
        if _overlap(disputed, after):
            continue
        had = circumstances.well(call.key, call.client, Span(call.invoked, call.sent_by))
        if sum(not circumstances.lost(zone, call.key, after) for zone in had) >= ENOUGH_ZONES:
            return _number(call)
    return 0


def _check_deletes(calls: Sequence[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that the zones that acknowledged a delete hold no number until the next write begins."""
    writes = [call for call in calls if call.is_write and call.kind is not Kind.DELETE]
    arrivals = {write: circumstances.latest_arrival(write) for write in writes if write.outcome is not Outcome.REFUSED}
    looks: Mapping[str, list[Call]] = _looks_by_zone(calls, circumstances.zones)
    for delete in calls:
        if delete.kind is not Kind.DELETE or not delete.is_acknowledged:
            continue
        if any(
            write.invoked < delete.completed
            and (arrival if write.outcome is not Outcome.OK else write.completed) >= delete.invoked
            for write, arrival in arrivals.items()
        ):
            continue  # which may be decided after it
        until = min((write.invoked for write in arrivals if write.invoked >= delete.completed), default=float("inf"))
        until = min(until, delete.completed + TOMBSTONE_SECONDS)
        for zone in delete.acknowledged:
            for look in looks.get(zone, ()):
                # A look stands for all later ones that saw the same.
                seen, answered = look.invoked, look.completed
                if seen <= delete.completed and look.last_seen is not None and look.seen_until is not None:
                    seen, answered = look.last_seen, look.seen_until
                if not delete.completed < seen or answered >= until:
                    continue
                if look.version is not None and delete.version is not None and look.version > delete.version:
                    continue  # a newer write of a client whose clock is ahead
                if circumstances.lost(zone, delete.key, Span(delete.invoked, until)):
                    continue
                if look.has_value:
                    story = (
                        f"{look.client} holds {look.number} at {seen:.3f} s, though {_tell(delete)} had been acknowledged"
                    )
                    yield Violation(Promise.COUNTER_DELETED, delete.key, story, "look")
                else:
                    yield Kept(Promise.COUNTER_DELETED, "look")


def _looks_by_zone(calls: Iterable[Call], zones: Iterable[str]) -> Mapping[str, list[Call]]:
    looks: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind is Kind.LOOK:
            zone = next((zone for zone in zones if call.client.startswith(f"{zone}-")), None)
            if zone is not None:
                looks[zone].append(call)
    return looks


def _overlap(spans: Iterable[Span], span: Span) -> bool:
    return any(each.begin <= span.end and each.end >= span.begin for each in spans)


def _number(call: Call) -> int:
    return call.number or 0


def _tell(call: Call) -> str:
    return f"{call.client}'s {call.operation} at {call.invoked:.3f} to {call.completed:.3f} s"
