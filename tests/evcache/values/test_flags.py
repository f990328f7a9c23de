"""The meaning of client flags as text."""

import pytest

from evcache.values.codec import StandardCodec
from evcache.values.compression import HAS_ZSTD
from evcache.values.flags import FLAG_ABSENT, FLAG_COMPACT_ENVELOPE, FLAG_ENVELOPE, FLAG_JAVA, FLAG_TOMBSTONE, describe_flags


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "str"), (b"x", "bytes"), (7, "int"), (True, "bool"), (1.5, "float"), ([1], "msgpack")],
)
def test_flags_of_the_codec_have_the_name_of_the_form(value, text):
    assert describe_flags(StandardCodec().encode(value)[1]) == text


def test_compression_is_named_behind_the_form():
    value = ["x" * 100] * 100
    assert describe_flags(StandardCodec(compress_over=0).encode(value)[1]) == "msgpack, gzip"
    if HAS_ZSTD:
        assert describe_flags(StandardCodec(compress_over=0, compression="zstd").encode(value)[1]) == "msgpack, zstd"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (FLAG_TOMBSTONE, "tombstone"),
        (FLAG_ABSENT, "absence"),
        (FLAG_ENVELOPE, "envelope"),
        (FLAG_JAVA, "Java object"),
        (FLAG_COMPACT_ENVELOPE, "compact JVM envelope"),
        (FLAG_JAVA | 2, "Java object, gzip"),
        (12345 << 8, "unknown"),
        (2**32 - 2, "unknown, gzip"),
    ],
)
def test_other_flags(flags, text):
    assert describe_flags(flags) == text
