# Awaitable of an extension type, with the interface of an `asyncio.Future`, so tasks, `asyncio.wait` and `asyncio.gather` take it.
#
# A future costs a handle and a call of the event loop for each outcome. Here one call of the event loop wakes the callers of all
# outcomes of a chunk.

cdef enum State:
    PENDING
    ANSWERED
    FAILED
    CANCELLED


cdef class Awaitable:
    """Awaitable with one outcome."""

    cdef public bint _asyncio_future_blocking  # asyncio's mark of an awaitable that a task may wait for
    cdef object _loop
    cdef Exchange _exchange  # which wakes the caller. Without one, the event loop does
    cdef State _state
    cdef object _outcome  # the result, the error, or the message of the cancellation
    cdef object _callback
    cdef object _context
    cdef list _more  # further callbacks with their contexts

    cdef int _end(self, State state, object outcome) except -1:
        """Take the outcome, and wake the caller. No effect if there is an outcome."""
        if self._state == PENDING:
            self._state = state
            self._outcome = outcome
            if self._callback is None:
                return 0
            if self._exchange is None:
                self._loop.call_soon(self.call_back)
            else:
                self._exchange._wake_soon(self)
        return 0

    def call_back(self):
        """Call the callbacks. The event loop calls it."""
        self._call_back()

    def done(self):
        """Return True if there is an outcome."""
        return self._state != PENDING

    def cancelled(self):
        """Return True if the caller was cancelled."""
        return self._state == CANCELLED

    def set_result(self, result):
        """Take the result."""
        self._end(ANSWERED, result)

    def set_exception(self, error):
        """Take the error."""
        self._end(FAILED, error)

    def cancel(self, msg=None):
        """Cancel it. A result that follows is dropped. Return False if there was an outcome before."""
        if self._state != PENDING:
            return False
        self._end(CANCELLED, msg)
        return True

    def result(self):
        """Return the result, or raise the error."""
        if self._state == ANSWERED:
            return self._outcome
        raise self._error()

    def exception(self):
        """Return the error, or None for a result. Raises `CancelledError` after a cancellation."""
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
        return InvalidStateError("there is no outcome yet")

    # `asyncio.gather` takes these two of its futures, the error even of one that was not cancelled.

    def _make_cancelled_error(self):
        return CancelledError() if self._cancel_message is None else CancelledError(self._cancel_message)

    @property
    def _cancel_message(self):
        return self._outcome if self._state == CANCELLED else None

    def get_loop(self):
        """Return the event loop."""
        return self._loop

    def add_done_callback(self, callback, *, context=None):
        """Call `callback` with the awaitable once it has an outcome, soon if it has one. It runs in a copy of this context by default."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self._state != PENDING:
            self._loop.call_soon(callback, self, context=context)
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
        if kept:  # in their place, if there is an outcome and the callers are woken soon
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
            self._loop.call_exception_handler(
                {"message": "exception in the callback of a request", "exception": error}
            )
        return 0


cdef int _send_awaitable(PyObject *awaitable, PyObject *value, PyObject **result) except -1:
    cdef Awaitable own = <Awaitable>awaitable
    result[0] = NULL
    if own._state == PENDING:
        own._asyncio_future_blocking = True
        found = own
    elif own._state == ANSWERED:
        found = own._outcome
    else:
        raise own._error()
    Py_INCREF(found)
    result[0] = <PyObject *>found
    return PYGEN_NEXT if found is own else PYGEN_RETURN
