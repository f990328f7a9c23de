"""Command `evcache up`: zones on this machine."""

from __future__ import annotations

import asyncio
import shlex
import string
from collections.abc import Mapping, Sequence

import click

from evcache.cli.backend import backend_option
from evcache.cli.runner import Stopped, run
from evcache.testing.local_zones import BackendName, LocalZones
from evcache.zones.discovery.environment import NODES_VARIABLE, ZONE_VARIABLE

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


@click.command()
@backend_option
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

    \b
    Examples:
        evcache up
        evcache up --zones 2 --nodes 3
        evcache up --backend embedded
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    names = [f"local-{letter}" for letter in string.ascii_lowercase[:count]]
    try:
        run(_stay_up(LocalZones(names, nodes_per_zone=nodes, backend=backend)))
    except Stopped:  # a signal is the normal end
        click.echo("# stopped")


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
