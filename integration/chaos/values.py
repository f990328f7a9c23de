"""Values that say who wrote them, under which key and how often before, and whose checksum tells when they are not whole."""

from __future__ import annotations

import random
import zlib

Value = int
"""Names one written value, over all clients: the writer's number, and how many it had written before."""

TORN: Value = -1
"""Read: bytes that no writer has made."""

_COUNT_BITS = 32
_CHECKSUM = b" %08x"
_CHECKSUM_BYTES = 9
_END_OF_ELEMENT = b";"

# Sizes in bytes, and how often they come. Stores up to 4 KiB go to a server in one packet, larger ones look first.
_SIZES = ((1, 100), (100, 900), (1_100, 10_000))
_SIZE_WEIGHTS = (5, 3, 2)


def name_value(writer: int, count: int) -> Value:
    """The name of a writer's value number `count`."""
    return writer << _COUNT_BITS | count


def spell(value: Value) -> str:
    """The name as people read it."""
    return "torn" if value == TORN else f"#{value & (1 << _COUNT_BITS) - 1} of client-{value >> _COUNT_BITS}"


def choose_size(chooser: random.Random) -> int:
    """How many bytes to pad a value with."""
    return chooser.randint(*chooser.choices(_SIZES, _SIZE_WEIGHTS)[0])


def make_value(key: str, value: Value, size: int) -> bytes:
    """The bytes of a value: its key and name, `size` bytes that differ from value to value, and a checksum."""
    body = b"%s %d " % (key.encode(), value) + bytes([97 + value % 26]) * size
    return body + _CHECKSUM % zlib.crc32(body)


def read_value(data: object) -> tuple[str, Value]:
    """The key and the name that bytes were made of, or `("", TORN)`."""
    if not isinstance(data, bytes):
        return "", TORN
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _CHECKSUM % zlib.crc32(body):
        return "", TORN
    key, value, _ = body.split(b" ", 2)
    return key.decode(), int(value)


def make_element(key: str, value: Value) -> bytes:
    """Return the bytes of one element of a list: a value that is never padded, and an end mark."""
    return make_value(key, value, 0) + _END_OF_ELEMENT


def read_elements(data: object) -> tuple[Value, ...]:
    """Return the names of a list's elements, in order. `(TORN,)` if the bytes are no list, or a list of two keys."""
    if not isinstance(data, bytes) or not data.endswith(_END_OF_ELEMENT):
        return (TORN,)
    elements = [read_value(element) for element in data[:-1].split(_END_OF_ELEMENT)]
    if len({key for key, _ in elements}) > 1 or any(value == TORN for _, value in elements):
        return (TORN,)
    return tuple(value for _, value in elements)
