# Results of one packet in several zones, of which nearly all are the usual one. See `waiters.py`.

@cython.final
cdef class Tally(Awaitable):
    """Tally of the usual results of one packet, and the awaitable of its completion."""

    cdef readonly Py_ssize_t acknowledged
    cdef readonly Py_ssize_t left
    cdef readonly dict outcomes
    cdef object _owner
    cdef object _pending
    cdef object _outcome_of_usual
    cdef Py_ssize_t _required
    cdef tuple _usual
    cdef bint _is_settled
    cdef list _stored  # None without a zone

    def __init__(self, owner, loop, Py_ssize_t required, tuple usual not None, pending, stored):
        self._loop = loop
        self.outcomes = {}
        self._owner = owner
        self._pending = pending
        self._outcome_of_usual = stored
        self._required = required
        self._usual = usual
        if not required:
            self._state = ANSWERED

    @property
    def completion(self):
        """The tally itself."""
        return self

    def send(self, list zones not None, store, double deadline):
        """Send the store to each zone. See `waiters.Tally.send`."""
        cdef PacketWaiter waiter
        cdef tuple zone
        self.left = len(zones)
        for zone in zones:
            if zone is None or len(zone) != 4:
                raise TypeError("a zone is a tuple of four")
            self.outcomes[zone[0]] = self._pending
        packet = None
        for zone in zones:
            connection = zone[2]
            try:
                if type(connection) is Exchange:
                    if packet is None:
                        packet = store.packet
                        self._exchange = connection  # which wakes the caller. Any of them does
                    (<Exchange>connection)._send_to_zone(packet, self, zone, deadline)
                else:
                    waiter = PacketWaiter.__new__(PacketWaiter)
                    waiter._tally = self
                    waiter._zone = zone
                    connection.send_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the store
                self._settle(zone, error)

    def take(self):
        """Return the zones with the usual result that the owner has not been given."""
        stored = self._stored
        self._stored = None
        return [] if stored is None else stored

    cdef int _count(self, tuple zone, list replies, bytes opaque) except -1:
        """Count the replies of a zone. Of a bare reply, which has this opaque and nothing else, it is the status alone."""
        if self._is_settled or not self._is_usual(replies):
            return self._settle(zone, _whole_replies(replies, opaque))
        if zone[3] is not None:
            zone[3].ended(self._owner)
        self.left -= 1
        self.outcomes[zone[0]] = self._outcome_of_usual
        if self._stored is None:
            self._stored = []
        self._stored.append(zone)
        if zone[1]:
            self.acknowledged += 1
            if self.acknowledged == (self._required or 1):
                self._owner.reach(self.take())
        if not self.left:
            owner = self._owner
            self._owner = None  # which has a reference to the tally
            owner.finish(self.take())
            self._end(ANSWERED, None)
        elif self.acknowledged >= self._required:
            self._end(ANSWERED, None)
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
        self.left -= 1
        owner = self._owner
        if not self.left:
            self._owner = None
        owner.settle(zone, answer)
        return 0


evcache_resume_by(<PyTypeObject *>Tally, <void *>_send_awaitable)


@cython.final
@cython.freelist(256)
cdef class PacketWaiter:
    """Waiter of one zone's packet, on a connection of another kind."""

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
