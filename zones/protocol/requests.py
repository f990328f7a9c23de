r"""Requests of the meta protocol as bytes, from parts that are already validated.

A request is a line without its end. The connection adds ` O<opaque>\r\n`. The connection itself encodes reads and stores, in
one step with their opaque.

No function here checks a key. `evcache.values.keys` checks it, and no other module may pass bytes from outside. Lengths come
from `len(value)` and numbers are formatted from `int`, so no argument can inject a command.

The `b` flag (base64 keys) and the `k` flag (echo the key) are not used. Together with `N` or an auto-creating `ma`, they
make servers print raw key bytes.
"""

from __future__ import annotations

from evcache.zones.protocol.packet import Packet

NOOP = b"mn"
VERSION = b"version"
STATS_SETTINGS = b"stats settings"

# Asks whether the client may choose the CAS of an item, and changes nothing. Servers that know `E` (1.6.27 and newer) reply
# that there is no such item. Older servers reply that the flag is invalid.
PROBE_EXPLICIT_CAS = b"mg !p E1"
# The same question under other keys, for a proxy whose backend of the first key does not answer.
PROBES_OF_OTHER_BACKENDS = (b"mg !q E1", b"mg !r E1", b"mg !s E1")

# A key that no caller uses. `gets` with it has 24 bytes or more, for the reason below.
PROBE_KEY = b"!evcache-probe-key"

# `mn`, padded with spaces to 24 bytes. A server of the binary protocol reads a header of 24 bytes before it answers, and
# closes the connection then.
NOOP_PADDED = NOOP.ljust(22)

STORE_MODES: dict[str, bytes] = {"set": b"", "add": b" ME", "replace": b" MR", "append": b" MA", "prepend": b" MP"}


def meta_delete(key: bytes, compare: int | None = None) -> bytes:
    """Return the request that deletes an item, only one with the CAS `compare` unless that is None."""
    return b"md %b" % key if compare is None else b"md %b C%d" % (key, compare)


def meta_touch(key: bytes, ttl: int) -> bytes:
    """Return the request that sets the TTL of an item and returns its client flags and CAS."""
    return b"mg %b f c T%d" % (key, ttl)


def meta_lease(key: bytes, seconds: int, cas: int | None = None) -> bytes:
    """Return the request that reads an item with `COPY_FIELDS`, or creates a stub that lives `seconds`.

    The stub gets the CAS `cas`. If None, the server chooses it.
    """
    # N before t: the server applies flags from left to right, and t shows the state before it.
    line = b"mg %b v f c N%d t" % (key, seconds)
    return line if cas is None else line + b" E%d" % cas


def meta_arithmetic(
    key: bytes, delta: int, *, decrement: bool = False, compare: int | None = None, cas: int | None = None
) -> bytes:
    """Return the request that adds to a counter, or subtracts, and returns its value, seconds left and CAS.

    Args:
        key: Validated key.
        delta: Number to add or subtract. The server subtracts down to 0.
        decrement: Subtract.
        compare: CAS that the item must have. If None, the server does not compare.
        cas: CAS that the item gets. If None, the server chooses it.
    """
    line = b"ma %b D%d" % (key, delta)
    if decrement:
        line += b" MD"
    if compare is not None:
        line += b" C%d" % compare
    if cas is not None:
        line += b" E%d" % cas
    return line + b" v t c"


def guarded_touch(key: bytes, *, cas: int, ttl: int) -> Packet:
    """Return two commands that set the TTL of exactly the item with this CAS.

    1. invalidate: set the TTL if the CAS is this one, keep the CAS, and mark the item stale.
    2. append nothing: clear the stale mark.

    No single command sets a TTL under a compare without sending the value again.
    """
    touch = b"md %b C%d E%d I T%d " % (key, cas, cas, ttl)
    unmark = b"\r\nms %b 0 T0 F0 C%d E%d MA " % (key, cas, cas)
    return Packet(2, (touch, unmark, b"\r\n\r\n"), name="md")


def replace_older(key: bytes, data: bytes, *, flags: int, cas: int) -> Packet:
    """Return two commands that replace an item which is not newer, and keep its TTL. `data` is small.

    1. take over: replace the item, and mark it stale. The server answers NF if it holds no item.
    2. append nothing to the item with this CAS. The server then makes a new item of it, without the stale mark.
    """
    take_over = b"ms %b %d T0 F%d C%d E%d I " % (key, len(data), flags, cas, cas)
    unmark = b"\r\n%b\r\nms %b 0 T0 F0 C%d E%d MA " % (data, key, cas, cas)
    return Packet(2, (take_over, unmark, b"\r\n\r\n"))


def text_auth(user: str, password: str) -> tuple[bytes, bytes]:
    """Return the line and value that log in to a server run with `-Y`. No other request may be in flight."""
    secret = f"{user} {password}".encode()
    return b"set auth 0 0 %d" % len(secret), secret
