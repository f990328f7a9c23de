"""The command itself: its options, its screen and its exit status."""

from __future__ import annotations

import click
from rich.console import Console

from evcache.cli.backend import backend_option
from evcache.cli.demo import scenario as show
from evcache.cli.demo.stats import Record, find_problems
from evcache.cli.demo.view import LiveScreen, PlainScreen, Screen, summary
from evcache.cli.numbers import FiniteRange
from evcache.cli.output import is_live
from evcache.cli.runner import Status, Stopped, run
from evcache.testing.local_zones import BackendName


@click.command(short_help="Show the outage of a zone, on zones that the command starts.")
@backend_option
@click.option(
    "--seconds",
    type=FiniteRange(min=0, min_open=True),
    default=show.DEFAULT_SECONDS,
    show_default=True,
    help="Duration in seconds: a third each before, during and after the outage. It is extended by up to 8 s until the "
    "local zone serves reads again.",
)
@click.option(
    "--callers",
    type=click.IntRange(min=1),
    default=show.DEFAULT_CALLERS,
    show_default=True,
    help="Number of concurrent readers.",
)
@click.option(
    "--keys", type=click.IntRange(min=1), default=show.DEFAULT_KEYS, show_default=True, help="Number of keys in the cache."
)
@click.option("--pause", is_flag=True, help="Suspend the local zone instead of killing it.")
@click.option("--seed", type=int, default=show.DEFAULT_SEED, show_default=True, help="Seed for the order of reads.")
@click.option("--plain", is_flag=True, help="Print one line each second, without control characters.")
def demo(backend: BackendName, seconds: float, callers: int, keys: int, seed: int, *, pause: bool, plain: bool) -> None:
    """Show an outage: three zones serve traffic, the local zone is killed, and returns empty.

    \b
    Examples:
        evcache demo
        evcache demo --pause --seconds 30
        evcache demo --backend embedded --plain

    Exit status 0 if no read failed, no acknowledged key was missing, and no value was wrong; otherwise 1.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    plan = show.Plan(backend=backend, seconds=seconds, callers=callers, keys=keys, pause=pause, seed=seed)
    record = Record(show.ZONES, show.LOCAL_ZONE)
    console = Console()
    screen: Screen = LiveScreen(console) if is_live(console, plain=plain) else PlainScreen(click.echo)
    stopped: Stopped | None = None
    with screen:
        try:
            run(show.run_demo(plan, record, screen))
        except Stopped as error:
            stopped = error
    if stopped is None or record.total.reads:
        for line in summary(record):
            click.echo(line)
    if stopped is not None:
        click.echo("stopped early by a signal")
        raise SystemExit(stopped.status)
    raise SystemExit(Status.NO if find_problems(record.total) else Status.DONE)
