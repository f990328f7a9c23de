"""Chunk records: values in several items, as the JVM client splits and joins them."""

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.interop.forms.chunks import (
    DEFAULT_CHUNK_BYTES,
    MAX_RECORDS,
    MAX_VALUE_BYTES,
    ChunkHeader,
    data_keys,
    fits,
    header_key,
    join,
    split,
)
from evcache.zones.errors import InvalidArgument, InvalidKey, ValueTooLarge

KEY = b"p:k"
# Bytes of data in a chunk of the default size beside that key.
ROOM = 1103


def pattern(length):
    return bytes(index % 251 for index in range(length))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (3000, b"4:1103:794:2048:1177987461"),
        (2 * ROOM, b"3:1103:1103:2048:4251486866"),
    ],
)
def test_header_of_a_value_is_that_of_the_jvm(length, expected):
    header, _ = split(KEY, pattern(length), 2048)
    assert header.encode() == expected
    assert ChunkHeader.parse(expected) == header
    assert header.value_bytes == length


# Seen on servers that release 5.9 of the JVM client had written to: key, length, size of chunks, and the header without CRC.
ON_SERVERS = [
    (b"p:k", 1181, 1180, b"3:1103:78:2048:"),
    (b"p:k", 2207, 1180, b"4:1103:1:2048:"),
    (b"Mi8uFvqZMpU", 2674, 1180, b"4:1095:484:2048:"),
    (b"k", 1000, 200, b"9:125:125:2048:"),
    (b"k", 12731, 200, b"103:125:106:2048:"),
]


@pytest.mark.parametrize(("key", "length", "chunk_bytes", "expected"), ON_SERVERS)
def test_header_has_the_numbers_of_the_jvm(key, length, chunk_bytes, expected):
    header, _ = split(key, pattern(length), 2048, chunk_bytes)
    assert header.encode().startswith(expected)


def test_records_of_a_value_have_one_size():
    """The last one ends with NULs."""
    data = pattern(3000)
    header, records = split(KEY, data, 2048)
    assert header_key(KEY) == b"p:k_00"
    assert [key for key, _ in records] == [b"p:k_01", b"p:k_02", b"p:k_03"] == data_keys(KEY, header)
    assert [part for _, part in records] == [data[:ROOM], data[ROOM : 2 * ROOM], data[2 * ROOM :] + bytes(309)]


def test_keys_of_records_have_at_least_two_digits():
    keys = data_keys(b"k", ChunkHeader(102, 1, 1, 0, 0))
    assert (keys[0], keys[8], keys[9], keys[98], keys[99], keys[-1]) == (
        b"k_01",
        b"k_09",
        b"k_10",
        b"k_99",
        b"k_100",
        b"k_101",
    )


@pytest.mark.parametrize(
    ("key", "units"), [("k", 1), ("é", 1), ("\u0939", 1), ("\U0001f600", 2), ("k" * 200, 200), ("p:\U0001f600é", 5)]
)
def test_room_for_data_counts_the_key_in_utf16(key, units):
    header, _ = split(key.encode(), b"v", 0)
    assert header.size == DEFAULT_CHUNK_BYTES - 74 - units


@given(
    st.text(max_size=60).map(str.encode),
    st.binary(min_size=1, max_size=2000),
    st.integers(0, 2**32 - 1),
    st.integers(200, 1500),
)
def test_value_when_joined_is_what_was_split(key, data, flags, chunk_bytes):
    header, records = split(key, data, flags, chunk_bytes)
    parsed = ChunkHeader.parse(header.encode())
    assert parsed == header
    assert parsed.flags == flags
    assert [name for name, _ in records] == data_keys(key, parsed)
    assert join(parsed, [part for _, part in records]) == data


HEADER, RECORDS = split(KEY, pattern(3000), 2048)
PARTS = [part for _, part in RECORDS]


@pytest.mark.parametrize(
    "parts",
    [
        [PARTS[0], None, PARTS[2]],
        [None, *PARTS[1:]],
        [*PARTS[:2], None],
        PARTS[:2],
        [*PARTS, PARTS[2]],
        [],
        [PARTS[0], PARTS[1][:-1], PARTS[2]],
        [PARTS[0], PARTS[1], PARTS[2][:794]],
        [PARTS[0], PARTS[1] + b"\0", PARTS[2]],
        [PARTS[1], PARTS[0], PARTS[2]],
        [PARTS[0], bytes(ROOM), PARTS[2]],
    ],
    ids=[
        "one missing", "first missing", "last missing", "one fewer", "one more", "none", "short", "no padding", "long",
        "other order", "other write",
    ],
)  # fmt: skip
def test_value_with_other_records_is_absent(parts):
    assert join(HEADER, parts) is None


def test_header_without_data_records_has_no_value():
    """`parse` accepts none, and JVM clients write none."""
    header = ChunkHeader(1, 10, 10, 0, 0)
    assert data_keys(b"k", header) == []
    assert join(header, []) is None


