r"""Requests as bytes, from parts that are already validated.

A request is a line without its end; the connection adds ` O<opaque>\r\n`, and the value where there is one. Nothing here
checks a key: `evcache.values.keys` does, and nothing else may call this with bytes from outside. Lengths always come from
`len(value)`, numbers are formatted from `int`, so no argument can break out of its place.

The `b` flag (base64 keys) and the `k` flag (echo the key) are left out on purpose: together with `N` or an
auto-creating `ma` they make servers print raw key bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from evcache.zones.protocol.fields import COPY_FIELDS, INSPECT_FIELDS, READ_FIELDS
from evcache.zones.protocol.packet import LARGE_BYTES, Packet

NOOP = b"mn"
VERSION = b"version"
STATS_SETTINGS = b"stats settings"

# Asks whether the client may choose an item's CAS, and changes nothing: servers that know `E` (1.6.27 and newer) say that
# the key is unknown, older ones that the flag is.
PROBE_EXPLICIT_CAS = b"mg !p E1"
# The same question under other keys, for a proxy whose backend of the first key does not answer.
PROBES_OF_OTHER_BACKENDS = (b"mg !q E1", b"mg !r E1", b"mg !s E1")

# A key that no caller uses. `gets` with it has 24 bytes or more, for the reason below.
PROBE_KEY = b"!evcache-probe-key"

# `mn`, padded with spaces to 24 bytes. A server of the binary protocol says nothing before it has read a header of 24 bytes,
# and closes the connection then.
NOOP_PADDED = NOOP.ljust(22)

READ_FLAGS, COPY_FLAGS, INSPECT_FLAGS = READ_FIELDS, COPY_FIELDS, INSPECT_FIELDS  # until all callers name fields

StoreMode = Literal["set", "add", "replace", "append", "prepend"]
STORE_MODES: dict[str, bytes] = {
    "set": b"",
    "add": b" ME",
    "replace": b" MR",
    "append": b" MA",
    "prepend": b" MP",
}


def meta_get(key: bytes, flags: bytes = READ_FLAGS) -> bytes:
    """Read an item: `flags` says what of it."""
    return b"mg %b %b" % (key, flags)


def meta_gets(keys: Iterable[bytes], flags: bytes = READ_FLAGS) -> list[bytes]:
    """The same for several keys."""
    return [b"mg %b %b" % (key, flags) for key in keys]


def meta_lease(key: bytes, seconds: int, cas: int | None = None) -> bytes:
    """Read an item with `COPY_FLAGS`; where there is none, make an empty one that is gone after so many seconds.

    The reply says `W` to the reader for whom it was made, and `Z` to those after it. `cas`: what an item that is made gets.
    """
    # N before t: flags are applied from left to right, and t shows what stood before it.
    line = b"mg %b v f c N%d t" % (key, seconds)
    return line if cas is None else line + b" E%d" % cas


def meta_touch(key: bytes, ttl: int) -> bytes:
    """Give an item `ttl` seconds (0: for ever, over 30 days: a unix time) and return its client flags and CAS."""
    return b"mg %b f c T%d" % (key, ttl)


def meta_set(
    key: bytes,
    size: int,
    *,
    ttl: int,
    flags: int,
    mode: StoreMode = "set",
    compare: int | None = None,
    cas: int | None = None,
    older_or_equal: bool = False,
) -> bytes:
    """Store `size` bytes.

    `compare`: only over an item with this CAS; with `older_or_equal`, over one whose CAS is not lower than `compare`
    (the server marks the item stale and keeps its old TTL). `cas`: the CAS that the item gets; None: the server's choice.
    Both are compared with None, never by truth: a CAS of 0 is a CAS.
    """
    line = b"ms %b %d T%d F%d" % (key, size, ttl, flags)
    if compare is not None:
        line += b" C%d" % compare
    if cas is not None:
        line += b" E%d" % cas
    if older_or_equal:
        line += b" I"
    return line + STORE_MODES[mode]


def guarded_store(key: bytes, data: bytes, *, cas: int, ttl: int, flags: int) -> Packet:
    """The three stores that make "newest wins" hold in one round trip, for versions kept inverted (newer is lower).

    1. add: stored where nothing was.
    2. take over: replaces an item that is not newer. The server lets an older *or equal* CAS overwrite; our versions are
       inverted, so "older" to the server is newer to us. The item is left stale, with the old TTL.
    3. confirm: matches only what 1 or 2 has just stored, sets the TTL and clears the stale mark.

    Each carries the value, which has to be small.
    """
    head = b"ms %b %d T%d F%d" % (key, len(data), ttl, flags)
    end = b"\r\n%b\r\n" % data
    return Packet(
        3,
        (
            b"%b E%d ME " % (head, cas),
            b"%b%b C%d E%d I " % (end, head, cas, cas),
            b"%b%b C%d E%d " % (end, head, cas, cas),
            end,
        ),
    )


def guarded_touch(key: bytes, *, cas: int, ttl: int) -> Packet:
    """Return two commands that set the TTL of exactly the item with this CAS.

    1. invalidate: sets the TTL if the CAS is this one, keeps the CAS, and marks the item stale.
    2. append nothing: clears the stale mark.

    No single command sets a TTL under a compare without sending the value again.
    """
    return Packet(
        2,
        (
            b"md %b C%d E%d I T%d " % (key, cas, cas, ttl),
            b"\r\nms %b 0 T0 F0 C%d E%d MA " % (key, cas, cas),
            b"\r\n\r\n",
        ),
        name="md",
    )


def replace_older(key: bytes, data: bytes, *, flags: int, cas: int) -> Packet:
    """Return two commands that replace an item which is not newer, and keep its TTL.

    1. take over: as in `guarded_store`. The server answers NF where nothing is.
    2. append nothing to the item with this CAS. The server then makes a new item of it, without the stale mark.
    """
    return Packet(
        2,
        (
            b"ms %b %d T0 F%d C%d E%d I " % (key, len(data), flags, cas, cas),
            b"\r\n%b\r\nms %b 0 T0 F0 C%d E%d MA " % (data, key, cas, cas),
            b"\r\n\r\n",
        ),
    )


def guarded_store_once(key: bytes, data: bytes, *, cas: int, ttl: int, flags: int, stub: int, stub_seconds: int) -> Packet:
    """Return the four commands of the guarded store that carries the value once, in the second one.

    1. stub: make an empty item where nothing is. A reader sees the stub of a lease, which is a miss.
    2. take over: as in `guarded_store`. The server answers NF where nothing is, hence the stub.
    3. set the TTL of the item with this CAS. The server offers that under a compare only together with the stale mark.
    4. append nothing to the item with this CAS. The server then makes a new item of it, without the mark.

    Args:
        key: validated key.
        data: value, of any length that the server takes.
        cas: CAS of the version, inverted.
        ttl: seconds as on the wire, 0: never expires.
        flags: client flags.
        stub: CAS of the stub; higher than `cas`.
        stub_seconds: lifetime of the stub.
    """
    size = len(data)
    lines = (
        b"mg %b N%d E%d " % (key, stub_seconds, stub),
        b"\r\nms %b %d T%d F%d C%d E%d I " % (key, size, ttl, flags, cas, cas),
    )
    tail = b"\r\nmd %b C%d E%d I T%d " % (key, cas, cas, ttl), b"\r\nms %b 0 C%d E%d MA " % (key, cas, cas), b"\r\n\r\n"
    if size >= LARGE_BYTES:
        return Packet(4, (*lines, b"\r\n"), (memoryview(data), tail))
    set_ttl, unmark, end = tail
    return Packet(4, (*lines, b"\r\n%b%b" % (data, set_ttl), unmark, end))


def meta_delete(key: bytes, compare: int | None = None) -> bytes:
    """Delete an item; with `compare`, only one with this CAS."""
    return b"md %b" % key if compare is None else b"md %b C%d" % (key, compare)


def meta_arithmetic(
    key: bytes,
    delta: int,
    *,
    decrement: bool = False,
    initial: int | None = None,
    ttl: int | None = None,
    compare: int | None = None,
    cas: int | None = None,
) -> bytes:
    """Add to a counter (or subtract, never below 0) and return its value, seconds left and CAS.

    Args:
        key: The key.
        delta: The number to add, or to subtract.
        decrement: Subtract.
        initial: The value of a counter that the server makes where there is none; the delta is not added to it. If None, the
            server makes no counter.
        ttl: Lifetime of such a counter in seconds.
        compare: The CAS that the item must have. If None, the server compares nothing.
        cas: The CAS that the item gets. If None, the server chooses it.
    """
    line = b"ma %b D%d" % (key, delta)
    if decrement:
        line += b" MD"
    if initial is not None:
        # N before t: flags are applied from left to right, and t shows what stood before it.
        line += b" N%d J%d" % (0 if ttl is None else ttl, initial)
    if compare is not None:
        line += b" C%d" % compare
    if cas is not None:
        line += b" E%d" % cas
    return line + b" v t c"


def meta_debug(key: bytes) -> bytes:
    """What the server says about an item, as text."""
    return b"me %b" % key


def text_auth(user: str, password: str) -> tuple[bytes, bytes]:
    """The line and value that log in to a server run with `-Y`. It must be the only thing on the wire."""
    secret = f"{user} {password}".encode()
    return b"set auth 0 0 %d" % len(secret), secret


def flush_all() -> bytes:
    """Forget every item of the node."""
    return b"flush_all"


def verbosity(level: int) -> bytes:
    """How much the node logs."""
    return b"verbosity %d" % level


def stats(group: str = "") -> bytes:
    """Statistics: of the whole node, or a group of them such as `settings` or `items`."""
    return f"stats {group}".rstrip().encode("ascii")
