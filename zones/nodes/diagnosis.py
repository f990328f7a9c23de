"""Diagnosis of a server that closes the connection at the first question: its protocol, and the remedy."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

from evcache.zones.protocol import requests
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.wire import PooledSocket
from evcache.zones.transport.dialer import Dialer

BINARY = 'the server speaks only the binary protocol: start memcached without "-B binary"'
SASL = (
    "the server speaks only the binary protocol and wants a SASL login: start memcached with `-Y FILE` in place of `-S`, "
    "and set `NodeSettings(auth=(user, password))`"
)
CLOSES_ON_UNKNOWN = (
    "the server speaks the classic text protocol and closes the connection on a command that it does not know, as twemproxy "
    'does: set transport="classic"'
)

# Requests of the binary protocol: a header of 24 bytes, with nothing behind it. A server answers "version" and "list SASL
# mechanisms" before a login; without SASL, the latter is an unknown command.
_HEADER = struct.Struct(">BBHBBHIIQ")
_REQUEST, _RESPONSE = 0x80, 0x81
_VERSION, _SASL_LIST = 0x0B, 0x20
_SUCCESS = 0


async def diagnose(endpoint: Endpoint, dialer: Dialer, traffic: ByteCounter, deadline: float) -> str | None:
    """Find out why a server closes at the first question, on two connections of its own.

    Cancellation closes both.

    Args:
        endpoint: The node.
        dialer: Function that opens the connections.
        traffic: Counter of their bytes.
        deadline: End of the diagnosis, on the loop's clock.

    Returns:
        The finding with its remedy, or None if the server gives no sign of what it is.
    """
    binary, closes = await asyncio.gather(
        _in_time(_speaks_binary, endpoint, dialer, traffic, deadline),
        _in_time(_closes_on_unknown, endpoint, dialer, traffic, deadline),
    )
    if binary is not None:
        return binary
    return closes


async def _in_time(
    question: Callable[[Endpoint, Dialer, ByteCounter], Awaitable[str | None]],
    endpoint: Endpoint,
    dialer: Dialer,
    traffic: ByteCounter,
    deadline: float,
) -> str | None:
    # Made here: if the caller made the coroutine, it would never be awaited if this task is cancelled before it begins.
    try:
        async with asyncio.timeout_at(deadline):
            return await question(endpoint, dialer, traffic)
    except (OSError, EOFError, ValueError):  # TimeoutError is an OSError; `readline` raises ValueError for a long line
        return None


async def _speaks_binary(endpoint: Endpoint, dialer: Dialer, traffic: ByteCounter) -> str | None:
    wire = await _open(endpoint, dialer, traffic)
    try:
        _write(wire, b"".join(_HEADER.pack(_REQUEST, opcode, 0, 0, 0, 0, 0, 0, 0) for opcode in (_VERSION, _SASL_LIST)))
        if await _status(wire) is None:
            return None
        return SASL if await _status(wire) == _SUCCESS else BINARY
    finally:
        _close(wire)


async def _status(wire: PooledSocket) -> int | None:
    """Read a response of the binary protocol and return its status; None for anything else."""
    magic, _, _, _, _, status, size, _, _ = _HEADER.unpack(await wire.reader.readexactly(_HEADER.size))
    if magic != _RESPONSE:
        return None
    await wire.reader.readexactly(size)
    return int(status)


async def _closes_on_unknown(endpoint: Endpoint, dialer: Dialer, traffic: ByteCounter) -> str | None:
    wire = await _open(endpoint, dialer, traffic)
    try:
        _write(wire, b"get %b\r\n" % requests.PROBE_KEY)
        if await wire.reader.readline() != b"END\r\n":
            return None
        # A server of the meta protocol that was only restarting answers now.
        _write(wire, b"%b\r\n" % requests.NOOP)
        return None if await wire.reader.readline() else CLOSES_ON_UNKNOWN
    except ConnectionResetError:
        return None
    finally:
        _close(wire)


async def _open(endpoint: Endpoint, dialer: Dialer, traffic: ByteCounter) -> PooledSocket:
    made: list[PooledSocket] = []

    def make() -> PooledSocket:
        made.append(PooledSocket(asyncio.get_running_loop(), lambda _: None, traffic))
        return made[-1]

    try:
        wire = await dialer(endpoint, make)
    except BaseException:
        for wire in made:  # the dialer may have connected it, and been cancelled before it returned
            _close(wire)
        raise
    wire.busy = True  # a reply is expected from now on
    return wire


def _write(wire: PooledSocket, data: bytes) -> None:
    assert wire.streams is not None
    wire.streams.writer.write(data)


def _close(wire: PooledSocket) -> None:
    wire.given_up = True
    if wire.streams is not None:
        wire.streams.writer.transport.abort()
