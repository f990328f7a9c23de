"""Bytes of a batch of reads. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from evcache.zones.protocol.fields import Fields


def encode_reads(keys: Sequence[bytes], fields: Fields, first: int) -> tuple[bytes, list[bytes]]:
    """Encode reads that are silent on a miss, and the no-op that closes them.

    Args:
        keys: Keys to read.
        fields: Fields to read of each item.
        first: Number of the first read. Each following one has the next number.

    Returns:
        The request, and the opaque of each read.
    """
    opaques = [b"O%d" % number for number in range(first, first + len(keys))]
    line = b"mg %%b %b q %%b\r\n" % fields
    parts = [line % part for part in zip(keys, opaques, strict=True)]
    parts.append(b"mn\r\n")
    return b"".join(parts), opaques
