"""Commands of `evcache`, with their options."""

from __future__ import annotations

import asyncio
import logging
import shlex
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import click
from rich.console import Console

from evcache.cli import check, explain, key_commands, write_commands
from evcache.cli import demo as show
from evcache.cli.demo_stats import Record, find_problems
from evcache.cli.demo_view import LiveScreen, PlainScreen, Screen, summary
from evcache.cli.runner import Status, Stopped, run
from evcache.testing.local_zones import BackendName, LocalZones
from evcache.zones.discovery.environment import NODES_VARIABLE, ZONE_VARIABLE
from evcache.zones.transport.core import selected

DEFAULT_UP_ZONES = 3
MAX_UP_ZONES = len(string.ascii_lowercase)  # local-a to local-z
DEFAULT_UP_NODES = 1
MAX_UP_NODES = 16  # in each zone, since each node is a process or a container of one machine

_SNIPPET = """\
import asyncio
from evcache import EVCache

async def main():
    async with EVCache("sessions", zones={zones!r}, local_zone={local!r}) as cache:
        await cache.set("user:42", {{"name": "Ada"}}, ttl=300)
        print(await cache.get("user:42"))

asyncio.run(main())
"""


def _backend_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        default="auto",
        show_default=True,
        help="Servers: memcached processes, docker containers, or embedded servers, which need no installation. "
        "auto: memcached if a binary is found, otherwise embedded.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="evcache", prog_name="evcache", message=f"%(prog)s %(version)s, {selected.SELECTED.name} core"
)
def evcache() -> None:
    """Read and write a cache across availability zones, run zones on this machine, or show an outage.

    Exit statuses:

    \b
        0    success
        1    negative result: a miss, a write that too few zones have, a problem that `check` found
        2    an argument cannot be used; nothing was sent
        3    no zone answered, or none can be read
        128  plus the number of the signal that stopped the command
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    # Commands print the state of zones. Log lines of the library in between would break the table of the demo.
    logger = logging.getLogger("evcache")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@evcache.command()
@_backend_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
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

    Exit status 0 if no read failed, no acknowledged key was missing, and no value was wrong; otherwise 1.
    """
    plan = show.Plan(backend=backend, seconds=seconds, callers=callers, keys=keys, pause=pause, seed=seed)
    record = Record(show.ZONES, show.LOCAL_ZONE)
    console = Console()
    screen: Screen = LiveScreen(console) if _is_live(console, plain=plain) else PlainScreen(click.echo)
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


@evcache.command()
@_backend_option
@click.option(
    "--zones",
    "count",
    type=click.IntRange(1, MAX_UP_ZONES),
    default=DEFAULT_UP_ZONES,
    show_default=True,
    help="Number of zones.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, MAX_UP_NODES),
    default=DEFAULT_UP_NODES,
    show_default=True,
    help="Number of nodes in each zone.",
)
def up(backend: BackendName, count: int, nodes: int) -> None:
    """Run zones on this machine until Ctrl-C or SIGTERM.

    The command prints environment variables for the other commands, and a short program.
    """
    names = [f"local-{letter}" for letter in string.ascii_lowercase[:count]]
    try:
        run(_stay_up(LocalZones(names, nodes_per_zone=nodes, backend=backend)))
    except Stopped:  # a signal is the normal end
        click.echo("# stopped")


for _command in (key_commands.get, write_commands.set_, write_commands.delete, explain.explain, check.check):
    evcache.add_command(_command)


async def _stay_up(zones: LocalZones) -> None:
    async with zones:
        for line in directions(zones.zones, f"memcached {zones.version} ({zones.backend})"):
            click.echo(line)
        await asyncio.Event().wait()  # a signal cancels it


def directions(zones: Mapping[str, Sequence[str]], servers: str) -> list[str]:
    """Return lines for a shell and a short program that use these zones. The first zone is the local one."""
    node_list = ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in zones.items())
    local = next(iter(zones))
    return [
        f"# {len(zones)} zones run until Ctrl-C: {servers}",
        f"export {NODES_VARIABLE}={shlex.quote(node_list)}",
        f"export {ZONE_VARIABLE}={local}",
        "",
        "# for example, in another terminal: evcache set --namespace sessions user:42 Ada",
        "# in Python:",
        _SNIPPET.format(zones=node_list, local=local),
    ]


def _is_live(console: Console, *, plain: bool) -> bool:
    return not plain and console.is_terminal and not console.is_dumb_terminal
