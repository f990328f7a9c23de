"""Requests that a connection has not handed to its socket transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Sized

from evcache.zones.protocol.packet import runs
from evcache.zones.transport.byte_counter import ByteCounter

# The requests of an event loop iteration leave in one write at its end. An idle server gets the first ones at once, so that
# it begins while the client makes the rest. With 32 callers that serves a tenth more reads per second. With 256 callers it
# costs nothing.
EAGER_REQUESTS = 8


class WriteQueue:
    """The queue of one connection. It writes at most once per iteration of the event loop, but for eager writes."""

    __slots__ = (
        "_flush_is_due",
        "_has_large",
        "_in_flight",
        "_is_alone",
        "_is_paused",
        "_loop",
        "_parts",
        "_traffic",
        "_transport",
        "bytes",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, in_flight: Sized, traffic: ByteCounter) -> None:
        """Create the queue of a connection that has no socket yet.

        Args:
            loop: Event loop of the connection.
            in_flight: Requests whose reply has not been read. The connection adds a request before it calls `add`.
            traffic: Counter of the bytes that the socket transport takes.
        """
        self.bytes = 0
        """Bytes in the queue."""
        self._loop = loop
        self._in_flight = in_flight
        self._traffic = traffic
        self._parts: list[bytes | memoryview] = []
        self._has_large = False  # True if a part is a large value
        self._flush_is_due = False
        self._is_alone = False  # True if the last flush had one request, and no other was in flight
        self._is_paused = False
        self._transport: asyncio.Transport | None = None

    def open(self, transport: asyncio.Transport) -> None:
        """Write to this socket transport from now on."""
        self._transport = transport

    def close(self) -> None:
        """Drop the queue, and write nothing from now on."""
        self._transport = None
        self._parts.clear()
        self.bytes = 0

    def add(self, data: bytes, rest: Sequence[bytes | memoryview] = ()) -> bool:
        """Write a request, or queue it.

        Args:
            data: Bytes of the request up to its first large value.
            rest: Large values, and the bytes between and behind them.

        Returns:
            False if the request waits for a flush that was due, or for the server.
        """
        if self._flush_is_due or self._is_paused:
            parts = self._parts
            parts.append(data)
            self.bytes += len(data)
            if rest:
                self._add_rest(rest)
            if len(parts) == EAGER_REQUESTS and len(self._in_flight) == EAGER_REQUESTS:
                self._write()
            return False
        if self._is_alone and len(self._in_flight) == 1 and not rest and self._transport is not None:
            # The only request in flight. Waiting for the end of the iteration would add one iteration and batch nothing.
            self._traffic.sent += len(data)
            self._transport.write(data)
            return True
        self._parts.append(data)
        self.bytes += len(data)
        if rest:
            self._add_rest(rest)
        self._flush_is_due = True
        self._loop.call_soon(self.flush)
        return True

    def _add_rest(self, rest: Sequence[bytes | memoryview]) -> None:
        self._parts += rest
        self.bytes += sum(map(len, rest))
        self._has_large = True

    def flush(self) -> None:
        """Write what waits, unless the transport has paused it."""
        self._flush_is_due = False
        self._is_alone = len(self._parts) == len(self._in_flight) == 1
        self._write()

    def pause(self) -> None:
        """Write nothing until `resume`: the server takes bytes more slowly than the client makes them."""
        self._is_paused = True

    def resume(self) -> None:
        """Write again."""
        self._is_paused = False
        self.flush()

    def _write(self) -> None:
        if self._parts and not self._is_paused and self._transport is not None:
            parts, size, self._parts, self.bytes = self._parts, self.bytes, [], 0
            if self._has_large:
                self._write_in_parts(self._transport, parts)
            else:
                self._traffic.sent += size
                self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _write_in_parts(self, transport: asyncio.Transport, parts: list[bytes | memoryview]) -> None:
        """Write until the transport pauses the queue. Keep the rest."""
        following = 0
        for following, run in runs(parts):  # noqa: B007  # used after the loop
            self._traffic.sent += len(run)
            transport.write(run)
            if self._is_paused:
                break
        self._parts = parts[following:]
        self.bytes = sum(map(len, self._parts))
        self._has_large = bool(self._parts)
