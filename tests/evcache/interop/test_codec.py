"""Values as the transcoder of the JVM client writes and reads them."""

import dataclasses
import gzip
import math
import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.errors import DecodeError, EncodeError
from evcache.interop.codec import InteropCodec
from evcache.interop.java_types import JavaByte, JavaFloat, JavaInteger, JavaLong, JavaObject, JavaShort
from evcache.values.codec import Codec, StandardCodec
from evcache.values.flags import FLAG_COMPACT_ENVELOPE, FLAG_MSGPACK
from evcache.zones.errors import InvalidArgument
from tests.support.codec_values import values

CODEC: Codec = InteropCodec()
RAW = InteropCodec(java_objects="raw")
EPOCH = datetime.fromtimestamp(0, UTC)
MILLISECOND = timedelta(milliseconds=1)

JAVA_SHORT = (
    "aced00057372000f6a6176612e6c616e672e53686f7274684d37133460da5202000153000576616c7565"
    "787200106a6176612e6c616e672e4e756d62657286ac951d0b94e08b0200007870"
)

# Seen on servers that release 5.9 of the JVM client had written to: value, flags, and bytes in hex.
OF_THE_JVM = [
    (True, 256, "31"),
    (False, 256, "30"),
    (JavaByte(0), 1280, "00"),
    (JavaByte(127), 1280, "7f"),
    (JavaByte(-1), 1280, "ff"),
    (JavaByte(-128), 1280, "80"),
    (JavaShort(5), 1, JAVA_SHORT + "0005"),
    (JavaShort(-32768), 1, JAVA_SHORT + "8000"),
    (0, 512, ""),
    (1, 512, "01"),
    (255, 512, "ff"),
    (256, 512, "0100"),
    (-1, 512, "ffffffff"),
    (2**31 - 1, 512, "7fffffff"),
    (-(2**31), 512, "80000000"),
    (JavaInteger(-1), 512, "ffffffff"),
    (JavaInteger(256), 512, "0100"),
    (JavaLong(0), 768, ""),
    (JavaLong(1), 768, "01"),
    (2**31, 768, "80000000"),
    (JavaLong(-1), 768, "ffffffffffffffff"),
    (2**63 - 1, 768, "7fffffffffffffff"),
    (-(2**63), 768, "8000000000000000"),
    (JavaFloat(0.0), 1536, ""),
    (JavaFloat(-0.0), 1536, "80000000"),
    (JavaFloat(1.5), 1536, "3fc00000"),
    (JavaFloat(math.nan), 1536, "7fc00000"),
    (JavaFloat(math.inf), 1536, "7f800000"),
    (0.0, 1792, ""),
    (-0.0, 1792, "8000000000000000"),
    (0.1, 1792, "3fb999999999999a"),
    (math.nan, 1792, "7ff8000000000000"),
    (5e-324, 1792, "01"),
    ("", 0, ""),
    ("café", 0, "636166c3a9"),
    ("\U0001f600", 0, "f09f9880"),
    (EPOCH, 1024, ""),
    (EPOCH + 1700000000123 * MILLISECOND, 1024, "018bcfe5687b"),
    (EPOCH - MILLISECOND, 1024, "ffffffffffffffff"),
    (b"", 2048, ""),
    (b"\0\x01\x02", 2048, "000102"),
]


