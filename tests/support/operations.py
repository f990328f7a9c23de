"""Operations as functions: each returns `send(connection, waiter, deadline)`, which any transport can be sent with."""

from evcache.zones.protocol.fields import READ_FIELDS


def get(key=b"k", fields=READ_FIELDS, latest=None):
    return lambda connection, waiter, deadline: connection.get(key, fields, waiter, deadline, latest)


def get_many(keys, fields=READ_FIELDS, latest=None):
    return lambda connection, waiter, deadline: connection.get_many(keys, fields, waiter, deadline, latest)


def store(key=b"k", data=b"x", *, flags=0, ttl=0, **more):
    return lambda connection, waiter, deadline: connection.store(key, data, flags, ttl, waiter, deadline, **more)


def delete(key=b"k", compare=None):
    return lambda connection, waiter, deadline: connection.delete(key, waiter, deadline, compare)


def touch(key=b"k", ttl=60):
    return lambda connection, waiter, deadline: connection.touch(key, ttl, waiter, deadline)


def count(key=b"k", delta=1, *, decrement=False, **more):
    return lambda connection, waiter, deadline: connection.count(key, delta, waiter, deadline, decrement=decrement, **more)


def lease(key=b"k", seconds=30, cas=None):
    return lambda connection, waiter, deadline: connection.lease(key, seconds, waiter, deadline, cas)
