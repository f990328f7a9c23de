"""Chunk records: a large value of EVCache for the JVM in several items.

The header record has the suffix `_00`. It holds the number of records, their size, and the checksum of the value. The data
records have the suffixes `_01`, `_02` and so on. All have one size, so the last one ends with padding. Each record is
placed by its own key, so the records of a value are on several nodes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from evcache.values.flags import FLAG_BYTES, FLAG_STR
from evcache.values.keys import MAX_KEY_BYTES
from evcache.zones.errors import InvalidArgument, InvalidKey, ValueTooLarge
from evcache.zones.validation import at_least_one

DEFAULT_CHUNK_BYTES = 1180
"""Default of the JVM client. It keeps values of at most this size in one item."""
HEADER_FLAGS = FLAG_STR
"""Flags of a header record."""
RECORD_FLAGS = FLAG_BYTES
"""Flags of a data record. Those of the value are in the header."""
MAX_VALUE_BYTES = 20 * 1024 * 1024
"""Largest value of the JVM client."""

# Subtracted from the size of a chunk: the JVM client's estimate of what an item costs a server, and the suffix of the key.
_ITEM_OVERHEAD = 71
_HEADER_SUFFIX = b"_00"
_SUFFIX_UNITS = 3
_LONGEST_KEY_UNITS = 250
# A broken header could otherwise name 20 million records of one byte. This many hold the largest value with the default
# size of chunks and the longest key.
MAX_RECORDS = 1 + -(-MAX_VALUE_BYTES // (DEFAULT_CHUNK_BYTES - _LONGEST_KEY_UNITS - _ITEM_OVERHEAD - _SUFFIX_UNITS))
"""Most records of one value, with the header."""

_UINT32 = range(2**32)
_INT32 = range(-(2**31), 2**31)
_FIELDS = re.compile(rb"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10}):(-?[0-9]{1,10}):([0-9]{1,10})")


class ChunkHeader(NamedTuple):
    """Content of a header record."""

    records: int
    """Number of records, with the header."""
    size: int
    """Bytes of each data record."""
    last: int
    """Bytes of the value in the last data record. Padding follows."""
    flags: int
    """Flags of the value, as servers hold flags: 32 bits without a sign."""
    crc: int
    """CRC-32 of the value."""

    @property
    def value_bytes(self) -> int:
        """Length of the value."""
        return (self.records - 2) * self.size + self.last

    @classmethod
    def parse(cls, data: bytes) -> ChunkHeader | None:
        """Return the header that a record holds, or None if it is no header, or names a value that no client writes.

        Args:
            data: Bytes of the record.
        """
        fields = _FIELDS.fullmatch(data)
        if fields is None:
            return None
        records, size, last, signed_flags, crc = map(int, fields.groups())
        header = cls(records, size, last, signed_flags % 2**32, crc)
        is_sound = 2 <= records <= MAX_RECORDS and 1 <= last <= size <= MAX_VALUE_BYTES
        if not is_sound or header.value_bytes > MAX_VALUE_BYTES or signed_flags not in _INT32 or crc not in _UINT32:
            return None
        return header

    def encode(self) -> bytes:
        """Return the bytes of the record."""
        # Java reads the flags as a signed int.
        signed_flags = self.flags - 2**32 if self.flags >= 2**31 else self.flags
        return b"%d:%d:%d:%d:%d" % (self.records, self.size, self.last, signed_flags, self.crc)


def header_key(key: bytes) -> bytes:
    """Return the key of the header record.

    Args:
        key: Key of the value, as servers get it.

    Raises:
        InvalidKey: The key of the record exceeds 250 bytes.
    """
    return _checked(key + _HEADER_SUFFIX)


def data_keys(key: bytes, header: ChunkHeader) -> list[bytes]:
    """Return the keys of the data records in their order.

    Args:
        key: Key of the value, as servers get it.
        header: Header of the value.

    Raises:
        InvalidKey: The key of a record exceeds 250 bytes.
    """
    _checked(b"%b_%02d" % (key, header.records - 1))  # the longest
    return [b"%b_%02d" % (key, index) for index in range(1, header.records)]


def fits(key: bytes, chunk_bytes: int) -> bool:
    """Return True if the header record has a valid key, and a chunk of this size has room for data beside the key.

    Without that, the JVM client fails to store a value that it would split.

    Args:
        key: Key of the value, as servers get it.
        chunk_bytes: Size of a chunk, with its key and what an item costs a server.

    Raises:
        InvalidKey: The key is not UTF-8.
    """
    return len(key) + len(_HEADER_SUFFIX) <= MAX_KEY_BYTES and _room(key, chunk_bytes) > 0


def longest_with_room(chunk_bytes: int) -> int:
    """Return the length in UTF-16 units of the longest key beside which a chunk of this size has room for data."""
    return chunk_bytes - _ITEM_OVERHEAD - _SUFFIX_UNITS - 1


def largest_value(key: bytes, chunk_bytes: int) -> int:
    """Return the length of the longest value that `split` takes under this key.

    Args:
        key: Key of the value, as servers get it.
        chunk_bytes: See `split`.

    Raises:
        InvalidKey: The key is not UTF-8.
    """
    return min(MAX_VALUE_BYTES, (MAX_RECORDS - 1) * _room(key, chunk_bytes))


def split(
    key: bytes, data: bytes, flags: int, chunk_bytes: int = DEFAULT_CHUNK_BYTES
) -> tuple[ChunkHeader, list[tuple[bytes, bytes]]]:
    """Return the header of a value, and the key and bytes of each data record.

    Args:
        key: Key of the value, as servers get it.
        data: Bytes of the value.
        flags: Flags of the value.
        chunk_bytes: Size of a chunk, with its key and what an item costs a server. JVM clients have it as `chunk.size`. They
            read any size.

    Raises:
        InvalidKey: The key is not UTF-8, or the key of a record exceeds 250 bytes.
        InvalidArgument: A chunk has no room for data beside the key, or there is no data.
        ValueTooLarge: The value exceeds 20 MiB, or has more than `MAX_RECORDS` records.
    """
    at_least_one(chunk_bytes, "chunk_bytes")
    size = _room(key, chunk_bytes)
    if size < 1:
        raise InvalidArgument("chunk_bytes", f"{chunk_bytes} bytes have no room for data beside the key {key!r}")
    if not data:
        raise InvalidArgument("data", "an empty value has no chunk records")
    if len(data) > MAX_VALUE_BYTES:
        raise ValueTooLarge("data", f"at most {MAX_VALUE_BYTES} bytes are allowed, not {len(data)}")
    whole, rest = divmod(len(data), size)
    records = 1 + whole + (1 if rest else 0)
    if records > MAX_RECORDS:
        raise ValueTooLarge("data", f"{len(data)} bytes need {records} chunk records, over {MAX_RECORDS}")
    header = ChunkHeader(records, size, rest or size, flags, zlib.crc32(data))
    keys = data_keys(key, header)
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    parts[-1] = parts[-1].ljust(size, b"\0")
    return header, list(zip(keys, parts, strict=True))


def join(header: ChunkHeader, parts: Sequence[bytes | None]) -> bytes | None:
    """Return the value of data records, or None if they are not those of the header.

    A record is missing, has another size, or is of another write: then the checksum differs. The JVM client reads such a
    value as absent.

    Args:
        header: Header of the value.
        parts: Bytes of the data records in their order. None is a record that is missing.
    """
    if not parts or len(parts) != header.records - 1:
        return None
    found = [part for part in parts if part is not None and len(part) == header.size]
    if len(found) != len(parts):
        return None
    found[-1] = found[-1][: header.last]
    data = b"".join(found)
    return data if zlib.crc32(data) == header.crc else None


def _checked(record_key: bytes) -> bytes:
    # Servers take the bytes behind the limit for a command, so the key must not be sent.
    if len(record_key) > MAX_KEY_BYTES:
        raise InvalidKey("key", f"{record_key!r} has {len(record_key)} bytes, over {MAX_KEY_BYTES}, with its chunk suffix")
    return record_key


def _room(key: bytes, chunk_bytes: int) -> int:
    """Return the bytes of data in a chunk. They are below 1 if the key leaves no room."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise InvalidKey("key", f"{key!r} is not UTF-8, which chunk records require") from None
    units = len(text.encode("utf-16-le")) // 2  # a length in Java counts units of UTF-16
    return chunk_bytes - (units + _ITEM_OVERHEAD + _SUFFIX_UNITS)
