"""The first words on a connection: log in where that is asked for, then find out what the server can do."""

from __future__ import annotations

import asyncio
from typing import Any

from zones.capabilities import DEFAULT_ITEM_BYTES, Capabilities
from zones.connection import Connection
from zones.errors import NodeUnavailable, ProtocolError, Unsupported
from zones.protocol import requests
from zones.protocol.replies import Reply, decimal, unexpected
from zones.transports.classic import ClassicConnection

# What a classic server is called that does not say what it is.
UNKNOWN_SERVER = "unknown"


class SpeaksNoMeta(Unsupported):
    """The server said itself that it does not know the meta protocol; it may speak the classic one."""


async def shake_hands(connection: Connection, deadline: float, auth: tuple[str, str] | None) -> Capabilities:
    """Log in and ask. Raises a `NodeError` or `Unsupported` when the server can't be used; the caller closes.

    `SpeaksNoMeta` only for an answer that leaves no doubt: a server that closes, or talks nonsense, may be one of the meta
    protocol in trouble, and would be used without versions until the next reconnect.
    """
    if auth is not None:
        await _log_in(connection, deadline, auth)
    # All questions in one packet; the answers come in order.
    speaks_meta = _ask(connection, requests.NOOP, deadline, may_be_unknown=True)
    explicit_cas: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.request(requests.PROBE_EXPLICIT_CAS, explicit_cas, deadline)
    version = _ask(connection, requests.VERSION, deadline)
    settings = _ask(connection, requests.STATS_SETTINGS, deadline, until=b"END")
    try:
        try:
            first = (await speaks_meta)[0]
        except ProtocolError as error:
            raise Unsupported("the meta protocol", connection.name) from error
        _check_meta(connection, first)
        may_choose_cas = _may_choose_cas(await explicit_cas)
        server = _version(await version)
        known = _settings(await settings)
    finally:
        for answer in (speaks_meta, explicit_cas, version, settings):
            _give_up(answer)
    return Capabilities(
        server=server,
        explicit_cas=may_choose_cas,
        cas=known.get(b"cas_enabled") != b"no",
        item_bytes=_item_bytes(known),
    )


async def meet_classic(connection: ClassicConnection, auth: tuple[str, str] | None) -> Capabilities:
    """Find out what a classic server can do. Raises a `NodeError` or `Unsupported` when it can't be used; the caller closes.

    Only that it answers is asked for: a proxy may know neither `version` nor `stats`.
    """
    if auth is not None:
        raise Unsupported("a login over the classic protocol", connection.name)
    await connection.probe()
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


async def _log_in(connection: Connection, deadline: float, auth: tuple[str, str]) -> None:
    # A server run with -Y answers one complaint for all that it has read before the login, so this must travel alone.
    line, secret = requests.text_auth(*auth)
    (reply,) = await _ask(connection, line, deadline, data=secret)
    if reply.status != b"STORED":
        raise NodeUnavailable(f"the login was refused: {reply.line.decode('latin-1')}", connection.name)


def _ask(
    connection: Connection,
    line: bytes,
    deadline: float,
    *,
    data: bytes | None = None,
    until: bytes | None = None,
    may_be_unknown: bool = False,
) -> asyncio.Future[list[Reply]]:
    answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
    connection.request_text(line, answer, deadline, data=data, until=until, may_be_unknown=may_be_unknown)
    return answer


def _give_up(answer: asyncio.Future[Any]) -> None:
    # One that failed must be looked at, or asyncio reports it as an error that nobody handled.
    if not answer.cancel() and not answer.cancelled():
        answer.exception()


def _check_meta(connection: Connection, reply: Reply) -> None:
    if reply.status == b"MN":
        return
    if reply.line.startswith(b"CLIENT_ERROR unauthenticated"):
        # It has dropped the other questions, and will not answer them.
        raise NodeUnavailable("it asks for a login (unauthenticated)", connection.name)
    if reply.line == b"ERROR" or reply.status == b"CLIENT_ERROR":
        raise SpeaksNoMeta("the meta protocol", connection.name)
    # A memcached with too many connections answers ERROR too, with words behind it, whatever it speaks.
    raise NodeUnavailable(reply.line.decode("latin-1"), connection.name)


def _may_choose_cas(reply: Reply) -> bool:
    if reply.status == b"EN":
        return True
    if reply.line.startswith(b"CLIENT_ERROR invalid flag"):
        return False
    raise unexpected(reply)


def _version(replies: list[Reply]) -> str:
    if replies[0].status != b"VERSION":
        raise unexpected(replies[0])
    return b" ".join(replies[0].tokens).decode("latin-1")


def _settings(replies: list[Reply]) -> dict[bytes, bytes]:
    # A server that has no settings to show is taken to have memcached's defaults.
    return {reply.tokens[0]: reply.tokens[1] for reply in replies if reply.status == b"STAT" and len(reply.tokens) > 1}


def _item_bytes(settings: dict[bytes, bytes]) -> int:
    try:
        return decimal(settings[b"item_size_max"])
    except (KeyError, ProtocolError):
        return DEFAULT_ITEM_BYTES
