# The ordinary read of one key, from the caller's key to the value that the caller gets. The twin is `Reader.get`.
#
# A read that meets anything unusual goes on in Python: before it is sent, in the general read, and after its reply, in
# `UnusualReads.conclude`. So this file decides nothing that those do not decide as well.

@cython.final
cdef class ReadCounts:
    """Counts of the reads of one client. See `counts.ReadCounts`."""

    cdef public long long begun
    cdef public double hits_left

    def __init__(self, double hits_left):
        self.hits_left = hits_left


@cython.final
cdef class OrdinaryReads:
    """Factory of the ordinary reads of one client. See `selected.Core.ordinary_reads`."""

    cdef object _unusual
    cdef object _zones
    cdef object _cluster
    cdef object _affinity
    cdef object _hooks
    cdef object _qualify
    cdef object _recall
    cdef object _latest
    cdef object _observe
    cdef object _note
    cdef object _decode
    cdef ReadCounts _counts
    cdef double _timeout
    cdef u64 _mirror
    cdef long long _plain
    cdef frozenset _special
    # Of the snapshot that the last read used.
    cdef object _view
    cdef double _share
    cdef object _health
    cdef tuple _connections  # of each node. Empty if no read of the snapshot is ordinary
    cdef list _sole  # the connection of each node, at its last read
    cdef list _exchanges  # and its exchange
    cdef array _points
    cdef array _owners

    def __init__(
        self,
        unusual,
        zones,
        cluster,
        affinity,
        hooks,
        qualify,
        decode,
        double timeout,
        u64 mirror,
        long long plain,
        frozenset special not None,
    ):
        self._unusual = unusual
        self._zones = zones
        self._cluster = cluster
        self._affinity = affinity
        self._hooks = hooks
        self._qualify = qualify
        self._recall = zones.recall
        self._latest = zones.latest
        self._observe = zones.observe
        self._note = zones.note
        self._decode = decode
        self._counts = zones.counts
        self._timeout = timeout
        self._mirror = mirror
        self._plain = plain
        self._special = special
        self._connections = ()

    def get(self, key, default):
        """Return a coroutine that reads a key with the client's defaults."""
        cdef OrdinaryRead read = OrdinaryRead.__new__(OrdinaryRead)
        read._reads = self
        read._key = key
        read._default = default
        return read

    cdef int _adopt(self, object view) except -1:
        """Keep what reads of this snapshot look at."""
        self._view = None
        self._connections = ()
        path = self._zones.read_path(view)
        if path is not None:
            self._health, self._connections, self._points, self._owners, share = path
            self._share = self._timeout * <double>share
            self._sole = [None] * len(self._connections)
            self._exchanges = [None] * len(self._connections)
            if len(self._connections) > 1 and not _is_ring(self._points, self._owners):
                raise ValueError("a ring has at least one point, and an owner for each")
        self._view = view
        return 0

    cdef Exchange _exchange(self, bytes full):
        """Return the exchange of an ordinary read. None if the read is not ordinary. See `ZoneReader.ordinary_connection`."""
        cdef Py_ssize_t node = 0
        cdef Py_ssize_t count = len(self._connections)
        if not count or self._health.unhealthy:
            return None
        if count > 1:
            node = _owner_of(full, self._points.data.as_uints, self._owners.data.as_uints, len(self._points))
        connection = self._connections[node].sole
        if connection is not self._sole[node]:
            self._sole[node] = connection
            # `Pipeline` has the method of its exchange. Other connections, and those of the other core, have another one.
            exchange = None if connection is None else getattr(connection.read, "__self__", None)
            self._exchanges[node] = exchange if type(exchange) is Exchange else None
        return self._exchanges[node]

    cdef object _value_of(self, tuple hit):
        """Return the value of an item, or `_NO_VALUE` if it is none of the codec, or cannot be decoded."""
        flags = hit[1]
        if flags == self._plain:
            return hit[0]
        if flags in self._special:
            return _NO_VALUE
        try:
            return self._decode(hit[0], flags)
        except Exception:
            return _NO_VALUE


