"""A memcached server inside the process, for tests: on a socket, in memory, or as a pure function of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, cast

from evcache.zones.testing.fake_memcached.dialect import Dialect
from evcache.zones.testing.fake_memcached.memory_transport import MemoryTransport
from evcache.zones.testing.fake_memcached.session import Session
from evcache.zones.testing.fake_memcached.state import TOO_MANY_CONNECTIONS, ServerState
from evcache.zones.testing.fake_memcached.store import Store

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections import Counter
    from collections.abc import Callable, Mapping
    from types import TracebackType

_AnyProtocol = TypeVar("_AnyProtocol", bound=asyncio.BaseProtocol)

# Unread requests of one client after which a paused server takes no more from the socket, so that the client's
# own buffers fill up, as they do before a stopped process.
_PAUSED_BACKLOG = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class FakeMemcached:
    """A server that answers as memcached does, byte for byte.

    version: the release to imitate; what differs for a client is in `Dialect`.
    classic_only: no meta protocol, as servers before 1.6 and most proxies; `mg` and the like answer ERROR.
    twemproxy: the commands of twemproxy: `get gets set add replace append prepend cas delete incr decr quit`. On any other
        it closes the connection without a word. A dead backend answers `SERVER_ERROR Connection refused`, once for all keys.
    auth: user and password, as a server with `-Y`.
    serverless: the restrictions that the documentation of Amazon ElastiCache Serverless names. `stats` with an argument
        other than `reset`, `me`, `verbosity` and commands for the engine answer ERROR. A delayed `flush_all` answers
        CLIENT_ERROR. A line of `get` or `gets` over 16 KiB answers CLIENT_ERROR and closes the connection; the
        documentation names the limit, not the answer. TLS, which it demands, is up to `start(ssl=...)`.
    refuse: the answers to commands that the server refuses, by the beginning of their lines, such as
        `{"stats settings": "ERROR"}`. For commands without a payload.
    dead_backend: as memcached's built-in proxy with a dead backend: True for a key that is on that backend. Commands with
        such a key answer `SERVER_ERROR backend failure`. An attribute, too.
    max_connections: as `-c`, and exact: a connection over the limit gets `ERROR Too many open connections` and is closed.
        None: no limit. An attribute, too.
    max_bytes: memory for items, after which the least recently used are evicted; None: no limit.
    clock: seconds, for TTLs, which are exact here; memcached's own clock ticks once a second.
    wall_clock: unix time, for TTLs that are given as a date (over 30 days).

    Not imitated:

    - `watch`, `lru`, `extstore`, `refresh_certs`, and of `lru_crawler` all but `crawl`. They answer ERROR.
    - The binary protocol. A client that speaks it is closed, while memcached answers it.
    - Slab classes. `me` always shows cls=1, `stats cachedump` lists every item in class 1, nothing is evicted for lack of
      memory in one class, `slabs reassign` moves nothing, and `stats items`, `slabs`, `conns` and `extstore` are empty.
    - The counts of `stats detail dump`.
    - In `stats` and `stats settings`, the figures of what the fake does not have: threads, buffers, the hash table, slab
      pages, the moves between LRUs, the log, extstore, TLS, the proxy. They are an idle server's. `get_flushed` is 0, since
      a flush takes items away at once.
    - The pace of the LRU crawler. Here expired items go at the first command after each second, 1,000 items looked at;
      memcached looks at each slab class from once a minute to once an hour.
    - The second that delayed flushes may come early.
    - The parser that came after 1.6.39. Of newer releases only `mg C` is there.
    - That a `get` of an overlong key also swallows the replies to commands that came in the same packet.
    - That `ma` sometimes replaces an item where it usually changes it in place, right after fetches of the item. T, E and
      the stale mark are then lost, as they are here when the number gains a digit.
    """

    def __init__(
        self,
        *,
        version: str = "1.6.38",
        item_size_max: int = 1024 * 1024,
        cas_enabled: bool = True,
        classic_only: bool = False,
        twemproxy: bool = False,
        auth: tuple[str, str] | None = None,
        serverless: bool = False,
        refuse: Mapping[str, str] | None = None,
        dead_backend: Callable[[bytes], bool] | None = None,
        max_connections: int | None = None,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = Store(
            clock=clock,
            wall_clock=wall_clock,
            item_size_max=item_size_max,
            max_bytes=max_bytes,
            cas_enabled=cas_enabled,
        )
        dialect = Dialect.of(version, classic_only=classic_only, serverless=serverless, twemproxy=twemproxy)
        self._state = ServerState(self.store, dialect, auth, refuse or {}, wall_clock=wall_clock)
        self._state.dead_backend = dead_backend
        self._state.max_connections = max_connections
        self._paused = False
        self._alive = True
        self._address: str | None = None
        self._listener: asyncio.Server | None = None
        self._serial = 0  # which run of the server this is: one more after each stop
        self._unix_path: Path | None = None
        self._memory: set[MemoryTransport] = set()
        self._sockets: set[_SocketConnection] = set()

    # --- what tests look at ----------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """`127.0.0.1:12345` or `unix:/path`; the last one after stop(). RuntimeError before the first start."""
        if self._address is None:
            raise RuntimeError("the server has not been started")
        return self._address

    @property
    def port(self) -> int:
        """The TCP port; ValueError for a unix socket."""
        return int(self.address.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """Open connections, in memory and on sockets."""
        return self._state.connections

    @property
    def connections_total(self) -> int:
        """Connections that were ever made."""
        return self._state.connections_total

    @property
    def commands(self) -> Counter[str]:
        """Commands received so far, by name."""
        return self._state.commands

    @property
    def max_connections(self) -> int | None:
        """Most open connections; None: no limit."""
        return self._state.max_connections

    @max_connections.setter
    def max_connections(self, most: int | None) -> None:
        self._state.max_connections = most

    @property
    def dead_backend(self) -> Callable[[bytes], bool] | None:
        """True for each key of the dead backend; None: no backend is dead."""
        return self._state.dead_backend

    @dead_backend.setter
    def dead_backend(self, is_dead: Callable[[bytes], bool] | None) -> None:
        self._state.dead_backend = is_dead

    @property
    def paused(self) -> bool:
        """Whether pause() was called, and resume() was not."""
        return self._paused

    # --- without I/O -----------------------------------------------------------------------------------------------

    def session(self) -> Session:
        """A connection as a pure object: `session.receive(bytes)` returns the replies."""
        return Session(self._state)

    # --- on sockets ------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, ssl: ssl_module.SSLContext | None = None) -> None:
        """Listen on TCP; port 0 takes a free one. After stop() or kill() the same port can be taken again.

        Raises OSError if the port is in use, RuntimeError if the server is listening already.
        """
        self._check_not_listening()
        loop = asyncio.get_running_loop()
        serial = self._serial
        self._listener = await loop.create_server(
            lambda: _SocketConnection(self, serial), host, port, ssl=ssl, reuse_address=True
        )
        bound_host, bound_port = self._listener.sockets[0].getsockname()[:2]
        self._address = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
        self._alive = True

    async def start_unix(self, path: str) -> None:
        """Listen on a unix socket, which stop() and kill() remove."""
        self._check_not_listening()
        loop = asyncio.get_running_loop()
        serial = self._serial
        self._listener = await loop.create_unix_server(lambda: _SocketConnection(self, serial), path)
        self._unix_path = Path(path)
        self._address = f"unix:{path}"
        self._alive = True

    async def stop(self) -> None:
        """Close the listener and all connections, and wait until they are closed. Items stay. Idempotent."""
        await self._shut_down(killed=False)

    async def kill(self) -> None:
        """Go as a process that dies: connections are reset, and the items are lost."""
        self.store.clear()
        await self._shut_down(killed=True)
        self.store.clear()

    def pause(self) -> None:
        """Stop answering, as a process under SIGSTOP: connecting and sending still work, replies do not come."""
        self._paused = True

    def resume(self) -> None:
        """Go on, first with everything that was sent meanwhile."""
        self._paused = False
        for transport in list(self._memory):
            transport.wake()
        for connection in list(self._sockets):
            connection.process()

    # --- in memory -------------------------------------------------------------------------------------------------

    async def connect(self, protocol_factory: Callable[[], _AnyProtocol]) -> tuple[asyncio.Transport, _AnyProtocol]:
        """Like loop.create_connection, without a socket. Works before start(); ConnectionRefusedError once stopped."""
        loop = asyncio.get_running_loop()
        if not self._alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the server is not running")
        protocol = protocol_factory()
        transport = MemoryTransport(loop, self, self.session(), protocol, {"peername": ("memory", 0)})
        if self._is_full():
            transport.refuse(TOO_MANY_CONNECTIONS)
        else:
            self._memory.add(transport)
            self._count_connection()
        connected: asyncio.Future[None] = loop.create_future()
        loop.call_soon(_call_connection_made, protocol, transport, connected)
        try:
            await connected
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    def revive(self) -> None:
        """Take connections in memory again after stop() or kill()."""
        self._alive = True

    def forget(self, connection: MemoryTransport | _SocketConnection) -> None:
        """For connections of this server: called when one is over."""
        if isinstance(connection, MemoryTransport):
            self._memory.discard(connection)
        else:
            self._sockets.discard(connection)
        self._state.connections -= 1

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- inside ----------------------------------------------------------------------------------------------------

    def adopt(self, connection: _SocketConnection) -> None:
        """For connections of this server: called when one is made."""
        full = self._is_full()
        self._sockets.add(connection)
        self._count_connection()
        if full:
            self._state.connections_total -= 1  # memcached counts it as rejected only
            connection.refuse(TOO_MANY_CONNECTIONS)
        if connection.serial != self._serial:  # accepted just before the server stopped
            connection.hang_up(reset=True)

    def _is_full(self) -> bool:
        most = self._state.max_connections
        if most is None or self._state.connections < most:
            return False
        self._state.connections_rejected += 1
        return True

    def _count_connection(self) -> None:
        self._state.connections += 1
        self._state.connections_most = max(self._state.connections_most, self._state.connections)
        self._state.connections_total += 1

    def _check_not_listening(self) -> None:
        if self._listener is not None:
            raise RuntimeError(f"the server listens on {self.address} already")

    async def _shut_down(self, *, killed: bool) -> None:
        self._alive = False
        self._paused = False
        self._serial += 1
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        path, self._unix_path = self._unix_path, None
        if path is not None:
            path.unlink(missing_ok=True)
        over: list[asyncio.Future[None]] = []
        for transport in list(self._memory):
            over.append(transport.lost)
            transport.hang_up(ConnectionResetError(errno.ECONNRESET, "the server was killed") if killed else None)
        for connection in list(self._sockets):
            over.append(connection.lost)
            connection.hang_up(reset=killed)
        if listener is not None:
            await listener.wait_closed()
        if over:
            await asyncio.wait(over)


def _call_connection_made(
    protocol: asyncio.BaseProtocol, transport: asyncio.Transport, connected: asyncio.Future[None]
) -> None:
    try:
        protocol.connection_made(transport)
    except Exception as error:
        if not connected.done():
            connected.set_exception(error)
    else:
        if not connected.done():
            connected.set_result(None)


class _SocketConnection(asyncio.Protocol):
    """The server's end of one socket."""

    def __init__(self, server: FakeMemcached, serial: int) -> None:
        self.serial = serial
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._session = server.session()
        self._requests = bytearray()  # arrived while the server is paused
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.adopt(self)

    def data_received(self, data: bytes) -> None:
        self._requests += data
        if not self._server.paused:
            self.process()
        elif len(self._requests) >= _PAUSED_BACKLOG and self._transport is not None:
            self._transport.pause_reading()

    def process(self) -> None:
        """Read and answer what has arrived; the client may have gone, but its commands count."""
        requests = bytes(self._requests)
        self._requests.clear()
        replies = self._session.receive(requests)
        transport = self._transport
        if transport is None:
            self._server.forget(self)
            return
        if transport.is_closing():
            return
        transport.resume_reading()
        transport.write(replies)
        if self._session.closed:
            transport.close()

    def refuse(self, words: bytes) -> None:
        """Say this, and close."""
        if self._transport is not None:
            self._transport.write(words)
            self._transport.close()

    def pause_writing(self) -> None:
        """The client does not read its replies: take no more requests from it."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def hang_up(self, *, reset: bool) -> None:
        self._requests.clear()
        transport = self._transport
        if transport is None:
            self._server.forget(self)
            return
        if reset:
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # unix sockets know no reset, and the client may have been faster
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if reset or transport.get_write_buffer_size():
            transport.abort()  # close() would wait for a client that does not read
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # a client may go as it likes
        self._transport = None
        if not self._requests:
            self._server.forget(self)
        self.lost.set_result(None)
