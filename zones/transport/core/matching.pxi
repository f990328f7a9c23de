# The loop that matches replies with requests. See `matching.py`.

cdef object _ExpectHits = ExpectHits
cdef object _ExpectRead = ExpectRead
cdef object _ExpectReply = ExpectReply
cdef object _ExpectStore = ExpectStore


cdef bint _take_next_hit(object batch, object reply) except -1:
    """Keep the hit of the next read of a batch. Return False for the hit of another read, which `take` looks for."""
    cdef Py_ssize_t index = batch.following
    opaques = batch.opaques
    if index >= len(opaques) or opaques[index] != reply[6]:
        return False
    batch.hits.append((index, reply))
    batch.following = index + 1
    return True


cdef inline int _check(object reply, object opaque, object expected) except -1:
    """Raise an error unless the reply belongs to the request. See `ExpectReply.take`."""
    if (reply[6] != opaque) if type(reply) is _Hit else (opaque not in reply[1]):
        check_ours(reply, opaque, payload=expected.payload)
        if is_unserved(reply):
            raise unexpected(reply)
    return 0


def match(Decoder decoder not None, waiting, bytes data not None, node, Py_ssize_t timeouts):
    """Give each waiter its reply. See `evcache.zones.transport.core.matching.match`."""
    cdef bint is_in_time = False
    popleft = waiting.popleft
    decoder._begin(data)
    while True:
        reply = decoder._next()
        if reply is None:
            return is_in_time
        if not waiting:
            raise ProtocolError(f"reply without a request: {reply.line[:64]!r}")
        expected = waiting[0]
        kind = type(expected)
        if kind is Read:
            if timeouts and not is_in_time and not (<Read>expected)._is_over():
                is_in_time = True
            try:
                _check(reply, (<Read>expected).opaque, expected)
                (<Read>expected)._answer(reply)
                popleft()
            except NodeUnavailable as error:
                error.node = node
                popleft().fail(error)
            continue
        waiter = expected.waiter
        if timeouts and not is_in_time and not waiter.done():
            is_in_time = True
        try:
            if kind is _ExpectRead or kind is _ExpectReply or kind is _ExpectStore:
                _check(reply, expected.opaque, expected)
                if not waiter.done():
                    waiter.set_result(reply)
                popleft()
            elif kind is _ExpectHits and type(reply) is _Hit and _take_next_hit(expected, reply):
                pass
            elif expected.take(reply):
                popleft()
        except NodeUnavailable as error:
            error.node = node
            popleft().fail(error)
