"""Pipelined connection to a server of the meta protocol: the operations of `Transport`, encoded.

Each request carries an opaque number that the server repeats. A reply with another number closes the connection.
"""

from __future__ import annotations

import asyncio

from evcache.zones.protocol import requests
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.transport.in_flight import ExpectReply, ExpectStore, ExpectText, Waiter
from evcache.zones.transport.pipeline import Pipeline


class PipelinedConnection(Pipeline):
    """Open connection to one node. A `Transport`. Its exchange encodes the reads, because a client reads most."""

    @property
    def requests(self) -> int:
        """Number of requests since the connection was made. A batch and a packet count as one: each has one deadline."""
        return self._exchange.opaque - self._exchange.batched

    async def probe(self, deadline: float) -> None:
        """Send a no-op. Raises a `NodeError` if the server does not answer by the deadline."""
        answer: asyncio.Future[object] = self._loop.create_future()
        self.request_text(requests.NOOP, answer, deadline)
        await answer

    # Operations. See `Transport`.

    def store(
        self,
        key: bytes,
        data: bytes,
        flags: int,
        exptime: int,
        waiter: Waiter,
        deadline: float,
        *,
        mode: StoreMode = "set",
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Store a value. See `Transport.store`."""
        opaque = self._exchange.next_opaque()
        line = b"ms %b %d T%d F%d" % (key, len(data), exptime, flags)
        if compare is not None:
            line += b" C%d" % compare
        if cas is not None:
            line += b" E%d" % cas
        if mode != "set":
            line += requests.STORE_MODES[mode]
        expected = ExpectStore(waiter, deadline, opaque)
        if len(data) < LARGE_BYTES:
            self._exchange.send(b"%b %b\r\n%b\r\n" % (line, opaque, data), expected)
        else:
            self._exchange.send(b"%b %b\r\n" % (line, opaque), expected, (memoryview(data), b"\r\n"))

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Replace an item that is not newer. See `Transport.replace_older`."""
        self._exchange.send_packet(requests.replace_older(key, data, flags=flags, cas=cas), waiter, deadline)

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Delete an item. See `Transport.delete`."""
        self._request(requests.meta_delete(key, compare), waiter, deadline)

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of an item. See `Transport.touch`."""
        self._request(requests.meta_touch(key, exptime), waiter, deadline)

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of one version. See `Transport.guarded_touch`."""
        self._exchange.send_packet(requests.guarded_touch(key, cas=cas, ttl=exptime), waiter, deadline)

    def count(
        self,
        key: bytes,
        delta: int,
        waiter: Waiter,
        deadline: float,
        *,
        decrement: bool,
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Add to a counter, or subtract. See `Transport.count`."""
        self._request(requests.meta_arithmetic(key, delta, decrement=decrement, compare=compare, cas=cas), waiter, deadline)

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Read an item, or create a stub. See `Transport.lease`."""
        self._request(requests.meta_lease(key, seconds, cas), waiter, deadline)

    def _request(self, line: bytes, waiter: Waiter, deadline: float) -> None:
        """Send a command of one line. The waiter gets its `Reply`."""
        opaque = self._exchange.next_opaque()
        self._exchange.send(b"%b %b\r\n" % (line, opaque), ExpectReply(waiter, deadline, opaque))

    def request_text(
        self,
        line: bytes,
        waiter: Waiter,
        deadline: float,
        *,
        data: bytes | None = None,
        until: bytes | None = None,
        may_be_unknown: bool = False,
    ) -> None:
        """Send a question of the handshake, which cannot carry an opaque. The waiter gets the list of replies.

        Args:
            line: Command without its end.
            waiter: See `Transport`.
            deadline: See `Transport`.
            data: Payload. If None, the command has none.
            until: Status of the last reply, if there may be several. An error reply is always the last.
            may_be_unknown: Accept any refusal as the reply, and keep the connection open (see `ExpectText`).
        """
        self._exchange.send(
            b"%b\r\n" % line if data is None else b"%b\r\n%b\r\n" % (line, data),
            ExpectText(waiter, deadline, until, may_be_unknown=may_be_unknown),
        )
