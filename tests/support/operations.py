"""Operations as functions: each returns `send(connection, waiter, deadline)`, which any transport can be sent with."""

from typing import NamedTuple

from evcache.zones.protocol.fields import READ_FIELDS, Fields


class Get(NamedTuple):
    """A read. `read` sends it in the form that its caller awaits."""

    key: bytes
    fields: Fields
    latest: float | None

    def __call__(self, connection, waiter, deadline):
        connection.get(self.key, self.fields, waiter, deadline, self.latest)

    def read(self, connection, deadline):
        return connection.read(self.key, self.fields, deadline, self.latest)


def get(key=b"k", fields=READ_FIELDS, latest=None):
    return Get(key, fields, latest)


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
