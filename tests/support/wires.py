"""Connections in memory with latency. Each direction has its own delay, or is held until it is released.

Each client has its own wires, so that messages reach one client later than another. A write reaches one zone later than the
next, and replies arrive after the state has changed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.pipelined import PipelinedConnection

# Seconds that bytes take to a zone, or back from it. Asked for each packet; later ones do not overtake.
Delay = Callable[[bytes], float]
Dial = Callable[[Endpoint, Callable[[], Any]], Awaitable[Any]]

# asyncio runs timers that are due within its clock's resolution.
_RESOLUTION = 1e-6


def at_once(_: bytes) -> float:
    return 0.0


class Way:
    """What goes one way between a client and a zone, on all of its connections: how long it takes."""

    def __init__(self, delay: Delay = at_once) -> None:
        self.delay = delay
        self.held = False
        self._pipes: list[_Pipe] = []

    def hold(self) -> None:
        """Let nothing through."""
        self.held = True

    def release(self) -> None:
        """Let through what was held, and what comes."""
        self.held = False
        for pipe in self._pipes:
            pipe.run()

    def pipe(self, deliver: Callable[[bytes], object]) -> _Pipe:
        pipe = _Pipe(self, deliver)
        self._pipes.append(pipe)
        return pipe


class Wires:
    """How one client reaches its zones, each named by the first letter of its nodes."""

    def __init__(self, dial: Dial, zones: str) -> None:
        self._dial = dial
        self.requests = {zone: Way() for zone in zones}
        self.replies = {zone: Way() for zone in zones}

    async def dial(self, endpoint: Endpoint, factory: Callable[[], Any]) -> Any:
        """A `evcache.zones.transport.dialer.Dialer`."""
        zone = endpoint.label[0]
        wire = _Wire(factory(), self.requests[zone], self.replies[zone])
        await self._dial(endpoint, lambda: wire)
        return wire.connection


class _Pipe:
    """Bytes of one connection, one way, in order."""

    def __init__(self, way: Way, deliver: Callable[[bytes], object]) -> None:
        self._way = way
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._last = 0.0
        self._closed = False

    def push(self, data: bytes) -> None:
        delay = self._way.delay(data)
        if not delay and not self._waiting and not self._way.held:
            self._deliver(data)
            return
        self._last = max(self._last, self._loop.time() + delay)
        self._waiting.append((self._last, data))
        self._loop.call_at(self._last, self.run)

    def run(self) -> None:
        while self._waiting and not self._way.held and not self._closed:
            if self._waiting[0][0] > self._loop.time() + _RESOLUTION:
                return
            self._deliver(self._waiting.popleft()[1])

    def close(self) -> None:
        """What is on its way gets lost."""
        self._closed = True
        self._waiting.clear()


class _Wire(asyncio.Protocol):
    """Stands between a client's connection and the server's end."""

    def __init__(self, connection: PipelinedConnection, requests: Way, replies: Way) -> None:
        self.connection = connection
        self._requests = requests
        self._replies = replies.pipe(connection.data_received)
        self._line: _Line | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = _Line(transport, self._requests)
        self.connection.connection_made(self._line)

    def data_received(self, data: bytes) -> None:
        self._replies.push(data)

    def eof_received(self) -> bool | None:
        return self.connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._replies.close()
        assert self._line is not None
        self._line.pipe.close()
        self.connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()


class _Line:
    """The transport that a connection sees."""

    def __init__(self, transport: Any, requests: Way) -> None:
        self._transport = transport
        self.pipe = requests.pipe(lambda data: transport.write(data))  # looked up when called: others replace it

    def write(self, data: bytes) -> None:
        self.pipe.push(bytes(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