cdef object _NO_VALUE = object()


cdef bint _is_ring(array points, array owners) except -1:
    """Return True if these are the points of a ring, and the index of the node of each."""
    if points is None or owners is None or points.ob_descr.typecode != b"I" or owners.ob_descr.typecode != b"I":
        return False
    return 0 < len(points) == len(owners)


cdef enum Stage:
    CREATED
    WAITING
    PASSED_ON
    OVER


@cython.final
@cython.freelist(256)
cdef class OrdinaryRead:
    """Coroutine of one read."""

    cdef OrdinaryReads _reads
    cdef Stage _stage
    cdef object _key
    cdef object _default
    cdef bytes _full
    cdef object _view
    cdef double _now
    cdef object _recent
    cdef object _known
    cdef Read _read
    cdef object _rest  # coroutine of a read that is not ordinary, or not any more

    def __init__(self):
        raise TypeError("a coroutine is made by its reads")

    def __dealloc__(self):
        if self._stage == CREATED and self._reads is not None:
            evcache_warn_of_unawaited(b"EVCache.get")

    @property
    def __name__(self):
        return "get"

    @property
    def __qualname__(self):
        return "EVCache.get"

    def __repr__(self):
        return f"<coroutine object EVCache.get at {<size_t><PyObject *>self:#x}>"

    @property
    def cr_await(self):
        """What the coroutine waits for. None if it does not wait."""
        return self._read if self._stage == WAITING else self._rest

    def __await__(self):
        if self._stage == WAITING or self._stage == PASSED_ON:
            raise RuntimeError("coroutine is being awaited already")
        return self

    def __iter__(self):
        raise TypeError("'coroutine' object is not iterable")

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on. Return what the coroutine waits for, or raise `StopIteration` with the value."""
        cdef bint is_over = False
        if self._stage == CREATED and value is not None:
            raise TypeError("can't send non-None value to a just-started coroutine")
        result = self._resume(&is_over)
        if is_over:
            raise StopIteration(result)
        return result

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where the coroutine waits."""
        cdef bint is_over = False
        if self._stage == OVER:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if not isinstance(kind, type):
            error = kind
        elif isinstance(value, BaseException):
            error = value
        else:
            error = kind() if value is None else kind(value)
        if traceback is not None:
            error = error.with_traceback(traceback)
        if self._stage == PASSED_ON:
            return self._rest.throw(error)
        if self._stage != WAITING or not isinstance(error, CacheError):
            self._end()
            if isinstance(error, StopIteration):  # it would look like a result
                raise RuntimeError("coroutine raised StopIteration") from error
            raise error
        self._conclude(error)
        result = self._resume(&is_over)
        if is_over:
            raise StopIteration(result)
        return result

    def close(self):
        """End the coroutine. The reply of its read is read and dropped."""
        rest = self._rest
        self._end()
        if rest is not None:
            rest.close()

    cdef int _end(self) except -1:
        self._stage = OVER
        self._view = self._key = self._default = self._recent = self._known = self._rest = None
        self._full = None
        self._read = None
        return 0

    cdef object _resume(self, bint *is_over):
        """Go on. Return the value, with `is_over`, or what the coroutine waits for."""
        if self._stage == WAITING:
            if self._read._state != PENDING:
                try:
                    value = self._value()
                except BaseException:
                    self._end()
                    raise
                if self._stage == OVER:
                    is_over[0] = True
                    return value
        elif self._stage == CREATED:
            self._stage = OVER  # until it is sent, for an error before that
            self._begin()
        elif self._stage == OVER:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self._stage == WAITING:
            self._read._asyncio_future_blocking = True
            return self._read
        try:
            result = evcache_resume(self._rest, is_over)
        except BaseException:
            self._end()
            raise
        if is_over[0]:
            self._end()
        return result

    cdef object _value(self):
        """Return the value in the reply, and end. If the reply is not the result of the read, pass the read on."""
        cdef OrdinaryReads reads = self._reads
        if self._read._state != ANSWERED:
            self._conclude(self._failure(self._read))
            return None
        reply = self._read._outcome
        value = _NO_VALUE
        if type(reply) is bytes:  # a plain value of the version that the client saw last
            value = reply
            self._serve()
        elif reads._hooks.of_reads:
            self._conclude(self._answer(reply))  # which reports it
            return None
        else:
            if type(reply) is _Hit and not (<tuple>reply)[5]:
                value = reads._value_of(<tuple>reply)
            if value is _NO_VALUE or not self._is_current((<tuple>reply)[2]):
                self._conclude(self._answer(reply))
                return None
            self._serve()
        self._end()
        return value

    cdef bint _is_current(self, object cas) except -1:
        """Return True if an item is not older than the version that the client knows. See `ZoneReader.judge`."""
        cdef OrdinaryReads reads = self._reads
        version = reads._observe(cas)
        if version is not None and version != self._recent:
            if version < self._known:
                return False
            reads._note(self._full, version)
        return True

    cdef object _answer(self, object reply):
        """Return the answer of the zone. See `UnusualReads.answer`."""
        return self._reads._unusual.answer(self._view, self._full, self._recent, self._known, reply)

    cdef object _failure(self, Read read):
        """Return the `CacheError` of a read that has failed. Raise another error."""
        error = read._error()
        if not isinstance(error, CacheError):
            raise error
        return error

    cdef int _begin(self) except -1:
        """Send the read if it is ordinary, and pass it on to the general read otherwise."""
        cdef OrdinaryReads reads = self._reads
        cdef Exchange exchange
        cdef bytes full
        cdef u64 cas = 0
        qualify = reads._qualify
        full = (<_Qualifier>qualify)._full(self._key) if type(qualify) is _Qualifier else qualify(self._key)
        view = reads._cluster.view
        if view is not reads._view and view is not None:
            reads._adopt(view)
        exchange = None if view is None else reads._exchange(full)
        if exchange is None or not exchange._runs_here(reads._affinity.open_in):
            self._rest = reads._unusual.general(self._key, self._default)
            self._stage = PASSED_ON
            return 0
        self._full = full
        self._view = view
        self._now = exchange._time()
        self._recent = recent = reads._recall(full)
        if recent is None:
            self._known = reads._latest(full)
        else:
            self._known = recent
            cas = reads._mirror - PyLong_AsUnsignedLongLong(recent)
        reads._counts.begun += 1
        try:
            self._read = exchange._begin_read(
                full, READ_FIELDS, self._now + reads._share, self._now + reads._timeout, cas, reads._plain
            )
        except CacheError as error:
            self._conclude(error)
        else:
            self._stage = WAITING
        return 0

    cdef int _serve(self) except -1:
        """Count the value, and report it. See `ZoneReader.count_served`."""
        cdef OrdinaryReads reads = self._reads
        reads._counts.hits_left -= 1
        if reads._counts.hits_left <= 0:
            reads._zones.compare(self._view, self._full)
        if reads._hooks.of_reads:
            reads._unusual.report_served(self._view, self._full)
        return 0

    cdef int _conclude(self, object answer) except -1:
        """Pass the read on, with the answer of the first zone."""
        self._rest = self._reads._unusual.conclude(self._view, self._full, self._default, self._now, self._known, answer)
        self._read = None
        self._stage = PASSED_ON
        return 0


cdef int _send_ordinary_read(PyObject *coroutine, PyObject *value, PyObject **result) except -1:
    cdef OrdinaryRead read = <OrdinaryRead>coroutine
    cdef bint is_over = False
    result[0] = NULL
    if read._stage == CREATED and <object>value is not None:
        raise TypeError("can't send non-None value to a just-started coroutine")
    found = read._resume(&is_over)
    Py_INCREF(found)
    result[0] = <PyObject *>found
    return PYGEN_RETURN if is_over else PYGEN_NEXT


evcache_resume_by(<PyTypeObject *>OrdinaryRead, <void *>_send_ordinary_read)
