"""One pipelined connection: many callers write, replies come back in order, and each reaches the caller it belongs to.

The rules that keep one caller's data from another:

- Requests wait in a FIFO, and each reply is matched with its head. A request keeps its place until its reply has been
  read, also when the caller was cancelled or gave up: the reply is then dropped. (A client that hands on a connection
  with an unread reply gives the next caller the wrong answer; aiomcache 0.8.2 does.)
- Each meta request carries an opaque number that the server repeats. A reply with another one, or one that nobody waits
  for, closes the connection and is returned to no one.
- When the connection ends, everyone who waits is told at once.

Deadlines cost no timer per call: there is one timer for the connection, set to the nearest deadline, and whoever is late
when it fires is failed. Requests of one loop tick leave in one write.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import cast

from evcache.zones.errors import ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.protocol import requests
from evcache.zones.protocol.decoder import Decoder
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import GuardedStore, StoreMode
from evcache.zones.protocol.packet import LARGE_BYTES, Packet
from evcache.zones.transport.base import peers_of
from evcache.zones.transport.in_flight import (
    ExpectAll,
    ExpectHits,
    ExpectRead,
    ExpectReply,
    ExpectStore,
    ExpectText,
    Waiter,
)
from evcache.zones.transport.lateness import Lateness
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.read_buffer import read_buffer_of
from evcache.zones.transport.silence import SilenceDetector
from evcache.zones.transport.write_queue import WriteQueue


class PipelinedConnection(asyncio.BufferedProtocol):
    """An open connection to one node. Made by `Node`; lives on one event loop."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        on_closed: Callable[[PipelinedConnection, NodeUnavailable], None],
        on_timeouts: Callable[[PipelinedConnection, int, int], None] | None = None,
        lag: LoopLag | None = None,
        *,
        on_silent: Callable[[PipelinedConnection], bool] | None = None,
        on_bytes: Callable[[PipelinedConnection], None] | None = None,
    ) -> None:
        """`name` is the node's label, for errors. `on_closed(connection, why)` is called once, when it has ended.

        `on_timeouts(connection, timeouts, in_a_row)`: so many requests have just had no reply in time, and so many since one
        was last answered; callers who gave up are not among them, nor timeouts for which `lag` says the loop is to blame.

        `on_silent(connection)` is called when reads wait and no byte arrives (`silence`). If it returns True, the
        reads fail with `NodeSilent`, so that their callers can ask another zone. `on_bytes(connection)` is called with the
        first byte after that, and after timeouts.
        """
        self.name = name
        self._loop = loop
        self._limits = limits
        self._max_queued_bytes = limits.max_queued_bytes
        self._on_lost = on_closed
        self._on_late = on_timeouts
        self._lag = lag
        self._late_in_a_row = 0
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._buffer = read_buffer_of(loop)
        self._pending: deque[ExpectReply] = deque()
        self._opaque = 0
        self._batched = 0  # numbers that were given to the parts of batches, beyond one for each batch
        self._queue = WriteQueue(loop, self._pending)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._on_silent = on_silent
        self._on_heard = on_bytes
        self.heard_at = 0.0
        """Time of the last byte, on the loop's clock."""
        self._waiting_since = 0.0  # when a request was last sent while nothing waited
        self._silence = SilenceDetector(self, loop, limits.patience, self._fell_silent)
        self._awaits_byte = False  # whether `_silence` or the node is to hear of the next byte
        self._is_troubled = False  # whether the node does
        self._lateness = Lateness(lag)
        # Requests that may wait: none before there is a transport, and after `retire` or the end.
        self._room = 0
        self._retiring = False
        self._why_ended: NodeUnavailable | None = None

    def __repr__(self) -> str:
        state = "closed" if self._why_ended else "retiring" if self._retiring else "open"
        return f"<Connection {self.name} {state} pending={len(self._pending)} queued={self._queue.bytes}B>"

    @property
    def renews_itself(self) -> bool:
        """False: see `Transport`."""
        return False

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP address and port that it is connected to."""
        return peers_of(self._transport)

    @property
    def quiet_since(self) -> float:
        """Time of the last byte, or of the first request since nothing waited, if that is later."""
        return max(self.heard_at, self._waiting_since)

    @property
    def waiting(self) -> Collection[ExpectReply]:
        """Requests whose reply has not been read, the oldest first."""
        return self._pending

    @property
    def pending(self) -> int:
        """Requests whose reply has not been read, given up ones included."""
        return len(self._pending)

    @property
    def unanswered(self) -> int:
        """Requests whose caller still waits."""
        return sum(not pending.waiter.done() for pending in self._pending)

    @property
    def requests(self) -> int:
        """Requests ever sent on it: what has one answer, and can time out once, is one."""
        return self._opaque - self._batched

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._room > 0

    def forgive(self) -> None:
        """Count timeouts in a row from the beginning."""
        self._late_in_a_row = 0

    async def probe(self, deadline: float) -> None:
        """See whether the server answers. Raises a `NodeError` when it does not by then."""
        answer: asyncio.Future[object] = self._loop.create_future()
        self.request_text(requests.NOOP, answer, deadline)
        await answer

    # Operations. See `Transport`.

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Read an item. See `Transport.get`."""
        self._opaque = number = self._opaque + 1
        opaque = b"O%d" % number
        self._send(
            b"mg %b %b %b\r\n" % (key, fields, opaque),
            ExpectReply(waiter, deadline, opaque) if latest is None else ExpectRead(waiter, deadline, opaque, latest),
        )

    def get_many(
        self, keys: Sequence[bytes], fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None
    ) -> None:
        """Read several items. See `Transport.get_many`.

        The reads are silent on a miss, and a no-op closes the batch. When its reply is here, each read without a reply was
        a miss or an error.
        """
        first = self._opaque + 1
        self._opaque += len(keys)
        self._batched += len(keys) - 1
        opaques = [b"O%d" % number for number in range(first, first + len(keys))]
        line = b"mg %%b %b q %%b\r\n" % fields
        parts = [line % part for part in zip(keys, opaques, strict=True)]
        parts.append(b"mn\r\n")
        self._send(b"".join(parts), ExpectHits(waiter, deadline, opaques, keys, fields, self._send, latest))

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
        self._opaque = number = self._opaque + 1
        opaque = b"O%d" % number
        line = b"ms %b %d T%d F%d" % (key, len(data), exptime, flags)
        if compare is not None:
            line += b" C%d" % compare
        if cas is not None:
            line += b" E%d" % cas
        if mode != "set":
            line += requests.STORE_MODES[mode]
        expected = ExpectStore(waiter, deadline, opaque)
        if len(data) < LARGE_BYTES:
            self._send(b"%b %b\r\n%b\r\n" % (line, opaque, data), expected)
        else:
            self._send(b"%b %b\r\n" % (line, opaque), expected, (memoryview(data), b"\r\n"))

    def guarded_store(self, store: GuardedStore, waiter: Waiter, deadline: float) -> None:
        """Store a version unless a newer one is there. See `Transport.guarded_store`."""
        packet = store.packet
        self._opaque = number = self._opaque + 1
        opaque = b"O%d" % number
        self._send(
            opaque.join(packet.first),
            ExpectAll(waiter, deadline, opaque, packet.commands),
            [part if isinstance(part, memoryview) else opaque.join(part) for part in packet.rest] if packet.rest else (),
        )

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Replace an item that is not newer. See `Transport.replace_older`."""
        self._request_all(requests.replace_older(key, data, flags=flags, cas=cas), waiter, deadline)

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Delete an item. See `Transport.delete`."""
        self._request(requests.meta_delete(key, compare), waiter, deadline)

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of an item. See `Transport.touch`."""
        self._request(requests.meta_touch(key, exptime), waiter, deadline)

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of one version. See `Transport.guarded_touch`."""
        self._request_all(requests.guarded_touch(key, cas=cas, ttl=exptime), waiter, deadline)

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
        self._opaque = number = self._opaque + 1
        opaque = b"O%d" % number
        self._send(b"%b %b\r\n" % (line, opaque), ExpectReply(waiter, deadline, opaque))

    def _request_all(self, packet: Packet, waiter: Waiter, deadline: float) -> None:
        """Send the commands of a packet without a large value. The waiter gets the list of their replies."""
        self._opaque = number = self._opaque + 1
        opaque = b"O%d" % number
        self._send(opaque.join(packet.first), ExpectAll(waiter, deadline, opaque, packet.commands))

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
        """Send a command that can't carry an opaque: a classic one, or `mn`.

        The waiter gets the list of replies: one, or with `until` all up to the one of that status, or an error.
        If `may_be_unknown`, any refusal is an answer too, and the connection stays open (see `ExpectText`).
        """
        self._send(
            b"%b\r\n" % line if data is None else b"%b\r\n%b\r\n" % (line, data),
            ExpectText(waiter, deadline, until, may_be_unknown=may_be_unknown),
        )

    def _send(self, data: bytes, expected: ExpectReply, rest: Sequence[bytes | memoryview] = ()) -> None:
        """Send a request. `rest` follows `data`: large values, and the bytes between and behind them."""
        waiting = self._pending
        queue = self._queue
        when = expected.deadline
        if len(waiting) >= self._room or queue.bytes >= self._max_queued_bytes:
            if not self._room:
                raise ConnectionLost("the connection is closed", self.name)
            raise self._limits.refusal(len(waiting), queue.bytes, self.name)
        if not waiting:
            self._waiting_since = now = self._loop.time()
            silent_at = now + self._limits.silence
            when = min(when, silent_at)
            if not self._silence.is_watching:
                self._silence.begin()
                self._awaits_byte = True
        waiting.append(expected)
        if queue.add(data, rest) and self._lag is not None:
            self._lag.watch()  # a stall from now on delays what has not left yet
        if when < self._timer_at:
            self._wake_at(when)

    # Receiving.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what arrives. Called by the event loop."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop, right after it has filled the buffer."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Match what arrived with who waits."""
        now = self._loop.time()
        if self._awaits_byte:
            self._first_byte(now - self.quiet_since)
        self.heard_at = now
        waiting = self._pending
        try:
            for reply in self._decoder.feed(data):
                if not waiting:
                    raise ProtocolError(f"a reply that nobody asked for: {reply.line[:64]!r}")  # noqa: TRY301
                if self._late_in_a_row and not waiting[0].waiter.done():
                    self._late_in_a_row = 0  # in time: a reply that nobody waits for any more is none
                try:
                    if waiting[0].take(reply):
                        waiting.popleft()
                        if self._why_ended is not None:  # by what the waiter did with it
                            return
                except NodeUnavailable as error:  # the server answers, and what is behind it does not
                    error.node = self.name
                    waiting.popleft().fail(error)
        except ProtocolError as error:
            error.node = self.name
            self._end(ConnectionLost(f"closed: protocol error: {error.problem}", self.name), error)
            return
        if self._decoder.awaited:
            self._lateness.mid_value_at = now
        if self._retiring:
            self._close_if_nobody_waits()

    def _first_byte(self, quiet: float) -> None:
        self._awaits_byte = False
        self._silence.heard(quiet)
        if self._is_troubled:
            self._is_troubled = False
            if self._on_heard is not None:
                self._on_heard(self)

    def _fell_silent(self) -> bool:
        self._awaits_byte = self._is_troubled = True
        return self._on_silent is not None and self._on_silent(self)

    # Time.

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        # Replies that arrived before this ran have been delivered: the loop handles sockets before timers, so a loop that
        # was busy is not mistaken for a slow server.
        now = self._loop.time()
        late, nearest, blame_after = self._lateness.sort(self._pending, now, due=self._timer_at)
        self._timer, self._timer_at = None, math.inf
        for pending in late:
            pending.fail(NodeTimeout("no reply in time", self.name))
        if blame_after:
            self._loop.call_later(blame_after, self._blame, len(late), late[0])
        elif blame_after is not None:
            self._blame(len(late), late[0])
        self._close_if_nobody_waits()
        if self._pending and self._why_ended is None:
            give_up = self.quiet_since + self._limits.silence
            if give_up <= now:
                self._end(ConnectionLost(f"no byte in {self._limits.silence:g} s", self.name))
                return
            self._wake_at(min(nearest, give_up, self._timer_at))

    def _blame(self, timeouts: int, first: ExpectReply) -> None:
        """Report timeouts, unless the first of them has been answered since: then it was the loop that was late."""
        if first in self._pending:
            self._late_in_a_row += timeouts
            self._awaits_byte = self._is_troubled = True
            if self._on_late is not None:
                self._on_late(self, timeouts, self._late_in_a_row)

    # The transport's life.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # by its methods: uvloop's are no subclass
        if self._why_ended is not None:
            self._transport.abort()
            return
        self._queue.open(self._transport)
        self._room = self._limits.max_pending

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._end(ConnectionLost("closed by the server" if exc is None else f"lost: {exc}", self.name))

    def pause_writing(self) -> None:
        """The server is slower than we are: keep requests here, where they are counted. Called by the event loop."""
        self._queue.pause()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.heard_at = self._loop.time()  # it took bytes: silent, but not gone
        self._queue.resume()

    def retire(self) -> None:
        """Take no more requests, and close once nobody waits for an answer any more."""
        self._retiring = True
        self._room = 0
        self._close_if_nobody_waits()

    def _close_if_nobody_waits(self) -> None:
        if self._retiring and all(pending.waiter.done() for pending in self._pending):
            self._end(ConnectionLost("retired", self.name))

    def abort(self, why: str = "closed by this client") -> None:
        """Close now. Everyone who waits gets `ConnectionLost`. Calling it again does nothing."""
        self._end(ConnectionLost(why, self.name))

    def _end(self, why: NodeUnavailable, first: NodeError | None = None) -> None:
        if self._why_ended is not None:
            return
        self._why_ended = why
        self._room = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._silence.stop()
        self._queue.close()
        if self._transport is not None:
            self._transport.abort()
        # The node first: a waiter that tries again must not be handed this connection.
        self._on_lost(self, why)
        waiting, self._pending = self._pending, deque()
        for pending in waiting:
            pending.fail(first or why.copy())
            first = None
