"""The inside of FaultProxy: one connection through it, its two pipes, and the faults of a direction.

A pipe has a reader, which takes bytes in and notes when they came, and a writer, which hands them on when the faults allow
it. Between the two, bytes wait in order, so that a delay is latency and costs no throughput.
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

# Beyond this a pipe stops reading, so that the sender meets a full window as it does with a server that hangs.
HELD_BYTES_MAX = 1024 * 1024

# SO_LINGER: on, for zero seconds. Closing such a socket drops what is unsent and resets the connection.
LINGER_NOTHING = struct.pack("ii", 1, 0)


@dataclass
class Cut:
    """A pending end of one connection, `left` bytes from now."""

    left: int
    reset: bool

    def __post_init__(self) -> None:
        if self.left < 0:
            raise ValueError(f"a number of bytes from 0 is needed, not {self.left}")


class Faults:
    """What goes wrong in one direction, for all connections of a proxy."""

    def __init__(self) -> None:
        self.stalled = False
        self.delay = 0.0  # seconds
        self.fragment: int | None = None  # bytes
        self.injected: list[bytes] = []
        self.cut: Cut | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Let bytes that wait look again at what holds them."""
        # Whoever waits has the old event; whoever looks again waits for the new one.
        self._changed.set()
        self._changed = asyncio.Event()

    async def gate(self, arrived: float) -> None:
        """Wait until bytes that came at that loop time may pass."""
        loop = asyncio.get_running_loop()
        while True:
            due = None if self.stalled else arrived + self.delay
            if due is not None and due <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    def take_injected(self) -> bytes:
        """Return what was injected, once."""
        data = b"".join(self.injected)
        self.injected.clear()
        return data

    def take_cut(self, size: int) -> Cut | None:
        """Count bytes about to pass. The cut is returned, once, when it falls on or before their end."""
        cut = self.cut
        if cut is not None:
            if cut.left <= size:
                self.cut = None
                return cut
            cut.left -= size
        return None


class Connection:
    """A client, its connection to the server, and the two pipes between them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client_reader = reader
        self._writers = [writer]
        self.is_forgotten = False
        """True if what arrives is dropped, in either direction, and neither side hears of it."""
        self._over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # True: by reset

    def end(self, *, reset: bool) -> None:
        """Have serve() close both sides. Only the first call counts."""
        if not self._over.done():
            self._over.set_result(reset)

    async def serve(self, target: tuple[str, int], requests: Faults, replies: Faults) -> None:
        """Carry bytes until one side ends or end() is called, then close both sides alike."""
        carrying = asyncio.create_task(self._carry(target, requests, replies))
        carrying.add_done_callback(lambda _: self.end(reset=False))
        reset = True  # stays so when this task is cancelled: the loop is shutting down
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
            # memcached closes both directions at once, so after its last reply there is nothing to wait for. A client
            # may close one direction and still read: its end of stream has just been handed on.
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
        # drain() then returns when the kernel has everything: what a cut lets pass is on its way before the cut.
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
        """Write what was taken in, as the faults have it, until the end of the stream or a cut."""
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
        """Write a chunk, piece by piece; False when a cut has ended the connection."""
        start = 0
        while start < len(data):
            piece = data[start : start + (self._faults.fragment or len(data))]
            start += len(piece)
            injected = self._faults.take_injected()
            cut = self._faults.take_cut(len(piece))
            if cut is not None:
                piece = piece[: cut.left]
            # A write at once goes to the kernel at once, and without Nagle's algorithm (asyncio turns it off) it is a
            # segment of its own.
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

    What the kernel was given is still delivered before an end of stream, and dropped by a reset.
    """
    if reset:
        held: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # closed already
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOTHING)
    writer.transport.abort()
