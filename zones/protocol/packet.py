"""Packets of several commands that share a waiter.

The commands differ in their lines and payloads, and share one opaque. A packet is built once and sent to several nodes.
Each connection has its own opaques, so the bytes are kept in pieces, and the connection joins them with its opaque.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Payloads from this size on are not copied into a packet. The connection writes them to the socket transport as they are,
# once the transport has taken the bytes before them. asyncio copies bytes that the kernel does not take at once. For a
# packet of many large values that is nearly all. The allocator then maps and unmaps such memory each time: 200 kB took up to
# three times the time. The size is asyncio's default for the bytes that may wait in a transport before it asks to pause.
LARGE_BYTES = 64 * 1024


class Packet(NamedTuple):
    """Commands that the server runs in this order, without the opaque of a connection."""

    commands: int
    """Number of commands, which is the number of replies."""
    first: Sequence[bytes]
    """Pieces up to the first large payload. The opaque stands between each two."""
    rest: Sequence[memoryview | Sequence[bytes]] = ()
    """Large payloads as views, and the pieces between and behind them."""
    name: str = "ms"
    """Name of the command that carries the value."""


def runs(parts: Sequence[bytes | memoryview]) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the index of the part after each write, and the bytes of the write. Only parts that are not large are joined."""
    following = 0
    while following < len(parts):
        begin, following = following, following + 1
        if isinstance(parts[begin], memoryview):
            yield following, parts[begin]
            continue
        while following < len(parts) and not isinstance(parts[following], memoryview):
            following += 1
        yield following, b"".join(parts[begin:following])
