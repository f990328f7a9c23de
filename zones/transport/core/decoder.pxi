# Decoder of replies. See `evcache.zones.protocol.decoder`.

cdef object _Hit = Hit
cdef object _Reply = Reply
cdef object _Keyed = Keyed
cdef frozenset _WITHOUT_VALUE = WITHOUT_VALUE
cdef bytes _SPACE = b" "
cdef bytes _VA = b"VA"

cdef enum:
    END_BYTES = 2


cdef inline object _new_tuple(object kind, Py_ssize_t size):
    """Return a named tuple whose fields are not set."""
    cdef object made = PyType_GenericAlloc(<PyTypeObject *>kind, size)
    EVCACHE_CLEAR_HASH(<PyObject *>made)  # Python 3.14 keeps the hash of a tuple. The 0 of new memory would count as one
    return made


cdef inline int _put(object into, Py_ssize_t index, object item) except -1:
    """Set a field of a new tuple."""
    Py_INCREF(item)  # SET_ITEM takes a reference
    PyTuple_SET_ITEM(into, index, <PyObject *>item)
    return 0


cdef object _new_hit(bytes value, object flags, object cas, object left, object opaque):
    """Return a `Hit` that is neither stale nor leased, without the call of the type."""
    cdef object hit = _new_tuple(_Hit, 7)
    _put(hit, 0, value)
    _put(hit, 1, flags)
    _put(hit, 2, cas)
    _put(hit, 3, left)
    _put(hit, 4, False)
    _put(hit, 5, False)
    _put(hit, 6, opaque)
    PyObject_GC_UnTrack(<PyObject *>hit)  # bytes and numbers, so it is in no cycle, and the collector need not visit it
    return hit


cdef object _new_keyed(object key, object hit):
    """Return a `Keyed`, without the call of the type."""
    cdef object keyed = _new_tuple(_Keyed, 2)
    _put(keyed, 0, key)
    _put(keyed, 1, hit)
    return keyed


cdef object _new_reply(object status, object tokens, object value):
    """Return a `Reply`, without the call of the type."""
    cdef object reply = _new_tuple(_Reply, 3)
    _put(reply, 0, status)
    _put(reply, 1, tokens)
    _put(reply, 2, value)
    return reply


cdef inline const char *_digits(const char *at, const char *end, int most, u64 *number) noexcept nogil:
    """Read 1 to `most` digits. Return the position behind them, or NULL. With more than 19 digits the number may wrap."""
    cdef const char *start = at
    cdef const char *limit = at + most if end - at > most else end
    cdef unsigned int digit
    cdef u64 value = 0
    while at < limit:
        digit = <unsigned int>(<unsigned char>at[0]) - 48
        if digit > 9:
            break
        value = value * 10 + digit
        at += 1
    if at == start or (at == limit and at < end and 48 <= at[0] <= 57):
        return NULL
    number[0] = value
    return at


cdef inline const char *_token(const char *at, const char *end, int most) noexcept nogil:
    """Return the position behind the bytes up to a space or line end, or NULL if there are more than `most`."""
    cdef const char *start = at
    while at < end and at[0] != b" " and at[0] != b"\r" and at[0] != b"\n":
        if at - start == most:
            return NULL
        at += 1
    return at if at < end else NULL


cdef inline bytes _same(bytes expected, const char *text, Py_ssize_t size):
    """Return the bytes of this text, `expected` itself if it is equal."""
    if expected is not None and PyBytes_GET_SIZE(expected) == size and memcmp(PyBytes_AS_STRING(expected), text, size) == 0:
        return expected
    return PyBytes_FromStringAndSize(text, size)


cdef inline bytes _bare_status(const char *line):
    """Return the status of two letters that a line begins with, if no value follows such a line. Else None."""
    if line[0] == b"H" and line[1] == b"D":
        return b"HD"
    if line[0] == b"N":
        return b"NS" if line[1] == b"S" else b"NF" if line[1] == b"F" else None
    if line[0] == b"E":
        return b"EN" if line[1] == b"N" else b"EX" if line[1] == b"X" else None
    return None


