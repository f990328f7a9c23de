# Bytes of keys and of reads. See `encoding.py`.

cdef inline int _number(char *into, u64 number) noexcept nogil:
    """Write the digits of a number, and return their count. `into` has room for 20."""
    cdef char digits[20]
    cdef int count = 0
    cdef int place
    while True:
        digits[count] = <char>(48 + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    for place in range(count):
        into[place] = digits[count - 1 - place]
    return count


cdef bytes _opaque(u64 number):
    """Return the opaque of this number."""
    cdef char text[21]
    text[0] = b"O"
    return PyBytes_FromStringAndSize(text, 1 + _number(text + 1, number))


cdef bytes _encode_read(bytes key, bytes fields, bytes opaque):
    """Return the request of a read with a reply."""
    cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t fields_size = PyBytes_GET_SIZE(fields)
    cdef Py_ssize_t opaque_size = PyBytes_GET_SIZE(opaque)
    cdef bytes request = PyBytes_FromStringAndSize(NULL, 7 + key_size + fields_size + opaque_size)
    cdef char *at = PyBytes_AS_STRING(request)
    memcpy(at, b"mg ", 3)
    at += 3
    memcpy(at, PyBytes_AS_STRING(key), key_size)
    at += key_size
    at[0] = b" "
    at += 1
    memcpy(at, PyBytes_AS_STRING(fields), fields_size)
    at += fields_size
    at[0] = b" "
    at += 1
    memcpy(at, PyBytes_AS_STRING(opaque), opaque_size)
    at += opaque_size
    memcpy(at, b"\r\n", 2)
    return request


def encode_reads(keys, bytes fields not None, u64 first):
    """Encode a batch of reads. See `evcache.zones.transport.core.encoding.encode_reads`."""
    cdef Py_ssize_t size = 4  # of the no-op
    cdef Py_ssize_t most = PyBytes_GET_SIZE(fields) + 31  # bytes of a read besides its key, with an opaque of 20 digits
    cdef bytes key
    cdef tuple same = tuple(keys)  # iterated twice: the second time must not give longer keys than the first
    for key in same:
        if key is None:
            raise TypeError("a key is None")
        size += PyBytes_GET_SIZE(key) + most
    cdef bytes request = PyBytes_FromStringAndSize(NULL, size)
    cdef char *start = PyBytes_AS_STRING(request)
    cdef char *at = start
    cdef int digits
    cdef list opaques = []
    for key in same:
        memcpy(at, b"mg ", 3)
        at += 3
        memcpy(at, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        at += PyBytes_GET_SIZE(key)
        at[0] = b" "
        at += 1
        memcpy(at, PyBytes_AS_STRING(fields), PyBytes_GET_SIZE(fields))
        at += PyBytes_GET_SIZE(fields)
        memcpy(at, b" q O", 4)
        at += 4
        digits = _number(at, first)
        opaques.append(PyBytes_FromStringAndSize(at - 1, digits + 1))
        at += digits
        memcpy(at, b"\r\n", 2)
        at += 2
        first += 1
    memcpy(at, b"mn\r\n", 4)
    at += 4
    return request[: at - start], opaques


@cython.final
cdef class _Qualifier:
    """Function that makes the full name of a key. See `encoding.qualifier`."""

    cdef bytes _prefix
    cdef Py_ssize_t _longest
    cdef char _mark
    cdef object _unusual

    def __call__(self, key):
        return self._full(key)

    def of_each(self, keys):
        """Return the full names of several keys. See `encoding.qualifier`."""
        cdef list full = []
        for key in keys:
            full.append(self._full(key))
        return full

    cdef object _full(self, object key):
        cdef Py_ssize_t size, index, before
        cdef const char *text
        cdef char *into
        cdef bytes full
        if type(key) is not str or not PyUnicode_IS_ASCII(key):
            return self._unusual(key)
        text = PyUnicode_AsUTF8AndSize(key, &size)  # of ASCII, the characters themselves
        if size == 0 or size > self._longest or text[0] == self._mark:
            return self._unusual(key)
        for index in range(size):
            if text[index] <= 32 or text[index] >= 127:
                return self._unusual(key)
        before = PyBytes_GET_SIZE(self._prefix)
        full = PyBytes_FromStringAndSize(NULL, before + size)
        into = PyBytes_AS_STRING(full)
        memcpy(into, PyBytes_AS_STRING(self._prefix), before)
        memcpy(into + before, text, size)
        return full


def qualifier(bytes prefix not None, Py_ssize_t longest, str mark not None, unusual):
    """Return a function that makes the full name of a key, and one for several. See `encoding.qualifier`."""
    cdef _Qualifier made = _Qualifier.__new__(_Qualifier)
    made._prefix = prefix
    made._longest = longest
    made._mark = ord(mark)
    made._unusual = unusual
    return made, made.of_each
