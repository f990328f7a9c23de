"""Compressed values."""

import gzip
from datetime import UTC, datetime

import pytest
import zstandard

from evcache import DecodeError, InvalidArgument, StandardCodec
from evcache.values import compression
from evcache.values.flags import (
    FLAG_BYTES,
    FLAG_GZIP,
    FLAG_ZSTD,
)
from tests.support.codec_values import CODEC, LONG


@pytest.mark.parametrize("value", [LONG, LONG.encode(), [LONG], {"k": LONG}, 2**62, datetime(2026, 1, 1, tzinfo=UTC)])
def test_gzip_is_marked_and_smaller(value):
    """Above the threshold a value is compressed when that helps, and only then."""
    plain, flags = CODEC.encode(value)
    packed, packed_flags = StandardCodec(compress_over=4).encode(value)
    if len(plain) > 100:
        assert packed_flags == flags | FLAG_GZIP
        assert len(packed) < len(plain)
        assert gzip.decompress(packed) == plain
    else:
        assert (packed, packed_flags) == (plain, flags)


def test_zstd_is_marked_so_that_a_jvm_does_not_mistake_it():
    """The type bits say zstd, which EVCache does not know; its own bits for compressed and Java stay clear."""
    plain, flags = CODEC.encode(LONG.encode())
    packed, packed_flags = StandardCodec(compress_over=4, compression="zstd").encode(LONG.encode())
    assert packed_flags & 0xFF00 == FLAG_ZSTD
    assert packed_flags & 0xFF == 0
    assert packed_flags >> 16 == flags
    assert zstandard.ZstdDecompressor().decompress(packed) == plain


def test_compress_over_is_the_last_size_that_is_left_alone():
    """A value of exactly the threshold is stored as it is, and one byte more is compressed."""
    at = StandardCodec(compress_over=500)
    assert at.encode(b"x" * 500) == (b"x" * 500, FLAG_BYTES)
    assert at.encode(b"x" * 501)[1] == FLAG_BYTES | FLAG_GZIP
    assert CODEC.encode(b"x" * 100_000) == (b"x" * 100_000, FLAG_BYTES)


def test_compression_is_repeatable():
    """The same value has the same bytes in every zone, whenever it was compressed."""
    packer = StandardCodec(compress_over=0)
    assert packer.encode(LONG) == packer.encode(LONG)
    assert packer.encode(LONG)[0][4:8] == b"\0\0\0\0"  # gzip's timestamp


def test_gzip_of_several_members():
    """A gzip value that was appended to is the sum of its parts."""
    assert CODEC.decode(gzip.compress(b"one ") + gzip.compress(b"two"), FLAG_GZIP) == "one two"


@pytest.mark.parametrize("compression", ["lz4", "", "GZIP", None])
def test_other_compressions_are_refused(compression):
    """A codec that is made wrong says which ones there are."""
    with pytest.raises(InvalidArgument, match="'gzip' or 'zstd'") as caught:
        StandardCodec(compression=compression)
    assert caught.value.argument == "compression"


def test_a_gzip_bomb_is_not_unpacked(monkeypatch):
    """Unpacking ends at the bound, in one member and in several, the last filling it exactly."""
    monkeypatch.setattr(compression, "MAX_UNPACKED_BYTES", 1000)
    assert len(CODEC.decode(gzip.compress(b"x" * 1000), FLAG_GZIP | FLAG_BYTES)) == 1000
    for sizes in ([1001], [10_000], [600, 600], [1000, 10_000]):
        bomb = b"".join(gzip.compress(b"x" * size) for size in sizes)
        with pytest.raises(DecodeError):
            CODEC.decode(bomb, FLAG_GZIP | FLAG_BYTES)


def test_a_zstd_bomb_is_not_unpacked(monkeypatch):
    """Unpacking ends at the bound for zstd as well, whether or not the frame says how much it holds."""
    monkeypatch.setattr(compression, "MAX_UNPACKED_BYTES", 1000)
    flags = FLAG_ZSTD | FLAG_BYTES << 16
    for with_size in (True, False):
        pack = zstandard.ZstdCompressor(write_content_size=with_size).compress
        assert len(CODEC.decode(pack(b"x" * 1000), flags)) == 1000
        with pytest.raises(DecodeError):
            CODEC.decode(pack(b"x" * 100_000), flags)
