"""Command `evcache get`."""

from __future__ import annotations

from typing import Any

import click

from evcache.cli.output import format_value, to_json
from evcache.cli.runner import Status, run_command
from evcache.cli.target import Target, make_client, targeted
from evcache.consistency import Consistency
from evcache.hooks import Hooks
from evcache.results import Item


@click.command()
@click.argument("key")
@targeted
def get(target: Target, key: str) -> None:
    """Print the value of KEY.

    \b
    Examples:
        evcache get user:42
        evcache get user:42 --namespace sessions --json
        evcache get user:42 --consistency all

    Exit status 0: the value was printed; 1: there is no value; 3: too few zones answered.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph

    async def read() -> Item | None:
        async with make_client(target, Hooks()) as cache:
            level = None if target.consistency is None else Consistency.parse(target.consistency)
            return await cache.get_item(key, consistency=level, timeout=target.timeout)

    item = run_command(read())
    if item is None:
        click.echo(f"no value for {key}", err=True)
    if target.as_json:
        click.echo(to_json(None if item is None else item_fields(item)))
    elif item is not None:
        click.echo(format_value(item.value))
    raise SystemExit(Status.NO if item is None else Status.DONE)


def item_fields(item: Item) -> dict[str, Any]:
    """Return the fields of an item for `get --json`. `type` distinguishes text from bytes, which become base64."""
    return {
        "value": item.value,
        "type": type(item.value).__name__,
        "version": item.version,
        "ttl": item.ttl,
        "zone": item.zone,
        "source": item.source,
    }
