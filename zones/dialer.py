"""Opening sockets: TCP, TLS and unix. The one place that does, so that tests can put memory in its place."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, TypeVar

from zones.topology import Endpoint

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)


class Dialer(Protocol):
    """How a connection comes to be."""

    async def __call__(self, endpoint: Endpoint, factory: Callable[[], AnyProtocol]) -> AnyProtocol:
        """Connect `factory()` to the endpoint and return it. Raises `OSError` when that fails."""
        ...


class SocketDialer:
    """Real sockets; TLS when given a context."""

    def __init__(self, tls: ssl.SSLContext | None = None, server_hostname: str | None = None) -> None:
        """`server_hostname`: the name the certificate must have; None: the node's host."""
        self._tls = tls
        self._server_hostname = server_hostname

    async def __call__(self, endpoint: Endpoint, factory: Callable[[], AnyProtocol]) -> AnyProtocol:
        """Connect over TCP or a unix socket. Raises `OSError`, `ssl.SSLError` among them."""
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._server_hostname or endpoint.host or "localhost"
        if endpoint.path:
            _, connection = await loop.create_unix_connection(factory, endpoint.path, ssl=self._tls, server_hostname=name)
        else:
            # asyncio sets TCP_NODELAY itself; names are resolved anew on each connect.
            _, connection = await loop.create_connection(
                factory, endpoint.host, endpoint.port, ssl=self._tls, server_hostname=name
            )
        return connection
