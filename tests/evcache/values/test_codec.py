"""Values to bytes and back: EVCache's forms, our own, and what damaged data does."""

import dataclasses
import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import example, given

from evcache import EncodeError, StandardCodec
from evcache.values import flags
from evcache.values.flags import (
    FLAG_BOOL,
    FLAG_DATETIME,
    FLAG_INT,
    FLAG_INT32,
    FLAG_MSGPACK,
    FLAG_ZSTD,
)
from tests.support.codec_values import CODEC, LONG, PACKING, values

NAIVE = datetime.fromisoformat("2026-01-01")


# What EVCache's own transcoder makes of values: (value, flags, bytes in hex). Printed by the Java classes.
WRITTEN_ALIKE = [
    (0, 512, ""),
    (1, 512, "01"),
    (255, 512, "ff"),
    (256, 512, "0100"),
    (-1, 512, "ffffffff"),
    (-2147483648, 512, "80000000"),
    (-9223372036854775808, 768, "8000000000000000"),
    (9223372036854775807, 768, "7fffffffffffffff"),
    (1700000000123, 768, "018bcfe5687b"),
    (True, 256, "31"),
    (False, 256, "30"),
    (1.5, 1792, "3ff8000000000000"),
    (-0.0, 1792, "8000000000000000"),
    (0.0, 1792, ""),
    (datetime.fromtimestamp(1700000000, UTC) + timedelta(milliseconds=123), 1024, "018bcfe5687b"),
    ("café", 0, "636166c3a9"),
    (b"\x00\xff", 2048, "00ff"),
]


# Forms that a JVM writes and this codec only reads, since it picks the narrower or wider type.
ONLY_READ = [
    (0, 768, ""),
    (1, 768, "01"),
    (255, 768, "ff"),
    (256, 768, "0100"),
    (-1, 768, "ffffffffffffffff"),
    (0, 1280, "00"),
    (-1, 1280, "ff"),
    (1.5, 1536, "3fc00000"),
    (0.0, 1536, ""),
    ("a" * 200, 2, "1f8b08000000000000ff4b4c1c1e000058f09a59c8000000"),
]


def same(one, other):
    """Equal, of the same types, NaN to NaN, 0.0 not to -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize(("value", "flags", "data"), WRITTEN_ALIKE)
def test_written_as_evcache_writes(value, flags, data):
    """A JVM client finds the flags and bytes that it would have written itself."""
    assert PACKING.encode(value) == (bytes.fromhex(data), flags)
    if type(value) is not int:
        assert CODEC.encode(value) == (bytes.fromhex(data), flags)


@pytest.mark.parametrize(("value", "flags", "data"), WRITTEN_ALIKE + ONLY_READ)
def test_read_as_evcache_reads(value, flags, data):
    """What a JVM client wrote is read as the value it means."""
    for each in (CODEC, PACKING):
        assert same(each.decode(bytes.fromhex(data), flags), value)


INTS = [0, 1, -1, 9, 10, -10, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]


@pytest.mark.parametrize("value", INTS)
def test_int_when_stored_is_decimal_digits(value):
    """memcached's `incr` and `decr` work on these bytes; every codec reads them."""
    data, flags = CODEC.encode(value)
    assert (data, flags) == (str(value).encode(), FLAG_INT)
    for each in (CODEC, PACKING):
        assert same(each.decode(data, flags), value)


@pytest.mark.parametrize("value", [True, False])
def test_bool_when_stored_is_no_int(value):
    """A bool is an int to Python, and stays a bool."""
    assert CODEC.encode(value)[1] == FLAG_BOOL


@pytest.mark.parametrize(("data", "value"), [(b"9 ", 9), (b"0   ", 0), (b"1" + b" " * 19, 1), (b"-1 ", -1)])
def test_int_when_decr_lost_digits_keeps_its_value(data, value):
    """memcached keeps the width of a number, with spaces behind it."""
    assert same(CODEC.decode(data, FLAG_INT), value)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("value", [*INTS, 11111111111111111111])
def test_int_when_compression_is_on_stays_digits(value, compression):
    """memcached could not count with compressed digits, however much shorter they are."""
    assert StandardCodec(compress_over=0, compression=compression).encode(value) == (str(value).encode(), FLAG_INT)


def test_int_when_packed_and_over_a_long_is_messagepack():
    """EVCache has no form for it."""
    assert PACKING.encode(2**63)[1] == FLAG_MSGPACK
    assert PACKING.decode(*PACKING.encode(2**64 - 1)) == 2**64 - 1


