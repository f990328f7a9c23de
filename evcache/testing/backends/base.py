"""What LocalZones asks of a kind of server, and what the kinds share: reserved ports and the wait for readiness."""

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
ATTEMPT_SECONDS = 0.25  # for one answer while waiting; then it is looked whether there is still something to wait for

T = TypeVar("T")


class BackendUnavailable(RuntimeError):
    """The asked kind of server can't be started here; the text says what is missing."""


class PortTaken(OSError):
    """Something else listens on the node's port."""


class ServerNode(Protocol):
    """One memcached server on one port. Calls for a node never overlap: LocalZones holds a lock around them."""

    @property
    def is_up(self) -> bool:
        """Whether the server runs and is not paused, as far as can be told without I/O."""

    async def start(self) -> str:
        """Start the server, empty, and return its version once it answers.

        Raises PortTaken, BackendUnavailable, or TimeoutError. Whatever a failed or cancelled start leaves behind is
        removed by stop().
        """

    async def kill(self) -> None:
        """Let the server die at once, paused or not; connections are lost. No effect on a dead one."""

    async def pause(self) -> None:
        """Freeze the server: connections stay, connecting works, nothing answers. Frozen when this returns."""

    async def resume(self) -> None:
        """Undo pause(). No effect on a server that isn't paused."""

    async def stop(self) -> None:
        """Remove every trace of the server. May be called in any state, and again."""


class Backend(Protocol):
    """A kind of server."""

    name: str

    def node(self, port: int) -> ServerNode:
        """Make a node for a port; nothing is started."""


class ReservedPort:
    """A TCP port of the loopback address that nobody else is given while this object holds it.

    The socket is bound and never listens, so connecting to the port is refused like on any free port. On Linux it
    stays bound while the server runs too: two sockets with SO_REUSEADDR may share a port as long as one of them
    listens at most. That closes two gaps. No other program is given the port while the server is dead, and a client
    that keeps reconnecting to the dead server is never given this port as its own end: it would connect to itself.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = self._bind(0)
        self.number: int = self._socket.getsockname()[1]

    def lend(self) -> None:
        """Let a server bind the port."""
        # Only Linux is known to share the port as described above; elsewhere the server gets it alone.
        if sys.platform != "linux":
            self.close()

    def reclaim(self) -> None:
        """Hold the port again after the server died. No effect when it is held, or was given away."""
        if self._socket is None:
            with contextlib.suppress(OSError):
                self._socket = self._bind(self.number)

    def close(self) -> None:
        """Give the port back to the system."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _bind(port: int) -> socket.socket:
        held = socket.socket()
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((HOST, port))
        except BaseException:
            held.close()
            raise
        return held


async def wait_until_ready(port: int, check: Callable[[], None]) -> str:
    """Connect until a server answers `version`, and return what it says, "unknown" when it won't tell (needs a login).

    `check` is called before each attempt and raises when waiting has become pointless.
    Raises TimeoutError after START_TIMEOUT_SECONDS.
    """
    async with asyncio.timeout(START_TIMEOUT_SECONDS):
        while True:
            check()
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    version = await _ask_version(port)
            except (OSError, EOFError):  # TimeoutError is an OSError
                await asyncio.sleep(POLL_SECONDS)
            else:
                check()  # the answer may be another server's, who had the port before
                return version


async def _ask_version(port: int) -> str:
    reader, writer = await asyncio.open_connection(HOST, port)
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
    """Await `work` to its end even when the caller is cancelled, who learns of it then.

    For work that would leave a process or a container behind if it stopped in the middle. It must be bounded in time.
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
            task.exception()  # looked at, so that asyncio doesn't report it as unseen: the cancellation goes first
        raise cancelled
    return task.result()
