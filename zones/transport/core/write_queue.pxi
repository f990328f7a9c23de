# Requests that a connection has not handed to its socket transport. See `evcache.zones.transport.core.write_queue`.

cdef Py_ssize_t EAGER = _EAGER_REQUESTS


@cython.final
cdef class WriteQueue:
    """The queue of one connection."""

    cdef Py_ssize_t bytes_queued
    cdef object _loop
    cdef object _in_flight
    cdef object _flush
    cdef list _parts
    cdef bint _has_large
    cdef bint _flush_is_due
    cdef bint _is_alone
    cdef bint _is_paused
    cdef object _traffic
    cdef object _transport

    def __init__(self, loop, in_flight, traffic):
        self._loop = loop
        self._in_flight = in_flight
        self._traffic = traffic
        self._parts = []
        self._flush = self.flush

    cdef int close(self) except -1:
        self._transport = None
        self._parts.clear()
        self.bytes_queued = 0
        return 0

    cdef bint add(self, bytes data, object rest) except -1:
        """Write a request, or queue it. Return False if the request waits for a flush that was due, or for the server."""
        if self._flush_is_due or self._is_paused:
            self._parts.append(data)
            self.bytes_queued += PyBytes_GET_SIZE(data)
            if rest:
                self._add_rest(rest)
            if len(self._parts) == EAGER and len(self._in_flight) == EAGER:
                self._write()
            return False
        if self._is_alone and not rest and self._transport is not None and len(self._in_flight) == 1:
            self._traffic.sent += PyBytes_GET_SIZE(data)
            self._transport.write(data)
            return True
        self._parts.append(data)
        self.bytes_queued += PyBytes_GET_SIZE(data)
        if rest:
            self._add_rest(rest)
        self._flush_is_due = True
        self._loop.call_soon(self._flush)
        return True

    cdef int _add_rest(self, object rest) except -1:
        self._parts += rest
        for part in rest:
            self.bytes_queued += len(part)
        self._has_large = True
        return 0

    def flush(self):
        """Write what waits, unless the transport has paused it."""
        self._flush_is_due = False
        self._is_alone = len(self._parts) == 1 and len(self._in_flight) == 1
        self._write()

    cdef int _write(self) except -1:
        cdef list parts = self._parts
        cdef Py_ssize_t size = self.bytes_queued
        if not parts or self._is_paused or self._transport is None:
            return 0
        self._parts = []
        self.bytes_queued = 0
        if self._has_large:
            self._write_in_parts(self._transport, parts)
        else:
            self._traffic.sent += size
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        return 0

    cdef int _write_in_parts(self, object transport, list parts) except -1:
        """Write until the transport pauses the queue. Keep the rest."""
        cdef Py_ssize_t following = 0
        for following, run in runs(parts):
            self._traffic.sent += len(run)
            transport.write(run)
            if self._is_paused:
                break
        self._parts = parts[following:]
        self.bytes_queued = 0
        for part in self._parts:
            self.bytes_queued += len(part)
        self._has_large = bool(self._parts)
        return 0
