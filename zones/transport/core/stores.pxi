# Packets of stores. See `evcache.zones.protocol.operations`.

cdef object _Packet = Packet
cdef object _EncodedStore = EncodedStore
cdef Py_ssize_t THREE_COPIES_MAX = _THREE_COPIES_MAX_BYTES
cdef Py_ssize_t LARGE = _LARGE_BYTES
cdef u64 STUB = _STUB_SECONDS


cdef inline char *_copy(char *into, const char *text, Py_ssize_t size) noexcept nogil:
    """Copy bytes, and return the position behind them."""
    memcpy(into, text, size)
    return into + size


def guarded_store(bytes key not None, data, unsigned int flags, u64 exptime, u64 cas, u64 stub):
    """Return a store that a server refuses if it holds a newer version. See `evcache.zones.protocol.operations.guarded_store`."""
    cdef bytes value = _bytes_of(data)
    cdef object packet
    if PyBytes_GET_SIZE(value) <= THREE_COPIES_MAX:
        packet = _three_copies(key, value, flags, exptime, cas)
    else:
        packet = _one_copy(key, value, flags, exptime, cas, stub)
    return _new_store(key, data, flags, exptime, cas, packet)


def plain_store(bytes key not None, data, unsigned int flags, u64 exptime, u64 cas):
    """Return a store that the server takes in the order of arrival. See `evcache.zones.protocol.operations.plain_store`."""
    cdef bytes value = _bytes_of(data)
    cdef bytes line = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(key) + 92)  # four numbers of up to 20 digits
    cdef char *start = PyBytes_AS_STRING(line)
    cdef char *at = _copy_head(start, key, PyBytes_GET_SIZE(value), flags, exptime)
    at = _copy(at, b" E", 2)
    at += _number(at, cas)
    at = _copy(at, b" ", 1)
    line = line[: at - start]
    if PyBytes_GET_SIZE(value) < LARGE:
        packet = _new_packet(1, (line, _framed(value, b"\r\n", 2)), ())
    else:
        packet = _new_packet(1, (line, b"\r\n"), (memoryview(data), (b"\r\n",)))
    return _new_store(key, data, flags, exptime, cas, packet)


cdef bytes _bytes_of(object data):
    """Return a value as plain bytes, for its length. A codec may return an instance of a subclass."""
    if type(data) is bytes:
        return <bytes>data
    if not isinstance(data, bytes):
        raise TypeError("a value is not bytes")
    return bytes(data)


cdef object _new_store(bytes key, object data, unsigned int flags, u64 exptime, u64 cas, object packet):
    """Return an `EncodedStore`, without the call of the type."""
    cdef object store = _new_tuple(_EncodedStore, 6)
    _put(store, 0, key)
    _put(store, 1, data)
    _put(store, 2, flags)
    _put(store, 3, exptime)
    _put(store, 4, cas)
    _put(store, 5, packet)
    return store


cdef object _new_packet(object commands, tuple first, tuple rest):
    """Return a `Packet`, without the call of the type."""
    cdef object packet = _new_tuple(_Packet, 4)
    _put(packet, 0, commands)
    _put(packet, 1, first)
    _put(packet, 2, rest)
    _put(packet, 3, "ms")
    return packet


