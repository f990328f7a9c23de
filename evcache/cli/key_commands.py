"""`evcache get`, and what it shares with other commands for one key: options, a client, printing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import click
import msgspec

from evcache.cli.runner import Status, Stopped, run
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.hooks import Hooks
from evcache.results import Item
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.discovery import NODES_VARIABLE, ZONE_VARIABLE
from evcache.zones.transport.base import TransportChoice

T = TypeVar("T")

NAMESPACE_VARIABLE = "EVCACHE_NAMESPACE"

# For the whole command. Much longer than a client's 0.1 s, for here every call also opens its connections, perhaps from a
# desk far from the zones, and a person at a terminal would rather wait than be told of a timeout.
TIMEOUT_SECONDS = 2.0

READ_LEVELS = "How many zones must answer. By default one."


@dataclass(frozen=True, slots=True)
class Target:
    """Which cache a command talks to, and how."""

    zones: str
    local_zone: str | None
    namespace: str
    transport: TransportChoice
    consistency: str | None
    timeout: float
    as_json: bool


def targeted(command: Callable[..., None], *, levels: str | None = READ_LEVELS) -> Callable[..., None]:
    """Give a command the options that all have. It gets them as one argument, `target`.

    Args:
        command: The command's function.
        levels: The help text of `--consistency`. If None, the command has no such option.
    """

    def gathered(
        *,
        zones: str,
        local_zone: str | None,
        namespace: str,
        transport: TransportChoice,
        timeout: float,
        as_json: bool,
        consistency: str | None = None,
        **rest: Any,
    ) -> None:
        command(target=Target(zones, local_zone, namespace, transport, consistency, timeout, as_json), **rest)

    options = [
        click.option(
            "--zones",
            required=True,
            envvar=NODES_VARIABLE,
            show_envvar=True,
            help="A node list, 'eu-1a=host:port,host:port;eu-1b=...', or the path of a TOML file.",
        ),
        click.option(
            "--local-zone",
            envvar=ZONE_VARIABLE,
            show_envvar=True,
            help="The zone that is read first; without it the client picks an order of its own.",
        ),
        click.option("--namespace", required=True, envvar=NAMESPACE_VARIABLE, show_envvar=True, help="Prefix of the key."),
        click.option(
            "--transport",
            type=click.Choice(get_args(TransportChoice)),
            default="auto",
            show_default=True,
            help="The protocol to use. auto: each node is asked what it speaks; classic: for proxies that close when asked.",
        ),
        click.option(
            "--timeout", type=float, default=TIMEOUT_SECONDS, show_default=True, help="Seconds for the whole operation."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
    ]
    if levels is not None:
        options.append(
            click.option(
                "--consistency",
                type=click.Choice([level.value for level in Consistency], case_sensitive=False),
                help=levels,
            )
        )
    gathered.__doc__ = command.__doc__
    gathered.__name__ = command.__name__
    made: Callable[..., None] = gathered
    for option in reversed(options):
        made = option(made)
    return made


@click.command()
@click.argument("key")
@targeted
def get(target: Target, key: str) -> None:
    """Print the value of KEY. Status 1: there is none; 3: no zone could answer."""

    async def read() -> Item | None:
        async with connected(target, Hooks()) as cache:
            return await cache.get_item(key, consistency=target.consistency, timeout=target.timeout)

    item = finish(read())
    if item is None:
        click.echo(f"no value for {key}", err=True)
    if target.as_json:
        click.echo(json_of(None if item is None else described(item)))
    elif item is not None:
        click.echo(printable(item.value))
    raise SystemExit(Status.NO if item is None else Status.DONE)


def described(item: Item) -> dict[str, Any]:
    """An item as `get --json` prints it. `type` tells bytes, which JSON has as base64, from text."""
    return {
        "value": item.value,
        "type": type(item.value).__name__,
        "version": item.version,
        "ttl": item.ttl,
        "zone": item.zone,
        "source": item.source,
    }


def printable(value: Any) -> str | bytes:
    """A value for stdout: text and bytes as they are, anything else as JSON."""
    return value if isinstance(value, str | bytes) else json_of(value)


def json_of(value: Any) -> str:
    """JSON; bytes in it as base64, dates as ISO 8601, and what JSON has no form for as Python writes it."""
    return msgspec.json.encode(value, enc_hook=repr).decode()


def parsed(text: str) -> Any:
    """A value given as JSON. Raises `click.BadParameter`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:  # the latter: an argument that is not UTF-8
        raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from None


def connected(target: Target, hooks: Hooks, nodes: NodeSettings | None = None) -> EVCache:
    """Return a client of the cache that a command talks to. `nodes`: None is the library's default."""
    return EVCache(
        target.namespace,
        target.zones,
        local_zone=target.local_zone,
        transport=target.transport,
        hooks=hooks,
        nodes=nodes,
    )


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end. A stop signal ends the process with the status that shells expect."""
    try:
        return run(work)
    except Stopped as stopped:
        raise SystemExit(stopped.status) from None
