"""The seam between a node and the wire: everything above talks to a `Transport`, whichever protocol the server speaks.

Requests are lines of the meta protocol, without their end, as `requests` makes them; answers are `Reply`
objects. That is the vocabulary of both transports: the one for classic servers translates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from evcache.zones.protocol.packet import Packet
from evcache.zones.transport.in_flight import Waiter

TransportName = Literal["meta", "classic"]
TransportChoice = Literal["auto", "meta", "classic"]
"""Which transport a node gets; `auto`: the one that its server can take, asked on every connect."""


def peers_of(transport: asyncio.BaseTransport | None) -> frozenset[tuple[str, int]]:
    """Return the IP address and port that a socket is connected to; nothing for a unix socket, and without a socket."""
    peer = None if transport is None else transport.get_extra_info("peername")
    return frozenset({(peer[0], peer[1])}) if isinstance(peer, tuple) else frozenset()


class Transport(Protocol):
    """A way to one node that is open, or was.

    The three `request` methods raise `QueueFull` or `ConnectionLost`, with nothing sent, when there is no room or no
    connection, and `Unsupported` for what the server can't do. `deadline` is on the loop's clock. The waiter gets what is
    asked for, or a `NodeError`; giving up (cancelling it) is free, and its reply then goes to nobody.
    """

    name: str
    """The node's label, for errors."""

    @property
    def heard_at(self) -> float:
        """Time of the last byte, on the loop's clock."""
        ...

    @property
    def quiet_since(self) -> float:
        """Time of the last byte, or of the first request since nothing waited, if that is later."""
        ...

    @property
    def renews_itself(self) -> bool:
        """True if it replaces sockets that the network has forgotten by itself. The times of bytes then say nothing."""
        ...

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that it is connected to."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        ...

    @property
    def pending(self) -> int:
        """Requests that have not been answered, given up ones included."""
        ...

    @property
    def unanswered(self) -> int:
        """Requests whose caller still waits."""
        ...

    @property
    def requests(self) -> int:
        """Requests ever sent on it."""
        ...

    def forgive(self) -> None:
        """Count timeouts in a row from the beginning."""
        ...

    async def probe(self, deadline: float) -> None:
        """See whether the server answers. Raises a `NodeError` when it does not by then."""
        ...

    def request(self, line: bytes, waiter: Waiter, deadline: float, data: bytes | None = None) -> None:
        """Send one command; the waiter gets its `Reply`."""
        ...

    def read(self, line: bytes, waiter: Waiter, deadline: float, latest: float) -> None:
        """Send one read that another zone can answer as well; the waiter gets its `Reply`, or early a `NodeSilent`.

        `latest`: when its call ends. While the server is in the middle of a reply, the read waits beyond its deadline.
        """
        ...

    def request_all(self, packet: Packet, waiter: Waiter, deadline: float) -> None:
        """Send the commands of a packet together; the waiter gets the list of their replies."""
        ...

    def request_quietly(self, lines: Sequence[bytes], waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Send several reads; the waiter gets the list of `(index, Reply)` of hits and errors, one for an index.

        `latest`: another zone can answer them as well, and the waiter may get a `NodeSilent` early; when their call ends.
        """
        ...

    def retire(self) -> None:
        """Take no more requests, and close once nobody waits for an answer any more."""
        ...

    def abort(self, why: str = ...) -> None:
        """Close now. Everyone who waits gets `ConnectionLost`. Calling it again does nothing."""
        ...
