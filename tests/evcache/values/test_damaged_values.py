"""Values that cannot be read: damaged, or with flags of other codecs."""

import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from evcache import DecodeError, StandardCodec
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
    FLAG_TOMBSTONE,
    FLAG_ZSTD,
)
from tests.support.codec_values import CODEC, values

# Damage, and the flags of others.

KNOWN = [
    FLAG_STR,
    FLAG_BOOL,
    FLAG_INT,
    FLAG_INT32,
    FLAG_INT64,
    FLAG_DATETIME,
    FLAG_INT8,
    FLAG_FLOAT32,
    FLAG_FLOAT64,
    FLAG_BYTES,
    FLAG_MSGPACK,
]


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        (FLAG_STR, b"\xff"),
        (FLAG_BOOL, b""),
        (FLAG_BOOL, b"2"),
        (FLAG_BOOL, b"11"),
        *[
            (FLAG_INT, data)
            for data in (
                b"",
                b" ",
                b"-",
                b" 9",
                b"9\0",
                b"9\n",
                b"9\t",
                b"9 9",
                b"+9",
                b"09",
                b"-0",
                b"--9",
                b"1_0",
                b"1.0",
                b"1e3",
                b"0x1",
                b"x",
                "\u0669".encode(),
                b"18446744073709551616",
                b"-9223372036854775809",
                b"9" * 100_000,
            )
        ],
        (FLAG_INT32, b"\1\0\0\0\0"),
        (FLAG_INT64, b"\1" * 9),
        (FLAG_INT8, b"\1\0"),
        (FLAG_DATETIME, b"\x7f" + b"\xff" * 7),
        (FLAG_DATETIME, b"\1" * 9),
        (FLAG_FLOAT32, b"\1" * 5),
        (FLAG_FLOAT64, b"\1" * 9),
        (FLAG_MSGPACK, b""),
        (FLAG_MSGPACK, b"\x92\x01"),
        (FLAG_MSGPACK, b"\x01\x02"),
        (FLAG_MSGPACK, b"\xc1"),
        (FLAG_GZIP, b"not gzip"),
        (FLAG_GZIP, gzip.compress(b"value", mtime=0)[:-1]),
        (FLAG_GZIP, gzip.compress(b"value", mtime=0)[:-8]),
        (FLAG_GZIP, gzip.compress(b"value", mtime=0) + b"rest"),
        (FLAG_GZIP, gzip.compress(b"value", mtime=0)[:-5] + b"\0\0\0\0\0"),
        (FLAG_ZSTD, b"not zstd"),
        (FLAG_ZSTD, zstandard.compress(b"value")[:-1]),
        (FLAG_ZSTD | FLAG_GZIP, zstandard.compress(b"\xff")),
        (FLAG_JAVA, b"\xac\xed\0\5"),
        (FLAG_JAVA | FLAG_GZIP, gzip.compress(b"\xac\xed\0\5", mtime=0)),
        (FLAG_TOMBSTONE, b""),
        (9 << 8, b"?"),
        (0xFF00, b"?"),
        (0xEF00, b"?"),
        (4, b"?"),
        (2**31, b"?"),
        (FLAG_MSGPACK | 2**16, b"\x01"),
    ],
)
def test_what_cant_be_read_is_a_decode_error(flags, data):
    """Damage, Java objects and flags of others are errors, never a miss and never a guess."""
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(data, flags)
    assert caught.value.problem


def test_java_objects_are_named():
    """The error says that only a JVM can read it."""
    with pytest.raises(DecodeError, match="Java"):
        CODEC.decode(b"\xac\xed\0\5", FLAG_JAVA)


def test_nothing_is_no_gzip_value():
    """A compressed value that lost all its bytes is damage, not an empty string."""
    with pytest.raises(DecodeError):
        CODEC.decode(b"", FLAG_GZIP)


@pytest.mark.parametrize(
    "data",
    [b"\x91" * 100_000 + b"\xc0", b"\x81\xa1k" * 100_000 + b"\xc0", b"\x81\x81\x01\x02\x03", b"\x81\x91\x80\x01"],
    ids=["deep lists", "deep maps", "a map as a key", "a list with a map as a key"],
)
def test_messagepack_that_python_cant_hold_is_a_decode_error(data):
    """Well-formed bytes that no writer of ours makes are damage like any other."""
    with pytest.raises(DecodeError):
        CODEC.decode(data, FLAG_MSGPACK)


flags_of_all_kinds = (
    st.sampled_from(KNOWN)
    | st.sampled_from(KNOWN).map(lambda flags: flags | FLAG_GZIP)
    | st.sampled_from(KNOWN).map(lambda flags: FLAG_ZSTD | flags << 16)
    | st.integers(0, 2**32 - 1)
)


def decodes_or_says_so(data, flags):
    try:
        CODEC.decode(data, flags)
    except DecodeError as error:
        assert error.problem


@given(st.binary(max_size=100), flags_of_all_kinds)
def test_random_bytes_raise_nothing_else(data, flags):
    """Whatever is stored under whichever flags: a value, or `DecodeError`."""
    decodes_or_says_so(data, flags)


@given(st.binary(max_size=40))
def test_random_messagepack_raises_nothing_else(data):
    """The same for the richest format."""
    decodes_or_says_so(data, FLAG_MSGPACK)


@given(values, st.sampled_from([None, "gzip", "zstd"]), st.data())
def test_damaged_values_raise_nothing_else(value, compression, choose):
    """A value that lost its end, or had a byte changed, is another value or a `DecodeError`."""
    packer = CODEC if compression is None else StandardCodec(compress_over=0, compression=compression)
    data, flags = packer.encode(value)
    if not data:
        return
    at = choose.draw(st.integers(0, len(data) - 1))
    decodes_or_says_so(data[:at], flags)
    decodes_or_says_so(data[:at] + bytes([choose.draw(st.integers(0, 255))]) + data[at + 1 :], flags)
