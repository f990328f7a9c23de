"""Touches of absent keys: they return false and change nothing. Plain functions: no I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from integration.chaos.history import Call, Kind, Outcome, may_be_newer
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances, Span

TOMBSTONE_TTL_SECONDS = 60.0
ABSENCE_TTL_SECONDS = 3.0
"""Lifetime of a remembered absence (`negative_ttl` of the workload)."""

SLACK_SECONDS = 1.5
"""Servers count in whole seconds, and looks take time."""
SHORTENED_SECONDS = 8.0
"""Time by which copies of copies of a tombstone may expire early: a second each."""


def check_touches(calls: Sequence[Call], circumstances: Circumstances) -> Iterator[Finding]:
    """Check that each successful touch found a value: no zone that acknowledged it had a delete as its last write."""
    of_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.is_write or call.kind is Kind.TOUCH:
            of_key[call.key].append(call)
    for key, together in of_key.items():
        touches = [call for call in together if call.kind is Kind.TOUCH and call.outcome is Outcome.OK]
        deletes = [call for call in together if call.kind is Kind.DELETE and call.is_acknowledged]
        writes = [call for call in together if call.is_write and call.kind is not Kind.DELETE]
        wrong: set[Call] = set()
        for touch in touches:
            delete = _absent_since(touch, deletes, writes, circumstances)
            if not touch.acknowledged or (delete is None and writes):
                continue
            if writes and delete is not None:
                why = f"{delete.client} had deleted it at {delete.completed:.3f} s"
            else:
                why = "it never had a value"
            wrong.add(touch)
            yield Violation(
                Promise.TOUCH, key, f"{touch.client}'s touch at {touch.invoked:.3f} s returned true, though {why}", "true"
            )
        for call in together:
            if call.kind is Kind.TOUCH and call.outcome in (Outcome.OK, Outcome.FAILED) and call not in wrong:
                yield Kept(Promise.TOUCH, "true" if call.outcome is Outcome.OK else "false")


def _absent_since(touch: Call, deletes: Iterable[Call], writes: Sequence[Call], circumstances: Circumstances) -> Call | None:
    """Return a delete after which the key was surely absent in a zone that acknowledged the touch."""
    for delete in deletes:
        if delete.completed >= touch.invoked or touch.invoked > delete.completed + TOMBSTONE_TTL_SECONDS / 2:
            continue
        common = [
            zone
            for zone in delete.acknowledged
            if zone in touch.acknowledged and not circumstances.lost(zone, touch.key, Span(delete.invoked, touch.completed))
        ]
        if common and not any(write.invoked < touch.completed and may_be_newer(write, delete) for write in writes):
            return delete
    return None


def check_absences(
    looks: Iterable[Call], deletes: Iterable[Call], tombstone_ttl: float = TOMBSTONE_TTL_SECONDS
) -> Iterator[Finding]:
    """Check that absences on servers expire when they should, touched or not."""
    by_version = {delete.version: delete for delete in deletes if delete.kind is Kind.DELETE and delete.version is not None}
    for look in looks:
        if look.kind is not Kind.LOOK or not look.absence or look.expires is None:
            continue
        left = look.expires - look.completed
        delete = by_version.get(look.version) if look.version is not None else None
        most = ABSENCE_TTL_SECONDS if look.what == "absence" else tombstone_ttl
        story = f"{look.client} holds a {look.what or 'tombstone'} at {look.completed:.3f} s that expires in {left:.1f} s"
        if left > most + SLACK_SECONDS:
            yield Violation(Promise.TOUCH, look.key, f"{story}, and ought to within {most:.0f} s", "prolonged")
        elif delete is not None and look.expires < delete.invoked + most - SHORTENED_SECONDS:
            story += f"; it was made at {delete.invoked:.3f} s to live {most:.0f} s"
            yield Violation(Promise.TOUCH, look.key, story, "shortened")
        else:
            yield Kept(Promise.TOUCH, look.what or "tombstone")
