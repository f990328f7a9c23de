"""Parts of FaultProxy: a connection, its two pipes, and the faults of a direction.

The reader of a pipe stores bytes with their time of arrival. The writer passes them on when the faults allow it. Bytes wait
in order, so that a delay is latency and does not limit throughput.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

READ_BYTES = 64 * 1024

# Above this a pipe stops reading, so that the sender has a full window, as with a server that hangs.
HELD_BYTES_MAX = 1024 * 1024

# SO_LINGER: on, for zero seconds. Closing such a socket drops unsent bytes and resets the connection.
LINGER_NOTHING = struct.pack("ii", 1, 0)


@dataclass
class Cut:
    """Planned end of one connection, `left` bytes from now."""

    left: int
    reset: bool

    def __post_init__(self) -> None:
        if self.left < 0:
            raise ValueError(f"a number of bytes from 0 is required, not {self.left}")


class Faults:
    """Faults of one direction, for all connections of a proxy."""

    def __init__(self) -> None:
        self.stalled = False
        self.delay = 0.0  # seconds
        self.fragment: int | None = None  # bytes
        self.injected: list[bytes] = []
        self.cut: Cut | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Make waiting bytes check the faults again."""
        # Present waiters have the old event. Those that wait again take the new one.
        self._changed.set()
        self._changed = asyncio.Event()

    async def gate(self, arrived: float) -> None:
        """Wait until bytes that arrived at this loop time may pass."""
        loop = asyncio.get_running_loop()
        while True:
            due = None if self.stalled else arrived + self.delay
            if due is not None and due <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    def take_injected(self) -> bytes:
        """Return the injected bytes, and remove them."""
        data = b"".join(self.injected)
        self.injected.clear()
        return data

    def take_cut(self, size: int) -> Cut | None:
        """Count bytes that are about to pass. Returns the cut, once, if it falls within them."""
        cut = self.cut
        if cut is not None:
            if cut.left <= size:
                self.cut = None
                return cut
            cut.left -= size
        return None


class Connection:
    """Connection of a client through the proxy, with its two pipes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client_reader = reader
        self._writers = [writer]
        self.is_forgotten = False
        """True to drop all bytes in both directions, without notice to either side."""
        self._over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # True for a reset

    def end(self, *, reset: bool) -> None:
        """Make serve() close both sides. Only the first call counts."""
        if not self._over.done():
            self._over.set_result(reset)

    async def serve(self, target: tuple[str, int], requests: Faults, replies: Faults) -> None:
        """Transfer bytes until one side ends or end() is called. Then close both sides in the same way."""
        carrying = asyncio.create_task(self._carry(target, requests, replies))
        carrying.add_done_callback(lambda _: self.end(reset=False))
        reset = True  # remains True if this task is cancelled by the end of the loop
        try:
            reset = await self._over
        finally:
            carrying.cancel()
            await asyncio.wait([carrying])
            for writer in self._writers:
                close_now(writer, reset=reset)
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, target: tuple[str, int], requests: Faults, replies: Faults) -> None:
        try:
            reader, writer = await asyncio.open_connection(*target)
        except OSError:
            self.end(reset=True)
            return
        self._writers.append(writer)
        there = _Pipe(self, self._client_reader, writer, requests)
        back = _Pipe(self, reader, self._writers[0], replies)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resetting(there.take_in()))
            group.create_task(self._resetting(there.hand_on()))
            group.create_task(self._resetting(back.take_in()))
            await self._resetting(back.hand_on())
            # memcached closes both directions together, so no bytes follow its last reply. A client may close one direction
            # and still read. Its end of stream has been passed on by now.
            self.end(reset=False)

    async def _resetting(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except OSError:
            self.end(reset=True)


class _Pipe:
    """One direction of a connection."""

    def __init__(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._faults = faults
        self._held: deque[tuple[float, bytes]] = deque()  # loop time of arrival; b"" is the end of the stream
        self._held_bytes = 0
        self._moved = asyncio.Condition()
        # drain() then returns when the kernel has all bytes. Bytes before a cut are sent before it.
        writer.transport.set_write_buffer_limits(high=0)

    async def take_in(self) -> None:
        """Read until the end of the stream."""
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            data = await self._reader.read(READ_BYTES)
            async with self._moved:
                self._held.append((loop.time(), data))
                self._held_bytes += len(data)
                self._moved.notify_all()
                await self._moved.wait_for(lambda: self._held_bytes < HELD_BYTES_MAX)

    async def hand_on(self) -> None:
        """Write the stored bytes as the faults allow, until the end of the stream or a cut."""
        while True:
            async with self._moved:
                await self._moved.wait_for(lambda: self._held)
                arrived, data = self._held.popleft()
            await self._faults.gate(arrived)
            if not data:
                self._writer.write_eof()
                return
            if not self._connection.is_forgotten and not await self._write(arrived, data):
                return
            async with self._moved:
                self._held_bytes -= len(data)
                self._moved.notify_all()

    async def _write(self, arrived: float, data: bytes) -> bool:
        """Write a chunk in pieces. Returns False if a cut has ended the connection."""
        start = 0
        while start < len(data):
            piece = data[start : start + (self._faults.fragment or len(data))]
            start += len(piece)
            injected = self._faults.take_injected()
            cut = self._faults.take_cut(len(piece))
            if cut is not None:
                piece = piece[: cut.left]
            # A write on an empty buffer reaches the kernel at once. It is a segment of its own, because asyncio disables
            # Nagle's algorithm.
            self._writer.write(injected + piece)
            await self._writer.drain()
            if cut is not None:
                self._connection.end(reset=cut.reset)
                return False
            if start < len(data):
                # Two turns of the loop, so that a client in the same loop reads this piece before the next is written.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await self._faults.gate(arrived)
        return True


def close_now(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close the socket, by an end of stream or a reset, without waiting for the peer to read.

    The kernel still delivers its bytes before an end of stream. A reset drops them.
    """
    if reset:
        held: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOTHING)
    writer.transport.abort()
