"""Handshake on a new connection: log in if the server asks for it, then ask for the server's capabilities.

Each question is optional. The client uses a server that refuses one, whatever the text, without that feature.
"""

from __future__ import annotations

import asyncio
import logging

from evcache.zones.errors import ConnectionLost, NodeUnavailable, ProtocolError, Unsupported
from evcache.zones.nodes.capabilities import DEFAULT_ITEM_BYTES, UNKNOWN_SERVER, Capabilities
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import ERROR_STATUSES, Reply, decimal, unexpected
from evcache.zones.transport.classic.connection import ClassicConnection
from evcache.zones.transport.in_flight import give_up
from evcache.zones.transport.pipelined import PipelinedConnection

_UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated"
# The refusal of a memcached at its connection limit (`-c`). It says nothing about the protocol.
_TOO_MANY_CONNECTIONS = b"ERROR Too many open connections"

_log = logging.getLogger("evcache.zones.nodes")


class SpeaksNoMeta(Unsupported):
    """Refusal of `mn`, as by a server without the meta protocol. The server may speak the classic protocol."""


class HungUp(ConnectionLost):
    """End of the connection in place of a reply to the first question."""


async def handshake_meta(connection: PipelinedConnection, deadline: float, auth: tuple[str, str] | None) -> Capabilities:
    """Log in if the server asks for a login, then ask for its capabilities.

    A server without login takes a login for an ordinary `set`, and would store the password where every client can read it.
    The client therefore asks first. It sends the login only to a server that refuses the question with `unauthenticated`.

    Args:
        connection: New connection. The caller closes it after an error.
        deadline: End of the handshake, on the loop's clock.
        auth: User and password. None if the client has no login.

    Returns:
        The capabilities of the server.

    Raises:
        SpeaksNoMeta: The server refused `mn`. Not raised for a server that closes or sends an invalid reply. That may be a
            failing server of the meta protocol, which would be used without versions until the next reconnect.
        HungUp: The server closed the connection at the first question.
        NodeError: The server cannot be used now.
    """
    if auth is not None and await _asks_for_login(connection, deadline):
        await _log_in(connection, deadline, auth)
    # All questions go in one packet. The replies arrive in order.
    speaks_meta = _ask(connection, requests.NOOP, deadline)
    explicit_cas = _ask(connection, requests.PROBE_EXPLICIT_CAS, deadline)
    version = _ask(connection, requests.VERSION, deadline)
    settings = _ask(connection, requests.STATS_SETTINGS, deadline, until=b"END")
    try:
        first = await _first_answer(connection, speaks_meta)
        if first.status != b"MN":
            raise await _refusal(connection, first, explicit_cas)
        probed = (await explicit_cas)[0]
        server = _version((await version)[0])
        known = _settings(await settings)
    finally:
        for answer in (speaks_meta, explicit_cas, version, settings):
            give_up(answer)
    if probed.status == b"SERVER_ERROR":
        probed = await _ask_other_backends(connection, deadline)
    return Capabilities(
        server=server,
        explicit_cas=_may_choose_cas(probed),
        cas=known.get(b"cas_enabled") != b"no",
        item_bytes=_item_bytes(known),
    )


async def handshake_classic(connection: ClassicConnection, auth: tuple[str, str] | None) -> Capabilities:
    """Ask a classic server for its capabilities. Only the first question needs a reply.

    Args:
        connection: New connection. The caller closes it after an error.
        auth: User and password, which the classic transport cannot send.

    Returns:
        The capabilities of the server.

    Raises:
        Unsupported: The server asks for a login.
        HungUp: The server closed the connection at the first question.
        NodeError: The server cannot be used now.
    """
    try:
        await connection.probe()
    except ConnectionLost as error:
        raise HungUp(error.problem, error.node) from error
    except ProtocolError as error:
        if _UNAUTHENTICATED.decode() in error.problem:
            feature = "a login over the classic protocol, and the server asks for one (unauthenticated)"
            raise Unsupported(feature, connection.name) from error
        raise
    if auth is not None:
        _warn_of_unused_login(connection.name)
    server = await connection.version()
    known = await connection.settings()
    connection.start()
    return Capabilities(
        server=server or UNKNOWN_SERVER,
        explicit_cas=False,
        cas=known.get(b"cas_enabled") != b"no",
        item_bytes=_item_bytes(known),
        transport="classic",
    )


