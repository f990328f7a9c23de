"""Exchange of requests and replies on one socket: the requests in flight, and the bytes that the socket has not taken.

The connection owns the timer, the detector of silence and the end. This part is what each request and each reply runs
through, so it exists twice: here, and compiled (see `selected`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from evcache.zones.errors import ConnectionLost
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.protocol.decoder import Decoder
from evcache.zones.protocol.fields import NO_FLAGS, READ_FIELDS, Fields
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.packet import Packet
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.transport.batches import ExpectHits, ExpectValues
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.core.encoding import encode_gets, encode_reads
from evcache.zones.transport.core.matching import match
from evcache.zones.transport.core.write_queue import WriteQueue
from evcache.zones.transport.in_flight import ExpectAll, ExpectRead, ExpectReply, Waiter
from evcache.zones.transport.limits import ConnectionLimits


class Exchange:
    """Requests and replies of one connection. It takes requests between `open` and `close`."""

    __slots__ = (
        "_begin",
        "_decoder",
        "_lag",
        "_limits",
        "_loop",
        "_name",
        "_queue",
        "_traffic",
        "_wake_at",
        "batched",
        "opaque",
        "room",
        "timer_at",
        "waiting",
        "waiting_since",
    )

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        lag: LoopLag | None,
        begin: Callable[[], None],
        wake_at: Callable[[float], None],
        traffic: ByteCounter,
    ) -> None:
        """Make the exchange of a connection that has no socket.

        Args:
            name: Label of the node, for errors.
            loop: Event loop of the connection.
            limits: Limits on waiting requests.
            lag: Lag of the event loop. It is watched while requests wait for the end of an iteration.
            begin: Called when a request is sent and no other waits, before the request is added.
            wake_at: Called with the nearest time at which the connection must look at the requests.
            traffic: Counter of the bytes that are written and received.
        """
        self.waiting: deque[ExpectReply] = deque()
        """Requests whose reply has not been read, the oldest first."""
        self.room = 0
        """Number of requests that may wait. 0 refuses requests."""
        self.timer_at = math.inf
        """Time at which the connection looks at the requests next, on the loop's clock. The connection sets it."""
        self.waiting_since = 0.0
        """Time at which a request was last sent while no other waited, on the loop's clock."""
        self.opaque = 0
        """Number of the last opaque."""
        self.batched = 0
        """Number of opaques of the parts of batches, except one for each batch."""
        self._name = name
        self._loop = loop
        self._limits = limits
        self._lag = lag
        self._begin = begin
        self._wake_at = wake_at
        self._traffic = traffic
        self._queue = WriteQueue(loop, self.waiting, traffic)
        self._decoder = Decoder()

    @property
    def queued_bytes(self) -> int:
        """Bytes of requests that the socket transport has not taken."""
        return self._queue.bytes

    @property
    def awaited(self) -> int:
        """Bytes of the incomplete value. 0 between replies."""
        return self._decoder.awaited

    @property
    def landing(self) -> memoryview | None:
        """Memory for the next bytes. None if they are for `receive`, and not those of a large value."""
        return self._decoder.landing

    def landed(self, count: int) -> None:
        """Take this number of bytes, which were written to the beginning of `landing`. They complete no reply."""
        self._traffic.received += count
        self._decoder.landed(count)

    # The socket.

    def open(self, transport: asyncio.Transport) -> None:
        """Take requests, and write them to this socket transport."""
        self._queue.open(transport)
        self.room = self._limits.max_pending

    def close(self) -> None:
        """Refuse requests from now on, and drop what was not written."""
        self.room = 0
        self._queue.close()

    def take_all(self) -> Iterable[ExpectReply]:
        """Return the requests in flight, and forget them."""
        # A new deque, because `receive` may be looping over this one: a waiter may end the connection.
        waiting, self.waiting = self.waiting, deque()
        return waiting

    def pause(self) -> None:
        """Write nothing until `resume`: the server takes bytes more slowly than the client makes them."""
        self._queue.pause()

    def resume(self) -> None:
        """Write again."""
        self._queue.resume()

    # Requests.

    def next_opaque(self) -> bytes:
        """Return the opaque of the next request."""
        self.opaque = number = self.opaque + 1
        return b"O%d" % number

    def send(self, data: bytes, expected: ExpectReply, rest: Sequence[bytes | memoryview] = ()) -> None:
        """Send a request.

        Args:
            data: Bytes of the request up to its first large value.
            expected: Entry of the request.
            rest: Large values, and the bytes between and behind them.

        Raises:
            ConnectionLost: The connection takes no requests.
            QueueFull: Too many requests or bytes wait.
        """
        waiting = self.waiting
        when = expected.deadline
        if len(waiting) >= self.room or self._queue.bytes >= self._limits.max_queued_bytes:
            if not self.room:
                raise ConnectionLost("the connection is closed", self._name)
            raise self._limits.refusal(len(waiting), self._queue.bytes, self._name)
        if not waiting:
            self.waiting_since = now = self._loop.time()
            when = min(when, now + self._limits.silence)
            self._begin()
        waiting.append(expected)
        if self._queue.add(data, rest) and self._lag is not None:
            self._lag.watch()  # a stall from now on delays what has not left yet
        if when < self.timer_at:
            self._wake_at(when)

    def send_store(self, store: EncodedStore, waiter: Waiter, deadline: float) -> None:
        """Send a store. See `Transport.send_store`."""
        self.send_packet(store.packet, waiter, deadline)

    def send_packet(self, packet: Packet, waiter: Waiter, deadline: float) -> None:
        """Send the commands of a packet. The waiter gets the list of their replies."""
        opaque = self.next_opaque()
        self.send(
            opaque.join(packet.first),
            ExpectAll(waiter, deadline, opaque, packet.commands),
            [part if isinstance(part, memoryview) else opaque.join(part) for part in packet.rest] if packet.rest else (),
        )

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Send a read. See `Transport.get`."""
        opaque = self.next_opaque()
        self.send(
            b"mg %b %b %b\r\n" % (key, fields, opaque),
            ExpectReply(waiter, deadline, opaque) if latest is None else ExpectRead(waiter, deadline, opaque, latest),
        )

    def read(
        self,
        key: bytes,
        fields: Fields,
        deadline: float,
        latest: float | None = None,
        cas: int = 0,  # noqa: ARG002
        flags: int = NO_FLAGS,  # noqa: ARG002
    ) -> Awaitable[AnyReply]:
        """Send a read, and return the awaitable of its reply. See `Transport.read`. A known CAS has no effect."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.opaque = number = self.opaque + 1
        opaque = b"O%d" % number
        self.send(
            b"mg %b %b %b\r\n" % (key, fields, opaque),
            ExpectReply(answer, deadline, opaque) if latest is None else ExpectRead(answer, deadline, opaque, latest),
        )
        return answer

    def get_many(
        self,
        keys: Sequence[bytes],
        fields: Fields,
        waiter: Waiter,
        deadline: float,
        latest: float | None = None,
        *_: object,
        **__: object,
    ) -> None:
        """Send a batch of reads. See `Transport.get_many`. A known CAS has no effect."""
        if fields == READ_FIELDS and len(keys) > 1:
            request, ends = encode_gets(keys)
            self.send(request, ExpectValues(waiter, deadline, self.next_opaque(), keys, ends, fields, self.send, latest))
            return
        first = self.opaque + 1
        self.opaque += len(keys)
        self.batched += len(keys) - 1
        request, opaques = encode_reads(keys, fields, first)
        self.send(request, ExpectHits(waiter, deadline, opaques, keys, fields, self.send, latest))

    # Replies.

    def receive(self, data: bytes, timeouts: int) -> bool:
        """Give each waiter the replies that these bytes complete. See `matching.match`.

        Args:
            data: Bytes that arrived.
            timeouts: Number of requests that have timed out since the last reply in time.

        Returns:
            True if requests have timed out, and a reply was for a caller that still waits.

        Raises:
            ProtocolError: The connection is out of sync.
        """
        self._traffic.received += len(data)
        return match(self._decoder, self.waiting, data, self._name, timeouts)
