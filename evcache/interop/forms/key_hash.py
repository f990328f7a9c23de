"""Hashing of keys as EVCache for the JVM does it.

Servers get the hash in place of the key. The ring places the hash too, so that both kinds of clients ask the same node.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

from evcache.interop.forms.digests import ALGORITHMS, digest
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import at_least_one, one_of

Encoder = Literal["base64", "ascii85"]


@dataclass(frozen=True, slots=True)
class KeyHash:
    """Form of hashed keys. All clients of a namespace need the same.

    Release 5.9 of the JVM client has only the algorithm. Later sources of it have the other settings too.
    """

    algorithm: str = "siphash24"
    """`siphash24`, `murmur3`, `md5`, `sha1`, `sha256`, `crc32` or `adler32`. JVM clients have it as `hash.algo`.

    Two keys with equal hashes displace each other. The digests of 4 bytes (`crc32`, `adler32`) collide often.
    """
    max_digest_bytes: int | None = None
    """Bytes of the digest that are used. If None, all of them. JVM clients have it as `max.digest.bytes`."""
    max_hash_length: int | None = None
    """Longest hash in characters of base64. If None, there is no limit. JVM clients have it as `max.hash.length`."""
    encoder: Encoder = "base64"
    """Text form of the digest. JVM clients have it as `hash.encoder`.

    Old releases of their library write other text for `ascii85` when a group of 4 bytes begins with a bit of 1.
    """

    def __post_init__(self) -> None:
        _check_algorithm(self.algorithm)
        if self.max_digest_bytes is not None:
            at_least_one(self.max_digest_bytes, "max_digest_bytes")
        if self.max_hash_length is not None:
            at_least_one(self.max_hash_length, "max_hash_length")
        one_of(self.encoder, Encoder, "encoder")
        if self.encoder == "ascii85" and self.max_hash_length is not None:
            raise InvalidArgument("max_hash_length", "the JVM client ignores it with the encoder 'ascii85': leave it out")

    def hashed(self, canonical: bytes) -> bytes:
        """Return the key that servers get.

        Args:
            canonical: Whole key before hashing, with its namespace, in UTF-8.
        """
        used = digest(self.algorithm, canonical)[: self.max_digest_bytes]
        if self.encoder == "ascii85":
            return base64.a85encode(used)
        return base64.b64encode(used).rstrip(b"=")[: self.max_hash_length]


def _check_algorithm(algorithm: str) -> None:
    """Refuse an algorithm that would give other keys than the JVM client has."""
    if algorithm == "goodfasthash":
        raise InvalidArgument(
            "algorithm", "'goodfasthash' is refused: release 5.9 of the JVM client seeds it in each process"
        )
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        known = ", ".join(map(repr, sorted(ALGORITHMS)))
        raise InvalidArgument(
            "algorithm", f"{algorithm!r} is none of {known}; the JVM client takes 'md5' for names that it does not know"
        )
