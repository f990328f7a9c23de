"""Limits on the requests that wait on one connection."""

from __future__ import annotations

from dataclasses import dataclass

from evcache.zones.errors import QueueFull
from evcache.zones.validation import at_least_one, positive_seconds


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the requests that wait on one connection. Above a limit, a request fails at once with `QueueFull`.

    Calls for many keys wait for room instead (`evcache.replication.lanes`).
    """

    max_pending: int = 16_384
    """Number of requests without a reply. At 100,000 requests per second on one connection, they are 0.16 s of work. That is
    longer than the default read timeout, so a request behind them would time out."""

    max_queued_bytes: int = 64 * 1024 * 1024
    """Bytes of requests that the server has not taken yet: 64 values of the largest default size."""

    silence: float = 5.0
    """Seconds without a byte after which a connection with waiting requests is closed. Otherwise a peer behind a partition,
    or a stopped process, would hold it until TCP gives up after a quarter of an hour. The time is far above the timeout of
    any call, so that a short stall does not cost the connection."""

    patience: float = 0.005
    """Seconds without a byte, beyond two round trips, after which a server with at least three waiting reads counts as
    stalled. Reads then go to another zone until a byte arrives. A server in the same zone answers within a millisecond.
    EVCache moves reads once five wait on a node, whatever their age. A pipeline often has more than five."""

    def refusal(self, pending: int, queued_bytes: int, node: str) -> QueueFull:
        """Return the error for a request that may not wait.

        Args:
            pending: Number of requests that wait already.
            queued_bytes: Number of bytes that wait to be sent.
            node: Label of the node.
        """
        if queued_bytes >= self.max_queued_bytes:
            return QueueFull(f"{queued_bytes} bytes are waiting to be sent already", node)
        return QueueFull(f"{pending} requests are waiting already", node)

    def __post_init__(self) -> None:
        at_least_one(self.max_pending, "max_pending")
        at_least_one(self.max_queued_bytes, "max_queued_bytes")
        positive_seconds(self.silence, "silence")
        positive_seconds(self.patience, "patience")
