"""Invalidation messages as bytes. Pure: no I/O, no clock.

    format u8 | kind u8 | publisher u64 | number u64 | changes        (big endian)
    a change: u16, whose upper two bits say what is known of the version and whose lower 14 are the key's length;
              the key; u64 version, if one is known

MessagePack would take twice the bytes for short keys, and its fields could have wrong types. A message holds no values: a
receiver that wants one reads it from the zones, where the latest version wins.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

# Raised with each change of the layout. A receiver that cannot decode a message has missed it, and clears its near cache. So
# two releases side by side are slow, and never wrong.
FORMAT = 1

# Largest message in bytes. Redis buffers up to 8 MB for a slow subscriber: 128 messages.
MAX_MESSAGE_BYTES = 64 * 1024

# Largest number of changes in a message. A receiver handles each in microseconds, without a turn of its event loop.
MAX_CHANGES = 500

# Longest key in bytes, by the 14 bits of its length. memcached allows 250.
MAX_KEY_BYTES = 2**14 - 1

MAX_VERSION = 2**64 - 1

_HEADER = struct.Struct(">BBQQ")
HEADER_BYTES = _HEADER.size
_TAG = struct.Struct(">H")
_VERSION_BYTES = 8
_LENGTH_BITS = 14
_DROPPED, _UNKNOWN, _VERSIONED = 0, 1, 2

Change = tuple[bytes, int | None]
"""Full key, and the version of its write. None is a write of unknown version. 0 (`NOTHING_NEWER`) is a touch: receivers drop
their entry, and no newer version exists."""


class DecodeFailed(Exception):
    """Bytes that are no message of this format."""


class Kind(enum.IntEnum):
    """Kind of a message."""

    CHANGES = 1
    """Keys were written. Each message has the publisher's next number."""
    HEARTBEAT = 2
    """The publisher is alive. The number is the last that it has used."""
    BYE = 3
    """The publisher sends no changes and no heartbeats after this. The number is the last that it has used."""


class InvalidationMessage(NamedTuple):
    """Message of one publisher."""

    kind: Kind
    publisher: int
    """Unique id of 64 bits."""
    number: int
    changes: tuple[Change, ...] = ()


def size_of(key: bytes, version: int | None) -> int:
    """Return the bytes that a change takes in a message."""
    return _TAG.size + len(key) + (_VERSION_BYTES if version else 0)


def encode(message: InvalidationMessage) -> bytes:
    """Encode a message. Its keys and versions must be within their limits."""
    kind, publisher, number, changes = message
    parts = [_HEADER.pack(FORMAT, kind, publisher, number)]
    for key, version in changes:
        tag = _UNKNOWN if version is None else _VERSIONED if version else _DROPPED
        parts += (_TAG.pack(tag << _LENGTH_BITS | len(key)), key)
        if version:
            parts.append(version.to_bytes(_VERSION_BYTES, "big"))
    return b"".join(parts)


def decode(data: bytes) -> InvalidationMessage:
    """Decode a message. Raises `DecodeFailed`, and no other error, for any bytes."""
    if len(data) < _HEADER.size:
        raise DecodeFailed(f"message too short: {len(data)} bytes")
    form, number_of_kind, publisher, number = _HEADER.unpack_from(data)
    if form != FORMAT:
        raise DecodeFailed(f"unknown format: {form}, this release reads {FORMAT}")
    try:
        kind = Kind(number_of_kind)
    except ValueError:
        raise DecodeFailed(f"unknown kind: {number_of_kind}") from None
    if kind is Kind.CHANGES:
        if not number:
            raise DecodeFailed("invalid number: changes begin at 1, not 0")
        return InvalidationMessage(kind, publisher, number, _decode_changes(data))
    if len(data) != _HEADER.size:
        raise DecodeFailed(f"message too long: {len(data) - _HEADER.size} extra bytes")
    return InvalidationMessage(kind, publisher, number)


def _decode_changes(data: bytes) -> tuple[Change, ...]:
    changes: list[Change] = []
    position, end = _HEADER.size, len(data)
    while position < end:
        if position + _TAG.size > end:
            raise DecodeFailed("truncated message: incomplete change")
        (bits,) = _TAG.unpack_from(data, position)
        tag = bits >> _LENGTH_BITS
        key_at = position + _TAG.size
        position = key_at + (bits & MAX_KEY_BYTES)
        key = data[key_at:position]
        version: int | None = 0
        if tag == _VERSIONED:
            version = int.from_bytes(data[position : position + _VERSION_BYTES], "big")
            position += _VERSION_BYTES
            if not version:
                raise DecodeFailed("invalid version: 0")
        elif tag == _UNKNOWN:
            version = None
        elif tag != _DROPPED:
            raise DecodeFailed("unknown kind of change")
        if position > end:
            raise DecodeFailed("truncated message: incomplete change")
        changes.append((key, version))
    return tuple(changes)
