"""The command itself: its options, its screen and its exit status."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import click
from rich.console import Console

from evcache.admin.load.table import SORTS, sort_table
from evcache.admin.load.watch import LoadWatch
from evcache.cli.open_cluster import open_cluster
from evcache.cli.runner import Status, run_command
from evcache.cli.target import Target, for_zones
from evcache.cli.top.quit_key import quit_key
from evcache.cli.top.view import LineScreen, LiveScreen, Screen, json_text, plain_text
from evcache.zones.validation import positive_seconds

DEFAULT_INTERVAL = 2.0


@click.command(short_help="Show the load of each zone and node, again and again.")
@click.option("--interval", type=float, default=DEFAULT_INTERVAL, show_default=True, help="Seconds between two tables.")
@click.option("--count", type=click.IntRange(min=1), help="Number of tables. Without it, the command ends with q or Ctrl-C.")
@click.option(
    "--sort", type=click.Choice(list(SORTS)), help="Sort zones and their nodes, the highest first. hits: the lowest first."
)
@click.option("--plain", is_flag=True, help="Print each table below the last one, without control characters.")
@for_zones
def top(target: Target, interval: float, count: int | None, sort: str | None, *, plain: bool) -> None:
    """Show the load of each zone and node: requests, hits, latency, memory, evictions, connections, bytes.

    \b
    Examples:
        evcache top
        evcache top --interval 10 --sort evictions
        evcache top --count 1 --json

    Exit status 0: at least one node answered the last time; 3: none did.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    console = Console()
    is_live = not plain and not target.as_json and console.is_terminal and not console.is_dumb_terminal
    screen: Screen
    if is_live:
        screen = LiveScreen(console, "q ends")
    else:
        screen = LineScreen(click.echo, json_text if target.as_json else plain_text)
    with screen:
        answered = run_command(_top(target, interval, count, sort, screen, is_live=is_live))
    raise SystemExit(Status.DONE if answered else Status.UNAVAILABLE)


async def _top(
    target: Target, interval: float, count: int | None, sort: str | None, screen: Screen, *, is_live: bool
) -> bool:
    interval = positive_seconds(interval, "interval")
    timeout = positive_seconds(target.timeout, "timeout")
    stop = asyncio.Event()
    async with open_cluster(target, connect_timeout=timeout) as view:
        with quit_key(stop.set) if is_live else nullcontext():
            watch = LoadWatch(view, target.node_settings(connect_timeout=timeout), interval=interval, timeout=timeout)
            return await watch.run(lambda table: screen.show(sort_table(table, sort)), count=count, stop=stop)
