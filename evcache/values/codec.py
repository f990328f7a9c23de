"""Values to bytes and client flags, and back.

`str`, `bytes`, `float`, `bool` and `datetime` take the forms that EVCache for the JVM uses, so both can read them. An `int`
is stored as decimal digits, the only form that memcached can count with, or in EVCache's packed form where JVM clients
share the namespace. Everything else goes through MessagePack. Flags of our own are unknown to a JVM client, which reads
such values as absent. Nothing is ever unpickled: a cache is a place where others may write.
"""

from __future__ import annotations

import copy
import gzip
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self

import msgspec

from evcache.errors import DecodeError, EncodeError, InvalidArgument
from evcache.values.models import to_plain
from evcache.zones.validation import flag, not_negative

try:
    import zstandard
except ModuleNotFoundError:  # the `zstd` extra
    zstandard = None  # type: ignore[assignment]

# EVCache's flags (EVCacheSerializingTranscoder). The low byte says how, the next one what.
FLAG_JAVA = 1  # Java serialisation
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
_TYPE_BITS = 0xFF00

# Ours: types that no JVM client knows.
FLAG_INT = 0xEA00
"""Decimal digits, the form that memcached's incr and decr work on."""
FLAG_MSGPACK = 0xEC00
FLAG_TOMBSTONE = 0xED00
"""An empty value that says "deleted, at this version". Codecs never see it."""
FLAG_ABSENT = 0xEB00
"""An empty value that says "looked for, and not there": what a loader found out. Codecs never see it."""
FLAG_ENVELOPE = 0xEF00
"""A value with the times of its life in front of it, see `evcache.values.envelope`. Codecs see what is in it."""
# zstd has no flag in EVCache, and the type has to read as unknown there, so the real one moves up.
FLAG_ZSTD = 0xEE00
_ZSTD_SHIFT = 16
MSGPACK_FLAGS = frozenset({FLAG_MSGPACK, FLAG_MSGPACK | FLAG_GZIP, FLAG_ZSTD | FLAG_MSGPACK << _ZSTD_SHIFT})
"""MessagePack, compressed or not."""

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
# All that fits into 64 bits, signed or unsigned. memcached's counters are unsigned.
_DECIMAL = range(-(2**63), 2**64)
_MAX_DECIMAL_BYTES = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# A bomb of a few kB can unpack to gigabytes; no item is larger than what a server can be told to take (-I).
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024

# A level that packs JSON-like values to within a few percent of the default's size in a third of its time: it runs on the
# event loop.
_GZIP_LEVEL = 1


class Codec(Protocol):
    """How values become bytes. One with pickle is for the user to write, knowing that whoever can write to the cache can
    then run code in every process that reads it.
    """

    def encode(self, value: Any) -> tuple[bytes, int]:
        """The bytes and client flags (32 bits) of a value. Raises `EncodeError`."""
        ...

    def decode(self, data: bytes, flags: int) -> Any:
        """The value. Raises `DecodeError`."""
        ...


