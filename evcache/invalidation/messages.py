"""What processes with a near cache tell each other, as bytes. Pure: no I/O, no clock.

    format u8 | kind u8 | publisher u64 | number u64 | changes        (big endian)
    a change: u16, whose upper two bits say what is known of the version and whose lower 14 are the key's length;
              the key; u64 version, if one is known

Fixed fields in place of MessagePack: half the size for the few bytes of a key, and nothing in it can be of the wrong type.
Values are never sent: a receiver that wants one fetches it from the zones, where the newest wins.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

# Raised with every change of the layout. A receiver that can't read a message has missed what it says, and forgets all it
# holds: two releases side by side are slow, never wrong.
FORMAT = 1

# Bytes of a message at the most. Redis holds back up to 8 MB for a slow subscriber: 128 of these.
MAX_MESSAGE_BYTES = 64 * 1024

# Changes in a message at the most: what a receiver does for one takes microseconds, and its loop gets no turn in between.
MAX_CHANGES = 500

# Bytes of a key at the most, by the 14 bits of its length. memcached takes 250.
MAX_KEY_BYTES = 2**14 - 1

MAX_VERSION = 2**64 - 1

_HEADER = struct.Struct(">BBQQ")
HEADER_BYTES = _HEADER.size
_TAG = struct.Struct(">H")
_VERSION_BYTES = 8
_LENGTH_BITS = 14
_DROPPED, _UNKNOWN, _VERSIONED = 0, 1, 2

Change = tuple[bytes, int | None]
"""A full key, and its version. Over 0: a write with that version. None: something was written, in a version that is not
known. 0: what is held is to be dropped, and nothing newer need be expected (a touch)."""


class DecodeFailed(Exception):
    """Bytes that are no announcement of this format."""


class Kind(enum.IntEnum):
    """What an announcement says."""

    CHANGES = 1
    """Keys were written. Each has the publisher's next number."""
    HEARTBEAT = 2
    """The publisher lives; its number is the last one it has used."""
    BYE = 3
    """Nothing more comes, and no heartbeats either; its number is the last one it has used."""


class InvalidationMessage(NamedTuple):
    """One message."""

    kind: Kind
    publisher: int
    """64 bits that no other publisher has."""
    number: int
    changes: tuple[Change, ...] = ()


def size_of(key: bytes, version: int | None) -> int:
    """Bytes that a change takes in a message."""
    return _TAG.size + len(key) + (_VERSION_BYTES if version else 0)


def encode(announcement: InvalidationMessage) -> bytes:
    """The bytes of an announcement, whose keys and versions are within their limits."""
    kind, publisher, number, changes = announcement
    parts = [_HEADER.pack(FORMAT, kind, publisher, number)]
    for key, version in changes:
        known = _UNKNOWN if version is None else _VERSIONED if version else _DROPPED
        parts += (_TAG.pack(known << _LENGTH_BITS | len(key)), key)
        if version:
            parts.append(version.to_bytes(_VERSION_BYTES, "big"))
    return b"".join(parts)


def decode(data: bytes) -> InvalidationMessage:
    """The announcement in these bytes. Raises `DecodeFailed`, and nothing else, whatever they are."""
    if len(data) < _HEADER.size:
        raise DecodeFailed(f"{len(data)} bytes are too few")
    form, number_of_kind, publisher, number = _HEADER.unpack_from(data)
    if form != FORMAT:
        raise DecodeFailed(f"format {form}, and this release knows {FORMAT}")
    try:
        kind = Kind(number_of_kind)
    except ValueError:
        raise DecodeFailed(f"kind {number_of_kind} is none") from None
    if kind is Kind.CHANGES:
        if not number:
            raise DecodeFailed("numbers of changes begin at 1")
        return InvalidationMessage(kind, publisher, number, _changes(data))
    if len(data) != _HEADER.size:
        raise DecodeFailed(f"{len(data) - _HEADER.size} bytes too many")
    return InvalidationMessage(kind, publisher, number)


def _changes(data: bytes) -> tuple[Change, ...]:
    changes: list[Change] = []
    place, end = _HEADER.size, len(data)
    while place < end:
        if place + _TAG.size > end:
            raise DecodeFailed("it ends in the middle of a change")
        (tag,) = _TAG.unpack_from(data, place)
        known = tag >> _LENGTH_BITS
        key_at = place + _TAG.size
        place = key_at + (tag & MAX_KEY_BYTES)
        key = data[key_at:place]
        version: int | None = 0
        if known == _VERSIONED:
            version = int.from_bytes(data[place : place + _VERSION_BYTES], "big")
            place += _VERSION_BYTES
            if not version:
                raise DecodeFailed("a version of 0 is none")
        elif known == _UNKNOWN:
            version = None
        elif known != _DROPPED:
            raise DecodeFailed("a change of an unknown kind")
        if place > end:
            raise DecodeFailed("it ends in the middle of a change")
        changes.append((key, version))
    return tuple(changes)