cdef inline bint _is_wrapped(const char *start, const char *stop, u64 value) noexcept:
    """Return True if these digits, whose value modulo 2^64 is `value`, do not fit into 64 bits."""
    return stop - start == 20 and (start[0] > b"1" or value < 10000000000000000000ULL)


cdef inline object _cas(const char *start, const char *stop, u64 value):
    """Return the CAS of these digits, whose value modulo 2^64 is `value`."""
    if _is_wrapped(start, stop, value):
        return int(PyBytes_FromStringAndSize(start, stop - start))
    return value


@cython.final
cdef class Landing:
    """Memory of the bytes of a value that have not arrived. A view of it keeps the value.

    No other code has the value until all of its bytes have arrived. The event loop writes to the view within one call.
    """

    cdef bytes _value
    cdef Py_ssize_t _from

    def __init__(self):
        raise TypeError("a landing is made by its decoder")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self._value is None:
            raise BufferError("a landing is made by its decoder")
        cdef char *start = PyBytes_AS_STRING(self._value) + self._from
        PyBuffer_FillInfo(buffer, self, start, PyBytes_GET_SIZE(self._value) - self._from, False, flags)


cdef class Decoder:
    """Decoder of one connection. See `evcache.zones.protocol.decoder.Decoder`."""

    cdef readonly Py_ssize_t awaited
    """Bytes of the incomplete value, with its line end. 0 between replies."""
    cdef Py_ssize_t _longest
    cdef Py_ssize_t _max_line
    cdef object _max_value
    cdef u64 _max_bytes
    cdef Py_ssize_t _have
    cdef list _chunks
    cdef bytes _rest
    cdef bytes _data  # the chunk that `feed` was given
    cdef Py_ssize_t _position
    cdef bint _is_whole  # True if the chunk completes a value
    cdef tuple _head  # status and tokens, or the fields of a hit, of the incomplete value
    cdef bint _is_hit
    cdef bint _is_keyed
    cdef bytes _key  # of the last reply, if it is a `Keyed`
    cdef readonly object landing
    """Memory for the next bytes of a large value. None if the next bytes are not of one. See `landed`."""
    cdef bytes _value  # a large one, whose first `_have` bytes have arrived

    def __cinit__(self, *, max_line=MAX_LINE_BYTES, max_value=MAX_VALUE_BYTES):
        self._max_line = max_line
        self._longest = max_line + END_BYTES
        self._max_bytes = max_value
        self._rest = b""
        self._data = b""
        self._chunks = []

    def feed(self, bytes data not None):
        """Return an iterator over the replies that `data` completes, in order.

        Raises:
            ProtocolError: A byte cannot belong to a reply. The iterator yields the complete replies before it first.
        """
        self._begin(data)
        return self

    def __iter__(self):
        return self

    def __next__(self):
        reply = self._next(None)
        if reply is None:
            raise StopIteration
        return reply

    cdef int _begin(self, bytes data) except -1:
        cdef Py_ssize_t taken
        self._is_whole = False
        self._position = 0
        if self.landing is not None:
            taken = min(PyBytes_GET_SIZE(data), PyBytes_GET_SIZE(self._value) - self._have)
            memcpy(PyBytes_AS_STRING(self._value) + self._have, PyBytes_AS_STRING(data), taken)
            self.landed(taken)
            data = data[taken:]
        if self._value is not None:
            data = self._rest + data
            self._rest = b""
            if self.landing is not None or PyBytes_GET_SIZE(data) < END_BYTES:
                self._rest = data  # nothing, or a part of the line end
                self._data = b""
                return 0
            self._is_whole = True
        elif self.awaited:
            self._chunks.append(data)
            self._have += PyBytes_GET_SIZE(data)
            if self._have < self.awaited:
                self._data = b""
                return 0
            self._position = PyBytes_GET_SIZE(data) - (self._have - self.awaited)
            self._is_whole = True
        elif PyBytes_GET_SIZE(self._rest):
            data = self._rest + data
            self._rest = b""
        self._data = data
        return 0

    cdef bytes _next_bare(self, bytes opaque):
        """Return the status of the next reply if its line has this opaque and nothing else. Else None, and nothing is read."""
        if self._is_whole:
            return None
        cdef Py_ssize_t size = PyBytes_GET_SIZE(opaque)
        cdef const char *line = PyBytes_AS_STRING(self._data) + self._position
        if PyBytes_GET_SIZE(self._data) - self._position < size + 5 or line[2] != b" ":
            return None
        if memcmp(line + 3, PyBytes_AS_STRING(opaque), size) or line[size + 3] != b"\r" or line[size + 4] != b"\n":
            return None
        status = _bare_status(line)
        if status is not None:
            self._position += size + 5
        return status

    cdef object _next(self, bytes expected):
        """Return the next reply of the chunk, or None."""
        reply = self._next_item(expected, 0, -1)
        return reply if self._key is None else _new_keyed(self._key, reply)

    cdef object _next_item(self, bytes expected, u64 known, long long plain):
        """Return the next reply of the chunk, or None. For a `Keyed`, return its hit, and set `_key`.

        If the opaque or the key equals `expected`, the reply has that very object. If its CAS and flags are `known` and
        `plain` too, the result is the value alone. No item has the CAS 0.
        """
        self._key = None
        if self._is_whole:
            self._is_whole = False
            return self._whole_value()
        cdef bytes data = self._data
        cdef const char *base = PyBytes_AS_STRING(data)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t position = self._position
        cdef const char *line = base + position
        cdef const char *end = base + length
        cdef const char *at
        cdef const char *flags_at
        cdef const char *cas_at
        cdef const char *cas_end
        cdef const char *opaque_at
        cdef const char *key_end
        cdef u64 size = 0, flags = 0, cas = 0, ttl = 0, ignored = 0
        cdef bint has_ttl = False, is_negative = False
        cdef object left, opaque, number, key
        cdef bytes value
        cdef Py_ssize_t start, stop, line_end, size_of_key
        if position == length:
            self._data = b""
            self._position = 0
            return None
        # The usual reply to a read: size, flags, CAS, seconds left if requested, opaque.
        if length - position > 3 and line[0] == b"V" and line[1] == b"A" and line[2] == b" ":
            at = _digits(line + 3, end, 10, &size)
            while at is not NULL:  # once: `break` is for a line of another form
                if end - at < 2 or at[0] != b" " or at[1] != b"f":
                    at = NULL
                    break
                at = _digits(at + 2, end, 10, &flags)
                if at is NULL or end - at < 2 or at[0] != b" " or at[1] != b"c":
                    at = NULL
                    break
                cas_at = at + 2
                at = cas_end = _digits(cas_at, end, 20, &cas)
                if at is NULL or end - at < 2 or at[0] != b" ":
                    at = NULL
                    break
                if at[1] == b"t":
                    has_ttl = True
                    at += 2
                    if at < end and at[0] == b"-":
                        is_negative = True
                        at += 1
                    at = _digits(at, end, 10, &ttl)
                    if at is NULL or end - at < 2 or at[0] != b" ":
                        at = NULL
                        break
                if at[1] != b"O":
                    at = NULL
                    break
                opaque_at = at + 1
                at = _digits(at + 2, end, 20, &ignored)
                if at is NULL or end - at < 2 or at[0] != b"\r" or at[1] != b"\n":
                    at = NULL
                break
            if at is not NULL and at + END_BYTES - line <= self._longest:
                opaque = _same(expected, opaque_at, at - opaque_at)
                left = None
                if has_ttl:
                    left = -<long long>ttl if is_negative else <long long>ttl
                start = at + END_BYTES - base
                if size > self._max_bytes:
                    raise self._invalid_length(start)
                if length - start >= <Py_ssize_t>size + END_BYTES:
                    stop = start + <Py_ssize_t>size
                    if base[stop] != b"\r" or base[stop + 1] != b"\n":
                        raise self._no_line_end(<Py_ssize_t>size)
                    self._position = stop + END_BYTES
                    value = PyBytes_FromStringAndSize(base + start, <Py_ssize_t>size)
                    if (
                        cas == known != 0
                        and <long long>flags == plain
                        and not has_ttl
                        and opaque is expected
                        and not _is_wrapped(cas_at, cas_end, cas)
                    ):
                        return value
                    return _new_hit(value, flags, _cas(cas_at, cas_end, cas), left, opaque)
                number = _cas(cas_at, cas_end, cas)
                self._is_hit = True
                self._is_keyed = False
                self._head = (flags, number, left, opaque)
                return self._wait(start, <Py_ssize_t>size)
        # An item in the reply to `gets`: key, flags, size, CAS.
        if length - position > 6 and memcmp(line, b"VALUE ", 6) == 0:
            at = line + 6
            size_of_key = 0 if expected is None else PyBytes_GET_SIZE(expected)
            if size_of_key and end - at > size_of_key and at[size_of_key] == b" " and memcmp(at, PyBytes_AS_STRING(expected), size_of_key) == 0:
                at += size_of_key
                key = expected
            else:
                at = _token(at, end, 250)
                key = None
            key_end = at
            while at is not NULL:  # once, as above
                if at == line + 6 or at[0] != b" ":
                    at = NULL
                    break
                at = _digits(at + 1, end, 10, &flags)
                if at is NULL or at == end or at[0] != b" ":
                    at = NULL
                    break
                at = _digits(at + 1, end, 10, &size)
                if at is NULL or at == end or at[0] != b" ":
                    at = NULL
                    break
                cas_at = at + 1
                at = cas_end = _digits(cas_at, end, 20, &cas)
                if at is NULL or end - at < 2 or at[0] != b"\r" or at[1] != b"\n":
                    at = NULL
                break
            if at is not NULL and at + END_BYTES - line <= self._longest:
                if key is None:
                    key = PyBytes_FromStringAndSize(line + 6, key_end - line - 6)
                start = at + END_BYTES - base
                if size > self._max_bytes:
                    raise self._invalid_length(start)
                if length - start >= <Py_ssize_t>size + END_BYTES:
                    stop = start + <Py_ssize_t>size
                    if base[stop] != b"\r" or base[stop + 1] != b"\n":
                        raise self._no_line_end(<Py_ssize_t>size)
                    self._position = stop + END_BYTES
                    self._key = key
                    value = PyBytes_FromStringAndSize(base + start, <Py_ssize_t>size)
                    if (
                        cas == known != 0
                        and <long long>flags == plain
                        and (size or flags)  # an empty value without flags may be the stub of a lease
                        and key is expected
                        and not _is_wrapped(cas_at, cas_end, cas)
                    ):
                        return value
                    return _new_hit(value, flags, _cas(cas_at, cas_end, cas), None, b"")
                number = _cas(cas_at, cas_end, cas)
                self._is_hit = self._is_keyed = True
                self._head = (flags, number, None, b"", key)
                return self._wait(start, <Py_ssize_t>size)
        # A status with the opaque alone: the usual reply to a write, and that to a read that misses.
        if length - position > 6 and line[2] == b" " and line[3] == b"O":
            status = _bare_status(line)
            at = _digits(line + 4, end, 20, &ignored)
            if status is not None and at is not NULL and end - at >= 2 and at[0] == b"\r" and at[1] == b"\n" and at + END_BYTES - line <= self._longest:
                self._position = at + END_BYTES - base
                return _new_reply(status, [_same(expected, line + 3, at - line - 3)], None)
        # Any other line.
        line_end = self._line_end(position)
        if line_end < 0:
            self._rest = data[position:]
            self._data = b""
            if PyBytes_GET_SIZE(self._rest) >= self._longest:
                raise ProtocolError(f"line of over {self._max_line} bytes: {self._rest[:64]!r}")
            return None
        tokens = data[position:line_end].split(_SPACE)
        status = tokens.pop(0)
        start = line_end + END_BYTES
        self._position = start
        if status in _WITHOUT_VALUE:
            return _new_reply(status, tokens, None)
        if status != _VA:
            raise ProtocolError(f"not a reply: {data[max(0, line_end - 64) : line_end]!r}")
        digits = tokens.pop(0) if tokens else b""
        if not digits.isdigit() or len(digits) > MAX_SIZE_DIGITS:
            raise self._invalid_length(start)
        size = int(digits)
        if size > self._max_bytes:
            raise self._invalid_length(start)
        if length - start < <Py_ssize_t>size + END_BYTES:
            self._is_hit = False
            self._head = (status, tokens)
            return self._wait(start, <Py_ssize_t>size)
        stop = start + <Py_ssize_t>size
        if base[stop] != b"\r" or base[stop + 1] != b"\n":
            raise self._no_line_end(<Py_ssize_t>size)
        self._position = stop + END_BYTES
        return _new_reply(status, tokens, data[start:stop])

    cdef Py_ssize_t _line_end(self, Py_ssize_t position) noexcept:
        """Return the position of the first line end that leaves the line within its limit, or -1."""
        cdef const char *base = PyBytes_AS_STRING(self._data)
        cdef Py_ssize_t last = min(PyBytes_GET_SIZE(self._data), position + self._longest)
        cdef const char *found
        cdef Py_ssize_t at = position
        while at < last - 1:
            found = <const char *>memchr(base + at, 13, last - 1 - at)
            if found is NULL:
                return -1
            if found[1] == 10:
                return found - base
            at = found - base + 1
        return -1

    def landed(self, Py_ssize_t count):
        """Take this number of bytes, which were written to the beginning of `landing`."""
        if self._value is None or not 0 <= count <= PyBytes_GET_SIZE(self._value) - self._have:
            raise ValueError("more bytes than there was memory for")
        self._have += count
        self._land()

    cdef int _land(self) except -1:
        """Lend the memory of the bytes that have not arrived."""
        self.landing = None
        cdef Landing landing
        if self._have < PyBytes_GET_SIZE(self._value):
            landing = Landing.__new__(Landing)
            landing._value = self._value
            landing._from = self._have
            self.landing = memoryview(landing)
        return 0

    cdef object _wait(self, Py_ssize_t start, Py_ssize_t size):
        """Keep the beginning of a value that is incomplete."""
        self.awaited = size + END_BYTES
        self._have = PyBytes_GET_SIZE(self._data) - start
        if MIN_LANDING_BYTES <= size <= MAX_LANDING_BYTES:
            if self._have > size:
                self._rest = self._data[start + size :]  # a part of the line end
                self._have = size
            self._value = PyBytes_FromStringAndSize(NULL, size)
            memcpy(PyBytes_AS_STRING(self._value), PyBytes_AS_STRING(self._data) + start, self._have)
            self._land()
        else:
            self._chunks.append(self._data[start:])
        self._data = b""
        self._position = 0
        return None

    cdef object _whole_value(self):
        """Return the reply whose value is complete. Its last part may contain later bytes."""
        cdef list chunks = self._chunks
        cdef Py_ssize_t size = self.awaited - END_BYTES
        cdef Py_ssize_t in_last
        cdef bytes last, value
        self.awaited = 0
        if self._value is not None:
            value = self._value
            self._value = None
            if not self._data.startswith(b"\r\n"):
                raise self._no_line_end(size)
            self._position = END_BYTES
        else:
            self._chunks = []
            last = chunks.pop()
            while True:
                in_last = size - (self._have - PyBytes_GET_SIZE(last))
                if in_last >= 0:
                    break
                last = chunks.pop() + last  # the line end is in several parts
            if not last.startswith(b"\r\n", in_last):
                raise self._no_line_end(size)
            chunks.append(last[:in_last])
            value = b"".join(chunks)
        head = self._head
        self._head = None
        if self._is_hit:
            if self._is_keyed:
                self._key = head[4]
            return _new_hit(value, head[0], head[1], head[2], head[3])
        return _new_reply(head[0], head[1], value)

    cdef object _invalid_length(self, Py_ssize_t start):
        return ProtocolError(f"invalid value length: {self._data[max(0, start - 64) : start]!r}")

    cdef object _no_line_end(self, Py_ssize_t size):
        return ProtocolError(f"a value of {size} bytes is not followed by a line end")