class StandardCodec:
    """The default codec.

    Values that go through MessagePack keep their types only if the reader names the type (`as_=`). Otherwise a dataclass, a
    Struct or a pydantic model comes back as a dict, a tuple or a set as a list. A `date`, `time`, `timedelta`, `Decimal`,
    `UUID`, or a `datetime` without a time zone in a container comes back as its str. A `datetime` that is itself the value
    needs a time zone. All with a time zone come back in UTC.
    """

    def __init__(self, *, compress_over: int | None = None, compression: str = "gzip", packed_ints: bool = False) -> None:
        """`compress_over`: bytes above which a value is compressed, when that makes it smaller; None: never.

        Off by default: compressing runs on the event loop, and a megabyte holds every other call up for milliseconds.
        EVCache's threshold is 120 bytes. `compression`: "gzip", which JVM clients read, or "zstd" (the `zstd` extra).
        `packed_ints`: store an `int` in EVCache's packed form, which JVM clients read, and which `incr` and `decr` can't
        count with. A client with `interop=True` always does. Both forms are read in either case.
        """
        if compress_over is not None:
            not_negative(compress_over, "compress_over")
        flag(packed_ints, "packed_ints")
        self._compress_over = compress_over
        self._packed_ints = packed_ints
        self._pack: Callable[[bytes, int], tuple[bytes, int]]
        if compression == "gzip":
            self._pack = _pack_gzip
        elif compression == "zstd":
            if zstandard is None:
                raise InvalidArgument("compression", "'zstd' needs the package zstandard: pip install evcache[zstd]")
            self._pack = _pack_zstd
        else:
            raise InvalidArgument("compression", f"'gzip' or 'zstd' are possible, not {compression!r}")
        self._msgpack_encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._msgpack_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode

    def with_packed_ints(self) -> Self:
        """Return a copy of this codec that stores an `int` in EVCache's packed form."""
        packing = copy.copy(self)
        packing._packed_ints = True  # noqa: SLF001
        return packing

    def unpacking_with(self, decode: Callable[[bytes], Any]) -> Self:
        """Return a copy of this codec that decodes MessagePack by a function."""
        unpacking = copy.copy(self)
        unpacking._msgpack_decode = decode  # noqa: SLF001
        return unpacking

    def encode(self, value: Any) -> tuple[bytes, int]:
        """The bytes and flags of a value. Raises `EncodeError` naming what can't be stored."""
        kind = type(value)
        if kind is bytes:
            data, flags = value, FLAG_BYTES
        elif kind is str:
            data, flags = _encode_str(value), FLAG_STR
        elif kind is int and not self._packed_ints and value in _DECIMAL:
            return b"%d" % value, FLAG_INT  # never compressed: memcached counts with these bytes
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
            return (_pack_int(value, 4), FLAG_INT32) if value in _INT32 else (_pack_int(value, 8), FLAG_INT64)
        if kind is float:
            return struct.pack(">d", value).lstrip(b"\0"), FLAG_FLOAT64
        if kind is datetime:
            if value.tzinfo is None:
                raise EncodeError(f"{value!r} has no time zone: which moment it means is not known")
            if value.microsecond % 1000 == 0:
                return _pack_int((value - _EPOCH) // _MILLISECOND, 8), FLAG_DATETIME
            # Finer than EVCache's milliseconds: MessagePack's timestamp keeps it.
        try:
            return self._msgpack_encode(value), FLAG_MSGPACK
        except Exception as error:  # a model's own serialiser may raise anything
            raise EncodeError(f"a value of type {kind.__name__} can't be stored: {error}") from error

    def decode(self, data: bytes, flags: int) -> Any:
        """The value. Raises `DecodeError`; the caller adds key and zone."""
        if flags == FLAG_BYTES:
            return data
        try:
            if flags & _TYPE_BITS == FLAG_ZSTD:
                data, flags = _unpack_zstd(data), flags >> _ZSTD_SHIFT
            elif flags & FLAG_GZIP:
                data, flags = _unpack_gzip(data), flags & ~FLAG_GZIP
            if flags & FLAG_JAVA:
                raise DecodeError("a Java-serialised object, which only a JVM can read")
            if flags == FLAG_STR:
                return data.decode()
            if flags == FLAG_MSGPACK:
                return self._msgpack_decode(data)
            reader = _READERS.get(flags)
            if reader is None:
                raise DecodeError("flags that this codec does not know")
            return reader(data)
        except (ValueError, struct.error, msgspec.DecodeError, OverflowError, RecursionError, zlib.error, OSError) as error:
            raise DecodeError(str(error)) from error


def _encode_str(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"a str with a lone surrogate has no UTF-8 form: {error}") from None


def _read_decimal(data: bytes) -> int:
    # memcached keeps the width of a number that lost a digit: it pads b"10" - 1 to b"9 ".
    digits = data.rstrip(b" ")
    value = int(digits) if len(digits) <= _MAX_DECIMAL_BYTES and digits.removeprefix(b"-").isdigit() else None
    # The comparison refuses leading zeros and -0, which neither encode() nor memcached writes.
    if value is None or value not in _DECIMAL or b"%d" % value != digits:
        raise DecodeError(f"an int is decimal digits of at most 64 bits, not {data[:32]!r}")
    return value


def _pack_int(value: int, width: int) -> bytes:
    # EVCache: big-endian two's complement without leading zero bytes; a negative number has the full width of its type.
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
        raise DecodeError(f"a bool is 0 or 1, not {data[:8]!r}")
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


def _pack_gzip(data: bytes, flags: int) -> tuple[bytes, int]:
    # mtime 0: the same value has the same bytes in every zone.
    return gzip.compress(data, _GZIP_LEVEL, mtime=0), flags | FLAG_GZIP


def _unpack_gzip(data: bytes) -> bytes:
    if not data:
        raise DecodeError("a gzip value without a byte")
    unpacked = bytearray()
    while data:  # a gzip file may have several members, and one that was appended to does
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        # One more than fits: a limit of 0 would be none.
        unpacked += member.decompress(data, MAX_UNPACKED_BYTES - len(unpacked) + 1)
        if not member.eof or len(unpacked) > MAX_UNPACKED_BYTES:
            raise DecodeError("a gzip value is cut short, or unpacks to over 1 GiB")
        data = member.unused_data
    return bytes(unpacked)


def _pack_zstd(data: bytes, flags: int) -> tuple[bytes, int]:
    return zstandard.ZstdCompressor().compress(data), FLAG_ZSTD | flags << _ZSTD_SHIFT


def _unpack_zstd(data: bytes) -> bytes:
    if zstandard is None:
        raise DecodeError("a zstd value, and the package zstandard is not installed: pip install evcache[zstd]")
    try:
        # The decompressor heeds its limit only where the frame does not say its size.
        if zstandard.frame_content_size(data) > MAX_UNPACKED_BYTES:
            raise DecodeError("a zstd value unpacks to over 1 GiB")
        unpacked: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_UNPACKED_BYTES)
    except zstandard.ZstdError as error:
        raise DecodeError(str(error)) from error
    return unpacked
