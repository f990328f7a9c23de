"""Keys as the JVM client hashes them."""

import base64
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.interop.forms.digests import ALGORITHMS, digest
from evcache.interop.forms.key_hash import KeyHash
from evcache.zones.errors import InvalidArgument

# Keys that the JVM client stored on servers, or that its functions printed.
OF_THE_JVM = [
    ("siphash24", "p:k", "Mi8uFvqZMpU"),
    ("murmur3", "p:k", "ZEazzkYgzlVjfuwb4TQR5A"),
    ("md5", "p:k", "hvAqhY252UmABgYWhIoBRA"),
    ("sha1", "p:k", "uo9SM8pQlyygHlAjpKhH2FgoD1k"),
    ("sha256", "p:k", "KZtBdjexmgKbm5awuvB8NdEPLRMWTsJopGfXFET18t4"),
    ("crc32", "p:k", "69d5VA"),
    ("adler32", "p:k", "FgEyAg"),
    ("siphash24", "EVCACHE_B:p:k", "qIFPSNK8v5I"),
    ("murmur3", "EVCACHE_B:p:k", "+g2efpZVUVsLQkh3dDnK1A"),
    ("md5", "EVCACHE_B:p:k", "pTd6s5zOBcI6kezG+TBtrg"),
    ("sha1", "EVCACHE_B:p:k", "ffZ8pR1/otaZptMidtzw9wP8FP8"),
    ("siphash24", "café", "dQAx2sSJjnY"),
    ("sha256", "café", "hQ99xDkQ/4kPiHnA7Sb+aXyToGetk6fVD0ZqcCipv04"),
    ("siphash24", "k" * 250, "Np9RPjAmVeM"),
    ("murmur3", "k" * 250, "WCZ8at9odkayic0aioJq/w"),
    ("crc32", "k" * 250, "wXuXBA"),
    ("siphash24", "k" * 251, "Ha/A+25E07s"),
    ("siphash24", "é" * 251, "OmMIyl2LiVU"),
    ("siphash24", "\U0001f600" * 126, "3khZ0EiIaXo"),
]


@pytest.mark.parametrize(("algorithm", "key", "expected"), OF_THE_JVM)
def test_hash_of_a_key_is_that_of_the_jvm(algorithm, key, expected):
    assert KeyHash(algorithm).hashed(key.encode()) == expected.encode()


def test_hash_without_settings_is_siphash24_in_base64():
    assert KeyHash() == KeyHash("siphash24", None, None, "base64")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_digest_bytes": 1}, b"hg"),
        ({"max_digest_bytes": 6}, b"hvAqhY25"),
        ({"max_digest_bytes": 16}, b"hvAqhY252UmABgYWhIoBRA"),
        ({"max_digest_bytes": 99}, b"hvAqhY252UmABgYWhIoBRA"),
        ({"max_hash_length": 5}, b"hvAqh"),
        ({"max_hash_length": 99}, b"hvAqhY252UmABgYWhIoBRA"),
        ({"max_digest_bytes": 6, "max_hash_length": 7}, b"hvAqhY2"),
    ],
)
def test_hash_with_limits_is_cut(settings, expected):
    """The digest is cut before its text is."""
    assert KeyHash("md5", **settings).hashed(b"p:k") == expected


@given(st.sampled_from(sorted(ALGORITHMS)), st.text(min_size=1), st.none() | st.integers(1, 40))
def test_hash_in_ascii85_decodes_to_the_digest(algorithm, key, size):
    found = KeyHash(algorithm, size, encoder="ascii85").hashed(key.encode())
    assert base64.a85decode(found) == digest(algorithm, key.encode())[:size]
    assert not found.startswith(b"<~")


BASE64 = set((string.ascii_letters + string.digits + "+/").encode())


@given(st.sampled_from(sorted(ALGORITHMS)), st.text(), st.none() | st.integers(1, 40), st.none() | st.integers(1, 60))
def test_hash_of_any_key_can_be_sent(algorithm, key, size, length):
    """A key has no space, and at most 250 bytes, whatever the application named it."""
    found = KeyHash(algorithm, size, length).hashed(key.encode())
    assert 0 < len(found) <= min(length or 43, 43)
    assert set(found) <= BASE64


@pytest.mark.parametrize(
    ("settings", "argument", "problem"),
    [
        ({"algorithm": "goodfasthash"}, "algorithm", "seeds it in each process"),
        ({"algorithm": "sha512"}, "algorithm", "none of 'adler32', .*; the JVM client takes 'md5' for names"),
        ({"algorithm": "NO_HASHING"}, "algorithm", "'siphash24'"),
        ({"algorithm": None}, "algorithm", "None is none of"),
        ({"algorithm": ["md5"]}, "algorithm", "is none of"),
        ({"max_digest_bytes": 0}, "max_digest_bytes", "at least 1"),
        ({"max_digest_bytes": -1}, "max_digest_bytes", "at least 1"),
        ({"max_digest_bytes": 2.0}, "max_digest_bytes", "whole number"),
        ({"max_hash_length": 0}, "max_hash_length", "at least 1"),
        ({"max_hash_length": True}, "max_hash_length", "whole number"),
        ({"encoder": "hex"}, "encoder", "'hex' is none of 'base64', 'ascii85'"),
        ({"encoder": "ascii85", "max_hash_length": 9}, "max_hash_length", "ignores it"),
    ],
)
def test_hash_with_an_invalid_setting_is_refused(settings, argument, problem):
    with pytest.raises(InvalidArgument, match=problem) as caught:
        KeyHash(**settings)
    assert caught.value.argument == argument


def test_hash_can_be_pickled_and_compared():
    one = KeyHash("murmur3", 8)
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, KeyHash("murmur3", 8), KeyHash("murmur3", 9)}) == 2
