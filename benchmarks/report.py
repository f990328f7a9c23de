"""What was measured, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.figures import Results, figures, verdict
from benchmarks.measuring import ARRIVAL, CLASSIC, OURS, Result, ratio
from benchmarks.works import Work

COMPARED = {OURS: "evcache/", ARRIVAL: "arrival/", CLASSIC: "classic/"}
"""Each has a column: how many times the rate of the row's contender its own is."""

NAME_WIDTH = 48


def table_of(work: Work, results: Results) -> str:
    """The medians of one kind of work, and ratios."""
    compared = [name for name in COMPARED if name in results]
    heads = ("a second", "CPU us", "p50 us", "p99 us", "p99.9 us", *(COMPARED[name] for name in compared))
    lines = [work.title, "  " + " " * NAME_WIDTH + "".join(f"{head:>11}" for head in heads)]
    for name, result in results.items():
        cells = [f"{result.median('per_second'):11,.0f}"]
        cells += [f"{result.median(of):11,.1f}" for of in ("cpu_microseconds", "p50", "p99", "p999")]
        cells += [
            f"{ratio(results[one].per_second, result.per_second):11.2f}" if one != name else f"{'':11}" for one in compared
        ]
        label = f"{name} ({result.variant})" if result.variant else name
        lines.append(f"  {label:{NAME_WIDTH}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def verdicts(rows: Mapping[str, Results]) -> list[dict[str, object]]:
    """Every figure that is to be reached, and what it came to."""
    return [verdict(figure, rows) for figure in figures()]


def text_of(verdicts: list[dict[str, object]]) -> str:
    """A line for each; of what was not measured, how many there are."""
    lines = ["Figures to be reached; in brackets the same ratio of processor time, which a busy machine disturbs less"]
    lines += [
        f"  {one['verdict']:8} {one['came_to']:6.2f} of {one['at_least']:<5g} ({one['cpu_ratio']:5.2f})  {one['figure']}"
        for one in verdicts
        if one["came_to"] is not None
    ]
    missing = sum(one["came_to"] is None for one in verdicts)
    if missing:
        lines.append(f"  not measured: {missing}")
    return "\n".join(lines)


def skips_of(skipped: Iterable[Mapping[str, str]]) -> str:
    """Who did not take part in what, and why, each reason once."""
    counts = Counter(f"{name}: {why}" for one in skipped for name, why in one.items())
    return "\n".join(["Did not take part", *(f"  {line} ({count} kinds of work)" for line, count in counts.items())])


def json_of(work: Work, results: Results, skipped: Mapping[str, str]) -> dict[str, Any]:
    """One kind of work, all rounds of it."""
    return {
        "title": work.title,
        "operation": work.operation,
        "size": work.size,
        "callers": work.callers,
        "loop": work.loop,
        "contenders": {name: _one(result, results) for name, result in results.items()},
        "skipped": dict(skipped),
    }


def _one(result: Result, results: Results) -> dict[str, Any]:
    measures = ("per_second", "cpu_microseconds", "p50", "p99", "p999")
    return {
        "variant": result.variant,
        **{of: result.median(of) for of in measures},
        "ratios": {name: ratio(results[name].per_second, result.per_second) for name in COMPARED if name in results},
        "rounds": {of: getattr(result, of) for of in measures},
    }
