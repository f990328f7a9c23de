# Exchange of requests and replies on one socket. See `exchange.py`.

@cython.final
cdef class Exchange:
    """Requests and replies of one connection."""

    cdef public object waiting
    cdef public Py_ssize_t room
    cdef public double timer_at
    cdef readonly double waiting_since
    cdef readonly u64 opaque
    cdef readonly Py_ssize_t batched
    cdef object _name
    cdef object _loop
    cdef object _time
    cdef object _limits
    cdef object _lag
    cdef object _begin
    cdef object _wake_at
    cdef object _traffic
    cdef Py_ssize_t _max_queued_bytes
    cdef double _silence
    cdef WriteQueue _queue
    cdef Decoder _decoder
    cdef object _send
    cdef list _ready  # awaitables with an outcome, whose callers are woken soon
    cdef object _wake_ready

    def __init__(self, name, loop, limits, lag, begin, wake_at, traffic):
        self.waiting = deque()
        self.timer_at = float("inf")
        self._name = name
        self._loop = loop
        self._time = loop.time
        self._limits = limits
        self._lag = lag
        self._begin = begin
        self._wake_at = wake_at
        self._max_queued_bytes = limits.max_queued_bytes
        self._silence = limits.silence
        self._traffic = traffic
        self._queue = WriteQueue(loop, self.waiting, traffic)
        self._decoder = Decoder()
        self._send = self.send
        self._ready = []
        self._wake_ready = self.wake_ready

    @property
    def queued_bytes(self):
        """Bytes of requests that the socket transport has not taken."""
        return self._queue.bytes_queued

    @property
    def awaited(self):
        """Bytes of the incomplete value. 0 between replies."""
        return self._decoder.awaited

    @property
    def landing(self):
        """Memory for the next bytes. See `exchange.Exchange.landing`."""
        return self._decoder.landing

    def landed(self, count):
        """Take bytes that were written to `landing`. See `exchange.Exchange.landed`."""
        self._traffic.received += count
        self._decoder.landed(count)

    def open(self, transport):
        """Take requests, and write them to this socket transport."""
        self._queue._transport = transport
        self.room = self._limits.max_pending

    def close(self):
        """Refuse requests from now on, and drop what was not written."""
        self.room = 0
        self._queue.close()

    def take_all(self):
        """Return the requests in flight, and forget them."""
        waiting = self.waiting
        self.waiting = deque()
        return waiting

    def pause(self):
        """Write nothing until `resume`."""
        self._queue._is_paused = True

    def resume(self):
        """Write again."""
        self._queue._is_paused = False
        self._queue.flush()

    def next_opaque(self):
        """Return the opaque of the next request."""
        self.opaque += 1
        return _opaque(self.opaque)

    def send(self, bytes data not None, expected, rest=()):
        """Send a request. See `exchange.Exchange.send`."""
        self._enter(data, expected, expected.deadline, rest)

    cdef int _enter(self, bytes data, object expected, double when, object rest) except -1:
        waiting = self.waiting
        cdef Py_ssize_t count = len(waiting)
        if count >= self.room or self._queue.bytes_queued >= self._max_queued_bytes:
            if not self.room:
                raise ConnectionLost("the connection is closed", self._name)
            raise self._limits.refusal(count, self._queue.bytes_queued, self._name)
        if not count:
            self.waiting_since = self._time()
            when = min(when, self.waiting_since + self._silence)
            self._begin()
        waiting.append(expected)
        if self._queue.add(data, rest) and self._lag is not None:
            self._lag.watch()
        if when < self.timer_at:
            self._wake_at(when)
        return 0

    def send_store(self, store, waiter, double deadline):
        """Send a store. See `Transport.send_store`."""
        self.send_packet(store.packet, waiter, deadline)

    def send_packet(self, packet, waiter, double deadline):
        """Send the commands of a packet. See `exchange.Exchange.send_packet`."""
        cdef PacketEntry entry = PacketEntry.__new__(PacketEntry)
        entry._waiter = waiter
        self._send_packet(packet, entry, deadline)

    cdef int _send_to_zone(self, object packet, Tally tally, tuple zone, double deadline) except -1:
        """Send a packet whose replies a tally counts."""
        cdef PacketEntry entry = PacketEntry.__new__(PacketEntry)
        entry._tally = tally
        entry._zone = zone
        return self._send_packet(packet, entry, deadline)

    cdef int _send_packet(self, object packet, PacketEntry entry, double deadline) except -1:
        self.opaque += 1
        cdef bytes opaque = _opaque(self.opaque)
        commands, first, rest, _ = packet
        entry.deadline = deadline
        entry.opaque = opaque
        entry._wanted = commands
        if rest:
            rest = [part if isinstance(part, memoryview) else opaque.join(part) for part in rest]
        return self._enter(opaque.join(first), entry, deadline, rest)

    def read(
        self, bytes key not None, bytes fields not None, double deadline, latest=None, u64 cas=0, long long flags=NO_FLAGS
    ):
        """Send a read, and return the awaitable of its reply. See `Transport.read`."""
        return self._begin_read(key, fields, deadline, NO_OTHER_ZONE if latest is None else latest, cas, flags)

    cdef Read _begin_read(self, bytes key, bytes fields, double deadline, double latest, u64 cas, long long flags):
        self.opaque += 1
        cdef Read read = Read.__new__(Read)
        read.deadline = read._share_ends = deadline
        read._latest = latest
        read._exchange = self
        read._loop = self._loop
        read._known = cas
        read._plain = flags
        read.opaque = _opaque(self.opaque)
        self._enter(_encode_read(key, fields, read.opaque), read, deadline, ())
        return read

    def get(self, bytes key not None, bytes fields not None, waiter, double deadline, latest=None):
        """Send a read. See `Transport.get`."""
        self.opaque += 1
        cdef bytes opaque = _opaque(self.opaque)
        expected = (
            ExpectReply(waiter, deadline, opaque) if latest is None else ExpectRead(waiter, deadline, opaque, latest)
        )
        self._enter(_encode_read(key, fields, opaque), expected, deadline, ())

    def get_many(
        self, keys, bytes fields not None, waiter, double deadline, latest=None, array cas=None, long long flags=NO_FLAGS
    ):
        """Send a batch of reads. See `Transport.get_many`."""
        if flags >= 0 and not _has_cas(cas, len(keys)):
            raise TypeError("cas has no CAS of each key")
        if fields == READ_FIELDS and len(keys) > 1:
            if type(keys) is not list:
                keys = list(keys)
            request = b"gets %b\r\nmn\r\n" % b" ".join(keys)
            if PyBytes_GET_SIZE(request) - 4 <= GETS_LINE_BYTES:
                ends = [len(keys)]
            else:
                request, ends = encode_gets(keys)
            self.opaque += 1
            batch = ExpectValues(waiter, deadline, _opaque(self.opaque), keys, ends, fields, self._send, latest, cas, flags)
            self._enter(request, batch, deadline, ())
            return
        cdef u64 first = self.opaque + 1
        self.opaque += len(keys)
        self.batched += len(keys) - 1
        request, opaques = encode_reads(keys, fields, first)
        self._enter(request, ExpectHits(waiter, deadline, opaques, keys, fields, self._send, latest), deadline, ())

    def receive(self, bytes data not None, Py_ssize_t timeouts):
        """Give each waiter the replies that these bytes complete. See `matching.match`."""
        self._traffic.received += PyBytes_GET_SIZE(data)
        return match(self._decoder, self.waiting, data, self._name, timeouts)

    cdef bint _runs_here(self, object loop) except -1:
        """Return True if `loop` is the running one, and that of the exchange.

        A callback of this exchange runs in its loop, but it may fork. So there is no shorter way to know.
        """
        return loop is self._loop and get_running_loop() is loop

    cdef int _wake_soon(self, Awaitable done) except -1:
        """Wake the caller in the next iteration of the event loop, as a future does."""
        # The event loop may refuse the call. The caller is not added then, or no later one would be woken either.
        if not self._ready:
            self._loop.call_soon(self._wake_ready)
        self._ready.append(done)
        return 0

    def wake_ready(self):
        """Wake the callers of what has an outcome. The event loop calls it."""
        cdef list ready = self._ready
        cdef Py_ssize_t woken = 0
        self._ready = []
        try:
            for done in ready:
                woken += 1
                (<Awaitable>done)._call_back()
        finally:
            if woken < len(ready):  # the process is told to end; the other callers still get their outcome
                rest = ready[woken:]
                rest += self._ready
                self._ready = rest
                self._loop.call_soon(self._wake_ready)
