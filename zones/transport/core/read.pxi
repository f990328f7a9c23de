# The read that its caller awaits: entry of the request and awaitable in one object.
#
# It has the interface of an `asyncio.Future`, so tasks, `asyncio.wait` and `asyncio.gather` take it. A future costs a handle and
# a call of the event loop for each reply. Here one call of the event loop wakes the callers of all replies of a chunk.

cdef enum State:
    PENDING
    ANSWERED
    FAILED
    CANCELLED

cdef double NO_OTHER_ZONE = -1.0  # in place of `latest`


@cython.final
@cython.freelist(256)
cdef class Read:
    """Read with one reply. The twin is `ExpectRead` with a future, or `ExpectReply` if no other zone can serve it."""

    cdef public double deadline
    cdef public bint _asyncio_future_blocking  # asyncio's mark of an awaitable that a task may wait for
    cdef readonly bytes opaque
    cdef Exchange _exchange
    cdef State _state
    cdef object _outcome  # the reply, the error, or the message of the cancellation
    cdef object _callback
    cdef object _context
    cdef list _more  # further callbacks with their contexts
    cdef object _stand_in  # waiter in place of a caller that has gone to another zone
    cdef double _share_ends
    cdef double _latest
    cdef u64 _known  # CAS and flags of an item whose value alone is the reply
    cdef long long _plain

    payload = False

    def __init__(self):
        raise TypeError("a read is made by its exchange")

    # Entry of the request.

    @property
    def waiter(self):
        """The read itself, or what stands in for a caller that has gone to another zone."""
        return self if self._stand_in is None else self._stand_in

    @waiter.setter
    def waiter(self, stand_in):
        self._stand_in = stand_in

    @property
    def latest(self):
        """End of the call. None if no other zone can serve the read."""
        return None if self._latest == NO_OTHER_ZONE else self._latest

    def wait_on(self, double until, *, bint to_the_end):
        """Extend the deadline. See `ExpectRead.wait_on`."""
        if self._latest == NO_OTHER_ZONE:
            return False
        cdef double latest = self._latest if to_the_end else (self._share_ends + self._latest) / 2
        if self.deadline >= latest:
            return False
        self.deadline = min(until, latest)
        return True

    def fail(self, error):
        """Fail the waiter, unless it is done."""
        if self._stand_in is None:
            self._end(FAILED, error)
        elif not self._stand_in.done():
            self._stand_in.set_exception(error)

    cdef int _answer(self, object reply) except -1:
        if self._stand_in is None:
            return self._end(ANSWERED, reply)
        if not self._stand_in.done():
            self._stand_in.set_result(reply)
        return 0

    cdef bint _is_over(self) except -1:
        return self._state != PENDING if self._stand_in is None else self._stand_in.done()

    cdef int _end(self, State state, object outcome) except -1:
        """Take the outcome, and wake the caller. No effect if there is an outcome."""
        if self._state == PENDING:
            self._state = state
            self._outcome = outcome
            if self._callback is not None:
                self._exchange._wake_soon(self)
        return 0

    # Future.

    def done(self):
        """Return True if there is an outcome."""
        return self._state != PENDING

    def cancelled(self):
        """Return True if the caller was cancelled."""
        return self._state == CANCELLED

    def set_result(self, reply):
        """Take the reply."""
        self._end(ANSWERED, reply)

    def set_exception(self, error):
        """Take the error."""
        self._end(FAILED, error)

    def cancel(self, msg=None):
        """Cancel the read. Its reply is read and dropped. Return False if there was an outcome before."""
        if self._state != PENDING:
            return False
        self._end(CANCELLED, msg)
        return True

    def result(self):
        """Return the reply, or raise the error."""
        if self._state == ANSWERED:
            return self._outcome
        raise self._error()

    def exception(self):
        """Return the error, or None for a reply. Raises `CancelledError` after a cancellation."""
        if self._state == ANSWERED:
            return None
        error = self._error()
        if self._state == FAILED:
            return error
        raise error

    cdef object _error(self):
        if self._state == FAILED:
            return self._outcome
        if self._state == CANCELLED:
            return self._make_cancelled_error()
        return InvalidStateError("the read has no reply yet")

    # `asyncio.gather` takes these two of its futures, the error even of one that was not cancelled.

    def _make_cancelled_error(self):
        return CancelledError() if self._cancel_message is None else CancelledError(self._cancel_message)

    @property
    def _cancel_message(self):
        return self._outcome if self._state == CANCELLED else None

    def get_loop(self):
        """Return the event loop."""
        return self._exchange._loop

    def add_done_callback(self, callback, *, context=None):
        """Call `callback` with the read once it has an outcome, soon if it has one. It runs in a copy of this context by default."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self._state != PENDING:
            self._exchange._loop.call_soon(callback, self, context=context)
        elif self._callback is None:
            self._callback = callback
            self._context = context
        else:
            if self._more is None:
                self._more = []
            self._more.append((callback, context))

    def remove_done_callback(self, callback):
        """Remove a callback, and return how many times it was there."""
        cdef list kept = [] if self._callback is None else [(self._callback, self._context)]
        cdef Py_ssize_t before
        if self._more is not None:
            kept += self._more
        before = len(kept)
        kept = [each for each in kept if each[0] != callback]
        self._callback = self._context = self._more = None
        if kept:  # in their place, if the read has an outcome and its callers are woken soon
            self._callback, self._context = kept[0]
            self._more = kept[1:]
        return before - len(kept)

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            return self
        raise StopIteration(self.result())

    cdef int _call_back(self) except -1:
        """Call the callbacks, in their order. An exception of one reaches the handler of the event loop, as a future's does."""
        callback = self._callback
        context = self._context
        cdef list more = self._more
        cdef Py_ssize_t called = 0
        self._callback = self._context = self._more = None
        try:
            if callback is not None:
                self._run(callback, context)
            if more is not None:
                for callback, context in more:
                    called += 1
                    self._run(callback, context)
        finally:
            if more is not None and called < len(more):  # the process is told to end; the other callers still wake
                for callback, context in more[called:]:
                    self.add_done_callback(callback, context=context)
        return 0

    cdef int _run(self, object callback, object context) except -1:
        try:
            PyContext_Enter(context)
            try:
                callback(self)
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._exchange._loop.call_exception_handler(
                {"message": f"exception in the callback of a read of {self._exchange._name}", "exception": error}
            )
        return 0


cdef int _send_read(PyObject *awaitable, PyObject *value, PyObject **result) except -1:
    cdef Read read = <Read>awaitable
    result[0] = NULL
    if read._state == PENDING:
        read._asyncio_future_blocking = True
        found = read
    elif read._state == ANSWERED:
        found = read._outcome
    else:
        raise read._error()
    Py_INCREF(found)
    result[0] = <PyObject *>found
    return PYGEN_NEXT if found is read else PYGEN_RETURN


evcache_resume_by(<PyTypeObject *>Read, <void *>_send_read)
