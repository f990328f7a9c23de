# The read that its caller awaits: entry of the request and awaitable in one object.

cdef double NO_OTHER_ZONE = -1.0  # in place of `latest`


@cython.final
cdef class Read(Awaitable):
    """Read with one reply. The twin is `ExpectRead` with a future, or `ExpectReply` if no other zone can serve it."""

    cdef public double deadline
    cdef readonly bytes opaque
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


evcache_resume_by(<PyTypeObject *>Read, <void *>_send_awaitable)
