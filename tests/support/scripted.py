"""Other ends for connections: one played by the test, and the fake server in memory, reached through a dialer."""

import asyncio
from typing import NamedTuple

from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.packet import Packet
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.pipelined import PipelinedConnection
from tests.support.operations import Get, get
from tests.support.packets import packet_of

VALUE = Fields(b"v")
FAR = 1_000_000.0  # seconds; a deadline that no test reaches


class ScriptedTransport(asyncio.Transport):
    """Keeps what is written. As asyncio's own, it reports its end in a later turn of the loop, and only once."""

    def __init__(self, protocol):
        super().__init__()
        self.writes = []
        self.aborted = False  # by the connection
        self._ended = False
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()

    def write(self, data):
        assert not self.aborted, "written after abort()"
        if not self._ended:
            self.writes.append(bytes(data))

    def abort(self):
        self.aborted = True
        self.end(None)

    def is_closing(self):
        return self._ended

    def end(self, error):
        """End the connection: None is an end of file, an error is a reset. The protocol is called in the next turn of the loop."""
        if not self._ended:
            self._ended = True
            self._loop.call_soon(self._protocol.connection_lost, error)


class Encoded(NamedTuple):
    """Stands in for an `EncodedStore`: any commands as one packet."""

    packet: Packet


class Peer:
    """A connection with its scripted end, and what it reported about its own."""

    def __init__(self, *, open_it=True, lag=None, **limits):
        self.loop = asyncio.get_running_loop()
        self.lost = []
        self.late = []  # (timeouts, in a row)
        self.traffic = ByteCounter()
        self.connection = PipelinedConnection(
            "node-1", self.loop, ConnectionLimits(**limits), self._on_lost, self._on_late, lag, traffic=self.traffic
        )
        self.transport = ScriptedTransport(self.connection)
        if open_it:
            self.connection.connection_made(self.transport)

    def _on_lost(self, connection, why):
        assert connection is self.connection
        self.lost.append(why)

    def _on_late(self, connection, timeouts, in_a_row):
        assert connection is self.connection
        self.late.append((timeouts, in_a_row))

    @property
    def sent(self):
        return b"".join(self.transport.writes)

    def feed(self, *pieces):
        """Bytes arrive. None do after the end, as with real transports."""
        for piece in pieces:
            if not self.transport.is_closing():
                self.connection.data_received(piece)

    def deadline(self, seconds):
        return self.loop.time() + seconds

    def ask(self, operation=None, *, within=FAR, waiter=None):
        """Send an operation, by default a read of `k`; what its reply is awaited with, or the given waiter."""
        operation = operation or get(b"k", VALUE)
        if waiter is None and isinstance(operation, Get):
            return operation.read(self.connection, self.deadline(within))
        waiter = waiter or self.loop.create_future()
        operation(self.connection, waiter, self.deadline(within))
        return waiter

    def ask_all(self, lines, data=b"x", *, within=FAR):
        """Send these lines in one packet, each with the same payload."""
        return self.ask_packet([(line, data) for line in lines], within=within)

    def ask_packet(self, commands, *, within=FAR):
        """Send these (line, payload) in one packet; a future of their replies."""
        waiter = self.loop.create_future()
        self.connection.send_store(Encoded(packet_of(commands)), waiter, self.deadline(within))
        return waiter

    def ask_many(self, keys, *, within=FAR, fields=VALUE):
        """Read these keys; a future of the hits and errors."""
        waiter = self.loop.create_future()
        self.connection.get_many(keys, fields, waiter, self.deadline(within))
        return waiter

    def ask_text(self, line=b"version", *, data=None, until=None, within=FAR):
        waiter = self.loop.create_future()
        self.connection.request_text(line, waiter, self.deadline(within), data=data, until=until)
        return waiter


class MemoryDialer:
    """Connects endpoints to fake servers, by host name. Keeps the time and the connection of each attempt."""

    def __init__(self, **servers):
        self.servers = servers
        self.attempts = []  # (host, time)
        self.made = []
        self.gate = None  # an asyncio.Event that every attempt waits for

    async def __call__(self, endpoint, factory):
        self.attempts.append((endpoint.host, asyncio.get_running_loop().time()))
        if self.gate is not None:
            await self.gate.wait()
        server = self.servers.get(endpoint.host)
        if server is None:
            raise ConnectionRefusedError(111, "refused")
        _, connection = await server.connect(factory)
        self.made.append(connection)
        return connection


class Notes:
    """A waiter that records its results, and calls a function with each."""

    def __init__(self, on_result=None, on_error=None):
        self.told = []
        self.sent = []  # (bytes, pending)
        self.refusal = None  # what `send` raises
        self._on_result = on_result
        self._on_error = on_error

    def done(self):
        return bool(self.told)

    def set_result(self, result):
        assert not self.told, "told twice"
        self.told.append(result)
        if self._on_result is not None:
            self._on_result(result)

    def send(self, data, pending):
        """Queue a request, as a connection does."""
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((data, pending))

    def set_exception(self, error):
        assert not self.told, "told twice"
        self.told.append(error)
        if self._on_error is not None:
            self._on_error(error)


def outcome(future):
    """A finished future's result or exception, marked as looked at; None while it waits."""
    if not future.done():
        return None
    if future.cancelled():
        return "cancelled"
    return future.exception() or future.result()
