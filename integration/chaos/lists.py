"""Lists that are appended to: no acknowledged element is lost. Plain functions: no I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from integration.chaos.conditional import disagreed, is_on_its_way, tell_write
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.promises import Finding, Kept, Promise, Violation
from integration.chaos.troubles import Circumstances
from integration.chaos.values import spell


def check_lists(calls: Sequence[Call], circumstances: Circumstances, family: str) -> Iterator[Finding]:
    """Check that every value of a list holds each acknowledged element that belongs to it, once.

    `family` is `list` (appended to) or `front` (prepended to).
    """
    of_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.key.startswith(f"{family}-"):
            of_key[call.key].append(call)
    for key, together in of_key.items():
        writes = {call.value: call for call in together if call.is_write and call.value is not None}
        contents = {call.elements for call in together if call.elements}
        lost: dict[Call, Violation] = {}
        for content in contents:
            ordered = content if family == "list" else content[::-1]
            if len(set(ordered)) < len(ordered):
                yield Violation(Promise.APPENDED, key, f"an element is twice in {_spell_all(ordered)}", "order")
                continue
            foreign = [value for value in ordered if value not in writes or writes[value].key != key]
            if foreign:
                yield Violation(Promise.WHOLE, key, f"{_spell_all(ordered)} holds elements of no write to it", "list")
                continue
            yield Kept(Promise.APPENDED, "value without repetition")
            for violation, call in _lost_from([writes[value] for value in ordered], writes.values(), circumstances):
                if violation is None:
                    yield Kept(Promise.APPENDED, "acknowledged element in a value")
                else:
                    lost.setdefault(call, violation)
        yield from lost.values()


def _lost_from(
    content: Sequence[Call], writes: Iterable[Call], circumstances: Circumstances
) -> Iterator[tuple[Violation | None, Call]]:
    """Return each acknowledged write that belongs to a value, with the violation if its element is missing, or None.

    A set that is newer than the first element, and older than the last, ought to be the first element itself.
    """
    first, last = content[0], content[-1]
    if first.version is None or last.version is None:
        return
    there = set(content)
    for added in writes:
        if (
            added.kind not in (Kind.APPEND, Kind.PREPEND, Kind.SET)
            or not added.is_acknowledged
            or added.version is None
            or not first.version < added.version <= last.version
        ):
            continue
        if added in there:
            if added is not first:
                yield None, added
            continue
        # The first element that was added without it: its client decided on a value without an acknowledged element.
        builder = next((call for call in content if call.version is not None and call.version > added.version), None)
        if builder is None or builder.outcome is not Outcome.OK:
            continue  # the time of its decision is not known
        if disagreed(added, builder, circumstances) or is_on_its_way(added, builder, circumstances):
            continue
        if not circumstances.known_to(added, builder):
            continue
        if builder.invoked <= added.completed and (
            # A set is not decided anywhere, so it may reach a zone after what was decided there at the same time.
            added.kind is Kind.SET or not circumstances.known_to(builder, added)
        ):
            continue
        story = f"{tell_write(added)} is missing from {_spell_all([call.value for call in content])}: {tell_write(builder)} decided without it"
        yield Violation(Promise.APPENDED, added.key, story, "acknowledged element in a value"), added


def _spell_all(values: Iterable[int | None]) -> str:
    return "[" + ", ".join("?" if value is None else spell(value) for value in values) + "]"
