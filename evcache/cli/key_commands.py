"""Command `evcache get`, and the options, client and output that all commands for one key share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import click
import msgspec
from click.core import ParameterSource

from evcache.cli.runner import Status, Stopped, run
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.hooks import Hooks
from evcache.results import Item
from evcache.zones.discovery.environment import NODES_VARIABLE, ZONE_VARIABLE
from evcache.zones.discovery.local_zone import AUTO, LocalZone
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.transport.base import TransportChoice

T = TypeVar("T")

NAMESPACE_VARIABLE = "EVCACHE_NAMESPACE"

# For the whole command. Much longer than the read timeout of a client (0.1 s): each command opens its own connections, and
# may run far from the zones.
TIMEOUT_SECONDS = 2.0

NO_NAMESPACE = "none"
"""Namespace of a client that uses no key."""

READ_LEVELS = "Number of zones that must answer. By default one."


@dataclass(frozen=True, slots=True)
class Target:
    """Cache that a command uses, with the options of the call."""

    zones: str
    local_zone: str | None
    namespace: str
    transport: TransportChoice
    consistency: str | None
    timeout: float
    as_json: bool
    is_local_zone_typed: bool
    """True if the local zone is an option of the command, and not from the environment."""

    @property
    def own_zone(self) -> LocalZone | None:
        """The local zone. A name of the command line that the topology lacks is probably a typing error."""
        strict = self.is_local_zone_typed and self.local_zone != AUTO
        return None if self.local_zone is None else LocalZone(self.local_zone, strict=strict)


_NAMESPACE = click.option(
    "--namespace",
    required=True,
    envvar=NAMESPACE_VARIABLE,
    show_envvar=True,
    help="Namespace of the cache, the prefix of its keys.",
)


def targeted(
    command: Callable[..., None], *, levels: str | None = READ_LEVELS, has_keys: bool = True
) -> Callable[..., None]:
    """Add the common options to a command. The command receives them as one argument, `target`.

    Args:
        command: The command's function.
        levels: The help text of `--consistency`. If None, the command has no such option.
        has_keys: False for a command that uses no key. It has no option `--namespace`.
    """

    def gathered(
        *,
        zones: str,
        local_zone: str | None,
        transport: TransportChoice,
        timeout: float,
        as_json: bool,
        namespace: str = NO_NAMESPACE,
        consistency: str | None = None,
        **rest: Any,
    ) -> None:
        typed = click.get_current_context().get_parameter_source("local_zone") is ParameterSource.COMMANDLINE
        command(
            target=Target(
                zones, local_zone, namespace, transport, consistency, timeout, as_json=as_json, is_local_zone_typed=typed
            ),
            **rest,
        )

    options = [
        click.option(
            "--zones",
            required=True,
            envvar=NODES_VARIABLE,
            show_envvar=True,
            help="Node list 'eu-1a=host:port,host:port;eu-1b=...', whose nodes may be lookups such as dns+host:port, "
            "kubernetes+SERVICE.NAMESPACE, or the path of a TOML file.",
        ),
        click.option(
            "--local-zone",
            envvar=ZONE_VARIABLE,
            show_envvar=True,
            help="Zone that is read first, or auto to find it. Without it, the client chooses an order.",
        ),
        *([_NAMESPACE] if has_keys else []),
        click.option(
            "--transport",
            type=click.Choice(get_args(TransportChoice)),
            default="auto",
            show_default=True,
            help="Protocol. auto: ask each node; classic: for proxies that close the connection when asked.",
        ),
        click.option("--timeout", type=float, default=TIMEOUT_SECONDS, show_default=True, help="Seconds for the operation."),
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
    """Print the value of KEY.

    Exit status 0: the value was printed; 1: there is no value; 3: too few zones answered.
    """

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


def format_value(value: Any) -> str | bytes:
    """Return the form of a value for stdout: text and bytes unchanged, other values as JSON."""
    return value if isinstance(value, str | bytes) else to_json(value)


def to_json(value: Any) -> str:
    """Return JSON text. Bytes become base64, dates ISO 8601, and other types their `repr`."""
    return msgspec.json.encode(value, enc_hook=repr).decode()


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        click.BadParameter: The text is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:  # UnicodeEncodeError: the argument is not UTF-8
        raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from None


def make_client(target: Target, hooks: Hooks, nodes: NodeSettings | None = None) -> EVCache:
    """Return a client of the command's cache, which is not open yet. If `nodes` is None, the defaults apply."""
    return EVCache(
        target.namespace,
        target.zones,
        local_zone=target.own_zone,
        transport=target.transport,
        hooks=hooks,
        nodes=nodes,
    )


def run_command(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command and return its result. A stop signal exits with the status that shells expect."""
    try:
        return run(work)
    except Stopped as stopped:
        raise SystemExit(stopped.status) from None
