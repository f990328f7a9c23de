"""Connection to one server for administration. Operations of the cache never wait behind it.

A list of keys takes seconds, and a server prints it while its crawler is locked. So the session reads it at full speed, see
`list_keys`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from evcache.zones.admin.key_list import END_OF_LIST, METADUMP, parse_cachedump
from evcache.zones.admin.statistics import ServerSettings, ServerStatistics
from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable, ProtocolError, ServerError, Unsupported
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol import requests
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import peers_of

# Lines of the longest reply but a list of keys. `stats conns` has some ten lines for each of thousands of clients.
MOST_LINES = 1_000_000
# Bytes of a list of keys that are read at once.
CHUNK_BYTES = 256 * 1024
# Longest silence in the middle of a list of keys. A server lists about a million keys per second.
LIST_SILENCE_SECONDS = 10.0

_ENDS_OF_LIST = (b"\n%b\r\n" % END_OF_LIST, b"\n%b\n" % END_OF_LIST)
_UNAUTHENTICATED = "CLIENT_ERROR unauthenticated"
_TOO_MANY = "ERROR Too many open connections"
_ERRORS = ("ERROR", "CLIENT_ERROR", "SERVER_ERROR")
_CAS = re.compile(r"^ME .* cas=([0-9]+)")
_CLASS = re.compile(r"items:([0-9]{1,9}):number")


class AdminSession:
    """Open connection to one server. Use `open_session`. After an error other than `ServerError` it cannot be used."""

    def __init__(self, node: str, reader: asyncio.StreamReader, transport: asyncio.WriteTransport, timeout: float) -> None:
        """Make a session.

        Args:
            node: Label of the node, for errors.
            reader: Reader of the connection.
            transport: Transport of the connection.
            timeout: Seconds for a reply.
        """
        self._node = node
        self._reader = reader
        self._transport = transport
        self._timeout = timeout

    @property
    def local_address(self) -> str:
        """Address of this end of the connection, as the server prints it in `stats conns`. Empty for a unix socket."""
        name: Any = self._transport.get_extra_info("sockname")
        if not isinstance(name, tuple):
            return ""
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    @property
    def peers(self) -> frozenset[tuple[str, int]]:
        """IP address and port of the other end. Empty for a unix socket."""
        return peers_of(self._transport)

    async def log_in(self, auth: tuple[str, str] | None) -> None:
        """Log in if the server asks for it.

        Raises:
            NodeUnavailable: The server asks for a login and there is none, or the login was refused. Or it has too many
                connections.
            NodeError: The server did not answer.
        """
        first = await self._question(requests.VERSION)
        if first.startswith(_TOO_MANY):
            raise NodeUnavailable(f"the server refuses connections: {first}", self._node)
        if not first.startswith(_UNAUTHENTICATED):
            return
        if auth is None:
            raise NodeUnavailable("the server asks for a login (unauthenticated)", self._node)
        line, secret = requests.text_auth(*auth)
        reply = await self._question(b"%b\r\n%b" % (line, secret))
        if reply != "STORED":
            raise NodeUnavailable(f"the login was refused: {reply}", self._node)

    async def version(self) -> str | None:
        """Return the version that the server reports, or None if it refuses. Raises a `NodeError` if it does not answer."""
        reply = await self._question(requests.VERSION)
        return reply.removeprefix("VERSION ") if reply.startswith("VERSION ") else None

    async def ping(self) -> None:
        """Send `mn`, which touches no item, and wait for the reply. It is `ERROR` without the meta protocol.

        Raises a `NodeError` if the server does not answer.
        """
        await self._question(requests.NOOP)

    async def stats(self, *arguments: str) -> dict[str, str]:
        """Return the lines `STAT <name> <value>` of a reply to `stats`.

        Args:
            arguments: Section and its arguments, for example "settings". Without any, the general statistics.

        Raises:
            ServerError: The server refuses.
            NodeError: The server did not answer.
        """
        lines = await self._lines(" ".join(["stats", *arguments]).encode())
        found = (line.split(" ", 2) for line in lines)
        return {parts[1]: parts[2] if len(parts) > 2 else "" for parts in found if parts[0] == "STAT" and len(parts) > 1}

    async def statistics(self) -> ServerStatistics:
        """Return the general statistics. See `stats` for the errors."""
        return ServerStatistics.parse(await self.stats())

    async def settings(self) -> ServerSettings:
        """Return the settings of the server. See `stats` for the errors."""
        return ServerSettings.parse(await self.stats("settings"))

    async def sample_keys(self, limit: int) -> list[bytes]:
        """Return some of the keys that were used most recently, in turn from each size class.

        Args:
            limit: Largest number of keys.

        Raises:
            ServerError: The server refuses.
            NodeError: The server did not answer.
        """
        names = [_CLASS.fullmatch(name) for name in await self.stats("items")]
        of_classes: list[list[bytes]] = []
        for number in sorted(int(name[1]) for name in names if name is not None):
            lines = await self._lines(f"stats cachedump {number} {limit}".encode())
            keys = [parse_cachedump(line.encode("latin-1")) for line in lines]
            of_classes.append([key for key in keys if key is not None])
        longest = max(map(len, of_classes), default=0)
        in_turn = [keys[place] for place in range(longest) for keys in of_classes if place < len(keys)]
        return in_turn[:limit]

    async def cas_numbers(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the CAS of those keys that the server holds. It is no use of the items, and takes no lease.

        Args:
            keys: Keys without spaces and control characters.

        Raises:
            ServerError: The server refuses.
            NodeError: The server did not answer.
        """
        # `mg` would win the right to replace a stale item, and count as a hit or a miss.
        self._transport.write(b"".join(b"me %b\r\n" % key for key in keys))
        deadline = self._deadline()
        lines = [await self._line(deadline) for _ in keys]
        refused = next((line for line in lines if line.startswith(_ERRORS)), None)
        if refused is not None:
            raise ServerError(refused, self._node)
        found = {key: _CAS.search(line) for key, line in zip(keys, lines, strict=True)}
        return {key: int(match[1]) for key, match in found.items() if match is not None}

    async def list_keys(self, write: Callable[[bytes], object]) -> None:
        """Pass the whole list of keys to `write`, in pieces that end anywhere. The lines are for `parse_metadump`.

        A client that stops in the middle of a list blocks every other use of the server's crawler. On servers up to 1.6.45
        it can block the server for good, if the hash table grows at that moment. So `write` must be quick, for example
        into a file, and the lines are used after the end of the list. Cancellation closes the connection, which frees the
        crawler.

        Args:
            write: Receives the bytes.

        Raises:
            Unsupported: The server refuses to list its keys.
            ServerError: The crawler is in use.
            NodeError: The server did not answer, or stopped in the middle.
        """
        self._send(METADUMP)
        first = await self._read_line(asyncio.get_running_loop().time() + LIST_SILENCE_SECONDS, LIST_SILENCE_SECONDS)
        self._raise_refusal(first.decode("latin-1").strip())
        write(first)
        tail = b"\n" + first  # so that an empty list ends like any other
        while not tail.endswith(_ENDS_OF_LIST):
            silent = asyncio.get_running_loop().time() + LIST_SILENCE_SECONDS
            chunk = await self._by(silent, self._reader.read(CHUNK_BYTES), LIST_SILENCE_SECONDS)
            if not chunk:
                raise ConnectionLost("the server closed the connection in the middle of the list of keys", self._node)
            write(chunk)
            tail = tail[-len(_ENDS_OF_LIST[0]) :] + chunk

    def _raise_refusal(self, first: str) -> None:
        """Raise the error that the first line of a list is, if it is one."""
        if first.startswith("BUSY"):
            raise ServerError(f"the crawler is in use: {first}", self._node)
        if first.startswith(_ERRORS):
            raise Unsupported(f"lists of keys ({first})", self._node)

    async def _lines(self, request: bytes) -> list[str]:
        """Send a request and return the lines of its reply without the last one, `END`."""
        self._send(request)
        deadline = self._deadline()
        lines: list[str] = []
        while (line := await self._line(deadline)) != "END":
            if line.startswith(_ERRORS):
                raise ServerError(line, self._node)
            if len(lines) >= MOST_LINES:
                raise ProtocolError(f"reply too long: over {MOST_LINES:,} lines", self._node)
            lines.append(line)
        return lines

    async def _question(self, request: bytes) -> str:
        self._send(request)
        return await self._line(self._deadline())

    def _send(self, request: bytes) -> None:
        self._transport.write(request + b"\r\n")

    def _deadline(self) -> float:
        """Return the end of a whole reply that is requested now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout

    async def _line(self, deadline: float) -> str:
        line = await self._read_line(deadline, self._timeout)
        if not line.endswith(b"\n"):
            raise ConnectionLost("the server closed the connection", self._node)
        return line.rstrip(b"\r\n").decode("latin-1")

    async def _read_line(self, deadline: float, seconds: float) -> bytes:
        """Return a line with its end, or the bytes before the end of the connection."""
        try:
            return await self._by(deadline, self._reader.readline(), seconds)
        except ValueError:  # asyncio's error for a line over the limit of the reader
            raise ProtocolError(f"reply too long: a line has more than {CHUNK_BYTES // 1024} KiB", self._node) from None

    async def _by(self, deadline: float, reply: Any, seconds: float) -> bytes:
        """Wait for bytes. `seconds` is the time that the deadline allows, for the error."""
        try:
            async with asyncio.timeout_at(deadline):
                found: bytes = await reply
                return found
        except TimeoutError:
            raise NodeTimeout(f"no reply in {seconds:g} s", self._node) from None
        except OSError as error:
            raise ConnectionLost(str(error), self._node) from error


@asynccontextmanager
async def open_session(endpoint: Endpoint, settings: NodeSettings) -> AsyncIterator[AdminSession]:
    """Open a connection, log in if the server asks for it, and close the connection at the end of the block.

    Args:
        endpoint: The node.
        settings: Dialer, login and `connect_timeout`, which also limits each reply.

    Raises:
        NodeTimeout: The server cannot be connected to in time.
        NodeUnavailable: The server cannot be connected to, or refuses the login.
        NodeError: The server did not answer.
    """
    async with connect_session(endpoint, settings) as session:
        await session.log_in(settings.auth)
        yield session


@asynccontextmanager
async def connect_session(endpoint: Endpoint, settings: NodeSettings) -> AsyncIterator[AdminSession]:
    """Open a connection without a login, and close it at the end of the block. Nothing is sent.

    Args:
        endpoint: The node.
        settings: Dialer and `connect_timeout`, which also limits each reply.

    Raises:
        NodeTimeout: The server cannot be connected to in time.
        NodeUnavailable: The server cannot be connected to.
    """
    loop = asyncio.get_running_loop()
    made: list[tuple[asyncio.StreamReader, asyncio.StreamReaderProtocol]] = []
    transports: list[asyncio.WriteTransport] = []

    def make() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=CHUNK_BYTES, loop=loop)
        protocol = _Protocol(reader, transports.append, loop)
        made.append((reader, protocol))
        return protocol

    try:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await settings.dialer(endpoint, make)
        except TimeoutError:
            raise NodeTimeout(f"no connection in {settings.connect_timeout:g} s", endpoint.label) from None
        except OSError as error:
            raise NodeUnavailable(str(error) or type(error).__name__, endpoint.label) from error
        yield AdminSession(endpoint.label, made[-1][0], transports[-1], settings.connect_timeout)
    finally:
        for transport in transports:  # the dialer may have connected it, and been cancelled before it returned
            transport.abort()


class _Protocol(asyncio.StreamReaderProtocol):
    """Protocol that hands out its transport."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        on_transport: Callable[[asyncio.WriteTransport], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(reader, loop=loop)
        self._on_transport = on_transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Handle an event of the loop."""
        super().connection_made(transport)
        self._on_transport(transport)  # type: ignore[arg-type]  # by its kind: uvloop's transports are not asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle an event of the loop."""
        super().connection_lost(exc)
        # See `PooledSocket.connection_lost`: asyncio would report an error that was never retrieved.
        closed: asyncio.Future[None] | None = getattr(self, "_closed", None)
        if exc is not None and closed is not None:
            closed.exception()
