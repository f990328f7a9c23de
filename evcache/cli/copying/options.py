"""Options and output that `evcache warm` and `evcache compare` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from evcache.admin.copying.key_files import KeysOfFile, KeySource, ListedKeys
from evcache.admin.copying.warm import DEFAULT_RATE
from evcache.cli.numbers import FiniteRange
from evcache.cli.runner import BadUse
from evcache.cli.target import for_zones
from evcache.values.keys import Keys
from evcache.zones.admin.session import open_session
from evcache.zones.errors import CacheError
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool

REFUSED = "The alternative: pass the keys with --keys FILE"

REFRESH_SECONDS = 0.2
LINE_SECONDS = 5.0  # between two lines of a run without a terminal


def copying_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the common options, and those that choose keys and limit the rate."""
    made: Callable[..., None] = for_zones(command)
    options = (
        click.option(
            "--rate",
            type=FiniteRange(min=0, min_open=True),
            default=DEFAULT_RATE,
            show_default=True,
            help="Largest number of keys per second.",
        ),
        click.option("--namespace", "only", help="Only keys of this namespace. Without it, all keys."),
        click.option(
            "--keys",
            "keys_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="File of keys, one in each line, in place of the lists of the servers. With --namespace, the lines are "
            "keys without it.",
        ),
    )
    for option in reversed(options):
        made = option(made)
    return made


def key_source(
    settings: NodeSettings, namespace: str | None, keys_file: Path | None, sample: int | None = None
) -> KeySource:
    """Return the source of keys that the options choose.

    Raises:
        InvalidArgument: The namespace cannot be used.
    """
    if namespace is not None:
        Keys(namespace)  # raises
    if keys_file is not None:
        return KeysOfFile(keys_file, namespace)
    return ListedKeys(settings, namespace, sample)


def zone_of(view: ClusterSnapshot, name: str, option: str) -> ZonePool:
    """Return the zone of an option.

    Raises:
        BadUse: There is no such zone.
    """
    for pool in view.writers:
        if pool.name == name:
            return pool
    raise BadUse(f"{option}: there is no zone {name!r}, the topology has {', '.join(pool.name for pool in view.writers)}")


def unlisted_lines(unlisted: Mapping[str, str]) -> list[str]:
    """Return a line for each node that did not list its keys."""
    return [f"  node {label} listed no keys: {problem}" for label, problem in unlisted.items()]


async def count_items(pool: ZonePool, settings: NodeSettings) -> int | None:
    """Return the number of items of a zone as its servers report it. None if one does not."""

    async def count(node: Any) -> int | None:
        try:
            async with open_session(node.endpoint, settings) as session:
                return (await session.statistics()).curr_items
        except CacheError:
            return None

    counts = await asyncio.gather(*map(count, pool.nodes))
    known = [number for number in counts if number is not None]
    return sum(known) if len(known) == len(counts) else None


@asynccontextmanager
async def shown_progress(what: str, done: Callable[[], int], total: int | None) -> AsyncIterator[None]:
    """Show the progress of the block on stderr: a bar on a terminal, and otherwise a line every few seconds.

    Args:
        what: Text in front of the bar.
        done: Returns the number of keys so far.
        total: Number of keys in all. None if it is unknown.
    """
    console = Console(stderr=True)
    task = asyncio.create_task(_bar(console, what, done, total) if console.is_terminal else _lines(what, done, total))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _bar(console: Console, what: str, done: Callable[[], int], total: int | None) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} keys"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        bar = progress.add_task(what, total=total)
        try:
            while True:
                progress.update(bar, completed=done(), refresh=True)
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            progress.update(bar, completed=done(), refresh=True)


async def _lines(what: str, done: Callable[[], int], total: int | None) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        click.echo(f"{what}: {done():,} keys{'' if total is None else f' of about {total:,}'}", err=True)
