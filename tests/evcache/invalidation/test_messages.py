"""Invalidation messages as bytes: each decodes to what was encoded, and other bytes are refused."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache.invalidation.messages import (
    FORMAT,
    MAX_CHANGES,
    MAX_KEY_BYTES,
    MAX_VERSION,
    DecodeFailed,
    InvalidationMessage,
    Kind,
    decode,
    encode,
    size_of,
)

NUMBERS = st.integers(0, 2**64 - 1)
KEYS = st.binary(max_size=250)
VERSIONS = st.none() | st.just(0) | st.integers(1, MAX_VERSION)
CHANGES = st.lists(st.tuples(KEYS, VERSIONS), max_size=20).map(tuple)
MESSAGES = st.builds(InvalidationMessage, st.just(Kind.CHANGES), NUMBERS, st.integers(1, 2**64 - 1), CHANGES) | st.builds(
    InvalidationMessage, st.sampled_from([Kind.HEARTBEAT, Kind.BYE]), NUMBERS, NUMBERS, st.just(())
)
HEADER = bytes([FORMAT, Kind.CHANGES]) + bytes(8) + bytes(7) + b"\x01"


@given(MESSAGES)
@example(InvalidationMessage(Kind.CHANGES, 1, 1, ((b"k" * MAX_KEY_BYTES, MAX_VERSION), (b"", None), (b"\0", 0), (b"x", 1))))
def test_what_is_encoded_is_decoded(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=200) | st.binary(max_size=60).map(HEADER.__add__))
def test_any_bytes_are_read_in_one_way_or_refused(data):
    """`DecodeFailed` and no other error; and what can be read has no other bytes."""
    try:
        message = decode(data)
    except DecodeFailed:
        return
    assert encode(message) == data


@given(MESSAGES, st.data())
def test_a_message_that_was_cut_or_changed_is_never_another_error(message, data):
    message = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeFailed):
        decode(bytes(message[: data.draw(st.integers(0, len(message)))]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "too short"),
        (HEADER[:-1], "too short"),
        (bytes([FORMAT + 1]) + HEADER[1:], "format"),
        (bytes([FORMAT, 9]) + HEADER[2:], "unknown kind: 9"),
        (HEADER[:-1] + b"\0", "begin at 1"),
        (bytes([FORMAT, Kind.BYE]) + HEADER[2:] + b"x", "1 extra bytes"),
        (HEADER + b"\0", "incomplete change"),
        (HEADER + b"\0\3ab", "incomplete change"),
        (HEADER + b"\x80\1k" + bytes(7), "invalid version|incomplete change"),
        (HEADER + b"\x80\1k" + b"\1" * 7, "incomplete change"),
        (HEADER + b"\x80\1k" + bytes(8), "invalid version: 0"),
        (HEADER + b"\xc0\1k", "unknown kind"),
    ],
)
def test_invalid_bytes_are_refused(data, problem):
    with pytest.raises(DecodeFailed, match=problem):
        decode(data)


def test_the_format_is_stable():
    """Releases run side by side: who changes these bytes raises FORMAT."""
    changes = ((b"ab", 258), (b"c", None), (b"d", 0))
    message = encode(InvalidationMessage(Kind.CHANGES, 0x0102030405060708, 9, changes))
    assert FORMAT == 1
    assert message.hex(" ", -8) == ("0101010203040506 0708000000000000 0009800261620000 0000000001024001 63000164")


@given(KEYS, VERSIONS)
def test_the_size_of_a_change_is_what_it_adds(key, version):
    def length(*changes):
        return len(encode(InvalidationMessage(Kind.CHANGES, 1, 1, changes)))

    assert length((key, version)) - length() == size_of(key, version)


def test_a_message_of_ordinary_keys_is_small():
    """As many changes as one may have, with keys of 40 bytes, are well below the limit in bytes."""
    assert MAX_CHANGES * size_of(b"k" * 40, MAX_VERSION) < 32 * 1024