async def _asks_for_login(connection: PipelinedConnection, deadline: float) -> bool:
    # A server run with `-Y` sends one error for all requests before the login, so this question is sent separately.
    answer = _ask(connection, requests.NOOP_PADDED, deadline)
    first = await _first_answer(connection, answer)
    if first.line.startswith(_UNAUTHENTICATED):
        return True
    if first.status == b"MN":
        _warn_of_unused_login(connection.name)
    return False  # the questions that follow find out the meaning of any other refusal


async def _log_in(connection: PipelinedConnection, deadline: float, auth: tuple[str, str]) -> None:
    line, secret = requests.text_auth(*auth)
    (reply,) = await _ask(connection, line, deadline, data=secret)
    if reply.status != b"STORED":
        raise NodeUnavailable(f"the login was refused: {reply.line.decode('latin-1')}", connection.name)


async def _ask_other_backends(connection: PipelinedConnection, deadline: float) -> Reply:
    """Repeat the CAS probe under other keys, because the proxy backend of the first key may be dead."""
    answers = [_ask(connection, probe, deadline) for probe in requests.PROBES_OF_OTHER_BACKENDS]
    try:
        replies = [(await answer)[0] for answer in answers]
    finally:
        for answer in answers:
            give_up(answer)
    return next((reply for reply in replies if reply.status != b"SERVER_ERROR"), replies[0])


def _warn_of_unused_login(name: str) -> None:
    _log.warning("login not sent: node %s asks for none", name)


def _ask(
    connection: PipelinedConnection, line: bytes, deadline: float, *, data: bytes | None = None, until: bytes | None = None
) -> asyncio.Future[list[Reply]]:
    answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
    # The payload of a refused login may still be in the stream. A refusal of it is no reply to this question.
    connection.request_text(line, answer, deadline, data=data, until=until, may_be_unknown=data is None)
    return answer


async def _first_answer(connection: PipelinedConnection, answer: asyncio.Future[list[Reply]]) -> Reply:
    try:
        return (await answer)[0]
    except ConnectionLost as error:
        raise HungUp(error.problem, connection.name) from error
    except ProtocolError as error:
        raise Unsupported("the meta protocol", connection.name) from error


async def _refusal(connection: PipelinedConnection, reply: Reply, explicit_cas: asyncio.Future[list[Reply]]) -> Exception:
    """Return the error for a server that did not answer `mn` with `MN`."""
    name = connection.name
    if reply.line.startswith(_UNAUTHENTICATED):
        # The server has dropped the questions behind it, and does not answer them.
        return NodeUnavailable(
            "the server asks for a login (unauthenticated): set `NodeSettings(auth=(user, password))`", name
        )
    if reply.status not in ERROR_STATUSES:
        return unexpected(reply)
    trouble = NodeUnavailable(reply.line.decode("latin-1"), name)
    if reply.line.startswith(_TOO_MANY_CONNECTIONS):
        return trouble
    if reply.status == b"SERVER_ERROR":
        # A server that refuses every command with SERVER_ERROR is in trouble; one that answers others knows no `mn`.
        try:
            second = (await explicit_cas)[0]
        except (ConnectionLost, ProtocolError):
            return trouble
        if second.status == b"SERVER_ERROR":
            return trouble
    return SpeaksNoMeta("the meta protocol", name)


def _may_choose_cas(reply: Reply) -> bool:
    if reply.status == b"EN":
        return True
    if reply.status in ERROR_STATUSES:
        return False
    raise unexpected(reply)


def _version(reply: Reply) -> str:
    if reply.status in ERROR_STATUSES:
        return UNKNOWN_SERVER
    if reply.status != b"VERSION":
        raise unexpected(reply)
    return b" ".join(reply.tokens).decode("latin-1")


def _settings(replies: list[Reply]) -> dict[bytes, bytes]:
    # Use memcached's defaults for a server that shows no settings.
    return {reply.tokens[0]: reply.tokens[1] for reply in replies if reply.status == b"STAT" and len(reply.tokens) > 1}


def _item_bytes(settings: dict[bytes, bytes]) -> int:
    try:
        return decimal(settings[b"item_size_max"])
    except (KeyError, ProtocolError):
        return DEFAULT_ITEM_BYTES
