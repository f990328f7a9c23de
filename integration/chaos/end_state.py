"""Whether what the zones hold in the end is what the history says they must hold. Plain functions: no I/O, no clock."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from integration.chaos.checker import Promise, Violation
from integration.chaos.history import Call, Kind
from integration.chaos.values import Value, spell


class Held(NamedTuple):
    """What a zone's server holds under a key."""

    version: int
    value: Value | None
    """None for a tombstone, which is how a server remembers a delete."""

    def __str__(self) -> str:
        return f"{'a tombstone' if self.value is None else spell(self.value)} of version {self.version}"


Copies = Mapping[str, Held | None]
"""What each zone holds of one key; None for nothing."""

EndState = Mapping[str, Copies]
"""The copies of each key."""

Emptied = Mapping[tuple[str, str], float]
"""By zone and key: when the zone's server for that key was last started empty, in seconds since the history began."""


def are_equal(copies: Copies) -> bool:
    """Whether all zones hold the same version. A tombstone and nothing are the same: the key is deleted."""
    return len({None if held is None or held.value is None else held.version for held in copies.values()}) == 1


def unequal_keys(state: EndState) -> list[str]:
    """The keys of which zones hold different versions."""
    return [key for key, copies in state.items() if not are_equal(copies)]


def check_convergence(state: EndState, limit: float) -> Iterator[Violation]:
    """Every key of which zones still differ, `limit` seconds after the last fault."""
    for key in unequal_keys(state):
        yield Violation(Promise.CONVERGENCE, key, f"after {limit:.0f} s {tell(state[key])}")


def check_end_state(calls: Sequence[Call], state: EndState, emptied: Emptied) -> Iterator[Violation]:
    """Acknowledged writes are there, or something newer is, unless every zone that had acknowledged one was emptied."""
    writes: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.is_write:
            writes[call.key].append(call)
    for key, copies in state.items():
        bound = _newest_that_survives(writes[key], emptied)
        if bound is not None:
            yield from _check_key(key, copies, bound, writes[key])


def _newest_that_survives(writes: Iterable[Call], emptied: Emptied) -> Call | None:
    """The newest acknowledged write that some zone must still have: one that was not emptied since it was invoked."""
    kept = (
        call
        for call in writes
        if call.is_acknowledged
        and call.version is not None
        and any(emptied.get((zone, call.key), -math.inf) < call.invoked for zone in call.acknowledged)
    )
    return max(kept, key=lambda call: call.version or 0, default=None)


def _check_key(key: str, copies: Copies, bound: Call, writes: list[Call]) -> Iterator[Violation]:
    assert bound.version is not None
    old = {zone: held for zone, held in copies.items() if held is not None and held.version < bound.version}
    story = f"{bound.client} wrote version {bound.version} ({_what(bound)}) at {bound.invoked:.3f} s, and {tell(copies)}"
    if bound.kind is Kind.DELETE:
        if any(held.value is not None for held in old.values()):
            yield Violation(Promise.DELETED, key, story)
        return
    if any(held is not None and held.version >= bound.version for held in copies.values()):
        return
    # A delete whose tombstone is forgotten leaves nothing. One that nobody heard of may have happened too.
    if not old and any(_may_be_newer(call, bound) for call in writes if call.kind is Kind.DELETE):
        return
    yield Violation(Promise.NOTHING_LOST, key, story)


def _may_be_newer(delete: Call, bound: Call) -> bool:
    assert bound.version is not None
    if delete.version is not None:
        return delete.version > bound.version
    # Versions follow the clock, which all clients share: a call that had returned before got an older one.
    return delete.completed >= bound.invoked


def _what(call: Call) -> str:
    return "a delete" if call.value is None else spell(call.value)


def tell(copies: Copies) -> str:
    """What each zone holds, for people."""
    return "; ".join(f"{zone} holds {'nothing' if held is None else held}" for zone, held in copies.items())
