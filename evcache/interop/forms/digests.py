"""Digests by which EVCache for the JVM hashes keys.

The JVM client takes them from Guava, which writes each digest in one byte order. `hashlib` has neither SipHash nor Murmur3.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

from evcache.zones.errors import InvalidArgument

_MASK = 2**64 - 1

# The key of Guava's `Hashing.sipHash24()`: the bytes 00 to 0f as two little-endian halves.
_SIP_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)

# Constants of murmur3_x64_128.
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F
_PAIR = struct.Struct("<QQ")


def digest(algorithm: str, data: bytes) -> bytes:
    """Return the digest of bytes, in the byte order of the JVM client.

    Args:
        algorithm: One of `ALGORITHMS`.
        data: Bytes to hash.

    Raises:
        InvalidArgument: The algorithm is unknown.
    """
    function = _FUNCTIONS.get(algorithm)
    if function is None:
        raise InvalidArgument("algorithm", f"{algorithm!r} is none of {', '.join(sorted(ALGORITHMS))}")
    return function(data)


def _siphash24(data: bytes) -> bytes:
    key0, key1 = _SIP_KEY
    v0, v1 = key0 ^ 0x736F6D6570736575, key1 ^ 0x646F72616E646F6D
    v2, v3 = key0 ^ 0x6C7967656E657261, key1 ^ 0x7465646279746573
    # The last word holds the rest of the bytes, and the length modulo 256 in its highest byte.
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for word in struct.unpack(f"<{len(padded) // 8}Q", padded):
        v0, v1, v2, v3 = _sip_round(*_sip_round(v0, v1, v2, v3 ^ word))
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return (v0 ^ v1 ^ v2 ^ v3).to_bytes(8, "little")


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    # Rotations are written out, because a call costs more than a rotation.
    v0 = (v0 + v1) & _MASK
    v2 = (v2 + v3) & _MASK
    v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
    v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
    v0 = (v0 << 32 | v0 >> 32) & _MASK
    v2 = (v2 + v1) & _MASK
    v0 = (v0 + v3) & _MASK
    v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
    v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
    v2 = (v2 << 32 | v2 >> 32) & _MASK
    return v0, v1, v2, v3


def _murmur3(data: bytes) -> bytes:
    """Return murmur3_x64_128 with seed 0."""
    h1 = h2 = 0
    whole = len(data) // 16 * 16
    for k1, k2 in _PAIR.iter_unpack(data[:whole]):
        h1 ^= _mix_first(k1)
        h1 = ((h1 << 27 | h1 >> 37) + h2) & _MASK
        h1 = (h1 * 5 + 0x52DCE729) & _MASK
        h2 ^= _mix_second(k2)
        h2 = ((h2 << 31 | h2 >> 33) + h1) & _MASK
        h2 = (h2 * 5 + 0x38495AB5) & _MASK
    if whole < len(data):
        k1, k2 = _PAIR.unpack(data[whole:].ljust(16, b"\0"))
        h1 ^= _mix_first(k1)
        h2 ^= _mix_second(k2)
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1, h2 = _avalanche(h1), _avalanche(h2)
    h1 = (h1 + h2) & _MASK
    return _PAIR.pack(h1, (h2 + h1) & _MASK)


def _mix_first(k1: int) -> int:
    k1 = k1 * _C1 & _MASK
    return (k1 << 31 | k1 >> 33) * _C2 & _MASK


def _mix_second(k2: int) -> int:
    k2 = k2 * _C2 & _MASK
    return (k2 << 33 | k2 >> 31) * _C1 & _MASK


def _avalanche(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _MASK
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return word ^ word >> 33


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _adler32(data: bytes) -> bytes:
    return zlib.adler32(data).to_bytes(4, "little")


_FUNCTIONS: dict[str, Callable[[bytes], bytes]] = {
    "siphash24": _siphash24,
    "murmur3": _murmur3,
    "md5": _md5,
    "sha1": _sha1,
    "sha256": _sha256,
    "crc32": _crc32,
    "adler32": _adler32,
}
ALGORITHMS: frozenset[str] = frozenset(_FUNCTIONS)
"""Names of the algorithms."""
