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
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from evcache.zones.errors import ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.transport.base import peers_of
from evcache.zones.transport.core import selected
from evcache.zones.transport.in_flight import ExpectReply
from evcache.zones.transport.lateness import Lateness
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.read_buffer import read_buffer_of
from evcache.zones.transport.silence import SilenceDetector
from evcache.zones.transport.write_queue import WriteQueue


class Pipeline(asyncio.BufferedProtocol):
    """Requests in flight on one socket, on one event loop. A subclass encodes requests and calls `_send`."""

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
        """
        self.name = name
        self.heard_at = 0.0
        """Time of the last byte, on the loop's clock."""
        self._loop = loop
        self._limits = limits
        self._max_queued_bytes = limits.max_queued_bytes
        self._on_closed = on_closed
        self._on_timeouts = on_timeouts
        self._on_silent = on_silent
        self._on_bytes = on_bytes
        self._lag = lag
        self._lateness = Lateness(lag)
        self._timeouts_in_a_row = 0
        self._transport: asyncio.Transport | None = None
        core = selected.SELECTED
        self._match = core.match
        self._encode_reads = core.encode_reads
        self._decoder = core.new_decoder()
        self._buffer = read_buffer_of(loop)
        self._pending: deque[ExpectReply] = deque()
        self._queue = WriteQueue(loop, self._pending)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._waiting_since = 0.0  # when a request was last sent while no other waited
        self._silence = SilenceDetector(self, loop, limits.patience, self._report_silence)
        self._awaits_byte = False  # True if the next byte ends a round trip or a silence
        self._is_troubled = False  # True from a silence or reported timeouts to the next byte
        # Number of requests that may wait: 0 before there is a socket, and after `retire` or the end.
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
        """Number of requests whose reply has not been read, those of cancelled callers included."""
        return len(self._pending)

    @property
    def unanswered(self) -> int:
        """Number of requests whose caller still waits."""
        return sum(not pending.waiter.done() for pending in self._pending)

    @property
    def is_open(self) -> bool:
        """True if it takes requests."""
        return self._room > 0

    def forgive(self) -> None:
        """Reset the number of timeouts in a row."""
        self._timeouts_in_a_row = 0

    # Sending.

    def _send(self, data: bytes, expected: ExpectReply, rest: Sequence[bytes | memoryview] = ()) -> None:
        """Send a request. `rest` follows `data`: large values, and the bytes between and behind them."""
        waiting = self._pending
        when = expected.deadline
        if len(waiting) >= self._room or self._queue.bytes >= self._max_queued_bytes:
            if not self._room:
                raise ConnectionLost("the connection is closed", self.name)
            raise self._limits.refusal(len(waiting), self._queue.bytes, self.name)
        if not waiting:
            self._waiting_since = now = self._loop.time()
            silent_at = now + self._limits.silence
            when = min(when, silent_at)
            if not self._silence.is_watching:
                self._silence.begin()
                self._awaits_byte = True
        waiting.append(expected)
        if self._queue.add(data, rest) and self._lag is not None:
            self._lag.watch()  # a stall from now on delays what has not left yet
        if when < self._timer_at:
            self._wake_at(when)

    # Receiving.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next bytes. The event loop calls it."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read the buffer. The event loop calls it right after it has filled the buffer."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Match the replies in these bytes with the requests."""
        now = self._loop.time()
        if self._awaits_byte:
            self._first_byte(now - max(self.heard_at, self._waiting_since))  # without a call of `quiet_since`
        self.heard_at = now
        try:
            if self._match(self._decoder, self._pending, data, self.name, self._timeouts_in_a_row):
                self._timeouts_in_a_row = 0  # only a reply in time counts
        except ProtocolError as error:
            error.node = self.name
            self._end(ConnectionLost(f"closed: protocol error: {error.problem}", self.name), error)
            return
        # A waiter may have aborted the connection. The other waiters have their error then, and take no reply.
        if self._decoder.awaited:
            self._lateness.mid_value_at = now
        if self._retiring:
            self._close_if_unused()

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
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        # The loop handles sockets before timers, so replies that have arrived are delivered by now. A busy loop is not
        # mistaken for a slow server.
        now = self._loop.time()
        late, nearest, blame_after = self._lateness.sort(self._pending, now, due=self._timer_at)
        self._timer, self._timer_at = None, math.inf
        for pending in late:
            pending.fail(NodeTimeout("no reply in time", self.name))
        if blame_after:
            self._loop.call_later(blame_after, self._blame, len(late), late[0])
        elif blame_after is not None:
            self._blame(len(late), late[0])
        self._close_if_unused()
        if self._pending and self._why_ended is None:
            give_up = self.quiet_since + self._limits.silence
            if give_up <= now:
                self._end(ConnectionLost(f"no byte in {self._limits.silence:g} s", self.name))
                return
            self._wake_at(min(nearest, give_up, self._timer_at))

    def _blame(self, timeouts: int, first: ExpectReply) -> None:
        """Report timeouts, unless the first of them has a reply by now: then the event loop was late."""
        if first in self._pending:
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
        self._queue.open(self._transport)
        self._room = self._limits.max_pending

    def connection_lost(self, exc: Exception | None) -> None:
        """End. The event loop calls it."""
        self._end(ConnectionLost("closed by the server" if exc is None else f"lost: {exc}", self.name))

    def pause_writing(self) -> None:
        """Keep requests in the queue, where they are counted. The event loop calls it if the server is too slow."""
        self._queue.pause()

    def resume_writing(self) -> None:
        """Write again. The event loop calls it."""
        self.heard_at = self._loop.time()  # the server took bytes, so it is alive
        self._queue.resume()

    def retire(self) -> None:
        """Take no more requests, and close once no caller waits for an answer."""
        self._retiring = True
        self._room = 0
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retiring and all(pending.waiter.done() for pending in self._pending):
            self._end(ConnectionLost("retired", self.name))

    def abort(self, why: str = "closed by this client") -> None:
        """Close now. Waiting callers get `ConnectionLost`. A second call has no effect."""
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
        # The node first: a waiter that tries again must not get this connection.
        self._on_closed(self, why)
        waiting, self._pending = self._pending, deque()
        for pending in waiting:
            pending.fail(first or why.copy())
            first = None
