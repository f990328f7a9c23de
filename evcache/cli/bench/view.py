"""Output of a measurement: its plan, its progress, and its results as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from evcache.admin.bench.record import Record
from evcache.admin.bench.report import QUANTILES, BenchReport, LatencyReport, NodeReport, PlanReport
from evcache.cli.output import format_milliseconds

PHASES = {"ping": "pinging the nodes", "fill": "storing the keys", "load": "measuring", "delete": "deleting the keys"}

_NAME_WIDTH = 12
_NUMBER_WIDTH = 9
_KILO, _MEGA = 1e3, 1e6


class Screen(Protocol):
    """Context manager that shows the progress of a measurement."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def refresh(self, phase: str) -> None:
        """Show the present state. `phase` is a key of `PHASES`."""


class PlainScreen:
    """Progress without control characters: one line for each phase, and for each second of the load."""

    def __init__(self, record: Record, write: Callable[[str], None], timer: Callable[[], float]) -> None:
        """Make a screen that prints lines with `write`. `timer` is the clock of the record."""
        self._record, self._write, self._timer = record, write, timer
        self._phase = ""
        self._seconds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def refresh(self, phase: str) -> None:
        """Print what has changed since the last refresh."""
        if phase != self._phase:
            self._phase = phase
            self._write(PHASES[phase])
        began = self._record.began
        if phase == "load" and began is not None and (seconds := int(self._timer() - began)) > self._seconds:
            self._seconds = seconds
            self._write(f"{seconds:>4} s  {state(self._record)}")


class LiveScreen:
    """Progress bar of a terminal."""

    def __init__(self, record: Record, console: Console) -> None:
        self._record = record
        # Drawn in `refresh` only, because the thread of rich would read counters while they change.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def refresh(self, phase: str) -> None:
        """Draw the bar again."""
        record, plan = self._record, self._record.plan
        done, total = (record.lateness.count, plan.operations) if phase == "load" else (record.filled, plan.keys)
        self._progress.update(
            self._task,
            description=PHASES[phase],
            completed=done,
            total=None if phase in ("ping", "delete") else total,
            state=state(record) if phase == "load" else "",
        )
        self._progress.refresh()


def state(record: Record) -> str:
    """Return the present results in one line."""
    p99 = record.all_reads.quantile(QUANTILES["p99"])
    read = "-" if p99 is None else format_milliseconds(p99)
    return (
        f"{record.lateness.count} operations, {record.errors.total()} errors, "
        f"{record.reads['miss'].count if 'miss' in record.reads else 0} misses, p99 of reads {read}"
    )


def plan_lines(plan: PlanReport) -> list[str]:
    """Return the lines that say what a measurement will do."""
    zones = plan.estimate.zones
    local = next((zone.name for zone in zones if zone.is_local), None)
    level = "the default levels" if plan.consistency is None else f"level {plan.consistency}"
    near = ", with a near cache" if plan.near_cache else ""
    reads = "" if local is not None else "; without a local zone, one zone serves the reads"
    rows = [
        ("zones", ", ".join(f"{zone.name} ({_mode(zone.mode, is_local=zone.is_local)})" for zone in zones)),
        ("keys", f"{plan.keys} of {plan.size} bytes in namespace {plan.namespace}, stored before and deleted after"),
        ("", f"about {_bytes(plan.estimate.memory)} in each zone; what is not deleted expires within {plan.ttl} s"),
        ("operations", f"{plan.operations} in {plan.seconds:g} s, {plan.rate:g} per second by {plan.callers} callers"),
        ("", f"{100 * plan.write_share:g} % writes, {level}{near}"),
        ("traffic", f"about {', '.join(f'{zone.name} {_bytes(zone.total)}' for zone in zones)}{reads}"),
        ("cross-zone", f"about {_bytes(plan.cross_zone)}, keys and deletes included"),
        ("stops", f"if over {100 * plan.max_errors:g} % of the operations of a second fail"),
    ]
    if plan.max_p99 is not None:
        limit = f"{1000 * plan.max_p99:g} ms"
        rows.append(("", f"if the p99 of a second exceeds {limit}, or a node needs longer for a ping, or does not answer"))
    return _table(rows)


