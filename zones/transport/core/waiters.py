"""Results of one packet in several zones, of which nearly all are the usual one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from evcache.zones.errors import CacheError
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.replies import Reply


class Connection(Protocol):
    """Connection to one node, as a store needs it."""

    def send_store(self, store: EncodedStore, waiter: Any, deadline: float) -> None:
        """Send the store. Raises a `CacheError` if it cannot be sent."""
        ...


class Owner(Protocol):
    """Owner of a tally."""

    def advance(self, tally: Tally) -> None:
        """Take the usual results: enough zones have one, or the last zone has."""
        ...

    def settle(self, zone: Zone, answer: Any) -> None:
        """Receive the replies of another result, or the `CacheError` of a packet without replies.

        The owner then receives the results of all zones that follow, because only the owner knows what is decided. The
        place of such a zone in its lane belongs to the owner.
        """
        ...


Zone = tuple[str, bool, Connection, Any]
"""Zone that gets the packet: its name, True if its result counts towards the decision, and the connection to its node.

The fourth item is the lane in which the packet has a place, or None. The usual result frees it by `lane.ended(owner)`.
"""

Usual = Sequence[frozenset[bytes] | None]
"""Statuses of each reply of the usual result. None if the reply does not matter."""


class Tally:
    """Tally of the usual results of one packet. The owner takes them when they decide something."""

    __slots__ = (
        "_is_settled",
        "_outcome",
        "_owner",
        "_pending",
        "_stored",
        "_usual",
        "_wanted",
        "acknowledged",
        "left",
        "outcomes",
    )

    def __init__(self, owner: Owner, wanted: int, usual: Usual, pending: Any, stored: Any) -> None:
        """Make a tally.

        Args:
            owner: Receiver of what it decides.
            wanted: Number of zones whose usual results the owner waits for, of those that count.
            usual: Statuses of the usual result.
            pending: Outcome of a zone without a result.
            stored: Outcome of a zone with the usual result.
        """
        self.outcomes: dict[str, Any] = {}
        """Outcomes by zone."""
        self.acknowledged = 0
        """Number of zones with the usual result, of those that count."""
        self.left = 0
        """Number of zones without the usual result."""
        self._owner = owner
        self._pending = pending
        self._outcome = stored
        self._wanted = wanted
        self._usual = usual
        self._is_settled = False  # True once the owner has received another result
        self._stored: list[Zone] = []

    def send(self, zones: Sequence[Zone], store: EncodedStore, deadline: float) -> None:
        """Send the store to each zone. The owner settles a zone to which it cannot be sent."""
        self.left = len(zones)
        self.outcomes.update((zone[0], self._pending) for zone in zones)
        for zone in zones:
            waiter = PacketWaiter(self, zone)
            try:
                zone[2].send_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the store
                waiter.set_exception(error)

    def take(self) -> list[Zone]:
        """Return the zones with the usual result that have not been taken before."""
        stored, self._stored = self._stored, []
        return stored

    def count(self, zone: Zone, replies: Sequence[Reply]) -> None:
        """Count the replies of a zone."""
        if self._is_settled or not self._is_usual(replies):
            self.settle(zone, replies)
            return
        self.left -= 1
        name, counts, _, lane = zone
        if lane is not None:
            lane.ended(self._owner)
        self.outcomes[name] = self._outcome
        self._stored.append(zone)
        if counts:
            self.acknowledged += 1
        if not self.left or (counts and self.acknowledged == self._wanted):
            self._owner.advance(self)

    def _is_usual(self, replies: Sequence[Reply]) -> bool:
        if len(replies) != len(self._usual):
            raise IndexError("a packet has another number of replies")
        return all(known is None or reply.status in known for reply, known in zip(replies, self._usual, strict=True))

    def settle(self, zone: Zone, answer: Any) -> None:
        """Give the owner another result of a zone."""
        self._is_settled = True
        self._owner.settle(zone, answer)


class PacketWaiter:
    """Waiter of one zone's packet."""

    __slots__ = ("_done", "_tally", "_zone")

    def __init__(self, tally: Tally, zone: Zone) -> None:
        self._tally = tally
        self._zone = zone
        self._done = False

    def done(self) -> bool:
        """Return True if there is a result."""
        return self._done

    def set_result(self, replies: Sequence[Reply], /) -> None:
        """Count the result of the packet."""
        if not self._done:
            self._done = True
            self._tally.count(self._zone, replies)

    def set_exception(self, error: CacheError, /) -> None:
        """Settle the zone."""
        if not self._done:
            self._done = True
            self._tally.settle(self._zone, error)
