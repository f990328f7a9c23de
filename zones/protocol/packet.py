r"""Several commands that leave in one packet and have one waiter.

The commands differ in their lines and payloads, and share one opaque number. A packet is built once and sent to several
nodes. Each connection has its own opaque numbers, so the bytes are kept in pieces with a gap at the place of the number.
"""

from __future__ import annotations

from collections.abc import Sequence

# Payloads from this size on are not copied into a packet. The connection hands them to the transport as they are, when the
# transport has taken what was before them. asyncio copies what the kernel does not take at once. Of a packet of many large
# values that is nearly all, and the allocator fetches such memory and returns it each time: 200 kB took up to three times
# as long. The size is asyncio's default for the bytes that may wait in a transport before it asks to pause.
LARGE_BYTES = 64 * 1024

Command = tuple[bytes, bytes | None]
"""A line without its end, and the payload that follows it; None for a command without one."""


class Packet:
    """Commands of one write, in the order in which the server runs them."""

    __slots__ = ("_parts", "commands")

    def __init__(self, commands: Sequence[Command]) -> None:
        """Join lines and payloads once, with a gap at each place of the opaque.

        Args:
            commands: one at least.
        """
        self.commands = tuple(commands)
        """The commands."""
        parts: list[tuple[bytes, ...] | memoryview] = []
        pieces: list[bytes] = []
        end = b""  # of the command before: line end and payload
        for line, payload in self.commands:
            pieces.append(b"%b%b " % (end, line))
            if payload is None:
                end = b"\r\n"
            elif len(payload) < LARGE_BYTES:
                end = b"\r\n%b\r\n" % payload
            else:
                parts += ((*pieces, b"\r\n"), memoryview(payload))
                pieces, end = [], b"\r\n"
        self._parts = (*parts, (*pieces, end))

    def __len__(self) -> int:
        """Return the number of commands, which is the number of replies."""
        return len(self.commands)

    @property
    def name(self) -> str:
        """Name of the command that carries the value: `ms`. Of the first command if none carries one."""
        line = next((line for line, payload in self.commands if payload), self.commands[0][0])
        return line.split(b" ", 1)[0].decode("ascii")

    def filled(self, opaque: bytes) -> tuple[bytes, list[bytes | memoryview]]:
        """Return the bytes to send, with the opaque in its places.

        Args:
            opaque: token that each reply must repeat, with its letter.

        Returns:
            The bytes up to the first large payload, and what follows them: large payloads as memoryviews, and the bytes
            between them.
        """
        first, *rest = self._parts
        assert isinstance(first, tuple)
        return opaque.join(first), [part if isinstance(part, memoryview) else opaque.join(part) for part in rest]
