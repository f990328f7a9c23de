"""What a run has shown, and how it is printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.promises import Promise, Violation
from integration.chaos.troubles import Span, Trouble
from integration.chaos.values import spell

# Keys for each promise whose violations are printed in full. A zone repeats a wrong value at each look.
TOLD = 5


@dataclass(frozen=True)
class Report:
    """The outcome of a run. All but the violations is information."""

    seed: int
    violations: Sequence[Violation]
    calls: Mapping[tuple[Kind, Outcome], int]
    """How many calls there were, one for each key of a call for many, without looks at servers."""
    misses: int
    misses_of_kept: int
    """Reads without a value of a key that has an acknowledged write and is never deleted."""
    faults: Mapping[Fault, int]
    converged_after: float | None
    """Seconds from the end of the last fault until all zones held the same; None: they did not, within the limit."""
    checked: Mapping[tuple[Promise, str], int] = field(default_factory=dict)
    """Number of facts checked for each promise, by their kind."""
    equal_since: Mapping[str, float] = field(default_factory=dict)
    """Seconds from the last fault until all zones held the same, by key that differed."""
    disagreements: Mapping[tuple[str, int], Sequence[Span]] = field(default_factory=dict)
    """Intervals in which clients may have disagreed about a node, by zone and node."""
    troubles: Sequence[Trouble] = ()
    header: Sequence[str] = ()
    """Lines that describe the servers and the clients."""
    history: Sequence[Call] = ()
    """Every call, in the order of entry."""

    @property
    def broken(self) -> Counter[Promise]:
        """How often each promise was broken."""
        return Counter(violation.promise for violation in self.violations)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"seed {self.seed}"
        yield from self.header
        yield ""
        yield f"{'calls':10}" + "".join(f"{outcome:>10}" for outcome in Outcome)
        for kind in Kind:
            counts = [self.calls.get((kind, outcome), 0) for outcome in Outcome]
            if any(counts):
                yield f"{kind:10}" + "".join(f"{count:10}" for count in counts)
        yield f"misses: {self.misses}, {self.misses_of_kept} of them of written keys that nobody deletes"
        yield ""
        yield f"{sum(self.faults.values())} faults"
        for fault, count in sorted(self.faults.items()):
            yield f"{count:5}  {fault}"
        yield ""
        yield from self._tell_disagreements()
        yield ""
        if self.converged_after is None:
            yield "the zones did not converge"
        else:
            yield f"the zones were equal {self.converged_after:.1f} s after the last fault"
        last = sorted(self.equal_since.items(), key=lambda pair: pair[1], reverse=True)[:TOLD]
        if last:
            yield "the last keys: " + ", ".join(f"{key} {seconds:.1f} s" for key, seconds in last)
        yield ""
        broken = self.broken
        for promise in Promise:
            kinds = {what: count for (each, what), count in self.checked.items() if each is promise}
            yield f"{broken[promise]:5} of {sum(kinds.values()):7}  violations of: {promise}"
            if kinds:
                yield " " * 17 + ", ".join(f"{what or 'facts'}: {count}" for what, count in sorted(kinds.items()))
            first_of_keys: dict[str, str] = {}
            for violation in self.violations:
                if violation.promise is promise:
                    first_of_keys.setdefault(violation.key, violation.story)
            for key, story in list(first_of_keys.items())[:TOLD]:
                yield f"         {key}: {story}"

    def _tell_disagreements(self) -> Iterator[str]:
        """List when clients could disagree about a node, and after which faults. No single zone decided then."""
        spans = [(span, zone, node) for (zone, node), of_node in self.disagreements.items() for span in of_node]
        yield f"{len(spans)} intervals in which clients could disagree about a node, {_seconds(spans):.0f} s of nodes in all"
        causes: Counter[Fault] = Counter()
        for trouble in self.troubles:
            nodes = [node for zone, node in self.disagreements if zone == trouble.zone and trouble.node in (None, node)]
            causes[trouble.fault] += any(
                span.begin <= trouble.end and span.end >= trouble.begin
                for node in nodes
                for span in self.disagreements[trouble.zone, node]
            )
        for fault, count in sorted(causes.items()):
            if count:
                yield f"{count:5}  during or after: {fault}"


def _seconds(spans: Sequence[tuple[Span, str, int]]) -> float:
    return sum(span.end - span.begin for span, _, _ in spans if span.end < float("inf"))


def tell_call(call: Call) -> str:
    """Return a call as one line of text, for a file that can be searched by key."""
    value = "" if call.value is None else spell(call.value)
    details = {
        "number": call.number,
        "odd": call.odd,
        "ttl": call.ttl,
        "base": call.base,
        "refusal": call.refusal,
        "acknowledged": "+".join(call.acknowledged),
        "elements": None if call.elements is None else len(call.elements),
        "last seen": call.last_seen,
        "expires": call.expires,
    }
    told = ", ".join(f"{name} {value}" for name, value in details.items() if value not in (None, ""))
    times = f"{call.invoked:9.3f} {call.completed:9.3f}"
    return f"{call.key:10} {times}  {call.client:20} {call.operation:20} {call.outcome:8} {call.version} {value}  {told}"


def count_calls(calls: Sequence[Call]) -> Counter[tuple[Kind, Outcome]]:
    """How many calls of clients there were, by what was asked for and what came of it."""
    return Counter((call.kind, call.outcome) for call in calls if call.kind is not Kind.LOOK)


def count_misses(calls: Sequence[Call], kept: frozenset[str]) -> tuple[int, int]:
    """How many reads found nothing, and how many of those should have: their key is kept, and a write of it was over."""
    misses = [call for call in calls if call.kind is Kind.READ and call.outcome is Outcome.OK and call.value is None]
    written: dict[str, float] = {}
    for call in calls:
        if call.is_acknowledged and call.completed < written.get(call.key, call.completed + 1):
            written[call.key] = call.completed
    return len(misses), sum(call.key in kept and call.key in written and written[call.key] < call.invoked for call in misses)
