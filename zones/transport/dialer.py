"""Opening sockets: TCP, TLS and unix. The one place that does, so that tests can put memory in its place."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from evcache.zones._tasks import unattended
from evcache.zones.topology.model import NOT_FOUND, Endpoint
from evcache.zones.transport.resolver import Address, Resolver
from evcache.zones.validation import an_instance, text

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)

# Seconds after which the next address of a name is tried, while the ones before it have not answered. RFC 8305 (Happy
# Eyeballs) recommends 0.25 s and at least 0.1 s; zones of a region are a few milliseconds apart.
ATTEMPT_DELAY = 0.1

# Seconds within which the attempt to the last of many addresses begins, so that all fit into the connect timeout (0.5 s).
ALL_BEGUN = 0.3


class Dialer(Protocol):
    """Opener of connections.

    A dialer may also have `async def addresses(endpoint) -> frozenset[tuple[str, int]]`, which returns the addresses
    that the endpoint's host name has now, with the port. The client then follows a name that moves.
    """

    async def __call__(self, endpoint: Endpoint, factory: Callable[[], AnyProtocol]) -> AnyProtocol:
        """Connect a protocol to the endpoint, and return it.

        Args:
            endpoint: Node to connect to.
            factory: Function that makes the protocol of asyncio.

        Raises:
            OSError: The connect failed.
        """
        ...


class SocketDialer:
    """Dialer of sockets, with TLS if it has a context."""

    def __init__(self, tls: ssl.SSLContext | None = None, server_hostname: str | None = None) -> None:
        """Make a dialer.

        Args:
            tls: TLS context. If None, connections are not encrypted.
            server_hostname: Name that the certificate must have. If None, the host of the node.
        """
        an_instance(tls, ssl.SSLContext, "tls")
        text(server_hostname, "server_hostname", optional=True)
        self._tls = tls
        self._server_hostname = server_hostname
        self._resolver = Resolver()

    async def __call__(self, endpoint: Endpoint, factory: Callable[[], AnyProtocol]) -> AnyProtocol:
        """Connect a protocol over TCP or a unix socket, and return it.

        A host name is looked up on each connect, and all of its addresses are tried.

        Args:
            endpoint: Node to connect to.
            factory: Function that makes the protocol of asyncio.

        Raises:
            OSError: The connect failed. `ssl.SSLError` is among them.
        """
        if endpoint == NOT_FOUND:
            raise OSError("the zone was not found yet")
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._server_hostname or endpoint.host or "localhost"
        if endpoint.path:
            _, connection = await loop.create_unix_connection(factory, endpoint.path, ssl=self._tls, server_hostname=name)
        else:
            addresses = await self._resolver(endpoint.host, endpoint.port)
            sock = await connect_first(in_turn(addresses))
            # Closing the socket after an error is up to asyncio.
            _, connection = await loop.create_connection(factory, sock=sock, ssl=self._tls, server_hostname=name)
        return connection

    async def addresses(self, endpoint: Endpoint) -> frozenset[tuple[str, int]]:
        """Return the addresses that the endpoint's host has now, with the port.

        Args:
            endpoint: Node with a host name.

        Raises:
            OSError: The lookup failed.
        """
        return frozenset((address[0], address[1]) for _, address in await self._resolver(endpoint.host, endpoint.port))


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with the families in turn, beginning with that of the first, as RFC 8305 says."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    ordered: list[Address] = []
    for place in range(max(len(first), len(others))):
        ordered += first[place : place + 1] + others[place : place + 1]
    return ordered


async def connect_first(addresses: Sequence[Address]) -> socket.socket:
    """Connect to the first address that answers.

    An attempt begins when the one before it has failed, or has not answered for a while. Cancellation closes every socket.

    Args:
        addresses: where to connect to, the preferred one first.

    Returns:
        The connected socket.

    Raises:
        OSError: no address could be connected to.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    delay = min(ATTEMPT_DELAY, ALL_BEGUN / len(addresses))
    loop = asyncio.get_running_loop()
    waiting = list(reversed(addresses))
    running: dict[asyncio.Task[socket.socket], Address] = {}
    problems: list[str] = []
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop()
                running[unattended(loop.create_task(_connect(address), name="evcache-connect-address"))] = address
            done, _ = await asyncio.wait(running, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    del running[task]
                    return task.result()
                problems.append(f"{running.pop(task)[1][0]}: {error}")
        raise OSError("; ".join(problems))
    finally:
        # Synchronous, since this may run in a task that is cancelled once more. A cancelled attempt closes its socket.
        for task in running:
            task.add_done_callback(_discard)
            task.cancel()


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uvloop sets it only on sockets that it made itself
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock
