"""Results of one packet in several zones, of which nearly all are the usual one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from evcache.zones.errors import CacheError
from evcache.zones.protocol.operations import GuardedStore
from evcache.zones.protocol.replies import Reply


class Connection(Protocol):
    """Connection to one node, as a packet needs it."""

    def guarded_store(self, store: GuardedStore, waiter: Any, deadline: float) -> None:
        """Send the packet of a guarded store. Raises a `CacheError` if it cannot be sent."""
        ...


class Owner(Protocol):
    """Owner of a tally."""

    def advance(self) -> None:
        """Take the usual results: enough zones have one, the last zone has, or a zone was settled before."""
        ...

    def settle(self, zone: str, replies: Any, error: CacheError | None) -> None:
        """Receive the replies of another result, or the error of a packet without replies."""
        ...


Zone = tuple[str, bool, Connection]
"""Zone that gets the packet: its name, True if its result counts towards the decision, and the connection to its node."""


class Tally:
    """Tally of the usual results of one packet. The owner takes them when they decide something."""

    __slots__ = ("_decides", "_is_eager", "_left", "_outcome", "_outcomes", "_owner", "_stored", "_until")

    def __init__(self, owner: Owner, outcomes: dict[str, Any], outcome: Any, wanted: int, decides: int) -> None:
        """Make a tally.

        Args:
            owner: Receiver of what it decides.
            outcomes: Outcomes by zone, which get the usual one at once.
            outcome: The usual one.
            wanted: Number of zones whose usual results the owner waits for, of those that count.
            decides: Index of the command whose reply `HD` is the usual result.
        """
        self._owner = owner
        self._outcomes = outcomes
        self._outcome = outcome
        self._until = wanted
        self._decides = decides
        self._left = 0
        self._is_eager = False  # True once a zone was settled: then only the owner knows what is decided
        self._stored: list[Zone] = []

    def send(self, zones: Sequence[Zone], store: GuardedStore, deadline: float) -> None:
        """Send the packet of a store to each zone. A zone whose packet cannot be sent is settled."""
        self._left = len(zones)
        for zone in zones:
            waiter = PacketWaiter(self, zone)
            try:
                zone[2].guarded_store(store, waiter, deadline)
            except CacheError as error:  # `Unsupported` too: the zones after this one must still get the packet
                waiter.set_exception(error)

    def take(self) -> list[Zone]:
        """Return the zones with the usual result that have not been taken before."""
        stored, self._stored = self._stored, []
        return stored

    def count(self, zone: Zone, replies: Sequence[Reply]) -> None:
        """Count the replies of a zone."""
        name, counts, _ = zone
        self._left -= 1
        if replies[self._decides].status != b"HD":
            self._is_eager = True
            self._owner.settle(name, replies, None)
            return
        self._outcomes[name] = self._outcome
        self._stored.append(zone)
        if counts:
            self._until -= 1
        if self._is_eager or not self._left or (counts and not self._until):
            self._owner.advance()

    def fail(self, zone: Zone, error: CacheError) -> None:
        """Settle a zone whose node did not answer."""
        self._left -= 1
        self._is_eager = True
        self._owner.settle(zone[0], None, error)


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
            self._tally.fail(self._zone, error)