def test_padding_of_other_bytes_is_ignored():
    """The checksum covers the value only."""
    assert join(HEADER, [*PARTS[:2], PARTS[2][:794] + b"?" * 309]) == pattern(3000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a value",
        b"4:1103:794:2048",
        b"4:1103:794:2048:1177987461:0",
        b"4:1103:794:2048:1177987461\n",
        b" 4:1103:794:2048:1177987461",
        b"-4:1103:794:2048:1177987461",
        b"4:1103:794:2048:-1",
        b"4:1103::2048:1177987461",
        "\u0664:1103:794:2048:1".encode(),
        b"1:1103:794:2048:1177987461",
        b"0:1103:794:2048:1177987461",
        b"4:0:0:2048:1177987461",
        b"4:1103:0:2048:1177987461",
        b"4:1103:1104:2048:1177987461",
        b"4:1103:794:2147483648:1177987461",
        b"4:1103:794:-2147483649:1177987461",
        b"4:1103:794:2048:4294967296",
        b"%d:1:1:0:0" % (MAX_RECORDS + 1),
        b"2:%d:%d:0:0" % (MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES + 1),
        b"2:%d:1:0:0" % (MAX_VALUE_BYTES + 1),
        b"3:%d:1:0:0" % MAX_VALUE_BYTES,
        b"9999999999:9999999999:1:0:0",
        b"4" * 5000 + b":1:1:0:0",
        b"1:" * 100_000,
    ],
    ids=lambda data: data[:40],
)
def test_record_that_is_no_header_is_not_parsed(data):
    assert ChunkHeader.parse(data) is None


@given(st.binary(max_size=60) | st.from_regex(rb"-?[0-9]{1,9}(:-?[0-9]{1,9}){4}", fullmatch=True))
def test_header_of_any_bytes_is_bounded(data):
    """A broken header costs neither a long list of keys nor much memory."""
    header = ChunkHeader.parse(data)
    if header is not None:
        assert 0 < header.value_bytes <= MAX_VALUE_BYTES
        assert len(data_keys(b"k", header)) < MAX_RECORDS
        assert 0 <= header.flags < 2**32


@pytest.mark.parametrize("text", [b"%d:1:1:0:0" % MAX_RECORDS, b"2:%d:1:0:0" % MAX_VALUE_BYTES])
def test_header_with_the_largest_numbers_needs_little_memory(text):
    tracemalloc.start()
    try:
        header = ChunkHeader.parse(text)
        assert header is not None
        assert join(header, [None] * len(data_keys(b"k", header))) is None
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("flags", "text"), [(0, b"0"), (2**31 - 1, b"2147483647"), (2**31, b"-2147483648"), (2**32 - 1, b"-1")]
)
def test_flags_in_a_header_are_a_signed_int_of_java(flags, text):
    header = ChunkHeader(2, 10, 5, flags, 7)
    assert header.encode() == b"2:10:5:%b:7" % text
    assert ChunkHeader.parse(header.encode()) == header


def test_the_largest_value_can_be_split_with_the_longest_key():
    """The limits of keys, records and values fit each other. The last suffix has six bytes."""
    key, data = b"k" * 244, bytes(MAX_VALUE_BYTES)
    header, records = split(key, data, 0)
    assert len(records[-1][0]) == 250
    assert header.records == len(records) + 1 <= MAX_RECORDS
    assert ChunkHeader.parse(header.encode()) == header
    with pytest.raises(ValueTooLarge, match="20971520 bytes are allowed"):
        split(key, data + b"\0", 0)


def test_value_with_too_many_records_is_refused():
    with pytest.raises(ValueTooLarge, match=f"need {MAX_RECORDS + 1} chunk records"):
        split(b"k", bytes(MAX_RECORDS), 0, 76)


@pytest.mark.parametrize(("chunk_bytes", "does_fit"), [(78, True), (77, False), (6, False), (1, False), (1180, True)])
def test_key_fits_a_chunk_if_there_is_room_for_data(chunk_bytes, does_fit):
    assert fits(KEY, chunk_bytes) is does_fit
    if does_fit:
        assert split(KEY, b"v", 0, chunk_bytes)[0].size == chunk_bytes - 77
    else:
        with pytest.raises(InvalidArgument, match="no room for data beside the key") as caught:
            split(KEY, b"v", 0, chunk_bytes)
        assert caught.value.argument == "chunk_bytes"


def test_record_whose_key_exceeds_250_bytes_is_refused():
    """A server would execute the bytes behind the limit as a command."""
    header_key(b"k" * 247)
    data_keys(b"k" * 247, ChunkHeader(100, 10, 10, 0, 0))
    assert fits(b"k" * 247, 1180)
    assert not fits(b"k" * 248, 1180)
    with pytest.raises(InvalidKey, match="251 bytes, over 250"):
        header_key(b"k" * 248)
    with pytest.raises(InvalidKey, match="251 bytes, over 250"):
        data_keys(b"k" * 247, ChunkHeader(101, 10, 10, 0, 0))
    with pytest.raises(InvalidKey, match="251 bytes, over 250"):
        split(b"k" * 248, b"v", 0)


@pytest.mark.parametrize(
    ("arguments", "argument", "kind"),
    [
        ((b"\xff", b"v", 0, 1180), "key", InvalidKey),
        ((KEY, b"", 0, 1180), "data", InvalidArgument),
        ((KEY, b"v", 0, 0), "chunk_bytes", InvalidArgument),
        ((KEY, b"v", 0, 1180.0), "chunk_bytes", InvalidArgument),
    ],
)
def test_split_with_an_invalid_argument_is_refused(arguments, argument, kind):
    with pytest.raises(kind) as caught:
        split(*arguments)
    assert caught.value.argument == argument


def test_checksum_of_a_value_is_its_crc32():
    assert HEADER.crc == zlib.crc32(pattern(3000))