def test_with_packed_ints_copies_the_other_settings():
    """The copy packs ints and compresses as before; the original is unchanged."""
    codec = StandardCodec(compress_over=500, compression="zstd")
    packing = codec.with_packed_ints()
    assert packing.encode(5) == (b"\x05", FLAG_INT32)
    assert packing.encode(LONG) == codec.encode(LONG)
    assert packing.encode(LONG)[1] & 0xFF00 == FLAG_ZSTD
    assert codec.encode(5) == (b"5", FLAG_INT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLAG_STR", 0),
        ("FLAG_JAVA", 1),
        ("FLAG_GZIP", 2),
        ("FLAG_BOOL", 256),
        ("FLAG_INT32", 512),
        ("FLAG_INT64", 768),
        ("FLAG_DATETIME", 1024),
        ("FLAG_INT8", 1280),
        ("FLAG_FLOAT32", 1536),
        ("FLAG_FLOAT64", 1792),
        ("FLAG_BYTES", 2048),
        ("FLAG_COMPACT_ENVELOPE", 2304),
        ("FLAG_INT", 0xEA00),
        ("FLAG_ABSENT", 0xEB00),
        ("FLAG_MSGPACK", 0xEC00),
        ("FLAG_TOMBSTONE", 0xED00),
        ("FLAG_ZSTD", 0xEE00),
        ("FLAG_ENVELOPE", 0xEF00),
    ],
)
def test_flags_are_kept(name, value):
    """Caches outlive deployments: no flag may ever change its meaning."""
    assert getattr(flags, name) == value


@given(values)
@example(-0.0)
@example(math.nan)
@example(-math.inf)
@example(2**64 - 1)
@example(2**63)
@example(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
@example({"a": [1, {"b": None}], "": b"\0"})
@example("")
@example(b"")
def test_every_value_comes_back(value):
    """Scalars, and lists and maps of them, come back equal and of the same type, compressed or not."""
    for each in (CODEC, PACKING, StandardCodec(compress_over=0), StandardCodec(compress_over=0, compression="zstd")):
        data, flags = each.encode(value)
        assert 0 <= flags < 2**32
        assert same(each.decode(data, flags), value)


@given(values)
def test_any_codec_reads_what_another_wrote(value):
    """Whether and how a value was compressed is in its flags, not in the reader's options."""
    for options in ({"compress_over": 0}, {"compress_over": 0, "compression": "zstd"}):
        assert same(CODEC.decode(*StandardCodec(**options).encode(value)), value)


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Struct(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("value", "comes_back_as"),
    [
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        (Struct("Ada"), {"name": "Ada"}),
        ((1, "a"), [1, "a"]),
        ({5}, [5]),
        (bytearray(b"ab"), b"ab"),
        ({1: "one"}, {1: "one"}),
    ],
)
def test_what_comes_back_as_something_else(value, comes_back_as):
    """Types that MessagePack does not have come back as the nearest one it has."""
    assert same(CODEC.decode(*CODEC.encode(value)), comes_back_as)


@pytest.mark.parametrize("hours", [-12, 0, 5.5, 14])
@pytest.mark.parametrize("microsecond", [0, 1, 999_000, 999_999])
def test_datetimes_keep_their_moment(hours, microsecond):
    """A datetime of any zone comes back as the same moment in UTC, to the microsecond."""
    value = datetime(2026, 3, 4, 5, 6, 7, microsecond, timezone(timedelta(hours=hours)))
    back = CODEC.decode(*CODEC.encode(value))
    assert back == value
    assert back.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "before", [timedelta(milliseconds=1), timedelta(days=20), timedelta(days=30), timedelta(days=30_000)]
)
def test_datetimes_before_1970(before):
    """A date is always a Long to a JVM: a negative one has eight bytes, however few would do, and comes back as it was."""
    value = datetime.fromtimestamp(0, UTC) - before
    data, flags = CODEC.encode(value)
    assert (len(data), flags) == (8, FLAG_DATETIME)
    assert CODEC.decode(data, flags) == value


def test_milliseconds_take_evcaches_form_and_microseconds_ours():
    """A JVM can read every datetime that its own type can hold."""
    assert CODEC.encode(datetime(2026, 1, 1, 0, 0, 0, 5000, UTC))[1] == FLAG_DATETIME
    assert CODEC.encode(datetime(2026, 1, 1, 0, 0, 0, 5001, UTC))[1] == FLAG_MSGPACK


# What can't be stored.


@pytest.mark.parametrize(
    "value",
    [
        NAIVE,
        NAIVE.replace(microsecond=1),
        object(),
        "\ud800",
        ["\udfff"],
        {"key": "\ud800"},
        2**64,
        -(2**63) - 1,
        [2**64],
        {"n": {"m": -(2**64)}},
        lambda: None,
        1j,
    ],
)
def test_what_cant_be_stored(value):
    """Refused with `EncodeError`, which is also a ValueError, and never stored as something else."""
    for each in (CODEC, PACKING):
        with pytest.raises(EncodeError):
            each.encode(value)
    assert issubclass(EncodeError, ValueError)


def test_a_naive_datetime_in_a_container_follows_msgspecs_rules():
    """Looking through every container for one would cost each value that has none; what happens is in the docs."""
    assert CODEC.decode(*CODEC.encode([NAIVE])) == [NAIVE.isoformat()]


def test_a_value_that_contains_itself():
    """Endless recursion is an `EncodeError`, not a crash."""
    endless = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        CODEC.encode(endless)
