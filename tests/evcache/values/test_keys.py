"""Keys: what goes out as it is, what is hashed, and what is refused."""

import hashlib
import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache import InvalidArgument, InvalidKey
from evcache.values.keys import MAX_NAMESPACE_BYTES, Keys

ON_THE_WIRE = re.compile(rb"[\x21-\x7e]{1,250}")
UNSAFE = [*range(0x21), 0x7F]


def hashed(key: bytes) -> bytes:
    return b"ns:#sha256-" + urlsafe_b64encode(hashlib.sha256(key).digest()).rstrip(b"=")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("user:42", b"ns:user:42"),
        (b"user:42", b"ns:user:42"),
        ("~!@#$%^&*()", b"ns:~!@#$%^&*()"),
        ("#", b"ns:#"),
        ("#sha256", b"ns:#sha256"),
        (b"#plain", b"ns:#plain"),
        ("x" * 247, b"ns:" + b"x" * 247),
        (b"x" * 247, b"ns:" + b"x" * 247),
    ],
)
def test_plain_keys_go_out_as_they_are(key, expected):
    """A printable ASCII key that fits is the namespace, a colon and itself."""
    assert Keys("ns").qualify(key) == expected


@pytest.mark.parametrize(
    "key",
    ["x" * 248, "x" * 100_000, "café", "日本", "\u00a0", "\x85", "#sha256-", "#sha256-x", b"\xff\xfe", b"x" * 248],
)
def test_keys_that_are_long_or_not_ascii_are_hashed(key):
    """A key that can't go out as it is becomes the SHA-256 of its UTF-8 form, under a mark."""
    raw = key.encode() if isinstance(key, str) else key
    assert Keys("ns").qualify(key) == hashed(raw)


def test_a_plain_key_that_looks_like_a_hash_is_hashed():
    """No caller can write a key that equals the hash of another key."""
    keys = Keys("ns")
    of_long = keys.qualify("x" * 300)
    forged = of_long.removeprefix(b"ns:")
    assert keys.qualify(forged) == hashed(forged)
    assert keys.qualify(forged.decode()) != of_long


@pytest.mark.parametrize("byte", UNSAFE)
@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("frame", ["{}", "{}x", "x{}", "x{}y", "x" * 300 + "{}", "é{}"])
def test_spaces_and_control_characters_are_refused(byte, kind, frame):
    """Bytes 0 to 32 and 127 end a command line or split a key: refused wherever they stand, hashed key or not."""
    key = frame.format(chr(byte))
    with pytest.raises(InvalidKey) as caught:
        Keys("ns").qualify(key if kind is str else key.encode())
    assert caught.value.argument == "key"
    assert f"{byte:#04x}" in str(caught.value)


@pytest.mark.parametrize("key", ["", b"", "\ud800", "x\udfffy", None, 5, 1.5, ["k"], bytearray(b"k"), memoryview(b"k")])
def test_what_is_no_key_is_refused(key):
    """Empty keys, lone surrogates and other types name the argument."""
    with pytest.raises(InvalidKey) as caught:
        Keys("ns").qualify(key)
    assert caught.value.argument == "key"


@pytest.mark.parametrize("namespace", ["", "a:b", "a b", "é", "a\n", "a\0", "x" * (MAX_NAMESPACE_BYTES + 1), None, b"ns", 5])
def test_namespaces_that_could_mix_keys_are_refused(namespace):
    """A colon, a space, other letters, or one that leaves no room for a hash: the error names `namespace`."""
    with pytest.raises(InvalidArgument) as caught:
        Keys(namespace)
    assert caught.value.argument == "namespace"


def test_the_longest_namespace_leaves_room_for_a_hash():
    """A hashed key in the longest namespace has exactly the 250 bytes that servers take."""
    assert len(Keys("n" * MAX_NAMESPACE_BYTES).qualify("x" * 300)) == 250


anything = st.text() | st.binary() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300)
namespaces = st.text(st.sampled_from("abz-_.#"), min_size=1, max_size=MAX_NAMESPACE_BYTES)


@given(namespaces, anything)
@example("ns", "x" * 250)
@example("#", "#sha256-")
def test_every_accepted_key_is_safe_on_the_wire(namespace, key):
    """Whatever is accepted is up to 250 bytes of printable ASCII without spaces, in its namespace; the rest names `key`."""
    try:
        full = Keys(namespace).qualify(key)
    except InvalidKey as error:
        assert error.argument == "key"
        return
    assert ON_THE_WIRE.fullmatch(full)
    assert full.startswith(namespace.encode() + b":")


def raw(key):
    return key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key


@given(st.lists(anything, min_size=2, max_size=10))
@example(["x" * 300, hashed(b"x" * 300).removeprefix(b"ns:")])
def test_different_keys_never_meet(keys):
    """Two keys share a full key only when their bytes are the same."""
    full = {}
    for key in keys:
        try:
            name = Keys("ns").qualify(key)
        except InvalidKey:
            continue
        assert full.setdefault(name, raw(key)) == raw(key)


@given(anything)
def test_str_and_bytes_are_the_same_key(key):
    """A str and its UTF-8 form name the same item, and are refused alike."""
    twin = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key.decode("utf-8", "surrogateescape")
    results = []
    for one in (key, twin):
        try:
            results.append(Keys("ns").qualify(one))
        except InvalidKey:
            results.append(None)
    if isinstance(key, str) or key.isascii():
        assert results[0] == results[1]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("user:42", None),
        (b"user:42", None),
        ("x" * 248, "248 bytes, over 247"),
        ("\u00e9", "not plain ASCII"),
        ("#sha256-x", "like the hash of another key"),
    ],
)
def test_the_reason_for_a_hash_is_that_of_qualify(key, reason):
    keys = Keys("ns")
    assert keys.hash_reason(key) == reason
    assert (b"#sha256-" in keys.qualify(key)) is (reason is not None)