def report_lines(found: BenchReport) -> list[str]:
    """Return the lines of the results."""
    verdict = "done" if found.stopped is None else f"stopped: {found.stopped}"
    lines = [
        "",
        verdict,
        *_table(
            [
                ("operations", f"{found.completed} of {found.plan.operations} in {found.seconds:.1f} s"),
                ("throughput", f"{found.throughput:.0f} successful operations per second"),
                *([("", f"{found.not_sent} were due and not sent: the callers were busy")] if found.not_sent else []),
                *([("", f"{found.abandoned} were under way at the stop")] if found.abandoned else []),
            ]
        ),
        "",
        f"{'latency':<{_NAME_WIDTH}}{'number':>{_NUMBER_WIDTH}}{''.join(f'{name:>{_NUMBER_WIDTH}}' for name in QUANTILES)}",
        _latency("get", found.reads),
        *(_latency(f"  {name}", row) + _to_ping(found, name) for name, row in found.reads_by_zone.items()),
        _latency("set", found.writes),
        _latency("sent late", found.lateness),
        "",
        *_node_lines(found.nodes),
        "",
    ]
    rows = [
        ("sources", _counts(found.sources)),
        ("errors", _counts(found.errors)),
        *(("", text) for text in found.examples),
        ("missed", _counts_by_zone(found.missed_writes, "writes not acknowledged")),
        ("fallbacks", _counts_by_zone(found.fallbacks, "reads left the zone")),
        ("client", _counts({name.replace("_", " "): count for name, count in found.counts.items() if count})),
        *(
            (
                "" if index else "traffic",
                f"{zone}{' (local)' * traffic.is_local}: {_bytes(traffic.sent)} sent, {_bytes(traffic.received)} received",
            )
            for index, (zone, traffic) in enumerate(found.traffic.items())
        ),
        (
            "cross-zone",
            f"{_bytes(found.cross_zone)} during the load, {_bytes(found.cross_zone_whole)} with keys and deletes",
        ),
    ]
    lines += _table(rows)
    if found.keys_left:
        lines.append(f"{found.keys_left} keys were not deleted in all zones: they expire within {found.plan.ttl} s")
    return lines


def _node_lines(nodes: list[NodeReport]) -> list[str]:
    """Return a table of the pings, the floor of what an operation on a node can take."""
    empty = " " * _NUMBER_WIDTH
    columns = "".join(f"{name:>{_NUMBER_WIDTH}}" for name in ("p50", "p99") * 2)
    lines = [
        f"{'ping (mn)':<{_NAME_WIDTH}}{'before':>{_NUMBER_WIDTH}}{empty}{'during':>{_NUMBER_WIDTH}}",
        f"{'':<{_NAME_WIDTH}}{columns}",
    ]
    for node in nodes:
        cells = [_cell(times.quantiles[name]) for times in (node.before, node.during) for name in ("p50", "p99")]
        failed = f"  failed: {node.error}" if node.error is not None else ""
        lines.append(f"  {node.zone:<{_NAME_WIDTH - 2}}{''.join(cells)}  {node.node}{failed}")
    return lines


def _latency(name: str, row: LatencyReport) -> str:
    return f"{name:<{_NAME_WIDTH}}{row.count:>{_NUMBER_WIDTH}}{''.join(map(_cell, row.quantiles.values()))}"


def _to_ping(found: BenchReport, zone: str) -> str:
    ratio = found.reads_to_ping.get(zone)
    return "" if ratio is None else f"  p50 is {ratio:.1f} times the ping"


def _cell(seconds: float | None) -> str:
    return f"{'-' if seconds is None else format_milliseconds(seconds):>{_NUMBER_WIDTH}}"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{name:<{_NAME_WIDTH}}{text}" for name, text in rows]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _counts_by_zone(counts: Mapping[str, Mapping[str, int]], what: str) -> str:
    text = "; ".join(f"{zone}: {_counts(reasons)}" for zone, reasons in counts.items())
    return f"{what}: {text}" if text else "none"


def _mode(mode: str, *, is_local: bool) -> str:
    return f"{mode}, local" if is_local else mode


def _bytes(number: float) -> str:
    if number >= _MEGA:
        return f"{number / _MEGA:.1f} MB"
    return f"{number / _KILO:.1f} kB" if number >= _KILO else f"{number:.0f} bytes"
