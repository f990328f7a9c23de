"""How much may wait on one connection."""

from __future__ import annotations

from dataclasses import dataclass

from evcache.zones.errors import QueueFull
from evcache.zones.validation import at_least_one, positive_seconds


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What may wait on one connection. Over either limit a request fails at once with `QueueFull`.

    Calls for many keys wait for room instead (`evcache.replication.lanes`).
    """

    max_pending: int = 16_384
    """Requests without a reply. At 100,000 requests a second on one connection, 0.16 s of work: longer than the default
    read timeout, so a request queued behind that would time out anyway."""

    max_queued_bytes: int = 64 * 1024 * 1024
    """Request bytes that the server has not taken yet: 64 values of the largest default size."""

    silence: float = 5.0
    """Seconds that requests may wait without a byte arriving before the connection is given up. A peer that vanished
    without a word (a partition, a stopped process) would otherwise hold it until TCP gives up, after a quarter of an
    hour. Well over any timeout of a call, so that a short stall does not cost the connection."""

    patience: float = 0.005
    """Seconds without a byte, beyond two round trips, after which a server is taken to stand still if at least three reads
    wait on it. Reads then go to another zone until a byte arrives. A zone's server answers within a millisecond. EVCache
    moves reads once five wait on a node, whatever their age; a pipeline has more than five in its ordinary state."""

    def refusal(self, pending: int, queued_bytes: int, node: str) -> QueueFull:
        """Return the error for a request that finds so much waiting."""
        if queued_bytes >= self.max_queued_bytes:
            return QueueFull(f"{queued_bytes} bytes are waiting to be sent already", node)
        return QueueFull(f"{pending} requests are waiting already", node)

    def __post_init__(self) -> None:
        at_least_one(self.max_pending, "max_pending")
        at_least_one(self.max_queued_bytes, "max_queued_bytes")
        positive_seconds(self.silence, "silence")
        positive_seconds(self.patience, "patience")
