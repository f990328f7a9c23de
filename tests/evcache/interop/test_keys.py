"""Keys in interop mode: the characters, lengths and prefixes of the JVM client."""

import pytest

from evcache import InvalidKey
from evcache.interop import GroupInterop, Interop, KeyHash
from evcache.interop.forms.group_rules import GroupRules
from evcache.interop.keys import InteropKeys


@pytest.mark.parametrize(
    ("prefix", "expected"), [("namespace", b"p:caf\xc3\xa9"), ("none", b"caf\xc3\xa9"), ("empty", b":caf\xc3\xa9")]
)
@pytest.mark.parametrize("key", ["café", "café".encode()])
def test_a_key_has_the_prefix_of_the_app_and_is_utf8(prefix, expected, key):
    keys = InteropKeys("p", Interop(prefix=prefix))
    assert keys.qualify(key) == expected
    assert keys.qualify_all([key, key]) == [expected, expected]
    assert keys.hash_reason(key) is None


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "empty"),
        ("a b", "space"),
        ("a\0", "control"),
        ("a\x7f", "control"),
        ("a\x1c", "control"),
        *((f"a{space}", f"U\\+{ord(space):04X}") for space in "\u1680\u2000\u2006\u2008\u200a\u2028\u2029\u205f\u3000"),
        ("a\ud83d", "surrogate"),
        (b"\xff", "UTF-8"),
        (7, "str or bytes"),
    ],
)
@pytest.mark.parametrize("hash_keys", ["never", "all"])
def test_a_key_that_a_jvm_client_refuses_or_changes_is_refused(key, problem, hash_keys):
    with pytest.raises(InvalidKey, match=problem):
        InteropKeys("p", Interop(hash_keys=hash_keys)).qualify(key)


@pytest.mark.parametrize("character", "\u0080\u0085\u00a0\u00ad\u2007\u200b\u202f\ufeff\U0001f600")
def test_characters_that_a_jvm_client_takes_are_taken(character):
    assert InteropKeys("p", Interop()).qualify(character) == f"p:{character}".encode()


@pytest.mark.parametrize(
    ("interop", "longest"),
    [(Interop(), 250), (Interop(release="5.26"), 200), (Interop(release="5.26", max_key_length=30), 30)],
    ids=["5.9", "5.26", "set"],
)
def test_a_key_over_the_limit_is_refused_unless_the_app_hashes(interop, longest):
    keys = InteropKeys("p", interop)
    assert len(keys.qualify("k" * (longest - 2))) == longest
    with pytest.raises(InvalidKey, match=f"over {longest}"):
        keys.qualify("k" * (longest - 1))
    hashing = InteropKeys("p", Interop(release=interop.release, max_key_length=interop.max_key_length, hash_keys="long"))
    assert hashing.qualify("k" * (longest - 1)) == b"p:" + b"k" * (longest - 1)
    assert hashing.hash_reason("k" * (longest - 1)) is not None
    assert hashing.hash_reason("k" * (longest - 2)) is None


def test_the_limit_counts_utf16_units_and_memcacheds_counts_bytes():
    """A JVM client sends such a key, and loses its connection."""
    keys = InteropKeys("p", Interop(prefix="none", hash_keys="long"))
    assert keys.qualify("é" * 125) == "é".encode() * 125
    with pytest.raises(InvalidKey, match="252 bytes"):
        keys.qualify("é" * 126)
    assert keys.qualify("é" * 251) == "é".encode() * 251
    assert keys.hash_reason("\U0001f600" * 126) is not None
    with pytest.raises(InvalidKey, match="500 bytes"):
        keys.qualify("\U0001f600" * 125)


def test_a_key_leaves_room_for_the_records_of_a_chunked_value():
    keys = InteropKeys("p", Interop(prefix="none", chunk_bytes=200))
    keys.qualify("k" * 120)
    with pytest.raises(InvalidKey, match="no room for data in a chunk"):
        keys.qualify("k" * 130)
    with pytest.raises(InvalidKey, match="over the 244"):
        InteropKeys("p", Interop(prefix="none", chunk_bytes=1180)).qualify("k" * 245)


# Written by the client for the JVM 5.9.0, by what it was set to.
HASHED = {
    "siphash24": b"Mi8uFvqZMpU",
    "murmur3": b"ZEazzkYgzlVjfuwb4TQR5A",
    "md5": b"hvAqhY252UmABgYWhIoBRA",
    "sha1": b"uo9SM8pQlyygHlAjpKhH2FgoD1k",
    "sha256": b"KZtBdjexmgKbm5awuvB8NdEPLRMWTsJopGfXFET18t4",
    "crc32": b"69d5VA",
    "adler32": b"FgEyAg",
}


@pytest.mark.parametrize(("algorithm", "expected"), HASHED.items())
def test_the_app_hashes_with_each_algorithm(algorithm, expected):
    rules = GroupRules(Interop(hash_keys="all", key_hash=KeyHash(algorithm)), "g0")
    assert rules.wire_key(b"p:k") == (expected, True)


SIPHASH, MD5, SHA1 = (HASHED[name] for name in ("siphash24", "md5", "sha1"))
PLAIN = b"p:k"


@pytest.mark.parametrize(
    ("release", "app", "group", "expected"),
    [
        ("5.9", "never", GroupInterop(), PLAIN),
        ("5.9", "never", GroupInterop(hash_keys=True), MD5),
        ("5.9", "never", GroupInterop(hash_keys=True, key_hash=KeyHash("sha1")), SHA1),
        ("5.9", "never", GroupInterop(hash_keys=False), PLAIN),
        ("5.9", "never", GroupInterop(hash_keys=True, chunk_bytes=1180), PLAIN),
        ("5.9", "all", GroupInterop(hash_keys=False), SIPHASH),
        ("5.26", "never", GroupInterop(hash_keys=True, chunk_bytes=1180), SIPHASH),
        ("5.9", "all", GroupInterop(hash_keys=True, key_hash=KeyHash("sha1")), SIPHASH),
        ("5.26", "never", GroupInterop(), PLAIN),
        ("5.26", "never", GroupInterop(hash_keys=True), SIPHASH),
        ("5.26", "never", GroupInterop(hash_keys=True, key_hash=KeyHash("sha1")), SHA1),
        ("5.26", "all", GroupInterop(), SIPHASH),
        ("5.26", "all", GroupInterop(hash_keys=False), PLAIN),
        ("5.26", "all", GroupInterop(hash_keys=True, key_hash=KeyHash("sha1")), SHA1),
    ],
)
def test_a_group_hashes_as_its_release_does(release, app, group, expected):
    interop = Interop(release=release, hash_keys=app, groups={"g0": group})
    assert GroupRules(interop, "g0").wire_key(b"p:k").key == expected
    assert GroupRules(interop, "g1").wire_key(b"p:k").key == (PLAIN if app == "never" else SIPHASH)
    assert interop.translates == (expected != PLAIN or app != "never" or group.chunk_bytes == 1180)
