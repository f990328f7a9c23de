"""Interface of a kind of server, with the reservation of ports and the wait for readiness."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 30.0  # a container on a busy two-core machine needs 3 s; a process needs 0.02 s
POLL_SECONDS = 0.005
ATTEMPT_SECONDS = 0.25  # for one answer; then the server is checked before the next attempt

T = TypeVar("T")


class BackendUnavailable(RuntimeError):
    """The requested kind of server cannot be started here. The text names the missing part."""


class PortTaken(OSError):
    """Another program listens on the port of the node."""


class ServerNode(Protocol):
    """One memcached server on one address. Calls never overlap, because LocalZones holds a lock around them."""

    @property
    def is_up(self) -> bool:
        """True if the server runs and is not paused, as far as the process knows without I/O."""

    async def start(self) -> str:
        """Start the server, empty, and return its version once it answers.

        `stop()` removes the remains of a failed or cancelled start.

        Raises:
            BackendUnavailable: The server cannot be started.
            PortTaken: Another program uses the port.
            TimeoutError: The server does not answer.
        """

    async def kill(self) -> None:
        """Kill the server, also if it is paused. Connections are lost. No effect on a dead server."""

    async def pause(self) -> None:
        """Suspend the server. It accepts connections and does not answer, from the return of this call on."""

    async def resume(self) -> None:
        """Resume a paused server. No effect on others."""

    async def stop(self) -> None:
        """Remove the server with all of its resources, in any state. The call may be repeated."""


class Backend(Protocol):
    """Kind of server."""

    name: str

    def node(self, host: str, port: int) -> ServerNode:
        """Make a node for an address without starting it."""


class ReservedPort:
    """TCP port of a loopback address that the system gives to no other program while this object holds it.

    The socket is bound and never listens, so connections to the port are refused. On Linux it stays bound while the server
    runs, because two sockets with SO_REUSEADDR may share a port if at most one listens. This prevents two faults. No other
    program gets the port while the server is dead. A client that reconnects to the dead server never gets this port as its
    own end, with which it would connect to itself.
    """

    def __init__(self, host: str = HOST) -> None:
        self.host = host
        self._socket: socket.socket | None = self._bind(0)
        self.number: int = self._socket.getsockname()[1]

    def lend(self) -> None:
        """Allow a server to bind the port."""
        # Only Linux shares the port as described above. On other systems the reservation is released.
        if sys.platform != "linux":
            self.close()

    def reclaim(self) -> None:
        """Reserve the port again after the server died. No effect if it is reserved, or in use by another program."""
        if self._socket is None:
            with contextlib.suppress(OSError):
                self._socket = self._bind(self.number)

    def close(self) -> None:
        """Release the port."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _bind(self, port: int) -> socket.socket:
        held = socket.socket()
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((self.host, port))
        except BaseException:
            held.close()
            raise
        return held


async def wait_until_ready(host: str, port: int, check: Callable[[], None]) -> str:
    """Connect until a server answers `version`, and return the version, or "unknown" if the server requires a login.

    Args:
        host: Address of the server.
        port: Port of the server.
        check: Function called before each attempt. It raises if the server has ended.

    Raises:
        TimeoutError: No server answered within START_TIMEOUT_SECONDS.
    """
    async with asyncio.timeout(START_TIMEOUT_SECONDS):
        while True:
            check()
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    version = await _ask_version(host, port)
            except (OSError, EOFError):  # TimeoutError is an OSError
                await asyncio.sleep(POLL_SECONDS)
            else:
                check()  # the answer may come from an earlier server on this port
                return version


async def _ask_version(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"version\r\n")
        line = await reader.readuntil(b"\n")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    word, _, version = line.decode("ascii", "replace").strip().partition(" ")
    return version if word == "VERSION" else "unknown"


async def uninterrupted(work: Coroutine[None, None, T]) -> T:
    """Await `work` to its end, and raise a cancellation of the caller only afterwards.

    For work whose interruption would leave a process or a container behind. It must be bounded in time.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as request:
            cancelled = request
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it; the cancellation has precedence
        raise cancelled
    return task.result()
