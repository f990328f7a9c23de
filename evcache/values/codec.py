"""Values to bytes and client flags, and back.

`str`, `bytes`, `float`, `bool` and `datetime` take the forms of EVCache for the JVM, so that both clients read them. An
`int` is stored as decimal digits, which memcached can count with, or in EVCache's packed form for JVM clients. All other
values go through MessagePack. Nothing is unpickled, because other processes can write to a cache.
"""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self

import msgspec

from evcache.errors import DecodeError, EncodeError, InvalidArgument
from evcache.values.compression import HAS_ZSTD, pack_gzip, pack_zstd, unpack_gzip, unpack_zstd
from evcache.values.flags import (
    FLAG_BOOL,
    FLAG_BYTES,
    FLAG_DATETIME,
    FLAG_FLOAT32,
    FLAG_FLOAT64,
    FLAG_GZIP,
    FLAG_INT,
    FLAG_INT8,
    FLAG_INT32,
    FLAG_INT64,
    FLAG_JAVA,
    FLAG_MSGPACK,
    FLAG_STR,
    FLAG_ZSTD,
    TYPE_BITS,
    ZSTD_SHIFT,
)
from evcache.values.models import to_plain
from evcache.zones.validation import flag, not_negative

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
# All numbers of 64 bits, signed or unsigned. memcached's counters are unsigned.
_DECIMAL = range(-(2**63), 2**64)
_MAX_DECIMAL_BYTES = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Codec(Protocol):
    """Encoder and decoder of values.

    A codec that unpickles has to be written by the user. Any process that can write to the cache can then run code in every
    process that reads it.
    """

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the bytes and the client flags (32 bits) of a value.

        Args:
            value: Value to store.

        Raises:
            EncodeError: The value has no stored form.
        """
        ...

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value.

        Args:
            data: Bytes as stored.
            flags: Client flags as stored.

        Raises:
            DecodeError: The bytes do not have the form that the flags name.
        """
        ...


class StandardCodec:
    """The default codec.

    Values that go through MessagePack keep their types only if the reader names the type (`as_=`). Otherwise a dataclass, a
    Struct or a pydantic model is decoded as a dict, and a tuple or a set as a list. A `date`, `time`, `timedelta`,
    `Decimal`, `UUID`, or a `datetime` without a time zone in a container is decoded as its str. A `datetime` that is itself
    the value needs a time zone. Every `datetime` with a time zone is decoded in UTC.
    """

    def __init__(self, *, compress_over: int | None = None, compression: str = "gzip", packed_ints: bool = False) -> None:
        """Make a codec.

        Args:
            compress_over: Bytes above which a value is compressed, if that makes it smaller. None disables compression,
                because it runs on the event loop: a megabyte delays all other calls for milliseconds. EVCache's threshold is
                120 bytes.
            compression: `gzip`, which JVM clients read, or `zstd`, which needs the extra `zstd`.
            packed_ints: True to store an `int` in EVCache's packed form, which JVM clients read. `incr` and `decr` cannot
                count with it. A client with `interop=True` always stores it. The codec reads both forms in either case.

        Raises:
            InvalidArgument: An argument has a wrong type or value, or the package for `zstd` is missing.
        """
        if compress_over is not None:
            not_negative(compress_over, "compress_over")
        flag(packed_ints, "packed_ints")
        self._compress_over = compress_over
        self._packed_ints = packed_ints
        self._pack: Callable[[bytes, int], tuple[bytes, int]]
        if compression == "gzip":
            self._pack = pack_gzip
        elif compression == "zstd":
            if not HAS_ZSTD:
                raise InvalidArgument("compression", "'zstd' needs the package zstandard: pip install evcache[zstd]")
            self._pack = pack_zstd
        else:
            raise InvalidArgument("compression", f"'gzip' or 'zstd' is required, not {compression!r}")
        self._msgpack_encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._msgpack_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode

    def with_packed_ints(self) -> Self:
        """Return a copy of this codec that stores an `int` in EVCache's packed form."""
        packing = copy.copy(self)
        packing._packed_ints = True  # noqa: SLF001
        return packing

    def unpacking_with(self, decode: Callable[[bytes], Any]) -> Self:
        """Return a copy of this codec that decodes MessagePack by a function.

        Args:
            decode: Function that returns the value of bytes in MessagePack.
        """
        unpacking = copy.copy(self)
        unpacking._msgpack_decode = decode  # noqa: SLF001
        return unpacking

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the bytes and flags of a value.

        Args:
            value: Value to store.

        Raises:
            EncodeError: The value has no stored form.
        """
        kind = type(value)
        if kind is bytes:
            data, flags = value, FLAG_BYTES
        elif kind is str:
            data, flags = _encode_str(value), FLAG_STR
        elif kind is int and not self._packed_ints and value in _DECIMAL:
            return b"%d" % value, FLAG_INT  # never compressed, because memcached counts with these bytes
        else:
            data, flags = self._encode_other(value)
        if self._compress_over is not None and len(data) > self._compress_over:
            packed, packed_flags = self._pack(data, flags)
            if len(packed) < len(data):
                return packed, packed_flags
        return data, flags

    def _encode_other(self, value: Any) -> tuple[bytes, int]:
        kind = type(value)
        if kind is bool:
            return (b"1" if value else b"0"), FLAG_BOOL
        if kind is int and value in _INT64:
            return (pack_int(value, 4), FLAG_INT32) if value in _INT32 else (pack_int(value, 8), FLAG_INT64)
        if kind is float:
            return struct.pack(">d", value).lstrip(b"\0"), FLAG_FLOAT64
        if kind is datetime:
            if value.tzinfo is None:
                raise EncodeError(f"{value!r} has no time zone, so its moment is unknown")
            if value.microsecond % 1000 == 0:
                return pack_int((value - _EPOCH) // _MILLISECOND, 8), FLAG_DATETIME
            # EVCache's form has milliseconds only. The timestamp of MessagePack keeps the microseconds.
        try:
            return self._msgpack_encode(value), FLAG_MSGPACK
        except Exception as error:  # a model's own serialiser may raise anything
            raise EncodeError(f"a value of type {kind.__name__} cannot be stored: {error}") from error

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value.

        Args:
            data: Bytes as stored.
            flags: Client flags as stored.

        Raises:
            DecodeError: The bytes do not have the form that the flags name. The caller adds key and zone.
        """
        if flags == FLAG_BYTES:
            return data
        try:
            if flags & TYPE_BITS == FLAG_ZSTD:
                data, flags = unpack_zstd(data), flags >> ZSTD_SHIFT
            elif flags & FLAG_GZIP:
                data, flags = unpack_gzip(data), flags & ~FLAG_GZIP
            if flags & FLAG_JAVA:
                raise DecodeError("a Java-serialized object, which only a JVM can read")
            if flags == FLAG_STR:
                return data.decode()
            if flags == FLAG_MSGPACK:
                return self._msgpack_decode(data)
            reader = _READERS.get(flags)
            if reader is None:
                raise DecodeError("unknown flags")
            return reader(data)
        except (ValueError, struct.error, msgspec.DecodeError, OverflowError, RecursionError, zlib.error, OSError) as error:
            raise DecodeError(str(error)) from error


