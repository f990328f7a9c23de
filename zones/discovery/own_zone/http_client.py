"""HTTP for metadata services, on sockets of the event loop.

These services are next to the machine: the client uses no proxy, no TLS, and a connection for each request. It follows no
redirect. `http.client` of the standard library parses the replies.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from evcache.zones.transport.dialer import connect_first, in_turn
from evcache.zones.transport.resolver import Resolver

# The longest expected reply is the description of an ECS task. It has about 2 kB for each of at most 10 containers.
MAX_REPLY_BYTES = 64 * 1024
_PORT = 80
_END_OF_HEAD = b"\r\n\r\n"

Connect = Callable[[str, int], Awaitable[socket.socket]]
"""Opener of a non-blocking socket to a host and port. Raises `OSError`."""


class MalformedReply(Exception):
    """Reply that is not HTTP, ends too early, or is too long."""


class Reply(NamedTuple):
    """Reply to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    """Complete if the status is 200, and empty otherwise."""


def socket_opener() -> Connect:
    """Return an opener of TCP sockets. It looks names up outside of the loop's default executor."""
    resolver = Resolver()

    async def connect(host: str, port: int) -> socket.socket:
        return await connect_first(in_turn(await resolver(host, port)))

    return connect


async def exchange(connect: Connect, method: str, url: str, headers: Mapping[str, str]) -> Reply:
    """Send a request without a body, and return the reply of any status.

    The caller limits the time. The socket is closed in every case, after a cancellation too.

    Args:
        connect: Opener of sockets.
        method: `GET` or `PUT`.
        url: URL with the scheme `http`.
        headers: Headers besides `Host`.

    Returns:
        The reply.

    Raises:
        MalformedReply: The reply is not HTTP, ends too early, or has more than 64 kB.
        OSError: No connection is possible, or the server reset it.
        ValueError: The URL has another form.
    """
    place = urlsplit(url)
    if place.scheme != "http" or not place.hostname:
        raise ValueError(f"an http URL is required, not {url!r}")
    request = _request(method, place, headers)
    loop = asyncio.get_running_loop()
    sock = await connect(place.hostname, place.port or _PORT)
    try:
        await loop.sock_sendall(sock, request)
        received = bytearray()
        while True:
            part = await loop.sock_recv(sock, MAX_REPLY_BYTES + 1 - len(received))
            received += part
            if len(received) > MAX_REPLY_BYTES:
                raise MalformedReply(f"the reply has more than {MAX_REPLY_BYTES} bytes")
            reply = _parse(received, is_all=not part)
            if reply is not None:
                return reply
            if not part:
                raise MalformedReply(
                    "the reply ends too early" if received else "the server closed the connection without a reply"
                )
    finally:
        sock.close()


def _request(method: str, place: SplitResult, headers: Mapping[str, str]) -> bytes:
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    if any(character.isspace() for character in target):
        raise ValueError(f"a URL has no white space: {target!r}")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {place.netloc}", "Connection: close", "Accept: */*"]
    if method == "PUT":
        lines.append("Content-Length: 0")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _parse(received: bytearray, *, is_all: bool) -> Reply | None:
    """Return the reply, or None if a part of it is missing.

    Args:
        received: Bytes since the request.
        is_all: True if the server has ended the connection. That is the end of a reply without a length.

    Raises:
        MalformedReply: The bytes are not a reply.
    """
    # `HTTPResponse` takes the end of the bytes for the end of the head, and a size of "0" for that of "0a" in chunks.
    if _END_OF_HEAD not in received:
        return None
    response = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]  # it needs `makefile` only
    try:
        response.begin()
        if response.status != http.client.OK:
            # A page that explains an error is not needed, and a server may end it late.
            return Reply(response.status, response.headers, b"")
        may_be_whole = received.endswith(_END_OF_HEAD) if response.chunked else is_all or response.length is not None
        return Reply(response.status, response.headers, response.read()) if may_be_whole else None
    except http.client.IncompleteRead:
        return None
    except (http.client.HTTPException, ValueError) as error:
        # The text of the error may contain bytes of the server, which do not belong in a log.
        raise MalformedReply(f"the reply is not HTTP ({type(error).__name__})") from error
    finally:
        response.close()


class _Received:
    """Received bytes in place of the socket that `HTTPResponse` reads."""

    def __init__(self, received: bytearray) -> None:
        self._received = received

    def makefile(self, _mode: str) -> io.BytesIO:
        """Return a file of the bytes."""
        return io.BytesIO(self._received)
