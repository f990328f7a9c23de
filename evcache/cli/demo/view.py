"""Output of a demo: a table in a terminal, plain lines elsewhere, and a summary for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from evcache.cli.demo.stats import Phase, Record, Second, Tally, find_problems, format_states
from evcache.cli.output import format_milliseconds

# Lines of the terminal that show no second: title, borders, heading, footer and the next prompt.
TABLE_FRAME_LINES = 12
LEAST_ROWS = 3

_STATE_STYLES = {"up": "green", "down": "bold red", "paused": "bold yellow"}


class Screen(Protocol):
    """Context manager that shows a growing record. It restores the terminal at its end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, line: str) -> None:
        """Show a line of text above the changing part."""

    def refresh(self, record: Record, *, ended: bool = False) -> None:
        """Show the present results. `ended` is True if the last second is complete."""


class PlainScreen:
    """Output without control characters, one line for each second, for logs, pipes and dumb terminals."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Make a screen that prints lines with `write`."""
        self._write = write
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, line: str) -> None:
        """Print the line."""
        self._write(line)

    def refresh(self, record: Record, *, ended: bool = False) -> None:
        """Print the seconds that have ended since the last refresh."""
        seconds = record.seconds
        for index in range(self._shown, len(seconds) if ended else len(seconds) - 1):
            self._write(plain_line(index, seconds[index], record))
            self._shown = index + 1


class LiveScreen:
    """Table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Drawn in `refresh` only, because the thread of rich would read counters while they change.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._console.print(line, highlight=False, markup=False)

    def refresh(self, record: Record, *, ended: bool = False) -> None:
        """Draw the table again, with the last seconds that fit."""
        del ended
        rows = max(LEAST_ROWS, self._console.height - TABLE_FRAME_LINES)
        self._live.update(table_of(record, rows), refresh=True)


def plain_line(index: int, second: Second, record: Record) -> str:
    """Return one line for a second. `index` starts at 0."""
    tally = second.tally
    served = "  ".join(f"{zone} {tally.served[zone]:>5}" for zone in record.zones)
    line = (
        f"{index + 1:>3} s  read from {served}  missed {tally.missed}  failed {tally.failed}  wrong {tally.wrong}"
        f"  older {tally.older}  |  writes acknowledged {tally.acknowledged:>4}  refused {tally.refused}"
        f"  |  {format_states(second.states)}"
    )
    return line + "".join(f"  <- {event}" for event in second.events)


def table_of(record: Record, rows: int) -> Table:
    """Return a table of the last `rows` seconds, with the totals."""
    seconds = record.seconds
    first = max(0, len(seconds) - rows)
    table = Table(
        title=_states_text(seconds[-1].states),
        caption=_events(seconds) or "reads by the zone that served them; *: the local one",
        box=None,
        padding=(0, 1, 0, 0),  # 80 columns are enough
        show_footer=True,
    )
    table.add_column("s", justify="right", style="dim", footer="all")
    for zone in record.zones:
        name = f"{zone}*" if zone == record.local_zone else zone
        table.add_column(name, justify="right", footer=str(record.total.served[zone]))
    for name, total in _counts(record.total):
        table.add_column(name, justify="right", footer=str(total), no_wrap=True)
    table.add_column("zones", no_wrap=True)
    for index, second in enumerate(seconds[first:], first + 1):
        table.add_row(
            str(index),
            *(_count(second.tally.served[zone]) for zone in record.zones),
            *(_count(count, bad=name in ("failed", "wrong")) for name, count in _counts(second.tally)),
            _short_states(second.states),
        )
    return table


def summary(record: Record) -> list[str]:
    """Return lines with totals, latencies, recovery and verdict."""
    total = record.total
    served = [f"{total.served[zone]} by {zone}{' (local)' * (zone == record.local_zone)}" for zone in record.zones]
    found = find_problems(total)
    lines = [
        ("reads", f"{total.reads}: {', '.join(served)}"),
        (
            "",
            f"{total.missed} missed ({total.lost} of them acknowledged keys), {total.failed} failed, {total.wrong} wrong",
        ),
        ("", f"{total.older} returned an older value than the latest acknowledged"),
        ("writes", f"{total.acknowledged + total.refused}: {total.acknowledged} acknowledged, {total.refused} refused"),
        *(("" if index else "latency", _quantiles(phase, record)) for index, phase in enumerate(Phase)),
        ("recovery", _recovery_text(record)),
        *(("error", error) for error in record.errors),
        ("verdict", f"FAILED: {'; '.join(found)}" if found else "no read failed, and no value was wrong"),
    ]
    return ["", *(f"{name:<9}{text}" for name, text in lines)]


def _recovery_text(record: Record) -> str:
    if record.phase is not Phase.AFTER:
        return f"{record.local_zone} was not restarted"
    recovery = record.recovery
    if recovery.first is None:
        return f"no read came from {record.local_zone} after its restart"
    most = "most reads not yet" if recovery.complete is None else f"most reads after {recovery.complete:.2f} s"
    return f"first read from {record.local_zone} {recovery.first:.2f} s after its restart, {most}"


def _quantiles(phase: Phase, record: Record) -> str:
    latencies = record.latencies[phase]
    median, high = latencies.quantile(0.5), latencies.quantile(0.99)
    if median is None or high is None:
        return f"{phase:<6} the outage: no reads"
    return f"{phase:<6} the outage: p50 {format_milliseconds(median)}, p99 {format_milliseconds(high)}"


def _counts(tally: Tally) -> list[tuple[str, int]]:
    return [
        ("missed", tally.missed),
        ("failed", tally.failed),
        ("wrong", tally.wrong),
        ("older", tally.older),
        ("written", tally.acknowledged),
        ("refused", tally.refused),
    ]


def _count(count: int, *, bad: bool = False) -> Text:
    return Text(str(count), style="bold red" if bad and count else "" if count else "dim")


def _events(seconds: Sequence[Second]) -> str:
    return "; ".join(f"second {index}: {event}" for index, second in enumerate(seconds, 1) for event in second.events)


def _states_text(states: Mapping[str, str]) -> Text:
    return Text.assemble(*((f" {zone} {state} ", _STATE_STYLES.get(state, "")) for zone, state in states.items()))


def _short_states(states: Mapping[str, str]) -> Text:
    return Text.assemble(*((f"{state} ", _STATE_STYLES.get(state, "")) for state in states.values()))