def _encode_str(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"a str with a lone surrogate has no UTF-8 form: {error}") from None


def _read_decimal(data: bytes) -> int:
    # memcached keeps the width of a number that loses a digit: b"10" - 1 is b"9 ".
    digits = data.rstrip(b" ")
    value = int(digits) if len(digits) <= _MAX_DECIMAL_BYTES and digits.removeprefix(b"-").isdigit() else None
    # The comparison refuses leading zeros and -0, which neither `encode` nor memcached writes.
    if value is None or value not in _DECIMAL or b"%d" % value != digits:
        raise DecodeError(f"an int of at most 64 bits in decimal digits is required, not {data[:32]!r}")
    return value


def pack_int(value: int, width: int) -> bytes:
    """Return an int in EVCache's packed form: big-endian two's complement without leading zero bytes.

    A negative number has the full width of its type.

    Args:
        value: Number that fits the width.
        width: Bytes of the Java type: 4 or 8.
    """
    if value < 0:
        return value.to_bytes(width, "big", signed=True)
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _int_reader(width: int) -> Callable[[bytes], int]:
    def read(data: bytes) -> int:
        if len(data) > width:
            raise DecodeError(f"an integer of {len(data)} bytes, over {width}")
        value = int.from_bytes(data, "big")
        return value - (1 << 8 * width) if value >> 8 * width - 1 else value

    return read


def _read_bool(data: bytes) -> bool:
    if data not in (b"0", b"1"):
        raise DecodeError(f"a bool of 0 or 1 is required, not {data[:8]!r}")
    return data == b"1"


def _read_float64(data: bytes) -> float:
    return float(struct.unpack(">d", data.rjust(8, b"\0"))[0])


def _read_float32(data: bytes) -> float:
    return float(struct.unpack(">f", data.rjust(4, b"\0"))[0])


_read_int64 = _int_reader(8)


def _read_datetime(data: bytes) -> datetime:
    return _EPOCH + _read_int64(data) * _MILLISECOND


_READERS: dict[int, Callable[[bytes], Any]] = {
    FLAG_INT: _read_decimal,
    FLAG_BOOL: _read_bool,
    FLAG_INT32: _int_reader(4),
    FLAG_INT64: _read_int64,
    FLAG_DATETIME: _read_datetime,
    FLAG_INT8: _int_reader(1),
    FLAG_FLOAT32: _read_float32,
    FLAG_FLOAT64: _read_float64,
    FLAG_BYTES: bytes,
}
