"""Requests that deliver one hint to a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evcache.replication.commands.command import execute
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.commands.touch import remove_version, touch_version
from evcache.replication.handoff.hints import Hint, Kind
from evcache.replication.hlc import HybridLogicalClock
from evcache.results import Outcome
from evcache.values.ttl import exptime_sent_again
from evcache.zones.nodes.node import Node

# Seconds for one delivery.
DELIVERY_TIMEOUT_SECONDS = 1.0


def exptime_at_delivery(hint: Hint, now: float) -> int | None:
    """Return the exptime that remains at the end of a delivery, or None if the item has expired by then."""
    return exptime_sent_again(hint.ttl, now - hint.made_at + DELIVERY_TIMEOUT_SECONDS)


def has_expired(hint: Hint, now: float) -> bool:
    """Return True for a set whose value would have expired at the end of its delivery."""
    return hint.kind is Kind.SET and exptime_at_delivery(hint, now) is None


async def send_hint(hint: Hint, node: Node, hlc: HybridLogicalClock, now: float, deadline: float) -> Outcome:
    """Send a delete, a set that has not expired, or a touch.

    Args:
        hint: The hint.
        node: Node of its zone that holds the key.
        hlc: Clock of the client.
        now: Unix time in seconds.
        deadline: Time on the loop's clock.

    Returns:
        `STORED` if the node has changed the item. `SUPERSEDED` if it holds a newer version.

    Raises:
        NodeError: The node did not answer.
    """
    if hint.kind is Kind.DELETE:  # a tombstone gets its full TTL
        return await execute(DeleteCommand(hlc, hint.key, ttl=hint.ttl, version=hint.version), node, deadline)
    exptime = exptime_at_delivery(hint, now)
    if hint.kind is Kind.SET:
        assert exptime is not None
        store = StoreCommand(hlc, hint.key, hint.data, hint.flags, ttl=exptime, version=hint.version)
        return await execute(store, node, deadline)
    if exptime is None:
        outcome = await remove_version(node, hint.key, hint.version, deadline)
    else:
        outcome = await touch_version(node, hint.key, hint.version, exptime, deadline)
    return outcome if outcome is Outcome.STORED else Outcome.SUPERSEDED


def batches(hints: Iterator[tuple[Hint, Node] | None], size: int) -> Iterator[Sequence[tuple[Hint, Node]]]:
    """Yield the hints in batches of this size. A None ends a batch early, which may be empty."""
    batch: list[tuple[Hint, Node]] = []
    for pair in hints:
        if pair is not None:
            batch.append(pair)
        if pair is None or len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
