# Looks at replies. See `looks.py`.

def is_same(reply, version, u64 mirror):
    """Return True if the reply is a hit with exactly this version. See `looks.is_same`."""
    return _is_same(reply, version, mirror)


cdef bint _is_same(object reply, object version, u64 mirror) except -1:
    cdef u64 cas
    if version is None or type(reply) is not _Hit or (<tuple>reply)[5]:
        return False
    cas = PyLong_AsUnsignedLongLong((<tuple>reply)[2])
    if cas == <u64>-1 and PyErr_Occurred() is not NULL:
        PyErr_Clear()  # over 64 bits, so it is no CAS of a server
        return False
    return cas <= mirror and mirror - cas == <u64>version


cdef inline u64 _u64(object number, bint *is_one):
    """Return the number. `is_one` becomes False if it has over 64 bits, or is negative."""
    cdef u64 found = PyLong_AsUnsignedLongLong(number)
    is_one[0] = True
    if found == <u64>-1 and PyErr_Occurred() is not NULL:
        PyErr_Clear()
        is_one[0] = False
    return found


def cas_of_each(dict versions not None, keys not None, u64 mirror):
    """Return the CAS of the known version of each key, and the indices of those without. See `looks.cas_of_each`."""
    cdef Py_ssize_t count = len(keys)
    cdef Py_ssize_t index = 0
    cdef array cas = clone(_CAS, count, False)
    cdef list unknown = []
    cdef PyObject *version
    for key in keys:
        if index == count:
            raise IndexError("there are more keys than before")
        version = PyDict_GetItemWithError(versions, key)
        if version is NULL:
            cas.data.as_ulonglongs[index] = 0
            unknown.append(index)
        else:
            cas.data.as_ulonglongs[index] = mirror - <u64>(<object>version)
        index += 1
    if index < count:
        raise IndexError("there are fewer keys than before")
    return cas, unknown


def accept_hits(
    look,
    u64 highest,
    zone,
    list replies not None,
    keys not None,
    given not None,
    array known not None,
    long long plain,
    dict values not None,
    dict found not None,
):
    """Add the hits of one batch that need no closer look to `values` or `found`. See `looks.accept_hits`."""
    cdef u64 lowest, mirror, cas, version, latest
    cdef long long special, flags
    cdef list others = []
    cdef list newer = []
    cdef bint is_number
    cdef Py_ssize_t count = len(replies)
    cdef Py_ssize_t index
    lowest, mirror, new_item, special = look
    if not (isinstance(new_item, type) and issubclass(new_item, tuple)):
        raise TypeError("new_item is no named tuple")
    if len(keys) < count or len(given) < count or not _has_cas(known, count):
        raise IndexError("a key, its name or its CAS is missing")
    for index in range(count):
        reply = replies[index]
        if type(reply) is bytes:
            values[given[index]] = reply
            continue
        if type(reply) is not _Hit or (<tuple>reply)[5]:
            others.append(index)
            continue
        cas = _u64((<tuple>reply)[2], &is_number)
        flags = (<tuple>reply)[1]
        if not is_number or cas > mirror or flags == special:
            others.append(index)
            continue
        version = mirror - cas
        if cas == 0 or cas != known.data.as_ulonglongs[index]:
            latest = mirror - known.data.as_ulonglongs[index] if known.data.as_ulonglongs[index] else 0
            if version < latest or not lowest <= version <= highest:
                others.append(index)
                continue
            if version != latest:
                newer.append((keys[index], version))
        if flags == plain:
            values[given[index]] = (<tuple>reply)[0]
            continue
        item = _new_tuple(new_item, 3)
        _put(item, 0, reply)
        _put(item, 1, zone)
        _put(item, 2, version)
        PyObject_GC_UnTrack(<PyObject *>item)  # a hit, a str and an int, so it is in no cycle
        found[keys[index]] = item
    return others, newer


def decode_values(
    list names not None,
    list given not None,
    dict found not None,
    Py_ssize_t start,
    Py_ssize_t budget,
    Py_ssize_t bytes_of_one,
    decode,
    long plain,
    special,
    dict values not None,
):
    """Decode items into `values`, until one needs a closer look or the budget is spent. See `looks.decode_values`."""
    cdef Py_ssize_t index
    cdef bytes data
    for index in range(start, len(names)):
        item = found.get(names[index])
        if item is None:
            continue
        if not isinstance(item, tuple) or not isinstance((<tuple>item)[0], tuple):
            raise TypeError("an item is no named tuple with a hit")
        hit = (<tuple>item)[0]
        data = (<tuple>hit)[0]
        flags = (<tuple>hit)[1]
        budget -= 1 + PyBytes_GET_SIZE(data) // bytes_of_one
        if budget < 0:
            return index, None
        if flags == plain:
            values[given[index]] = data
            continue
        if flags in special:
            return index, None
        try:
            values[given[index]] = decode(data, flags)
        except Exception as error:
            return index, error
    return len(names), None
