"""Bytes of keys, and of batches of reads. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evcache.zones.protocol.fields import Fields

NO_OP = b"mn\r\n"

# Bytes of one line. Amazon ElastiCache Serverless takes no longer ones. memcached reads such a line into its usual buffer.
GETS_LINE_BYTES = 16 * 1024


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
    parts.append(NO_OP)
    return b"".join(parts), opaques


def encode_gets(keys: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Encode reads as `gets`, in as few commands as the limit on a line allows, and the no-op that closes them.

    Returns:
        The request, and for each command the number of the keys up to its end.
    """
    line = b"gets %b\r\n" % b" ".join(keys)
    if len(line) <= GETS_LINE_BYTES:
        return line + NO_OP, [len(keys)]
    lines: list[bytes] = []
    ends: list[int] = []
    first = size = 0
    for index, key in enumerate(keys):
        if size + 1 + len(key) > GETS_LINE_BYTES - len(b"gets\r\n"):
            lines.append(b"gets %b\r\n" % b" ".join(keys[first:index]))
            ends.append(index)
            first, size = index, 0
        size += 1 + len(key)
    lines.append(b"gets %b\r\n" % b" ".join(keys[first:]))
    ends.append(len(keys))
    return b"".join(lines) + NO_OP, ends


def qualifier(
    prefix: bytes, longest: int, mark: str, unusual: Callable[[Any], bytes]
) -> tuple[Callable[[Any], bytes], Callable[[Sequence[Any]], list[bytes]]]:
    """Return a function that makes the full name of a key, and one that makes those of several.

    Args:
        prefix: ASCII bytes in front of each key.
        longest: Characters of the longest key.
        mark: First character of keys that are unusual.
        unusual: Function for keys that are not a `str` of printable ASCII without spaces.
    """
    text = prefix.decode("ascii")

    def qualify(key: Any) -> bytes:
        if (
            type(key) is str
            and 0 < len(key) <= longest
            and key.isascii()
            and key.isprintable()
            and " " not in key
            and key[0] != mark
        ):
            return (text + key).encode()
        return unusual(key)

    def qualify_all(keys: Sequence[Any]) -> list[bytes]:
        # One check of all keys takes a tenth of the time, if none is unusual. It looks at the joined text and the resulting
        # bytes, because the methods of a subclass of str may return other results.
        try:
            together = "".join(keys)  # bytes raise
        except TypeError:
            return [qualify(key) for key in keys]
        if together.isascii() and together.isprintable() and " " not in together and mark not in together:
            full = (text + ("\n" + text).join(keys)).encode().split(b"\n")
            if min(map(len, full)) > len(prefix) and max(map(len, full)) <= len(prefix) + longest:
                return full
        return [qualify(key) for key in keys]

    return qualify, qualify_all
