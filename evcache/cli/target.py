"""The cache that a command uses: its options for zones, transport, TLS and login, and the client that they make."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from evcache.cli.runner import BadUse
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.hooks import Hooks
from evcache.zones.discovery.environment import NODES_VARIABLE, ZONE_VARIABLE
from evcache.zones.discovery.local_zone import AUTO, LocalZone
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.transport.base import TransportChoice
from evcache.zones.transport.dialer import SocketDialer

NAMESPACE_VARIABLE = "EVCACHE_NAMESPACE"
PASSWORD_VARIABLE = "EVCACHE_PASSWORD"  # noqa: S105  # the name of a variable

# For the whole command. Much longer than the read timeout of a client (0.1 s): each command opens its own connections, and
# may run far from the zones.
TIMEOUT_SECONDS = 2.0

NO_NAMESPACE = "none"
"""Namespace of a client that uses no key."""

READ_LEVELS = "Number of zones that must answer. By default one."


@dataclass(frozen=True, slots=True)
class Security:
    """TLS and login of a command."""

    tls: bool = False
    ca: str | None = None
    """Path of the certificates that sign those of the nodes. If None, those of the system."""
    certificate: str | None = None
    """Path of the command's own certificate. If None, it has none."""
    private_key: str | None = None
    """Path of the key of that certificate. If None, the certificate's file has the key, too."""
    server_name: str | None = None
    """Name that the certificates of the nodes must have. If None, the host of each node."""
    user: str | None = None
    """User of the login. If None, there is none."""
    password_file: str | None = None
    """Path of a file whose first line is the password. If None, the environment has it."""

    @property
    def has_tls(self) -> bool:
        """True if connections are encrypted. Each option of TLS asks for it."""
        return self.tls or any((self.ca, self.certificate, self.private_key, self.server_name))

    def context(self) -> ssl.SSLContext | None:
        """Return the context of TLS, or None without TLS.

        Raises:
            BadUse: A file cannot be read, or has no certificate or key.
        """
        if not self.has_tls:
            return None
        if self.private_key is not None and self.certificate is None:
            raise BadUse("--tls-key needs --tls-cert")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise BadUse(f"--tls-ca {self.ca}: {error}") from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.private_key)
            except OSError as error:
                raise BadUse(f"--tls-cert {self.certificate}: {error}") from None
        return context

    def login(self) -> tuple[str, str] | None:
        """Return user and password, or None without a user.

        Raises:
            BadUse: There is a user without a password.
        """
        if self.user is None:
            return None
        password = password_of(self.password_file)
        if password is None:
            raise BadUse(f"--user needs --password-file or {PASSWORD_VARIABLE}")
        return self.user, password


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
    security: Security = Security()

    @property
    def own_zone(self) -> LocalZone | None:
        """The local zone. A name of the command line that the topology lacks is probably a typing error."""
        strict = self.is_local_zone_typed and self.local_zone != AUTO
        return None if self.local_zone is None else LocalZone(self.local_zone, strict=strict)

    def node_settings(self, **changes: Any) -> NodeSettings:
        """Return the settings of the command's connections, with the fields in `changes`.

        Raises:
            BadUse: An option of TLS or the login cannot be used.
        """
        dialer = SocketDialer(self.security.context(), self.security.server_name)
        settings = NodeSettings(transport=self.transport, auth=self.security.login(), dialer=dialer)
        return replace(settings, **changes)


_NAMESPACE = click.option(
    "--namespace",
    required=True,
    envvar=NAMESPACE_VARIABLE,
    show_envvar=True,
    help="Namespace of the cache, the prefix of its keys.",
)

_TIMEOUT = click.option(
    "--timeout", type=float, default=TIMEOUT_SECONDS, show_default=True, help="Seconds for the operation."
)


def _file_option(name: str, variable: str, text: str) -> Callable[..., Any]:
    path = click.Path(exists=True, dir_okay=False)
    return click.option(name, envvar=variable, show_envvar=True, type=path, metavar="FILE", help=text)


_SECURITY = (
    click.option("--tls", is_flag=True, envvar="EVCACHE_TLS", show_envvar=True, help="Encrypt connections."),
    _file_option("--tls-ca", "EVCACHE_TLS_CA", "Certificates that sign those of the nodes. By default the system's."),
    _file_option("--tls-cert", "EVCACHE_TLS_CERT", "Certificate of this command, for servers that ask for one."),
    _file_option("--tls-key", "EVCACHE_TLS_KEY", "Private key of --tls-cert. By default it is in the same file."),
    click.option(
        "--tls-name",
        envvar="EVCACHE_TLS_NAME",
        show_envvar=True,
        metavar="NAME",
        help="Name that the certificates must have. By default the host of each node.",
    ),
    click.option("--user", envvar="EVCACHE_USER", show_envvar=True, help="User for servers that ask for a login."),
    click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help=f"File whose first line is the password of --user. By default the variable {PASSWORD_VARIABLE}.",
    ),
)


def password_of(path: str | None) -> str | None:
    """Return the password in the first line of a file, or that of the environment if there is no file.

    Raises:
        BadUse: The file cannot be read, or its first line is empty.
    """
    if path is None:
        return os.environ.get(PASSWORD_VARIABLE) or None
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadUse(f"--password-file {path}: {error}") from None
    if not lines or not lines[0]:
        raise BadUse(f"--password-file {path}: the first line is empty")
    return lines[0]


def targeted(
    command: Callable[..., None],
    *,
    levels: str | None = READ_LEVELS,
    has_keys: bool = True,
    has_timeout: bool = True,
) -> Callable[..., None]:
    """Add the common options to a command. The command receives them as one argument, `target`.

    Args:
        command: The command's function.
        levels: The help text of `--consistency`. If None, the command has no such option.
        has_keys: False for a command that uses no key. It has no option `--namespace`.
        has_timeout: False for a command without the option `--timeout`.
    """

    def gathered(
        *,
        zones: str,
        local_zone: str | None,
        transport: TransportChoice,
        as_json: bool,
        tls: bool,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_name: str | None,
        user: str | None,
        password_file: str | None,
        timeout: float = TIMEOUT_SECONDS,
        namespace: str = NO_NAMESPACE,
        consistency: str | None = None,
        **rest: Any,
    ) -> None:
        typed = click.get_current_context().get_parameter_source("local_zone") is ParameterSource.COMMANDLINE
        target = Target(
            zones,
            local_zone,
            namespace,
            transport,
            consistency,
            timeout,
            as_json=as_json,
            is_local_zone_typed=typed,
            security=Security(tls, tls_ca, tls_cert, tls_key, tls_name, user, password_file),
        )
        command(target=target, **rest)

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
        *_SECURITY,
        *([_TIMEOUT] if has_timeout else []),
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


def for_zones(command: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command that uses no key."""
    return targeted(command, levels=None, has_keys=False)


def make_client(target: Target, hooks: Hooks, **nodes: Any) -> EVCache:
    """Return a client of the command's cache, which is not open yet.

    Args:
        target: The cache.
        hooks: Listener to the client's events.
        nodes: Fields of `NodeSettings` that differ from those of the target.
    """
    return EVCache(
        target.namespace, target.zones, local_zone=target.own_zone, hooks=hooks, nodes=target.node_settings(**nodes)
    )
