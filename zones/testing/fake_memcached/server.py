"""Fake memcached inside the process, for tests: on a socket, in memory, or as a pure function of bytes."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from evcache.zones.testing.fake_memcached.dialect import Dialect
from evcache.zones.testing.fake_memcached.memory_transport import MemoryTransport
from evcache.zones.testing.fake_memcached.session import Session
from evcache.zones.testing.fake_memcached.socket_connection import SocketConnection
from evcache.zones.testing.fake_memcached.state import TOO_MANY_CONNECTIONS, ServerState
from evcache.zones.testing.fake_memcached.store import Store

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections import Counter
    from collections.abc import Callable, Mapping
    from types import TracebackType

_AnyProtocol = TypeVar("_AnyProtocol", bound=asyncio.BaseProtocol)


class FakeMemcached:
    """Server that replies as memcached does, byte for byte.

    Args:
        version: Release to imitate, see `Dialect`.
        classic_only: True for no meta protocol, as servers before 1.6 and most proxies. Meta commands answer ERROR.
        twemproxy: True for the commands of twemproxy: `get gets set add replace append prepend cas delete incr decr quit`.
            Any other command closes the connection. A dead backend answers `SERVER_ERROR Connection refused`, once for all
            keys.
        auth: User and password, as a server with `-Y`.
        serverless: True for the documented restrictions of Amazon ElastiCache Serverless. Commands for the engine answer
            ERROR, as do `me`, `verbosity`, and `stats` with an argument other than `reset`. A delayed `flush_all` answers
            CLIENT_ERROR. A line of `get` or `gets` over 16 KiB answers CLIENT_ERROR and closes the connection. The
            documentation gives that limit, not the reply. The service requires TLS: use `start(ssl=...)`.
        refuse: Replies to refused commands by the beginning of their lines, such as `{"stats settings": "ERROR"}`. For
            commands without a payload.
        dead_backend: Function that returns True for keys on a dead backend of memcached's built-in proxy. Commands with such
            a key answer `SERVER_ERROR backend failure`. Also an attribute.
        max_connections: Limit of connections, as `-c`, and exact. A connection above it gets `ERROR Too many open
            connections` and is closed. None is no limit. Also an attribute.
        max_bytes: Memory for items. Above it, the least recently used items are evicted. None is no limit.
        may_list_keys: False to refuse `lru_crawler metadump` and `stats cachedump`, as with `-X`.
        clock: Function that returns seconds, for TTLs. They are exact here; memcached's own clock ticks once per second.
        wall_clock: Function that returns unix time, for TTLs above 30 days.

    Not imitated:

    - `watch`, `lru`, `extstore`, `refresh_certs`, and `lru_crawler` without `crawl` or `metadump`. They answer ERROR.
    - The binary protocol. The fake closes such a connection, and memcached answers.
    - Slab classes. `me` always shows cls=1, and `stats cachedump` lists every item in class 1. A class never runs out of
      memory. `slabs reassign` moves nothing. `stats slabs`, `conns` and `extstore` are empty.
    - The counts of `stats detail dump`.
    - Figures of missing parts in `stats` and `stats settings`: threads, buffers, hash table, slab pages, LRU moves, log,
      extstore, TLS, proxy. They are those of an idle server. `get_flushed` is 0, because a flush removes items at once.
    - The pace of the LRU crawler. Here the first command after each second checks 1,000 items. memcached checks each slab
      class between once per minute and once per hour.
    - The second by which a delayed flush may be early.
    - The parser of releases after 1.6.39. Of newer releases only `mg C` is imitated.
    - The loss of replies to commands in one packet with a `get` of an overlong key.
    - The replacement of an item by `ma` soon after fetches of it. T, E and the stale mark are then lost, as they are here
      if the number gains a digit.
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
        may_list_keys: bool = True,
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
        self._state.may_list_keys = may_list_keys
        self._paused = False
        self._alive = True
        self._address: str | None = None
        self._listener: asyncio.Server | None = None
        self._serial = 0  # number of the present run, incremented by each stop
        self._unix_path: Path | None = None
        self._memory: set[MemoryTransport] = set()
        self._sockets: set[SocketConnection] = set()

    # --- state for tests ----------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Address such as `127.0.0.1:12345` or `unix:/path`, kept after stop(). RuntimeError before the first start."""
        if self._address is None:
            raise RuntimeError("the server has not been started")
        return self._address

    @property
    def port(self) -> int:
        """TCP port. ValueError for a unix socket."""
        return int(self.address.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """Number of open connections, in memory and on sockets."""
        return self._state.connections

    @property
    def connections_total(self) -> int:
        """Number of connections made so far."""
        return self._state.connections_total

    @property
    def commands(self) -> Counter[str]:
        """Commands received so far, by name."""
        return self._state.commands

    @property
    def max_connections(self) -> int | None:
        """Limit of open connections. None is no limit."""
        return self._state.max_connections

    @max_connections.setter
    def max_connections(self, most: int | None) -> None:
        self._state.max_connections = most

    @property
    def dead_backend(self) -> Callable[[bytes], bool] | None:
        """Function that returns True for keys of the dead backend. None if no backend is dead."""
        return self._state.dead_backend

    @dead_backend.setter
    def dead_backend(self, is_dead: Callable[[bytes], bool] | None) -> None:
        self._state.dead_backend = is_dead

    @property
    def paused(self) -> bool:
        """True between pause() and resume()."""
        return self._paused

    # --- without I/O -----------------------------------------------------------------------------------------------

    def session(self) -> Session:
        """Return a connection without I/O: `session.receive(bytes)` returns the replies."""
        return Session(self._state)

    # --- on sockets ------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, ssl: ssl_module.SSLContext | None = None) -> None:
        """Listen on TCP.

        Args:
            host: Address to listen on.
            port: Port, or 0 for a free one. After stop() or kill() the same port can be used again.
            ssl: Context for TLS.

        Raises:
            OSError: The port is in use.
            RuntimeError: The server is listening already.
        """
        self._check_not_listening()
        loop = asyncio.get_running_loop()
        serial = self._serial
        self._listener = await loop.create_server(
            lambda: SocketConnection(self, serial), host, port, ssl=ssl, reuse_address=True
        )
        bound_host, bound_port = self._listener.sockets[0].getsockname()[:2]
        self._address = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
        self._alive = True

    async def start_unix(self, path: str) -> None:
        """Listen on a unix socket, which stop() and kill() remove.

        Args:
            path: Path of the socket.
        """
        self._check_not_listening()
        loop = asyncio.get_running_loop()
        serial = self._serial
        self._listener = await loop.create_unix_server(lambda: SocketConnection(self, serial), path)
        self._unix_path = Path(path)
        self._address = f"unix:{path}"
        self._alive = True

    async def stop(self) -> None:
        """Close the listener and all connections, and wait until they are closed. Items stay. May be called again."""
        await self._shut_down(killed=False)

    async def kill(self) -> None:
        """End like a process that dies: reset connections, and lose the items."""
        self.store.clear()
        await self._shut_down(killed=True)
        self.store.clear()

    def pause(self) -> None:
        """Send no replies, as a process under SIGSTOP. Connecting and sending still work."""
        self._paused = True

    def resume(self) -> None:
        """Continue, first with the requests that arrived during the pause."""
        self._paused = False
        for transport in list(self._memory):
            transport.wake()
        for connection in list(self._sockets):
            connection.process()

    # --- in memory -------------------------------------------------------------------------------------------------

    async def connect(self, protocol_factory: Callable[[], _AnyProtocol]) -> tuple[asyncio.Transport, _AnyProtocol]:
        """Connect like loop.create_connection, without a socket, and return the transport and the protocol.

        Args:
            protocol_factory: Function that makes the protocol of the client.

        Raises:
            ConnectionRefusedError: The server was stopped.
        """
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
        """Accept connections in memory again after stop() or kill()."""
        self._alive = True

    def forget(self, connection: MemoryTransport | SocketConnection) -> None:
        """Remove a connection that has ended. Called by the connection.

        Args:
            connection: The connection.
        """
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

    def adopt(self, connection: SocketConnection) -> None:
        """Add a new connection. Called by the connection.

        Args:
            connection: The connection.
        """
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
