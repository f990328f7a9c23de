"""What a run has shown, and how it is printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from integration.chaos.checker import Promise, Violation
from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome

# Keys for each promise of which a violation is told in full: what a zone holds it says again and again.
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
    """Reads that found nothing under a key that had been written, with acknowledgement, and that nobody deletes."""
    faults: Mapping[Fault, int]
    converged_after: float | None
    """Seconds from the end of the last fault until all zones held the same; None: they did not, within the limit."""

    @property
    def broken(self) -> Counter[Promise]:
        """How often each promise was broken."""
        return Counter(violation.promise for violation in self.violations)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"seed {self.seed}"
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
        if self.converged_after is None:
            yield "the zones did not converge"
        else:
            yield f"the zones were equal {self.converged_after:.1f} s after the last fault"
        yield ""
        broken = self.broken
        for promise in Promise:
            yield f"{broken[promise]:5}  violations of: {promise}"
            first_of_keys: dict[str, str] = {}
            for violation in self.violations:
                if violation.promise is promise:
                    first_of_keys.setdefault(violation.key, violation.story)
            for key, story in list(first_of_keys.items())[:TOLD]:
                yield f"         {key}: {story}"


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
