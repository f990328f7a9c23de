"""All checks of one history, put together. Plain functions: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from integration.chaos.checker import check_calls
from integration.chaos.conditional import check_conditional
from integration.chaos.counters import check_counters
from integration.chaos.end_state import Emptied, EndState, check_convergence, check_end_state
from integration.chaos.history import Call, Kind
from integration.chaos.lifetimes import check_end_ttls, check_expiry, ends_of, short_lived
from integration.chaos.lists import check_lists
from integration.chaos.promises import Finding
from integration.chaos.real_time import check_real_time
from integration.chaos.touches import check_absences, check_touches
from integration.chaos.troubles import Circumstances


def check_all(
    calls: Sequence[Call],
    state: EndState,
    emptied: Emptied,
    circumstances: Circumstances,
    *,
    limit: float,
    default_ttl: float,
    tombstone_ttl: float,
) -> Iterator[Finding]:
    """Check a history, and what zones held in the end, for every promise.

    `limit`: how long zones were given to become equal. `default_ttl`: seconds to live of writes that ask for none.
    `tombstone_ttl`: seconds for which zones remember a delete.
    """
    short = short_lived(calls)
    ends = ends_of(calls, circumstances, default_ttl)
    yield from check_calls(calls, short)
    yield from check_expiry(calls, ends, short, circumstances)
    yield from check_touches(calls, circumstances)
    yield from check_absences(calls, [call for call in calls if call.kind is Kind.DELETE], tombstone_ttl)
    yield from check_conditional(calls, circumstances)
    for family in ("list", "front"):
        yield from check_lists(calls, circumstances, family)
    yield from check_counters(calls, state, circumstances)
    yield from check_real_time(calls, state, circumstances)
    yield from check_convergence(state, limit)
    yield from check_end_state(calls, state, emptied, short)
    yield from check_end_ttls(calls, state, ends, default_ttl)
