"""Envelopes of hashed keys, in the two forms of the JVM client."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.errors import DecodeError
from evcache.interop.forms.java_envelope import JavaEnvelope, unwrap, unwrap_compact, wrap
from evcache.zones.errors import InvalidArgument

# The description of the class, which every envelope begins with.
HEADER = (
    "aced000573720025636f6d2e6e6574666c69782e657663616368652e706f6f6c2e4556436163686556616c75652c2a7385e07411c00200054a000a"
    "63726561746554696d65490005666c6167734a000374746c4c00036b65797400124c6a6176612f6c616e672f537472696e673b5b000576616c7565"
    "7400025b427870"
)
NAME_ENDS = 8 + len("com.netflix.evcache.pool.EVCacheValue")

# Envelopes that ObjectOutputStream wrote. The third is from a server that release 5.9 of the client had written to.
OF_THE_JVM = [
    (
        JavaEnvelope("p:k", b"hi", 0, 900, 1700000000123),
        "0000018bcfe5687b000000000000000000000384740003703a6b757200025b42acf317f8060854e00200007870000000026869",
    ),
    (
        JavaEnvelope("p:ké\U0001f600", b"", 2049, 0, 0),
        "000000000000000000000801000000000000000074000b703a6bc3a9eda0bdedb880757200025b42acf317f8060854e0020000787000000000",
    ),
    (
        JavaEnvelope("p:k", b"hi", 0, 900, 0x1A229C45754),
        "000001a229c45754000000000000000000000384740003703a6b757200025b42acf317f8060854e00200007870000000026869",
    ),
]


@pytest.mark.parametrize(("envelope", "rest"), OF_THE_JVM)
def test_envelope_of_the_jvm_is_written_and_read(envelope, rest):
    stored = bytes.fromhex(HEADER + rest)
    assert wrap(envelope) == stored
    assert unwrap(stored) == envelope


def in_utf16(text):
    """The text as Java holds it: two surrogates are one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


keys = st.text(st.characters(exclude_categories=()))
int64 = st.integers(-(2**63), 2**63 - 1)
envelopes = st.builds(
    JavaEnvelope, keys.map(in_utf16), st.binary(max_size=300), st.integers(0, 2**32 - 1), ttl=int64, created_ms=int64
)


@given(envelopes)
def test_envelope_when_read_is_what_was_written(envelope):
    assert unwrap(wrap(envelope)) == envelope


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("", "740000"),
        ("\0", "740002c080"),
        ("\x7f\x80", "7400037fc280"),
        ("\u07ff\u0800", "740005dfbfe0a080"),
        ("\uffff", "740003efbfbf"),
        ("\U00010000", "740006eda080edb080"),
        ("\U0010ffff", "740006edafbfedbfbf"),
        ("\ud83d", "740003eda0bd"),
        ("\ude00\ud83d", "740006edb880eda0bd"),
    ],
    ids=ascii,
)
def test_key_of_an_envelope_is_in_modified_utf8(key, form):
    envelope = JavaEnvelope(key, b"v", 0, 0, 0)
    stored = wrap(envelope)
    assert stored[145 : 145 + len(form) // 2].hex() == form
    assert unwrap(stored) == envelope


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("k" * 65535, "74ffff"),
        ("k" * 65536, "7c0000000000010000"),
        ("é" * 32768, "7c0000000000010000"),
        ("é" * 32767, "74fffe"),
    ],
    ids=["65535", "65536", "65536 in two-byte characters", "65534 in two-byte characters"],
)
def test_length_of_a_key_has_eight_bytes_above_65535(key, form):
    envelope = JavaEnvelope(key, b"v", 0, 0, 0)
    stored = wrap(envelope)
    assert stored[145 : 145 + len(form) // 2].hex() == form
    assert unwrap(stored) == envelope


@given(envelopes, st.binary(min_size=1, max_size=20))
def test_bytes_behind_an_envelope_are_ignored(envelope, appended):
    """The JVM client ignores them too: its `append` to a hashed key has no effect on what it reads."""
    assert unwrap(wrap(envelope) + appended) == envelope


@given(envelopes, st.data())
def test_envelope_when_cut_short_is_a_decode_error(envelope, choose):
    stored = wrap(envelope)
    length = choose.draw(st.integers(NAME_ENDS, len(stored) - 1))
    with pytest.raises(DecodeError, match="cut short"):
        unwrap(stored[:length])


ARRAY_LIST = "aced0005737200136a6176612e7574696c2e41727261794c6973747881d21d99c7619d03000149000473697a6578700000000277"


@pytest.mark.parametrize(
    "stored",
    [b"", b"hi", bytes.fromhex("aced0005"), bytes.fromhex(ARRAY_LIST), bytes.fromhex(HEADER)[: NAME_ENDS - 1]],
    ids=["nothing", "text", "a magic number", "a list", "part of the name of the class"],
)
def test_other_java_objects_are_no_envelope(stored):
    assert unwrap(stored) is None


def with_key(form):
    """An envelope with its key as given in hex."""
    array = bytes.fromhex("757200025b42acf317f8060854e00200007870") + b"\0\0\0\1v"
    return bytes.fromhex(HEADER) + bytes(20) + bytes.fromhex(form) + array


def test_key_of_an_envelope_can_be_given_in_hex():
    assert unwrap(with_key("7400016b")) == JavaEnvelope("k", b"v", 0, 0, 0)


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (with_key("74000100"), "Java's UTF-8"),
        (with_key("740004f09f9880"), "Java's UTF-8"),
        (with_key("740002c181"), "Java's UTF-8"),
        (with_key("740001ff"), "Java's UTF-8"),
        (with_key("740002e282"), "Java's UTF-8"),
        (with_key("70"), "no key"),
        (with_key("71007e0001"), "no key"),
        (with_key("7cffffffffffffffff"), "cut short"),
        (with_key("74ffff"), "cut short"),
        (with_key("7400016b").replace(b"[B\xac", b"[C\xac"), "array of bytes"),
        (with_key("7400016b").replace(b"createTime", b"createDate"), "fields of the class"),
        (with_key("7400016b").replace(b"\0\0\0\1v", b"\xff\xff\xff\xffv"), "cut short"),
    ],
    ids=[
        "NUL of one byte", "character of four bytes", "character that is too long", "no UTF-8", "half a character", "null",
        "reference", "huge key", "long key", "array of chars", "another class", "negative length",
    ],
)  # fmt: skip
def test_envelope_when_malformed_is_a_decode_error(stored, problem):
    with pytest.raises(DecodeError, match=problem):
        unwrap(stored)


