"""Operations as values: the vocabulary that a node and its transport share.

Most operations are methods of `Transport` with plain arguments. This module has the modes of a store, and the stores that
are encoded once and sent to several nodes. The fields of a read are in `fields`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from evcache.zones.protocol.packet import LARGE_BYTES, Packet

StoreMode = Literal["set", "add", "replace", "append", "prepend"]
"""Condition and effect of a store. `append` and `prepend` keep the item's flags and TTL."""

# Values up to this size travel three times in a guarded store, larger ones once.
# Measured with `python -m benchmarks.guarded_store`, three zones of memcached 1.6.38, 32 callers. One copy takes 1.03 to
# 1.13 of the processor time of three copies up to 1 kB. It takes 0.9 at 4 kB and 0.4 from 100 kB on, client and servers
# included. Bytes to each zone: 0.82 at 64, 0.67 at 128, 0.40 at 1,000. One copy names the key four times instead of three
# times. Over 128 bytes it sends less with any key of up to 200 bytes.
THREE_COPIES_MAX_BYTES = 128

# Lifetime of the stub that the one-copy store makes where nothing is. If the connection ends inside the packet, the stub
# stays and holds up leases of its key. Servers count in ticks of one second: 2 lives 1 to 2 seconds, 1 might live none. A
# stub that ends while the value is on its way costs a second round trip.
STUB_SECONDS = 2


class EncodedStore(NamedTuple):
    """A store that is encoded once, for all nodes of the meta protocol. Other transports take its fields."""

    key: bytes
    """Validated key."""
    data: bytes
    """Value."""
    flags: int
    """Client flags."""
    exptime: int
    """Expiry as memcached takes it. 0 is no expiry."""
    cas: int
    """CAS that the item gets."""
    packet: Packet
    """Commands of the meta protocol."""


def plain_store(key: bytes, data: bytes, flags: int, exptime: int, cas: int) -> EncodedStore:
    """Return a store that the server takes in the order of arrival. `EncodedStore` describes the arguments."""
    line = b"ms %b %d T%d F%d E%d " % (key, len(data), exptime, flags, cas)
    if len(data) < LARGE_BYTES:
        packet = Packet(1, (line, b"\r\n%b\r\n" % data))
    else:
        packet = Packet(1, (line, b"\r\n"), (memoryview(data), (b"\r\n",)))
    return EncodedStore(key, data, flags, exptime, cas, packet)


def guarded_store(key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int) -> EncodedStore:
    """Return a store that a server refuses if it holds a newer version. It may be repeated and reordered without harm.

    The client keeps versions inverted in the CAS: newer is lower. The server lets a store with an older *or equal* CAS
    overwrite an item. What is older to the server is newer to the client.

    A small value travels in three stores:

    1. add: store where nothing is.
    2. take over: replace an item that is not newer. The item is left stale, with the old TTL.
    3. confirm: match only what 1 or 2 has just stored, set the TTL and clear the stale mark.

    A larger one travels once, in the second of four commands:

    1. stub: create an empty item where nothing is. A reader sees the stub of a lease, which is a miss.
    2. take over: as above. The server answers NF where nothing is, hence the stub.
    3. set the TTL of the item with this CAS. The server offers that under a compare only together with the stale mark.
    4. append nothing to the item with this CAS. The server then makes a new item of it, without the mark.

    The commands are encoded once, for all nodes. Only servers of the meta protocol keep versions.

    Args:
        key: Validated key.
        data: Value.
        flags: Client flags.
        exptime: Expiry as memcached takes it. 0 is no expiry.
        cas: CAS of the version, inverted: a newer version has a lower one.
        stub: CAS of the stub that is stored where nothing is. It is older than every version.
    """
    packet = three_copies if len(data) <= THREE_COPIES_MAX_BYTES else one_copy
    return EncodedStore(key, data, flags, exptime, cas, packet(key, data, flags, exptime, cas, stub))


def three_copies(key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int) -> Packet:
    """Return the packet of a guarded store in the form of three stores. `guarded_store` describes the arguments."""
    del stub  # the first store is that of the value
    head = b"ms %b %d T%d F%d" % (key, len(data), exptime, flags)
    end = b"\r\n%b\r\n" % data
    add = b"%b E%d ME " % (head, cas)
    take_over = b"%b%b C%d E%d I " % (end, head, cas, cas)
    confirm = b"%b%b C%d E%d " % (end, head, cas, cas)
    return Packet(3, (add, take_over, confirm, end))


def one_copy(key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int) -> Packet:
    """Return the packet of a guarded store in the form of four commands. `guarded_store` describes the arguments."""
    size = len(data)
    make_stub = b"mg %b N%d E%d " % (key, STUB_SECONDS, stub)
    take_over = b"\r\nms %b %d T%d F%d C%d E%d I " % (key, size, exptime, flags, cas, cas)
    set_ttl = b"\r\nmd %b C%d E%d I T%d " % (key, cas, cas, exptime)
    unmark = b"\r\nms %b 0 C%d E%d MA " % (key, cas, cas)
    if size < LARGE_BYTES:
        return Packet(4, (make_stub, take_over, b"\r\n%b%b" % (data, set_ttl), unmark, b"\r\n\r\n"))
    return Packet(4, (make_stub, take_over, b"\r\n"), (memoryview(data), (set_ttl, unmark, b"\r\n\r\n")))
