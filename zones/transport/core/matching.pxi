# The loop that matches replies with requests. See `matching.py`.

cdef object _ExpectHits = ExpectHits
cdef object _ExpectValues = ExpectValues
cdef object _ExpectRead = ExpectRead
cdef object _ExpectReply = ExpectReply
cdef object _ExpectStore = ExpectStore


cdef inline bint _is_of(object reply, bytes opaque) except -1:
    """Return True if the reply has this opaque."""
    if type(reply) is _Reply:
        return opaque in <list>(<tuple>reply)[1]
    if type(reply) is not _Hit:
        return False
    found = (<tuple>reply)[6]
    return found is opaque or found == opaque


cdef int _check(object reply, bytes opaque, object expected) except -1:
    """Raise an error unless the reply belongs to the request. See `ExpectReply.take`."""
    if not _is_of(reply, opaque):
        check_ours(reply, opaque, payload=expected.payload)
        if is_unserved(reply):
            raise unexpected(reply)
    return 0


@cython.final
@cython.freelist(1024)  # three for each write that waits. The garbage collector counts new objects, and runs when there are many
cdef class PacketEntry:
    """Packet of several commands, whose waiter gets the list of replies. The twin is `ExpectAll`.

    A packet that a tally counts is its own waiter.
    """

    cdef public double deadline
    cdef readonly bytes opaque
    cdef Py_ssize_t _wanted
    cdef list _replies  # of a bare reply its status alone. None before the first
    cdef object _unserved
    cdef object _waiter
    cdef Tally _tally
    cdef tuple _zone
    cdef bint _done

    payload = True
    latest = None

    def __init__(self):
        raise TypeError("an entry is made by its exchange")

    @property
    def waiter(self):
        """What gets the replies."""
        return self if self._waiter is None else self._waiter

    def wait_on(self, until, *, to_the_end):
        """Return False: no other zone can take the packet."""
        return False

    def done(self):
        """Return True if there is a result."""
        return self._done if self._waiter is None else self._waiter.done()

    def fail(self, error):
        """Fail the waiter, unless it is done."""
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_exception(error)
        elif not self._done:
            self._done = True
            self._tally._settle(self._zone, error)

    cdef bint _take(self, object reply) except -1:
        """Keep the reply. With the last one, give the waiter the list. See `ExpectAll.take`."""
        if type(reply) is not bytes and not _is_of(reply, self.opaque):
            check_ours(reply, self.opaque, payload=True)
            if is_unserved(reply):
                self._unserved = reply
        if self._replies is None:
            self._replies = []
        self._replies.append(reply)
        if len(self._replies) < self._wanted:
            return False
        if self._unserved is not None:
            raise unexpected(self._unserved)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(_whole_replies(self._replies, self.opaque))
        elif not self._done:
            self._done = True
            self._tally._count(self._zone, self._replies, self.opaque)
        return True

    cdef bint _is_over(self) except -1:
        return self.done()


cdef list _whole_replies(list replies, bytes opaque):
    """Return the replies to a packet, of which some are a status alone."""
    return [_new_reply(reply, [opaque], None) if type(reply) is bytes else reply for reply in replies]


cdef object _take_hits(Decoder decoder, object batch):
    """Keep the hits of a batch, and return the first reply that is none, for `ExpectHits.take`. None ends the chunk."""
    cdef list opaques = batch.opaques
    cdef list replies = batch.replies
    cdef Py_ssize_t count = len(opaques)
    cdef Py_ssize_t following = batch.following
    cdef Py_ssize_t index
    cdef object reply
    if len(replies) < count:
        raise IndexError("a batch has fewer replies than reads")
    try:
        while True:
            reply = decoder._next(<bytes>opaques[following] if following < count else None)
            if reply is None or type(reply) is not _Hit:
                return reply
            index = following
            while index < count and not _is_of(reply, <bytes>opaques[index]):  # a read in between was a miss
                index += 1
            if index >= count:
                return reply
            replies[index] = reply
            following = index + 1
    finally:
        batch.following = following