def raises_decode_errors_only(function, stored):
    try:
        found = function(stored)
    except DecodeError as error:
        assert error.problem.startswith("invalid JVM envelope: ")
    else:
        assert found is None or isinstance(found, JavaEnvelope)


@given(envelopes, st.data())
def test_envelope_when_damaged_raises_decode_errors_only(envelope, choose):
    stored = bytearray(wrap(envelope))
    for at in choose.draw(st.lists(st.integers(NAME_ENDS, len(stored) - 1), max_size=4)):
        stored[at] = choose.draw(st.integers(0, 255))
    raises_decode_errors_only(unwrap, bytes(stored))


@given(st.binary(max_size=200), st.sampled_from([0, NAME_ENDS, 125, 145]))
def test_random_bytes_raise_decode_errors_only(data, kept):
    raises_decode_errors_only(unwrap, bytes.fromhex(HEADER + "00" * 20)[:kept] + data)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_random_compact_bytes_raise_decode_errors_only(data, key):
    raises_decode_errors_only(unwrap_compact, data)
    raises_decode_errors_only(unwrap_compact, b"\1" + struct.pack(">i", len(key)) + key + data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("flags", -1), ("flags", 2**32), ("ttl", 2**63), ("ttl", 1.5), ("created_ms", -(2**63) - 1), ("created_ms", None)],
)
def test_envelope_with_a_number_that_does_not_fit_is_refused(field, value):
    envelope = JavaEnvelope("k", b"v", 0, 0, 0)._replace(**{field: value})
    with pytest.raises(InvalidArgument) as caught:
        wrap(envelope)
    assert caught.value.argument == field


def compact(key, value, flags, ttl, created_ms):
    """The compact form, whose lengths are -1 for null."""
    parts = [b"\1"]
    for part in (key, value):
        parts += [struct.pack(">i", -1)] if part is None else [struct.pack(">i", len(part)), part]
    return b"".join(parts) + struct.pack(">iqq", flags, ttl, created_ms)


def test_compact_envelope_is_read():
    stored = bytes.fromhex("01 00000005 703ac3a96b 00000002 6869 00000200 0000000000000384 0000018bcfe5687b")
    assert unwrap_compact(stored) == JavaEnvelope("p:ék", b"hi", 512, 900, 1700000000123)
    assert unwrap_compact(stored + b"++") == unwrap_compact(stored)


@given(st.text(), st.binary(), st.integers(-(2**31), 2**31 - 1), int64, int64)
def test_compact_envelope_of_any_value_is_read(key, value, flags, ttl, created_ms):
    """Flags are 32 bits without a sign, as servers hold them."""
    stored = compact(key.encode(), value, flags, ttl, created_ms)
    assert unwrap_compact(stored) == JavaEnvelope(key, value, flags % 2**32, ttl, created_ms)


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (b"", "cut short"),
        (b"\2" + compact(b"k", b"v", 0, 0, 0)[1:], "compact format 2"),
        (compact(None, b"v", 0, 0, 0), "no key"),
        (compact(b"k", None, 0, 0, 0), "no value"),
        (compact(b"\xff", b"v", 0, 0, 0), "not UTF-8"),
        (compact(b"k", b"v", 0, 0, 0)[:-1], "cut short"),
        (b"\1\x7f\xff\xff\xffk", "cut short"),
    ],
    ids=["nothing", "another format", "null key", "null value", "no UTF-8", "cut", "huge key"],
)
def test_compact_envelope_when_malformed_is_a_decode_error(stored, problem):
    with pytest.raises(DecodeError, match=problem):
        unwrap_compact(stored)
