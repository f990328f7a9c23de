"""Compression of values with gzip or zstd, with a limit on what an item may unpack to."""

from __future__ import annotations

import gzip
import zlib

from evcache.errors import DecodeError
from evcache.values.flags import FLAG_GZIP, FLAG_ZSTD, ZSTD_SHIFT

try:
    import zstandard
except ModuleNotFoundError:  # the `zstd` extra
    zstandard = None  # type: ignore[assignment]

HAS_ZSTD = zstandard is not None

# A few kB can be made to unpack to gigabytes. No server accepts items above 1 GiB (`-I`).
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024

# Compression runs on the event loop. This level takes a third of the default's time, for a size within a few percent of it
# with JSON-like values.
_GZIP_LEVEL = 1


def pack_gzip(data: bytes, flags: int) -> tuple[bytes, int]:
    """Return the compressed bytes, and their flags."""
    # mtime=0, so that equal values have equal bytes in all zones.
    return gzip.compress(data, _GZIP_LEVEL, mtime=0), flags | FLAG_GZIP


def unpack_gzip(data: bytes) -> bytes:
    """Return the uncompressed bytes. Raises `DecodeError`, or an error of zlib."""
    if not data:
        raise DecodeError("an empty gzip value")
    unpacked = bytearray()
    while data:  # a gzip file can have several members: an append adds one
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        # One byte more than allowed, because a limit of 0 means no limit.
        unpacked += member.decompress(data, MAX_UNPACKED_BYTES - len(unpacked) + 1)
        if not member.eof or len(unpacked) > MAX_UNPACKED_BYTES:
            raise DecodeError("a gzip value is cut short, or unpacks to over 1 GiB")
        data = member.unused_data
    return bytes(unpacked)


def pack_zstd(data: bytes, flags: int) -> tuple[bytes, int]:
    """Return the compressed bytes, and their flags."""
    return zstandard.ZstdCompressor().compress(data), FLAG_ZSTD | flags << ZSTD_SHIFT


def unpack_zstd(data: bytes) -> bytes:
    """Return the uncompressed bytes. Raises `DecodeError`."""
    if zstandard is None:
        raise DecodeError("a zstd value, and the package zstandard is not installed: pip install evcache[zstd]")
    try:
        # The decompressor applies its limit only to a frame without a size.
        if zstandard.frame_content_size(data) > MAX_UNPACKED_BYTES:
            raise DecodeError("a zstd value unpacks to over 1 GiB")
        unpacked: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_UNPACKED_BYTES)
    except zstandard.ZstdError as error:
        raise DecodeError(str(error)) from error
    return unpacked
