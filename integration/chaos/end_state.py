"""Whether what the zones hold in the end is what the history says they must hold. Plain functions: no I/O, no clock."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from integration.chaos.history import SHORT_SECONDS, Call, Kind, may_be_newer
from integration.chaos.keys import family_of
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.values import Value, spell


class Held(NamedTuple):
    """What a zone's server holds under a key."""

    version: int | None
    """None for an item that a server numbered."""
    value: Value | None
    """None for a tombstone, which is how a server remembers a delete, and for a counter."""
    number: int | None = None
    """Number of a counter."""
    data: bytes = b""
    flags: int = 0
    expires: float | None = None
    """Latest time of expiry, in seconds since the history began. None if the item never expires."""
    elements: tuple[Value, ...] | None = None
    """Elements of a list."""
    absence: str = ""
    """Kind of an absence: `tombstone`, `absence` (found by a loader) or `stub` (of a lease). Empty for a value."""

    @property
    def is_absence(self) -> bool:
        """True if a reader sees a miss."""
        return self.value is None and self.number is None

    def __str__(self) -> str:
        if self.number is not None:
            what = f"{self.number} ({self.data!r}, flags {self.flags})"
        else:
            what = f"a {self.absence or 'tombstone'}" if self.value is None else spell(self.value)
        return f"{what} of version {self.version}"


Copies = Mapping[str, Held | None]
"""What each zone holds of one key; None for nothing."""

EndState = Mapping[str, Copies]
"""The copies of each key."""

Emptied = Mapping[tuple[str, str], float]
"""By zone and key: when the zone's server for that key was last started empty, in seconds since the history began."""


def are_equal(copies: Copies) -> bool:
    """Return True if all zones hold the same version, bytes and flags. A tombstone equals nothing."""
    held = (None if copy is None or copy.is_absence else copy for copy in copies.values())
    return len({None if copy is None else (copy.version, copy.value, copy.data, copy.flags) for copy in held}) == 1


def unequal_keys(state: EndState) -> list[str]:
    """The keys of which zones hold different versions."""
    return [key for key, copies in state.items() if not are_equal(copies)]


def check_convergence(state: EndState, limit: float) -> Iterator[Finding]:
    """Check that no key differs between zones `limit` seconds after the last fault."""
    for key, copies in state.items():
        if are_equal(copies):
            yield Kept(Promise.CONVERGENCE, family_of(key))
        else:
            yield Violation(Promise.CONVERGENCE, key, f"after {limit:.0f} s {tell(copies)}", family_of(key))


def check_end_state(
    calls: Sequence[Call], state: EndState, emptied: Emptied, short_lived: Collection[Value] = ()
) -> Iterator[Finding]:
    """Check that acknowledged writes, or newer ones, are there, unless every zone that acknowledged one was emptied.

    Values with a short ttl (`short_lived`) may have expired.
    """
    writes: defaultdict[str, list[Call]] = defaultdict(list)
    touched: set[str] = set()
    for call in calls:
        if call.is_write:
            writes[call.key].append(call)
        elif call.kind is Kind.TOUCH and (call.ttl or 0.0) < SHORT_SECONDS:
            touched.add(call.key)
    for key, copies in state.items():
        if any(held is not None and not held.is_absence and held.version is None for held in copies.values()):
            continue  # written without a version, so its age is not known
        if key in touched:
            continue  # any value may have expired
        bound = _newest_that_survives(writes[key], emptied)
        if bound is not None:
            yield from _check_key(key, copies, bound, writes[key], short_lived)


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


def _check_key(
    key: str, copies: Copies, bound: Call, writes: list[Call], short_lived: Collection[Value]
) -> Iterator[Finding]:
    assert bound.version is not None
    old = {zone: held for zone, held in copies.items() if held is not None and _version(held) < bound.version}
    story = f"{bound.client} wrote version {bound.version} ({_what(bound)}) at {bound.invoked:.3f} s, and {tell(copies)}"
    if bound.kind is Kind.DELETE:
        if any(not held.is_absence for held in old.values()):
            yield Violation(Promise.DELETED, key, story, family_of(key))
        else:
            yield Kept(Promise.DELETED, family_of(key))
        return
    if any(held is not None and _version(held) >= bound.version for held in copies.values()):
        yield Kept(Promise.NOTHING_LOST, family_of(key))
        return
    # A delete whose tombstone is forgotten leaves nothing. A delete without a reply may also have happened.
    if not old and any(may_be_newer(call, bound) for call in writes if call.kind is Kind.DELETE):
        return
    # So does a short-lived value, and what a write of unknown version may have been newer than.
    if any((call is bound or may_be_newer(call, bound)) and call.value in short_lived for call in writes):
        return
    yield Violation(Promise.NOTHING_LOST, key, story, family_of(key))


def _version(held: Held) -> int:
    return held.version or 0


def _what(call: Call) -> str:
    if call.number is not None:
        return str(call.number)
    return "a delete" if call.value is None else spell(call.value)


def tell(copies: Copies) -> str:
    """What each zone holds, for people."""
    return "; ".join(f"{zone} holds {'nothing' if held is None else held}" for zone, held in copies.items())