cdef bytes _framed(bytes value, const char *after, Py_ssize_t after_size):
    """Return a value behind the end of its line, with what follows."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 2 + size + after_size)
    cdef char *at = _copy(PyBytes_AS_STRING(made), b"\r\n", 2)
    at = _copy(at, PyBytes_AS_STRING(value), size)
    _copy(at, after, after_size)
    return made


cdef char *_copy_head(char *into, bytes key, Py_ssize_t size, unsigned int flags, u64 exptime) noexcept:
    """Write the part that all stores of a value have in common, and return the position behind it."""
    into = _copy(into, b"ms ", 3)
    into = _copy(into, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    into = _copy(into, b" ", 1)
    into += _number(into, size)
    into = _copy(into, b" T", 2)
    into += _number(into, exptime)
    into = _copy(into, b" F", 2)
    return into + _number(into, flags)


cdef object _three_copies(bytes key, bytes value, unsigned int flags, u64 exptime, u64 cas):
    """Return the packet of three stores. See `evcache.zones.protocol.operations.three_copies`."""
    cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key)
    cdef char number[20]
    cdef int digits = _number(number, cas)
    cdef bytes head = PyBytes_FromStringAndSize(NULL, key_size + 68)  # three numbers of up to 20 digits
    cdef char *start = PyBytes_AS_STRING(head)
    cdef Py_ssize_t head_size = _copy_head(start, key, PyBytes_GET_SIZE(value), flags, exptime) - start
    cdef bytes end = _framed(value, b"\r\n", 2)
    cdef Py_ssize_t end_size = PyBytes_GET_SIZE(end)
    cdef char *at

    cdef bytes add = PyBytes_FromStringAndSize(NULL, head_size + 6 + digits)
    at = _copy(PyBytes_AS_STRING(add), start, head_size)
    at = _copy(at, b" E", 2)
    at = _copy(at, number, digits)
    _copy(at, b" ME ", 4)

    cdef bytes take_over = PyBytes_FromStringAndSize(NULL, end_size + head_size + 7 + 2 * digits)
    at = _copy_confirm(PyBytes_AS_STRING(take_over), end, start, head_size, number, digits)
    _copy(at, b"I ", 2)

    cdef bytes confirm = PyBytes_FromStringAndSize(NULL, end_size + head_size + 5 + 2 * digits)
    _copy_confirm(PyBytes_AS_STRING(confirm), end, start, head_size, number, digits)
    return _new_packet(3, (add, take_over, confirm, end), ())


cdef char *_copy_confirm(char *into, bytes end, const char *head, Py_ssize_t head_size, const char *number, int digits) noexcept:
    """Write the end of the value before, and a store with this CAS as condition and as result."""
    into = _copy(into, PyBytes_AS_STRING(end), PyBytes_GET_SIZE(end))
    into = _copy(into, head, head_size)
    return _copy(_copy_cas(into, number, digits), b" ", 1)


cdef char *_copy_cas(char *into, const char *number, int digits) noexcept:
    """Write a CAS as condition and as result."""
    into = _copy(into, b" C", 2)
    into = _copy(into, number, digits)
    into = _copy(into, b" E", 2)
    return _copy(into, number, digits)


cdef object _one_copy(bytes key, bytes value, unsigned int flags, u64 exptime, u64 cas, u64 stub):
    """Return the packet of four commands. See `evcache.zones.protocol.operations.one_copy`."""
    cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key)
    cdef const char *name = PyBytes_AS_STRING(key)
    cdef char number[20]
    cdef int digits = _number(number, cas)
    cdef char *start
    cdef char *at

    cdef bytes make_stub = PyBytes_FromStringAndSize(NULL, key_size + 50)
    start = PyBytes_AS_STRING(make_stub)
    at = _copy(start, b"mg ", 3)
    at = _copy(at, name, key_size)
    at = _copy(at, b" N", 2)
    at += _number(at, STUB)
    at = _copy(at, b" E", 2)
    at += _number(at, stub)
    at = _copy(at, b" ", 1)
    make_stub = make_stub[: at - start]

    cdef bytes take_over = PyBytes_FromStringAndSize(NULL, key_size + 118)  # five numbers of up to 20 digits
    start = PyBytes_AS_STRING(take_over)
    at = _copy(start, b"\r\n", 2)
    at = _copy_head(at, key, PyBytes_GET_SIZE(value), flags, exptime)
    at = _copy_cas(at, number, digits)
    at = _copy(at, b" I ", 3)
    take_over = take_over[: at - start]

    cdef bytes set_ttl = PyBytes_FromStringAndSize(NULL, key_size + 75)
    start = PyBytes_AS_STRING(set_ttl)
    at = _copy(start, b"\r\nmd ", 5)
    at = _copy(at, name, key_size)
    at = _copy_cas(at, number, digits)
    at = _copy(at, b" I T", 4)
    at += _number(at, exptime)
    at = _copy(at, b" ", 1)
    cdef Py_ssize_t set_ttl_size = at - start

    cdef bytes unmark = PyBytes_FromStringAndSize(NULL, key_size + 15 + 2 * digits)
    at = _copy(PyBytes_AS_STRING(unmark), b"\r\nms ", 5)
    at = _copy(at, name, key_size)
    at = _copy(at, b" 0", 2)
    at = _copy_cas(at, number, digits)
    _copy(at, b" MA ", 4)

    if PyBytes_GET_SIZE(value) < LARGE:
        return _new_packet(
            4, (make_stub, take_over, _framed(value, start, set_ttl_size), unmark, b"\r\n\r\n"), ()
        )
    rest = (memoryview(value), (set_ttl[:set_ttl_size], unmark, b"\r\n\r\n"))
    return _new_packet(4, (make_stub, take_over, b"\r\n"), rest)
