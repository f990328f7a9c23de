"""Opening of a connection to a node: dial, choose the transport, do the handshake."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from evcache.zones.errors import NodeTimeout, NodeUnavailable
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.diagnosis import CLOSES_ON_UNKNOWN, diagnose
from evcache.zones.nodes.handshake import HungUp, SpeaksNoMeta, handshake_classic, handshake_meta
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.connection import ClassicConnection
from evcache.zones.transport.pipelined import PipelinedConnection


class Listener(Protocol):
    """Receiver of the reports of a connection: the node that it belongs to."""

    def on_draining(self, connection: Transport) -> None:
        """Report that the connection takes no more requests, and still delivers outstanding replies."""
        ...

    def on_closed(self, connection: Transport, why: NodeUnavailable) -> None:
        """Report that the connection has ended."""
        ...

    def on_silent(self, connection: Transport) -> bool:
        """Report that reads wait and no byte arrives. Return True if they can move to another zone."""
        ...

    def on_bytes(self, connection: Transport) -> None:
        """Report the first byte after a silence or after timeouts."""
        ...

    def on_timeouts(self, connection: Transport, timeouts: int, in_a_row: int) -> None:
        """Report requests that had no reply in time.

        Args:
            connection: The connection.
            timeouts: Number of requests that have just timed out or were lost.
            in_a_row: Number of timeouts since the last reply. 0 if the requests were lost while the transport goes on.
        """
        ...


async def open_transport(
    endpoint: Endpoint, settings: NodeSettings, listener: Listener, lag: LoopLag | None, traffic: ByteCounter
) -> tuple[Transport, Capabilities]:
    """Open a connection and do the handshake. A failure or a cancellation leaves no socket open.

    Args:
        endpoint: The node.
        settings: Its settings. `connect_timeout` covers all steps.
        listener: Receiver of the connection's reports.
        lag: Lag of the event loop, or None.
        traffic: Counter of the bytes of all connections, also of those that fail.

    Returns:
        The connection and the capabilities of its server.

    Raises:
        NodeTimeout: The steps took longer than `connect_timeout`.
        CacheError: The handshake failed.
        Exception: An error of the dialer.
    """
    made: list[Transport] = []
    timeout = settings.connect_timeout
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout):
            try:
                capabilities = await _connect(endpoint, settings, listener, lag, traffic, made)
            except HungUp as error:
                remedy = await _remedy(endpoint, settings, traffic, began)
                if remedy is None:
                    raise
                raise NodeUnavailable(remedy, endpoint.label) from error
    except BaseException as error:
        for connection in made:
            connection.abort("handshake failed")
        if isinstance(error, TimeoutError):
            raise NodeTimeout(f"no connection in {timeout:g} s", endpoint.label) from None
        raise
    opened = made.pop()
    if not opened.is_open:
        raise NodeUnavailable("the server closed the connection right after the handshake", endpoint.label)
    return opened, capabilities


async def _remedy(endpoint: Endpoint, settings: NodeSettings, traffic: ByteCounter, began: float) -> str | None:
    """Return a remedy for a server that closed at the first question, or None if there is none."""
    # At most a quarter of the connect timeout, because calls wait for the result. It also ends well before that timeout.
    now, timeout = asyncio.get_running_loop().time(), settings.connect_timeout
    deadline = min(now + timeout / 4, began + 0.9 * timeout)
    remedy = await diagnose(endpoint, settings.dialer, traffic, deadline)
    return None if remedy == CLOSES_ON_UNKNOWN and settings.transport == "classic" else remedy


async def _connect(
    endpoint: Endpoint,
    settings: NodeSettings,
    listener: Listener,
    lag: LoopLag | None,
    traffic: ByteCounter,
    made: list[Transport],
) -> Capabilities:
    """Connect and do the handshake. `made` gets each connection, also on an error. The last one is the result."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.connect_timeout

    def make() -> PipelinedConnection:
        connection = PipelinedConnection(
            endpoint.label,
            loop,
            settings.limits,
            listener.on_closed,
            listener.on_timeouts,
            lag,
            on_silent=listener.on_silent,
            on_bytes=listener.on_bytes,
            traffic=traffic,
        )
        made.append(connection)
        return connection

    if settings.transport != "classic":
        opened = await settings.dialer(endpoint, make)
        try:
            return await handshake_meta(opened, deadline, settings.auth)
        except SpeaksNoMeta:
            opened.abort("the server does not speak the meta protocol")
            if settings.transport == "meta":
                raise
    classic = ClassicConnection(
        endpoint.label,
        loop,
        partial(settings.dialer, endpoint),
        limits=settings.limits,
        pool=settings.classic,
        connect_timeout=settings.connect_timeout,
        on_draining=listener.on_draining,
        on_closed=listener.on_closed,
        on_timeouts=listener.on_timeouts,
        lag=lag,
        traffic=traffic,
    )
    made.append(classic)
    return await handshake_classic(classic, settings.auth)
