"""Client flags: the 32 bits that a server stores beside a value, which name the form of its bytes.

EVCache for the JVM defines the first group. The second group is this project's. A JVM client knows none of its types, and
reads such a value as absent.
"""

from __future__ import annotations

# EVCacheSerializingTranscoder: the lowest byte holds Java serialization and compression, the next byte the type.
FLAG_JAVA = 1
"""Java serialization, which only a JVM can read."""
FLAG_GZIP = 2
FLAG_STR = 0
FLAG_BOOL = 1 << 8
FLAG_INT32 = 2 << 8
FLAG_INT64 = 3 << 8
FLAG_DATETIME = 4 << 8
FLAG_INT8 = 5 << 8
FLAG_FLOAT32 = 6 << 8
FLAG_FLOAT64 = 7 << 8
FLAG_BYTES = 8 << 8
FLAG_COMPACT_ENVELOPE = 9 << 8
"""Compact envelope of a hashed key, which a development branch of EVCache writes (`evcache.interop.forms.java_envelope`)."""
TYPE_BITS = 0xFF00
"""Mask of the type."""

FLAG_INT = 0xEA00
"""Decimal digits, the form that memcached's `incr` and `decr` work on."""
FLAG_ABSENT = 0xEB00
"""Absence: an empty value that a loader stored because its source has no value. Codecs never see it."""
FLAG_MSGPACK = 0xEC00
"""MessagePack."""
FLAG_TOMBSTONE = 0xED00
"""Tombstone: an empty value that a delete stored, with its version. Codecs never see it."""
FLAG_ZSTD = 0xEE00
"""Compressed with zstd. EVCache has no bit for it, and the type has to be unknown there. The flags of the uncompressed
value are therefore shifted up by `ZSTD_SHIFT`."""
ZSTD_SHIFT = 16
FLAG_ENVELOPE = 0xEF00
"""Envelope: a value behind its times, see `evcache.values.envelope`. Codecs see the value."""

MSGPACK_FLAGS = frozenset({FLAG_MSGPACK, FLAG_MSGPACK | FLAG_GZIP, FLAG_ZSTD | FLAG_MSGPACK << ZSTD_SHIFT})
"""Flags of MessagePack, compressed or not."""

_NAMES = {
    FLAG_STR: "str",
    FLAG_BOOL: "bool",
    FLAG_INT32: "packed int of 32 bits",
    FLAG_INT64: "packed int of 64 bits",
    FLAG_DATETIME: "datetime",
    FLAG_INT8: "packed int of 8 bits",
    FLAG_FLOAT32: "float of 32 bits",
    FLAG_FLOAT64: "float",
    FLAG_BYTES: "bytes",
    FLAG_COMPACT_ENVELOPE: "compact JVM envelope",
    FLAG_INT: "int",
    FLAG_ABSENT: "absence",
    FLAG_MSGPACK: "msgpack",
    FLAG_TOMBSTONE: "tombstone",
    FLAG_ENVELOPE: "envelope",
}


def describe_flags(flags: int) -> str:
    """Return the meaning of client flags, for example `msgpack, gzip`. Flags of another kind of client are `unknown`."""
    compression = ""
    if flags & TYPE_BITS == FLAG_ZSTD:
        flags, compression = flags >> ZSTD_SHIFT, ", zstd"
    elif flags & FLAG_GZIP:
        flags, compression = flags & ~FLAG_GZIP, ", gzip"
    name = "Java object" if flags & FLAG_JAVA else _NAMES.get(flags, "unknown")
    return name + compression
