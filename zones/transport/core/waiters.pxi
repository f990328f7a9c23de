# Results of one packet in several zones, of which nearly all are the usual one. See `waiters.py`.

@cython.final
cdef class Tally:
    """Tally of the usual results of one packet."""

    cdef readonly Py_ssize_t acknowledged
    cdef readonly Py_ssize_t left
    cdef object _owner
    cdef readonly dict outcomes
    cdef object _pending
    cdef object _outcome
    cdef Py_ssize_t _wanted
    cdef tuple _usual
    cdef bint _is_settled
    cdef list _stored

    def __init__(self, owner, Py_ssize_t wanted, tuple usual not None, pending, stored):
        self._owner = owner
        self.outcomes = {}
        self._pending = pending
        self._outcome = stored
        self._wanted = wanted
        self._usual = usual
        self._stored = []

    def send(self, list zones not None, store, double deadline):
        """Send the store to each zone. See `waiters.Tally.send`."""
        cdef PacketWaiter waiter
        self.left = len(zones)
        for zone in zones:
            if type(zone) is not tuple or len(<tuple>zone) != 4:
                raise TypeError("a zone is a tuple of four")
            self.outcomes[(<tuple>zone)[0]] = self._pending
        for zone in zones:
            waiter = PacketWaiter.__new__(PacketWaiter)
            waiter._tally = self
            waiter._zone = zone
            try:
                (<tuple>zone)[2].send_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the store
                waiter.set_exception(error)

    def take(self):
        """Return the zones with the usual result that have not been taken before."""
        stored = self._stored
        self._stored = []
        return stored

    cdef int _count(self, tuple zone, list replies, bytes opaque) except -1:
        """Count the replies of a zone. Of a bare reply, which has this opaque and nothing else, it is the status alone."""
        if self._is_settled or not self._is_usual(replies):
            return self._settle(zone, _whole_replies(replies, opaque))
        if zone[3] is not None:
            zone[3].ended(self._owner)
        self.left -= 1
        cdef bint counts = zone[1]
        self.outcomes[zone[0]] = self._outcome
        self._stored.append(zone)
        if counts:
            self.acknowledged += 1
        if not self.left or (counts and self.acknowledged == self._wanted):
            self._owner.advance(self)
        return 0

    cdef bint _is_usual(self, list replies) except -1:
        cdef Py_ssize_t index
        if len(replies) != len(self._usual):
            raise IndexError("a packet has another number of replies")
        for index in range(len(self._usual)):
            known = self._usual[index]
            if known is not None:
                reply = replies[index]
                if (reply if type(reply) is bytes else reply.status) not in known:
                    return False
        return True

    cdef int _settle(self, tuple zone, object answer) except -1:
        """Give the owner another result of a zone."""
        self._is_settled = True
        self._owner.settle(zone, answer)
        return 0


@cython.final
@cython.freelist(256)
cdef class PacketWaiter:
    """Waiter of one zone's packet."""

    cdef Tally _tally
    cdef tuple _zone
    cdef bint _done

    def __init__(self):
        raise TypeError("a waiter is made by its tally")

    def done(self):
        """Return True if there is a result."""
        return self._done

    def set_result(self, list replies not None):
        """Count the result of the packet."""
        if not self._done:
            self._done = True
            self._tally._count(self._zone, replies, b"")

    def set_exception(self, error):
        """Settle the zone."""
        if not self._done:
            self._done = True
            self._tally._settle(self._zone, error)
