"""Codec for namespaces that EVCache for the JVM shares."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal

from evcache.errors import DecodeError, EncodeError
from evcache.interop.java_types import JavaByte, JavaFloat, JavaInteger, JavaLong, JavaObject, JavaShort
from evcache.values.codec import StandardCodec, pack_int
from evcache.values.flags import FLAG_FLOAT32, FLAG_GZIP, FLAG_INT8, FLAG_INT32, FLAG_INT64, FLAG_JAVA
from evcache.zones.validation import one_of

IntegerWidth = Literal["auto", 32, 64]
JavaObjects = Literal["error", "raw"]

_OBJECT_FLAGS = frozenset({FLAG_JAVA, FLAG_JAVA | FLAG_GZIP})

# EVCache has no form of its own for a Short. Java serialization of the class is fixed but for the two bytes of the number.
_SHORT = (
    bytes.fromhex("aced0005 7372 000f")
    + b"java.lang.Short"
    + bytes.fromhex("684d37133460da52 02 0001")  # version of the class, serializable, one field
    + b"S\0\x05valuexr\0\x10java.lang.Number"
    + bytes.fromhex("86ac951d0b94e08b 02 0000 7870")  # version of the superclass, no fields, the end of the description
)
_SHORT_BYTES = 2


class InteropCodec(StandardCodec):
    """Codec whose values Java reads as the types of EVCache's own transcoder.

    - `str`, `bytes` and `bool` are `String`, `byte[]` and `Boolean`.
    - `int` is `Integer` or `Long`, by `integer_width`.
    - `float` is `Double`.
    - `datetime` of whole milliseconds is `Date`.
    - `JavaByte`, `JavaShort`, `JavaInteger`, `JavaLong` and `JavaFloat` are the types of those names.
    - `JavaObject` is the object.

    All other values go through MessagePack, as with `StandardCodec`. Java reads them as absent.

    A number from Java is decoded as a plain `int` or `float`, so its width is not kept. A program that writes it back to a
    Java program names the type: `JavaByte(value)`.

    A counter is a `String` of digits to Java, and a `str` here. memcached keeps its length: `decr` of "10" stores "9 ",
    with a space. Java reads that space, and so does this codec, because another `String` may end with spaces. `int(value)`
    ignores it. `incr` and `decr` of the client return an int.
    """

    def __init__(
        self,
        *,
        integer_width: IntegerWidth = "auto",
        compress_over: int | None = None,
        java_objects: JavaObjects = "error",
    ) -> None:
        """Make a codec.

        Args:
            integer_width: Java's type of an `int`. 32 stores an `Integer` and 64 a `Long`, and refuse an int that does not
                fit. `auto` stores an `Integer` if it fits, else a `Long`. From 2^63 to 2^64-1 it stores MessagePack, which
                Java reads as absent. A Java program that expects a `Long` fails on an `Integer`.
            compress_over: Bytes above which a value is compressed with gzip, if that makes it smaller. None disables
                compression, because it runs on the event loop. The JVM client's default is 120.
            java_objects: Result of reading an object in Java serialization. `error` raises `DecodeError`. `raw` returns a
                `JavaObject`, which holds the bytes and flags as stored.

        Raises:
            InvalidArgument: An argument has a wrong type or value.
        """
        super().__init__(compress_over=compress_over, packed_ints=True)
        one_of(integer_width, IntegerWidth, "integer_width")
        one_of(java_objects, JavaObjects, "java_objects")
        self._integer_width = integer_width
        self._returns_objects = java_objects == "raw"

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the bytes and flags of a value.

        Args:
            value: Value to store.

        Raises:
            EncodeError: The value has no stored form, or an int does not fit the width.
        """
        kind = type(value)
        # No number is compressed: it has at most 8 bytes, and gzip adds 20.
        if kind is int and self._integer_width != "auto":
            return _encode_int(value, self._integer_width)
        encode_number = _NUMBERS.get(kind)
        if encode_number is not None:
            return encode_number(value)
        if kind is JavaObject:
            return _encode_object(value)
        return super().encode(value)

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value.

        Args:
            data: Bytes as stored.
            flags: Client flags as stored.

        Raises:
            DecodeError: The bytes do not have the form that the flags name, or the flags are unknown.
        """
        if flags == FLAG_JAVA and len(data) == len(_SHORT) + _SHORT_BYTES and data.startswith(_SHORT):
            return int.from_bytes(data[-_SHORT_BYTES:], "big", signed=True)
        if self._returns_objects and flags in _OBJECT_FLAGS:
            return JavaObject(data, flags)
        try:
            return super().decode(data, flags)
        except DecodeError as error:
            raise DecodeError(error.problem, flags=flags) from error


def _encode_int(value: int, width: Literal[32, 64]) -> tuple[bytes, int]:
    if not -(2 ** (width - 1)) <= value < 2 ** (width - 1):
        name = "Integer" if width == 32 else "Long"
        raise EncodeError(f"an int of {value.bit_length()} bits does not fit a Java {name} (integer_width={width})")
    return _encode_integer(value) if width == 32 else _encode_long(value)


def _encode_byte(value: int) -> tuple[bytes, int]:
    return value.to_bytes(1, "big", signed=True), FLAG_INT8  # not packed: 0 is a byte of 0


def _encode_short(value: int) -> tuple[bytes, int]:
    return _SHORT + value.to_bytes(_SHORT_BYTES, "big", signed=True), FLAG_JAVA


def _encode_integer(value: int) -> tuple[bytes, int]:
    return pack_int(value, 4), FLAG_INT32


def _encode_long(value: int) -> tuple[bytes, int]:
    return pack_int(value, 8), FLAG_INT64


def _encode_float(value: float) -> tuple[bytes, int]:
    return struct.pack(">f", value).lstrip(b"\0"), FLAG_FLOAT32


_NUMBERS: dict[type, Callable[[Any], tuple[bytes, int]]] = {
    JavaByte: _encode_byte,
    JavaShort: _encode_short,
    JavaInteger: _encode_integer,
    JavaLong: _encode_long,
    JavaFloat: _encode_float,
}


def _encode_object(value: JavaObject) -> tuple[bytes, int]:
    if not isinstance(value.data, bytes):
        raise EncodeError(f"JavaObject.data must be bytes, not {type(value.data).__name__}")
    if value.flags not in _OBJECT_FLAGS:
        raise EncodeError(f"JavaObject.flags must be 1, or 3 for compressed bytes, not {value.flags!r}")
    return value.data, value.flags
