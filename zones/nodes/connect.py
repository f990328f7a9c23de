"""Opening of a connection to a node: dial, find out which transport the server can take, do the handshake."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from evcache.zones.errors import NodeTimeout, NodeUnavailable
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.diagnosis import CLOSES_ON_UNKNOWN, diagnose
from evcache.zones.nodes.handshake import HungUp, SpeaksNoMeta, meet_classic, shake_hands
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport
from evcache.zones.transport.classic.connection import ClassicConnection
from evcache.zones.transport.pipelined import PipelinedConnection


class Listener(Protocol):
    """What a connection tells the node that it belongs to."""

    def leaving(self, connection: Transport) -> None:
        """It takes no more requests, and still answers those it has."""
        ...

    def lost(self, connection: Transport, why: NodeUnavailable) -> None:
        """It has ended."""
        ...

    def silent(self, connection: Transport) -> bool:
        """Reads wait, and no byte arrives. Return True if they can ask another zone."""
        ...

    def heard(self, connection: Transport) -> None:
        """A byte has arrived, the first after silence or after timeouts."""
        ...

    def late(self, connection: Transport, timeouts: int, in_a_row: int) -> None:
        """So many requests have just had no reply in time, so many since one was last answered.

        With none in a row: they were lost, and the transport has not ended, or not yet.
        """
        ...


async def open_transport(
    endpoint: Endpoint, settings: NodeSettings, listener: Listener, lag: LoopLag | None
) -> tuple[Transport, Capabilities]:
    """An open connection and what its server can do. Raises `NodeTimeout`, what the dialer raises, or a `CacheError`.

    Nothing is left behind by a failure, or by being cancelled.
    """
    made: list[Transport] = []
    timeout = settings.connect_timeout
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout):
            try:
                capabilities = await _meet(endpoint, settings, listener, lag, made)
            except HungUp as error:
                remedy = await _remedy(endpoint, settings, began)
                if remedy is None:
                    raise
                raise NodeUnavailable(remedy, endpoint.label) from error
    except BaseException as error:
        for connection in made:
            connection.abort("the handshake failed")
        if isinstance(error, TimeoutError):
            raise NodeTimeout(f"no connection in {timeout:g} s", endpoint.label) from None
        raise
    opened = made.pop()
    if not opened.is_open:
        raise NodeUnavailable("the server closed the connection right after the handshake", endpoint.label)
    return opened, capabilities


async def _remedy(endpoint: Endpoint, settings: NodeSettings, began: float) -> str | None:
    """Return the text for a server that closed at the first question, or None if nothing is known of it."""
    # A quarter of the connect timeout, since calls wait for the result of this attempt, and well before its end.
    now, timeout = asyncio.get_running_loop().time(), settings.connect_timeout
    deadline = min(now + timeout / 4, began + 0.9 * timeout)
    remedy = await diagnose(endpoint, settings.dialer, deadline)
    return None if remedy == CLOSES_ON_UNKNOWN and settings.transport == "classic" else remedy


async def _meet(
    endpoint: Endpoint, settings: NodeSettings, listener: Listener, lag: LoopLag | None, made: list[Transport]
) -> Capabilities:
    """Connect and ask. What was made is in `made`, also after an error; the last of it is what is to be used."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.connect_timeout

    def make() -> PipelinedConnection:
        connection = PipelinedConnection(
            endpoint.label,
            loop,
            settings.limits,
            listener.lost,
            listener.late,
            lag,
            on_silent=listener.silent,
            on_heard=listener.heard,
        )
        made.append(connection)
        return connection

    if settings.transport != "classic":
        opened = await settings.dialer(endpoint, make)
        try:
            return await shake_hands(opened, deadline, settings.auth)
        except SpeaksNoMeta:
            opened.abort("it does not speak the meta protocol")
            if settings.transport == "meta":
                raise
    classic = ClassicConnection(
        endpoint.label,
        loop,
        partial(settings.dialer, endpoint),
        limits=settings.limits,
        pool=settings.classic,
        connect_timeout=settings.connect_timeout,
        on_leaving=listener.leaving,
        on_lost=listener.lost,
        on_late=listener.late,
        lag=lag,
    )
    made.append(classic)
    return await meet_classic(classic, settings.auth)
