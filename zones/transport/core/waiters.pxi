# Results of one packet in several zones, of which nearly all are the usual one. See `waiters.py`.

@cython.final
cdef class Tally:
    """Tally of the usual results of one packet."""

    cdef object _owner
    cdef dict _outcomes
    cdef object _outcome
    cdef Py_ssize_t _until
    cdef Py_ssize_t _decides
    cdef Py_ssize_t _left
    cdef bint _is_eager
    cdef list _stored

    def __init__(self, owner, dict outcomes not None, outcome, Py_ssize_t wanted, Py_ssize_t decides):
        self._owner = owner
        self._outcomes = outcomes
        self._outcome = outcome
        self._until = wanted
        self._decides = decides
        self._stored = []

    def send(self, list zones not None, store, double deadline):
        """Send the packet of a store to each zone. See `waiters.Tally.send`."""
        cdef PacketWaiter waiter
        self._left = len(zones)
        for zone in zones:
            if type(zone) is not tuple or len(<tuple>zone) != 3:
                raise TypeError("a zone is a tuple of three")
            waiter = PacketWaiter.__new__(PacketWaiter)
            waiter._tally = self
            waiter._zone = zone
            try:
                (<tuple>zone)[2].guarded_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the packet
                waiter.set_exception(error)

    def take(self):
        """Return the zones with the usual result that have not been taken before."""
        stored = self._stored
        self._stored = []
        return stored

    cdef int _count(self, zone, replies) except -1:
        """Count the replies of a zone."""
        self._left -= 1
        if replies[self._decides].status != b"HD":
            self._is_eager = True
            self._owner.settle((<tuple>zone)[0], replies, None)
            return 0
        cdef bint counts = (<tuple>zone)[1]
        self._outcomes[(<tuple>zone)[0]] = self._outcome
        self._stored.append(zone)
        if counts:
            self._until -= 1
        if self._is_eager or not self._left or (counts and not self._until):
            self._owner.advance()
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

    def set_result(self, replies):
        """Count the result of the packet."""
        if not self._done:
            self._done = True
            self._tally._count(self._zone, replies)

    def set_exception(self, error):
        """Settle the zone."""
        if not self._done:
            self._done = True
            self._tally._left -= 1
            self._tally._is_eager = True
            self._tally._owner.settle(self._zone[0], None, error)
