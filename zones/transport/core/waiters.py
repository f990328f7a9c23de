"""Results of one packet in several zones, of which nearly all are the usual one."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any, Protocol

from evcache.zones.errors import CacheError
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.replies import Reply


class Connection(Protocol):
    """Connection to one node, as a store needs it."""

    def send_store(self, store: EncodedStore, waiter: Any, deadline: float) -> None:
        """Send the store. Raises a `CacheError` if it cannot be sent."""
        ...


class Completion(Protocol):
    """Awaitable of the end of a write, which has no result. An `asyncio.Future` is one."""

    def done(self) -> bool:
        """Return True if it has ended."""
        ...

    def cancelled(self) -> bool:
        """Return True if a caller that waited for it was cancelled before it ended."""
        ...

    def set_result(self, result: None, /) -> None:
        """End it. It must not have ended."""
        ...

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it has ended."""
        ...


class Owner(Protocol):
    """Owner of a tally."""

    def reach(self, stored: list[Zone]) -> None:
        """Note that enough zones have the usual result. `stored` has those that the owner has not been given."""
        ...

    def finish(self, stored: list[Zone]) -> None:
        """Note that all zones have the usual result. `stored` is that of `reach`."""
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
    """Tally of the usual results of one packet. It calls its owner when they decide something."""

    __slots__ = (
        "_is_settled",
        "_outcome",
        "_owner",
        "_pending",
        "_required",
        "_stored",
        "_usual",
        "acknowledged",
        "completion",
        "left",
        "outcomes",
    )

    def __init__(
        self, owner: Owner, loop: asyncio.AbstractEventLoop, required: int, usual: Usual, pending: Any, stored: Any
    ) -> None:
        """Make a tally.

        Args:
            owner: Receiver of what it decides.
            loop: Event loop of the connections.
            required: Number of zones whose usual results the caller waits for, of those that count.
            usual: Statuses of the usual result.
            pending: Outcome of a zone without a result.
            stored: Outcome of a zone with the usual result.
        """
        self.outcomes: dict[str, Any] = {}
        """Outcomes by zone."""
        self.acknowledged = 0
        """Number of zones with the usual result, of those that count."""
        self.left = 0
        """Number of zones without a result."""
        self.completion: Completion = loop.create_future()
        """Done when enough zones have the usual result, or all zones have it. The owner may complete it before. It has no
        result."""
        if not required:
            self.completion.set_result(None)
        self._owner: Owner | None = owner
        self._pending = pending
        self._outcome = stored
        self._required = required
        self._usual = usual
        self._is_settled = False  # True once the owner has received another result
        self._stored: list[Zone] = []

    def send(self, zones: Sequence[Zone], store: EncodedStore, deadline: float) -> None:
        """Send the store to each zone. The owner settles a zone to which it cannot be sent."""
        self.left = len(zones)
        for zone in zones:
            self.outcomes[zone[0]] = self._pending
        for zone in zones:
            waiter = PacketWaiter(self, zone)
            try:
                zone[2].send_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the store
                waiter.set_exception(error)

    def take(self) -> list[Zone]:
        """Return the zones with the usual result that the owner has not been given."""
        stored, self._stored = self._stored, []
        return stored

    def count(self, zone: Zone, replies: Sequence[Reply]) -> None:
        """Count the replies of a zone."""
        if self._is_settled or not self._is_usual(replies):
            self.settle(zone, replies)
            return
        owner = self._owner
        assert owner is not None  # as long as a zone has no result
        self.left -= 1
        name, counts, _, lane = zone
        if lane is not None:
            lane.ended(owner)
        self.outcomes[name] = self._outcome
        self._stored.append(zone)
        if counts:
            self.acknowledged += 1
            # A version that no zone holds must not be noted. So one zone is enough, even if the caller waits for none.
            if self.acknowledged == (self._required or 1):
                owner.reach(self.take())
        if not self.left:
            self._owner = None  # which has a reference to the tally
            owner.finish(self.take())
        if (not self.left or self.acknowledged >= self._required) and not self.completion.done():
            self.completion.set_result(None)

    def _is_usual(self, replies: Sequence[Reply]) -> bool:
        if len(replies) != len(self._usual):
            raise IndexError("a packet has another number of replies")
        for reply, known in zip(replies, self._usual, strict=True):  # a generator would take twice as long
            if known is not None and reply.status not in known:
                return False
        return True

    def settle(self, zone: Zone, answer: Any) -> None:
        """Give the owner another result of a zone."""
        owner = self._owner
        assert owner is not None
        self._is_settled = True
        self.left -= 1
        if not self.left:
            self._owner = None
        owner.settle(zone, answer)


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
