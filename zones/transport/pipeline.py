"""Pipeline of requests on one socket: replies come in the order of the requests, and each reaches its own caller.

These rules keep the data of callers apart:

- Requests wait in a queue, and each reply is matched with the oldest. A request of a cancelled caller keeps its place until
  its reply has been read; the pipeline then drops the reply. aiomcache 0.8.2 reuses a connection with an unread reply. The
  next caller then gets the wrong one.
- A reply that does not belong to the oldest request closes the connection. No caller gets it.
- When the connection ends, all waiting callers get an error at once.

Deadlines cost no timer per call. The connection has one timer, set to the nearest deadline, and fails the late requests when
it fires. The requests of one iteration of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Any, cast

from evcache.zones.errors import ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.transport.base import peers_of
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.core import selected
from evcache.zones.transport.in_flight import ExpectReply
from evcache.zones.transport.lateness import Lateness
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.read_buffer import read_buffer_of
from evcache.zones.transport.silence import SilenceDetector


class Pipeline(asyncio.BufferedProtocol):
    """Life of one socket with requests in flight, on one event loop. A subclass encodes requests and sends them."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        on_closed: Callable[[Any, NodeUnavailable], None],
        on_timeouts: Callable[[Any, int, int], None] | None = None,
        lag: LoopLag | None = None,
        *,
        on_silent: Callable[[Any], bool] | None = None,
        on_bytes: Callable[[Any], None] | None = None,
        traffic: ByteCounter | None = None,
    ) -> None:
        """Make a pipeline that has no socket.

        Args:
            name: Label of the node, for errors.
            loop: Event loop.
            limits: Limits on waiting requests.
            on_closed: Called once with the reason, when the pipeline has ended.
            on_timeouts: Called with the number of requests that had no reply in time, and the number of timeouts since the
                last reply. Requests of cancelled callers are not counted. Timeouts that `lag` blames on the event loop are
                not reported.
            lag: Lag of the event loop. If None, the loop is never to blame.
            on_silent: Called when reads wait and no byte arrives (see `silence`). If it returns True, the reads fail with
                `NodeSilent`, so that their callers can read another zone.
            on_bytes: Called with the first byte after a silence, and after reported timeouts.
            traffic: Counter of its bytes. If None, the pipeline has its own.
        """
        self.name = name
        self.heard_at = 0.0
        """Time of the last byte, on the loop's clock."""
        self._loop = loop
        self._limits = limits
        self._on_closed = on_closed
        self._on_timeouts = on_timeouts
        self._on_silent = on_silent
        self._on_bytes = on_bytes
        self._lag = lag
        self._lateness = Lateness(lag)
        self._timeouts_in_a_row = 0
        self._transport: asyncio.Transport | None = None
        self._exchange = selected.SELECTED.new_exchange(
            name, loop, limits, lag, self._begin, self._wake_at, traffic or ByteCounter()
        )
        # Operations of a `Transport`, without a method in between.
        self.get = self._exchange.get
        self.read = self._exchange.read
        self.get_many = self._exchange.get_many
        self.send_store = self._exchange.send_store
        self._buffer = read_buffer_of(loop)
        self._timer: asyncio.TimerHandle | None = None
        self._silence = SilenceDetector(self, loop, limits.patience, self._report_silence)
        self._awaits_byte = False  # True if the next byte ends a round trip or a silence
        self._is_troubled = False  # True from a silence or reported timeouts to the next byte
        self._retiring = False
        self._why_ended: NodeUnavailable | None = None

    def __repr__(self) -> str:
        state = "closed" if self._why_ended else "retiring" if self._retiring else "open"
        return f"<Connection {self.name} {state} pending={self.pending} queued={self._exchange.queued_bytes}B>"

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
        return max(self.heard_at, self._exchange.waiting_since)

    @property
    def waiting(self) -> Collection[ExpectReply]:
        """Requests whose reply has not been read, the oldest first."""
        return self._exchange.waiting

    @property
    def pending(self) -> int:
        """Number of requests whose reply has not been read, those of cancelled callers included."""
        return len(self._exchange.waiting)

    @property
    def unanswered(self) -> int:
        """Number of requests whose caller still waits."""
        return sum(not pending.waiter.done() for pending in self._exchange.waiting)

    @property
    def is_open(self) -> bool:
        """True if it takes requests."""
        return self._exchange.room > 0

    def forgive(self) -> None:
        """Reset the number of timeouts in a row."""
        self._timeouts_in_a_row = 0

    # Receiving.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next bytes. The event loop calls it."""
        del sizehint
        landing = self._exchange.landing
        return self._buffer if landing is None else landing

    def buffer_updated(self, nbytes: int) -> None:
        """Read the buffer. The event loop calls it right after it has filled the buffer."""
        if self._exchange.landing is None:
            self.data_received(bytes(self._buffer[:nbytes]))
        else:
            self._lateness.mid_value_at = self._hear()
            self._exchange.landed(nbytes)

    def _hear(self) -> float:
        """Note that bytes have arrived, and return the time."""
        now = self._loop.time()
        if self._awaits_byte:
            self._first_byte(now - self.quiet_since)
        self.heard_at = now
        return now

    def data_received(self, data: bytes) -> None:
        """Match the replies in these bytes with the requests."""
        now = self._hear()
        try:
            if self._exchange.receive(data, self._timeouts_in_a_row):
                self._timeouts_in_a_row = 0  # only a reply in time counts
        except ProtocolError as error:
            error.node = self.name
            self._end(ConnectionLost(f"closed: protocol error: {error.problem}", self.name), error)
            return
        # A waiter may have aborted the connection. The other waiters have their error then, and take no reply.
        if self._exchange.awaited:
            self._lateness.mid_value_at = now
        if self._retiring:
            self._close_if_unused()

    def _begin(self) -> None:
        """Watch for silence: a request is sent, and no other waits."""
        if not self._silence.is_watching:
            self._silence.begin()
            self._awaits_byte = True

    def _first_byte(self, quiet: float) -> None:
        self._awaits_byte = False
        self._silence.heard(quiet)
        if self._is_troubled:
            self._is_troubled = False
            if self._on_bytes is not None:
                self._on_bytes(self)

    def _report_silence(self) -> bool:
        self._awaits_byte = self._is_troubled = True
        return self._on_silent is not None and self._on_silent(self)

    # Deadlines.

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._exchange.timer_at = when
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        # The loop handles sockets before timers, so replies that have arrived are delivered by now. A busy loop is not
        # mistaken for a slow server.
        now = self._loop.time()
        exchange = self._exchange
        late, nearest, blame_after = self._lateness.sort(exchange.waiting, now, due=exchange.timer_at)
        self._timer, exchange.timer_at = None, math.inf
        for pending in late:
            pending.fail(NodeTimeout("no reply in time", self.name))
        if blame_after:
            self._loop.call_later(blame_after, self._blame, len(late), late[0])
        elif blame_after is not None:
            self._blame(len(late), late[0])
        self._close_if_unused()
        if exchange.waiting and self._why_ended is None:
            give_up = self.quiet_since + self._limits.silence
            if give_up <= now:
                self._end(ConnectionLost(f"no byte in {self._limits.silence:g} s", self.name))
                return
            self._wake_at(min(nearest, give_up, exchange.timer_at))

    def _blame(self, timeouts: int, first: ExpectReply) -> None:
        """Report timeouts, unless the first of them has a reply by now: then the event loop was late."""
        if first in self._exchange.waiting:
            self._timeouts_in_a_row += timeouts
            self._awaits_byte = self._is_troubled = True
            if self._on_timeouts is not None:
                self._on_timeouts(self, timeouts, self._timeouts_in_a_row)

    # Life cycle.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take requests from now on. The event loop calls it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass
        if self._why_ended is not None:
            self._transport.abort()
            return
        self._exchange.open(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. The event loop calls it."""
        self._end(ConnectionLost("closed by the server" if exc is None else f"lost: {exc}", self.name))

    def pause_writing(self) -> None:
        """Keep requests in the queue, where they are counted. The event loop calls it if the server is too slow."""
        self._exchange.pause()

    def resume_writing(self) -> None:
        """Write again. The event loop calls it."""
        self.heard_at = self._loop.time()  # the server took bytes, so it is alive
        self._exchange.resume()

    def retire(self) -> None:
        """Take no more requests, and close once no caller waits for an answer."""
        self._retiring = True
        self._exchange.room = 0
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retiring and not self.unanswered:
            self._end(ConnectionLost("retired", self.name))

    def abort(self, why: str = "closed by this client") -> None:
        """Close now. Waiting callers get `ConnectionLost`. A second call has no effect."""
        self._end(ConnectionLost(why, self.name))

    def _end(self, why: NodeUnavailable, first: NodeError | None = None) -> None:
        if self._why_ended is not None:
            return
        self._why_ended = why
        self._exchange.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._silence.stop()
        if self._transport is not None:
            self._transport.abort()
        # The node first: a waiter that tries again must not get this connection.
        self._on_closed(self, why)
        for pending in self._exchange.take_all():
            pending.fail(first or why.copy())
            first = None
