"""Counter of the bytes on connections."""

from __future__ import annotations


class ByteCounter:
    """Bytes on the connections that share the counter. It outlives them, so its numbers never fall.

    The connections add to it on their event loop, for each write and each read of a socket. Any thread may read it.
    """

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = 0
        """Bytes of requests that socket transports took. They do not include the bytes that TLS and TCP add."""
        self.received = 0
        """Bytes of replies that socket transports delivered, without those of TLS and TCP."""

    def __repr__(self) -> str:
        return f"<ByteCounter sent={self.sent} received={self.received}>"