cdef object _take_values(Decoder decoder, object batch):
    """Keep the hits of a batch, and return the first reply that is none, for `ExpectValues.take`. None ends the chunk."""
    cdef list keys = batch.keys
    cdef list ends = batch.ends
    cdef list replies = batch.replies
    cdef Py_ssize_t stop = ends[0] if ends else 0
    cdef Py_ssize_t following = batch.following
    cdef Py_ssize_t index
    cdef object hit
    cdef array known = batch.cas
    cdef long long plain = NO_FLAGS if known is None else batch.flags
    cdef u64 cas = 0
    if ends and (ends[len(ends) - 1] > len(keys) or ends[len(ends) - 1] > len(replies)):
        raise IndexError("an end is behind the keys")
    if plain >= 0 and not _has_cas(known, len(keys)):  # again, because Python code may have changed it
        raise TypeError("cas has no CAS of each key")
    try:
        while True:
            if plain >= 0 and following < stop:
                cas = known.data.as_ulonglongs[following]
            hit = decoder._next_item(keys[following] if following < stop else None, cas, plain)
            if decoder._key is None:
                if stop and type(hit) is _Reply and (<tuple>hit)[0] == b"END":
                    following = ends.pop(0)
                    stop = ends[0] if ends else 0
                    continue
                return hit
            index = following
            while index < stop and not _are_equal(decoder._key, keys[index]):  # a read in between was a miss
                index += 1
            if index >= stop:
                return _new_keyed(decoder._key, hit)
            following = index + 1
            if type(hit) is bytes:
                replies[index] = hit
                continue
            if PyBytes_GET_SIZE(<bytes>(<tuple>hit)[0]) == 0 and (<tuple>hit)[1] == 0:
                batch.unclear.append(index)
                continue
            replies[index] = hit
    finally:
        batch.following = following


cdef bint _has_cas(array known, Py_ssize_t count) except -1:
    """Return True if this is an array of at least `count` unsigned numbers of 64 bits."""
    return known is not None and known.ob_descr.typecode == b"Q" and len(known) >= count


cdef bint _is_complete(object batch) except -1:
    """Return True if the no-op completes a batch, and no read is sent again. See `ExpectValues.take`."""
    return not batch.ends and not batch.has_error and not batch.unclear


cdef inline bint _are_equal(object key, object other) except -1:
    return key is other or key == other


def match(Decoder decoder not None, waiting, bytes data not None, node, Py_ssize_t timeouts):
    """Give each waiter its reply. See `evcache.zones.transport.core.matching.match`."""
    cdef bint is_in_time = False
    cdef Py_ssize_t taken
    popleft = waiting.popleft
    decoder._begin(data)
    while True:
        expected = waiting[0] if waiting else None
        kind = type(expected)
        if kind is Read:
            reply = decoder._next_item((<Read>expected).opaque, (<Read>expected)._known, (<Read>expected)._plain)
            if decoder._key is not None:
                reply = _new_keyed(decoder._key, reply)
            if reply is None:
                return is_in_time
            if timeouts and not is_in_time and not (<Read>expected)._is_over():
                is_in_time = True
            try:
                if type(reply) is not bytes:
                    _check(reply, (<Read>expected).opaque, expected)
                (<Read>expected)._answer(reply)
                popleft()
            except NodeUnavailable as error:
                error.node = node
                popleft().fail(error)
            continue
        if kind is PacketEntry:
            reply = decoder._next_bare((<PacketEntry>expected).opaque)
            if reply is None:
                reply = decoder._next((<PacketEntry>expected).opaque)
            if reply is None:
                return is_in_time
            if timeouts and not is_in_time and not (<PacketEntry>expected)._is_over():
                is_in_time = True
            try:
                if (<PacketEntry>expected)._take(reply):
                    popleft()
            except NodeUnavailable as error:
                error.node = node
                popleft().fail(error)
            continue
        if kind is _ExpectHits:
            taken = expected.following
            reply = _take_hits(decoder, expected)
            if timeouts and not is_in_time and taken < expected.following and not expected.waiter.done():
                is_in_time = True
        elif kind is _ExpectValues:
            taken = expected.following - len(expected.ends)
            reply = _take_values(decoder, expected)
            if timeouts and not is_in_time and taken < expected.following - len(expected.ends):
                is_in_time = not expected.waiter.done()
            if type(reply) is _Reply and (<tuple>reply)[0] == b"MN" and _is_complete(expected):
                waiter = expected.waiter
                if not waiter.done():
                    is_in_time = is_in_time or timeouts > 0
                    waiter.set_result(expected.replies)
                popleft()
                continue
        else:
            reply = decoder._next(None)
        if reply is None:
            return is_in_time
        if expected is None:
            raise ProtocolError(f"reply without a request: {reply.line[:64]!r}")
        waiter = expected.waiter
        if timeouts and not is_in_time and not waiter.done():
            is_in_time = True
        try:
            if kind is _ExpectRead or kind is _ExpectReply or kind is _ExpectStore:
                _check(reply, expected.opaque, expected)
                if not waiter.done():
                    waiter.set_result(reply)
                popleft()
            elif expected.take(reply):
                popleft()
        except NodeUnavailable as error:
            error.node = node
            popleft().fail(error)
