"""The command itself: its options, its client and its exit status."""

from __future__ import annotations

import secrets
import time
from typing import Any

import click
from rich.console import Console

from evcache.admin.bench.estimate import Estimate, estimate, reasons_to_confirm
from evcache.admin.bench.plan import Plan
from evcache.admin.bench.record import Record
from evcache.admin.bench.report import bench_report, plan_report
from evcache.admin.bench.run import Bench
from evcache.cli.bench.view import LiveScreen, PlainScreen, Screen, plan_lines, report_lines
from evcache.cli.numbers import FiniteRange
from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import is_live, to_json
from evcache.cli.runner import BadUse, Status, Stopped, run, run_command
from evcache.cli.target import Target, targeted
from evcache.client import EVCache
from evcache.config import READ_TIMEOUT_SECONDS, WRITE_TIMEOUT_SECONDS
from evcache.consistency import Consistency
from evcache.near_cache.settings import NearCache

NAMESPACE = "evcache-bench"

MAX_SECONDS = 3600
MAX_RATE = 1_000_000
MAX_CALLERS = 10_000
MAX_KEYS = 10_000_000
MAX_SIZE = 1_000_000  # below the item limit of a server with its defaults
LARGEST_P99_MILLISECONDS = 60_000

_DEFAULTS = Plan(run="")

_LEVELS = "Number of zones that must answer a read and acknowledge a write. By default one, and all but one."


def _with_target(command: Any) -> Any:
    return targeted(command, levels=_LEVELS, has_keys=False, has_timeout=False)


@click.command()
@click.option(
    "--seconds",
    type=FiniteRange(0, MAX_SECONDS, min_open=True),
    default=_DEFAULTS.seconds,
    show_default=True,
    help="Duration of the load. Storing and deleting the keys takes time before and after it.",
)
@click.option(
    "--rate",
    type=FiniteRange(0, MAX_RATE, min_open=True),
    default=_DEFAULTS.rate,
    show_default=True,
    help="Operations per second.",
)
@click.option(
    "--callers",
    type=click.IntRange(1, MAX_CALLERS),
    default=_DEFAULTS.callers,
    show_default=True,
    help="Number of concurrent operations at most.",
)
@click.option(
    "--size", type=click.IntRange(1, MAX_SIZE), default=_DEFAULTS.size, show_default=True, help="Bytes of each value."
)
@click.option("--keys", type=click.IntRange(1, MAX_KEYS), default=_DEFAULTS.keys, show_default=True, help="Number of keys.")
@click.option(
    "--write-share",
    type=FiniteRange(0, 1),
    default=_DEFAULTS.write_share,
    show_default=True,
    help="Share of the operations that are writes.",
)
@click.option(
    "--namespace",
    default=NAMESPACE,
    show_default=True,
    help="Namespace of the keys. Each key has a random part, so no key of a user is touched.",
)
@click.option("--near-cache", is_flag=True, help="Use a near cache in this process.")
@click.option(
    "--max-errors",
    type=FiniteRange(0, 1),
    default=_DEFAULTS.max_errors,
    show_default=True,
    help="Share of the operations of a second that may fail. More stop the measurement.",
)
@click.option(
    "--max-p99",
    type=FiniteRange(0, LARGEST_P99_MILLISECONDS),
    default=250.0,
    show_default=True,
    metavar="MILLISECONDS",
    help="Limit of the p99 of a second, and of the ping of each node. A higher one, or a node that stops to answer, stops "
    "the measurement. 0 disables the limit.",
)
@click.option(
    "--timeout",
    "operation_timeout",
    type=FiniteRange(0, min_open=True),
    help=f"Seconds for each operation. By default those of a client: {READ_TIMEOUT_SECONDS} for a read, "
    f"{WRITE_TIMEOUT_SECONDS} for a write.",
)
@click.option("--dry-run", is_flag=True, help="Print what the command would do, and send nothing to the nodes.")
@click.option("--force", is_flag=True, help="Allow a load that may hurt other users of the zones.")
@click.option("--plain", is_flag=True, help="Show the progress as lines, without control characters.")
@_with_target
def bench(
    target: Target,
    seconds: float,
    rate: float,
    callers: int,
    size: int,
    keys: int,
    write_share: float,
    max_errors: float,
    max_p99: float,
    operation_timeout: float | None,
    *,
    near_cache: bool,
    dry_run: bool,
    force: bool,
    plain: bool,
) -> None:
    """Measure latency and throughput of the zones with a small load.

    The command stores keys of its own, reads and writes them at a fixed rate, and deletes them. Latencies count from the
    time at which an operation was due. It stops at once if too many operations fail, or if a node becomes slow.

    \b
    Examples:
        evcache bench
        evcache bench --dry-run
        evcache bench --seconds 30 --rate 2000 --size 1000
        evcache bench --write-share 0.5 --consistency quorum --json

    Exit status 0: the measurement is complete; 1: a limit or errors stopped it; 3: no zone answered.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    level = None if target.consistency is None else Consistency.parse(target.consistency)
    plan = Plan(
        run=secrets.token_hex(4),
        seconds=seconds,
        rate=rate,
        callers=callers,
        size=size,
        keys=keys,
        write_share=write_share,
        consistency=level,
        max_errors=max_errors,
        max_p99=max_p99 / 1000 or None,
    )
    costs = run_command(_estimate(plan, target))
    described = plan_report(plan, target.namespace, costs, near_cache=near_cache)
    if not target.as_json:
        click.echo("\n".join(plan_lines(described)))
    if dry_run:
        if target.as_json:
            click.echo(to_json(described))
        return
    reasons = reasons_to_confirm(plan, costs)
    if reasons and not force:
        raise BadUse(f"--force is required: {'; '.join(reasons)}")
    record = Record(plan)
    console = Console(stderr=True)
    screen: Screen = (
        LiveScreen(record, console)
        if is_live(console, plain=plain)
        else PlainScreen(record, lambda line: click.echo(line, err=True), time.monotonic)
    )
    stopped: Stopped | None = None
    with screen:
        try:
            run(_measure(plan, record, target, screen, operation_timeout, near_cache=near_cache))
        except Stopped as error:
            stopped = error
            record.stop("by a signal")
    found = bench_report(described, record)
    click.echo(to_json(found) if target.as_json else "\n".join(report_lines(found)))
    if stopped is not None:
        raise SystemExit(stopped.status)
    raise SystemExit(Status.DONE if record.stopped is None else Status.NO)


async def _estimate(plan: Plan, target: Target) -> Estimate:
    async with open_cluster(target) as zones:
        return estimate(plan, target.namespace, zones)


async def _measure(
    plan: Plan, record: Record, target: Target, screen: Screen, timeout: float | None, *, near_cache: bool
) -> None:
    cache = EVCache(
        target.namespace,
        target.zones,
        local_zone=target.own_zone,
        nodes=target.node_settings(),
        read_timeout=READ_TIMEOUT_SECONDS if timeout is None else timeout,
        write_timeout=WRITE_TIMEOUT_SECONDS if timeout is None else timeout,
        ttl=plan.ttl,
        near_cache=NearCache() if near_cache else None,
        hints=None,  # a zone that returns does not get the writes of a measurement
        hooks=record,
        telemetry=None,
    )
    settings = target.node_settings(connect_timeout=target.timeout)
    await Bench(plan, record, cache, settings, screen.refresh).run()