def plain(value):
    """The value without the mark of its Java type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, float) else value


def same(one, other):
    """Equal and of one type, NaN to NaN, 0.0 not to -0.0."""
    if type(one) is float and type(other) is float:
        return struct.pack(">d", one) == struct.pack(">d", other) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(("value", "flags", "data"), OF_THE_JVM)
def test_value_is_stored_as_the_jvm_stores_it(value, flags, data):
    assert CODEC.encode(value) == (bytes.fromhex(data), flags)


@pytest.mark.parametrize(("value", "flags", "data"), OF_THE_JVM)
def test_value_of_the_jvm_is_read(value, flags, data):
    """Compressed or not, because the JVM client may have any threshold."""
    stored = bytes.fromhex(data)
    for codec in (CODEC, RAW, InteropCodec(integer_width=64, compress_over=0)):
        assert same(codec.decode(stored, flags), plain(value))
        if flags != 1:  # gzip makes a Short longer, so it is never compressed
            assert same(codec.decode(gzip.compress(stored, mtime=0), flags | 2), plain(value))


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("x" * 121, "1f8b08000000000000ffaba8182000008658f46079000000"),
        (b"a" * 121, "1f8b08000000000000ff4b4c1c20000004f2d60079000000"),
    ],
)
def test_value_that_the_jvm_compressed_is_read(value, data):
    flags = 2 if isinstance(value, str) else 2050
    assert CODEC.decode(bytes.fromhex(data), flags) == value
    written, written_flags = InteropCodec(compress_over=120).encode(value)
    assert (written_flags, gzip.decompress(written)) == (flags, value.encode() if isinstance(value, str) else value)


@pytest.mark.parametrize(("value", "compressed"), [("x" * 120, False), ("x" * 121, True), ("{" + "x" * 200, True)])
def test_value_over_the_threshold_is_compressed(value, compressed):
    assert InteropCodec(compress_over=120).encode(value)[1] == (2 if compressed else 0)
    assert CODEC.encode(value) == (value.encode(), 0)


def test_value_that_gzip_would_lengthen_is_not_compressed():
    """Numbers never are."""
    codec = InteropCodec(compress_over=0)
    for value in (b"\x93\x01\xf7", "short", 2**62, JavaLong(2**62), JavaFloat(1.5), 0.1):
        assert codec.encode(value) == CODEC.encode(value)


@pytest.mark.parametrize("width", ["auto", 32, 64])
@pytest.mark.parametrize("value", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_int_of_32_bits_has_the_type_of_the_option(width, value):
    marked = JavaLong(value) if width == 64 else JavaInteger(value)
    codec = InteropCodec(integer_width=width)
    assert codec.encode(value) == CODEC.encode(marked)
    assert same(codec.decode(*codec.encode(value)), value)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
def test_int_of_64_bits_is_a_long_or_refused(value):
    for codec in (CODEC, InteropCodec(integer_width=64)):
        assert codec.encode(value) == CODEC.encode(JavaLong(value))
    with pytest.raises(EncodeError, match=r"does not fit a Java Integer \(integer_width=32\)"):
        InteropCodec(integer_width=32).encode(value)


def test_int_above_64_bits_is_messagepack_or_refused():
    assert CODEC.decode(*CODEC.encode(2**64 - 1)) == 2**64 - 1
    assert CODEC.encode(2**63)[1] == FLAG_MSGPACK
    with pytest.raises(EncodeError, match=r"64 bits does not fit a Java Long \(integer_width=64\)"):
        InteropCodec(integer_width=64).encode(2**63)
    with pytest.raises(EncodeError):
        CODEC.encode(10**5000)
    with pytest.raises(EncodeError):
        InteropCodec(integer_width=64).encode(10**5000)


@pytest.mark.parametrize("width", [32, 64])
def test_bool_is_no_int_of_any_width(width):
    assert InteropCodec(integer_width=width).encode(True) == (b"1", 256)


def test_marked_int_ignores_the_width_of_the_codec():
    codec = InteropCodec(integer_width=32)
    assert codec.encode(JavaLong(2**40)) == (bytes.fromhex("010000000000"), 768)
    assert InteropCodec(integer_width=64).encode(JavaInteger(5)) == (b"\x05", 512)


@given(st.integers(-(2**31), 2**31 - 1), st.floats(width=32))
def test_marked_number_when_read_is_the_plain_number(integer, number):
    for value in (JavaInteger(integer), JavaLong(integer * 2**31), JavaFloat(number), JavaByte(integer % 256 - 128)):
        assert same(CODEC.decode(*CODEC.encode(value)), plain(value))


@pytest.mark.parametrize("data", ["9 ", "0   ", "18446744073709551615", "1" + " " * 19, "7"])
def test_counter_is_a_str_with_its_padding_as_java_reads_it(data):
    """memcached keeps the length of a number that loses a digit. `int` ignores the spaces."""
    assert CODEC.decode(data.encode(), 0) == data
    assert int(CODEC.decode(data.encode(), 0)) == int(data.strip())
    assert CODEC.encode(data) == (data.encode(), 0)


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize("value", [None, [], [1, 2], {"a": 1}, EPOCH + timedelta(microseconds=1), Point(1)])
def test_value_without_a_java_form_is_stored_as_by_the_standard_codec(value):
    """Java reads it as absent."""
    assert CODEC.encode(value) == StandardCodec(packed_ints=True).encode(value)
    assert CODEC.encode(value)[1] == FLAG_MSGPACK


@given(values)
def test_every_value_comes_back(value):
    for codec in (CODEC, RAW, InteropCodec(compress_over=0)):
        assert StandardCodec().encode(codec.decode(*codec.encode(value))) == StandardCodec().encode(value)


@pytest.mark.parametrize("value", ["\ud83d", [JavaInteger(1)], object()], ids=["surrogate", "list of a number", "object"])
def test_value_without_any_form_is_refused(value):
    with pytest.raises(EncodeError):
        CODEC.encode(value)


# A list that Java serialized.
ARRAY_LIST = bytes.fromhex(
    "aced0005737200136a6176612e7574696c2e41727261794c6973747881d21d99c7619d03000149000473697a65787000000002770400000002740001617400016278"
)
OBJECTS = [(ARRAY_LIST, 1), (gzip.compress(ARRAY_LIST, mtime=0), 3), (b"damage", 3), (b"", 1)]


@pytest.mark.parametrize(("data", "flags"), OBJECTS)
def test_java_object_is_an_error_or_returned_as_stored(data, flags):
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(data, flags)
    assert caught.value.flags == flags
    assert RAW.decode(data, flags) == JavaObject(data, flags)


@pytest.mark.parametrize(("data", "flags"), OBJECTS)
def test_java_object_when_written_is_stored_untouched(data, flags):
    for codec in (CODEC, RAW, InteropCodec(compress_over=0)):
        assert codec.encode(JavaObject(data, flags)) == (data, flags)


def test_java_object_has_the_flags_of_uncompressed_bytes_by_default():
    assert CODEC.encode(JavaObject(ARRAY_LIST)) == (ARRAY_LIST, 1)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (JavaObject(b"x", 0), "flags must be 1"),
        (JavaObject(b"x", 0xED01), "flags must be 1"),
        (JavaObject(b"x", None), "flags must be 1"),
        (JavaObject("x", 1), "data must be bytes, not str"),
    ],
)
def test_java_object_that_java_cannot_read_is_refused(value, problem):
    with pytest.raises(EncodeError, match=problem):
        CODEC.encode(value)


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        (b"", FLAG_COMPACT_ENVELOPE),
        (b"x", 4),
        (b"x", 0xFE00),
        (b"x", 2**31),
        (gzip.compress(b"x", mtime=0), FLAG_COMPACT_ENVELOPE | 2),
        (b"x", 5),
        (b"12345", 512),
        (b"123456789", 768),
        (b"12", 1280),
        (b"abc", 256),
        (b"", 256),
        (b"\xff", 0),
        (b"x", 2),
        (b"\x7f" + b"\xff" * 7, 1024),
    ],
)
def test_value_that_cannot_be_read_is_a_decode_error_with_its_flags(data, flags):
    for codec in (CODEC, RAW):
        with pytest.raises(DecodeError, match=f"flags {flags}") as caught:
            codec.decode(data, flags)
        assert caught.value.flags == flags


@given(
    st.binary(max_size=40), st.integers(0, 2**32 - 1) | st.integers(0, 12).map(lambda kind: kind << 8) | st.integers(0, 7)
)
def test_random_bytes_raise_decode_errors_only(data, flags):
    for codec in (CODEC, RAW):
        try:
            codec.decode(data, flags)
        except DecodeError as error:
            assert error.flags == flags


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"integer_width": 16}, "integer_width"),
        ({"integer_width": "64"}, "integer_width"),
        ({"integer_width": None}, "integer_width"),
        ({"java_objects": "parse"}, "java_objects"),
        ({"java_objects": True}, "java_objects"),
        ({"compress_over": -1}, "compress_over"),
    ],
)
def test_codec_with_an_invalid_option_is_refused(options, argument):
    with pytest.raises(InvalidArgument) as caught:
        InteropCodec(**options)
    assert caught.value.argument == argument


def test_codec_can_be_copied_as_the_standard_codec_is():
    codec = InteropCodec(integer_width=64, java_objects="raw")
    for other in (codec.with_packed_ints(), codec.unpacking_with(lambda data: ("unpacked", data))):
        assert other.encode(5) == (b"\x05", 768)
        assert other.decode(b"x", 1) == JavaObject(b"x", 1)
    assert codec.unpacking_with(lambda data: ("unpacked", data)).decode(b"\xc0", FLAG_MSGPACK) == ("unpacked", b"\xc0")
