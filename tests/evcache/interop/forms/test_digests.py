"""Digests of keys, as the JVM client writes them."""

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.interop.forms.digests import ALGORITHMS, digest
from evcache.zones.errors import InvalidArgument

# Printed by the functions of Guava that the JVM client calls.
OF_THE_JVM = [
    ("murmur3", "p:k", "6446b3ce4620ce55637eec1be13411e4"),
    ("adler32", "p:k", "16013202"),
    ("crc32", "p:k", "ebd77954"),
    ("sha1", "p:k", "ba8f5233ca50972ca01e5023a4a847d858280f59"),
    ("sha256", "p:k", "299b417637b19a029b9b96b0baf07c35d10f2d13164ec268a467d71444f5f2de"),
    ("siphash24", "p:k", "322f2e16fa993295"),
    ("md5", "p:k", "86f02a858db9d94980060616848a0144"),
    ("murmur3", "EVCACHE_B:p:k", "fa0d9e7e9655515b0b4248777439cad4"),
    ("adler32", "EVCACHE_B:p:k", "e0031a1a"),
    ("crc32", "EVCACHE_B:p:k", "d59353a2"),
    ("sha1", "EVCACHE_B:p:k", "7df67ca51d7fa2d699a6d32276dcf0f703fc14ff"),
    ("sha256", "EVCACHE_B:p:k", "b300e95be1a5f83721ceb8b7f801717a1f3411bb0fa206a43bee5ecc5d82fa30"),
    ("siphash24", "EVCACHE_B:p:k", "a8814f48d2bcbf92"),
    ("md5", "EVCACHE_B:p:k", "a5377ab39cce05c23a91ecc6f9306dae"),
    ("murmur3", "café", "dd6433052ac2e7a27964578947aaca0a"),
    ("adler32", "café", "9702d906"),
    ("crc32", "café", "b542ad98"),
    ("sha1", "café", "f424452a9673918c6f09b0cdd35b20be8e6ae7d7"),
    ("sha256", "café", "850f7dc43910ff890f8879c0ed26fe697c93a067ad93a7d50f466a7028a9bf4e"),
    ("siphash24", "café", "750031dac4898e76"),
    ("md5", "café", "07117fe4a1ebd544965dc19573183da2"),
]


@pytest.mark.parametrize(("algorithm", "text", "expected"), OF_THE_JVM)
def test_digest_of_text_is_that_of_the_jvm(algorithm, text, expected):
    assert digest(algorithm, text.encode()).hex() == expected


def test_every_algorithm_has_a_vector():
    assert {algorithm for algorithm, *_ in OF_THE_JVM} == ALGORITHMS


# The test vectors of the reference implementation: inputs are the bytes 00, 01, 02 and so on, of each length.
SIPHASH = [
    (0, "310e0edd47db6f72"),
    (1, "fd67dc93c539f874"),
    (7, "37d1018bf50002ab"),
    (8, "6224939a79f5f593"),
    (9, "b0e4a90bdf82009e"),
    (15, "e545be4961ca29a1"),
    (16, "db9bc2577fcc2a3f"),
    (63, "724506eb4c328a95"),
]


@pytest.mark.parametrize(("length", "expected"), SIPHASH)
def test_siphash24_of_the_reference_input_is_the_reference_output(length, expected):
    assert digest("siphash24", bytes(range(length))).hex() == expected


MURMUR3 = [
    (b"", "00000000000000000000000000000000"),
    (b"The quick brown fox jumps over the lazy dog", "6c1b07bc7bbc4be347939ac4a93c437a"),
]


@pytest.mark.parametrize(("data", "expected"), MURMUR3)
def test_murmur3_of_known_bytes_is_the_known_digest(data, expected):
    assert digest("murmur3", data).hex() == expected


LENGTHS = {"siphash24": 8, "murmur3": 16, "md5": 16, "sha1": 20, "sha256": 32, "crc32": 4, "adler32": 4}


@given(st.sampled_from(sorted(ALGORITHMS)), st.binary(max_size=300))
def test_digest_of_any_bytes_has_its_length_and_depends_on_them(algorithm, data):
    found = digest(algorithm, data)
    assert len(found) == LENGTHS[algorithm]
    assert found != digest(algorithm, data + b"\1")


@given(st.binary())
def test_digest_of_the_standard_library_is_in_its_byte_order(data):
    assert digest("md5", data) == hashlib.md5(data).digest()
    assert int.from_bytes(digest("crc32", data), "little") == zlib.crc32(data)
    assert int.from_bytes(digest("adler32", data), "little") == zlib.adler32(data)


def test_digest_of_an_unknown_algorithm_is_refused():
    with pytest.raises(InvalidArgument, match="'sha512' is none of adler32, crc32") as caught:
        digest("sha512", b"")
    assert caught.value.argument == "algorithm"
