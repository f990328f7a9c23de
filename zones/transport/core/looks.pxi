# Looks at replies. See `looks.py`.

def is_same(reply, version, u64 mirror):
    """Return True if the reply is a hit with exactly this version. See `looks.is_same`."""
    cdef u64 cas
    if version is None or type(reply) is not _Hit or (<tuple>reply)[5]:
        return False
    cas = PyLong_AsUnsignedLongLong((<tuple>reply)[2])
    if cas == <u64>-1 and PyErr_Occurred() is not NULL:
        PyErr_Clear()  # over 64 bits, so it is no CAS of a server
        return False
    return cas <= mirror and mirror - cas == <u64>version


def accept_hits(
    list replies not None,
    keys,
    dict known not None,
    u64 highest,
    u64 lowest,
    u64 mirror,
    new_item,
    zone,
    long special,
    dict found not None,
):
    """Add the items of one batch that need no closer look to `found`. See `looks.accept_hits`."""
    cdef list others = []
    cdef list newer = []
    cdef u64 cas, version
    cdef Py_ssize_t index = -1
    if not (isinstance(new_item, type) and issubclass(new_item, tuple)):
        raise TypeError("new_item is no named tuple")
    if len(replies) < len(keys):
        raise IndexError("a reply is missing")
    for key in keys:
        index += 1
        reply = replies[index]
        if type(reply) is not _Hit or (<tuple>reply)[5] or (<tuple>reply)[1] == special:
            if reply is not None:
                others.append(index)
            continue
        number = (<tuple>reply)[2]
        cas = PyLong_AsUnsignedLongLong(number)
        if cas == <u64>-1 and PyErr_Occurred() is not NULL:
            PyErr_Clear()  # over 64 bits, so it is no CAS of a server
            others.append(index)
            continue
        if cas > mirror:
            others.append(index)
            continue
        version = mirror - cas
        if not lowest <= version <= highest:
            others.append(index)
            continue
        latest = known[key]
        stamp = latest
        if <u64>latest != version:
            if version < <u64>latest:
                others.append(index)
                continue
            stamp = version
            newer.append((key, stamp))
        item = _new_tuple(new_item, 3)
        _put(item, 0, reply)
        _put(item, 1, zone)
        _put(item, 2, stamp)
        PyObject_GC_UnTrack(<PyObject *>item)  # a hit, a str and an int, so it is in no cycle
        found[key] = item
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
