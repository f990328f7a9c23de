"""Conditional writes as objects: each decides on the coordinator's node whether its value is stored there.

An object holds the arguments of one call. `Writer.coordinate` finds the coordinator of the key, looks at the item that its
node holds, and awaits `decide`. The decision is then an ordinary write to the other zones.

`Concat` and `Increment` are in `concat.py` and `increment.py`.
"""

from __future__ import annotations

import math
from typing import Protocol

from evcache.replication.commands.node_requests import Peeked, capabilities_of, get, peek
from evcache.replication.hlc import MAX_CAS, cas_of
from evcache.results import Item, Outcome
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.lifetime import content_of
from evcache.values.ttl import to_exptime
from evcache.writes.conditional.compare_and_set import CompareAndSet, Decision
from evcache.writes.draft import Draft
from evcache.zones.errors import InvalidArgument, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.protocol.replies import read_hit


class ConditionalWrite(Protocol):
    """Write that depends on the item that the coordinator's node holds."""

    @property
    def key(self) -> bytes:
        """Qualified key."""

    @property
    def draft(self) -> Draft | None:
        """Value whose size is checked before anything is sent. None if the size depends on the item."""

    @property
    def peeks_value(self) -> bool:
        """True if `decide` needs the value of the item that was seen."""

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store on the coordinator's node, if the condition of the write holds there.

        If another write changes the item between the look and the store, look again.

        Args:
            stores: Compare-and-set stores of the client.
            zone: Zone of the coordinator.
            node: Node of the key in that zone.
            seen: Item that the node holds. None if it holds none.
            deadline: Time on the loop's clock.

        Returns:
            The decision, or the outcome that names the condition that does not hold.

        Raises:
            NodeError: The node did not answer. It may have stored the value.
            CacheError: The condition cannot be checked.
        """
        ...


class _DraftWrite:
    """Conditional write of a value that is encoded before the call."""

    __slots__ = ("draft",)

    peeks_value = False

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @property
    def key(self) -> bytes:
        """Qualified key."""
        return self.draft.key


class Add(_DraftWrite):
    """Store of a value if the key is absent. A tombstone is an absence."""

    __slots__ = ()

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store the value, or return `NOT_STORED` if the key has a value (see `ConditionalWrite`)."""
        del zone
        while True:
            if seen is not None and not seen.absent:
                return Outcome.NOT_STORED
            decision = await stores.create(node, self.draft, seen, deadline)
            if decision is not None:
                return decision
            seen = await peek(node, self.draft.key, deadline)


class Replace(_DraftWrite):
    """Store of a value if the key is present."""

    __slots__ = ()

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store the value, or return `NOT_STORED` if the key is absent (see `ConditionalWrite`)."""
        del zone
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_STORED
            decision = await stores.replace(node, self.draft, seen, deadline)
            if decision is not None:
                return decision
            seen = await peek(node, self.draft.key, deadline)


class Cas(_DraftWrite):
    """Store of a value over exactly the item that the caller has read."""

    __slots__ = ("expected",)

    def __init__(self, draft: Draft, expected: int | Item) -> None:
        """Make the write.

        Args:
            draft: New value.
            expected: A version, or the item that `get_item` returned.

        Raises:
            InvalidArgument: `expected` is neither.
        """
        super().__init__(draft)
        if isinstance(expected, bool) or not isinstance(expected, int | Item):
            raise InvalidArgument("expected", f"a version or an Item is needed, not {expected!r}")
        if isinstance(expected, int) and not 0 <= expected <= MAX_CAS:
            raise InvalidArgument("expected", f"{expected} is not a number of 64 bits")
        self.expected = expected

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store the value, or return `NOT_FOUND` or `EXISTS` (see `ConditionalWrite`).

        Raises:
            InvalidArgument: The item has no version, and was read in another zone.
            Unsupported: The server is run without CAS.
        """
        compare = self._compare(stores, zone, node)
        # An int may be the version of a delete, and a deleted key is absent.
        if seen is None or seen.absent:
            return Outcome.NOT_FOUND
        if seen.cas != compare:
            return Outcome.EXISTS
        decision = await stores.replace(node, self.draft, seen, deadline)
        if decision is not None:
            return decision
        seen = await peek(node, self.draft.key, deadline)
        return Outcome.NOT_FOUND if seen is None or seen.absent else Outcome.EXISTS

    def _compare(self, stores: CompareAndSet, zone: str, node: Node) -> int:
        """Return the CAS that the item must have on this node."""
        expected = self.expected
        if not capabilities_of(node).cas:
            raise Unsupported("cas (the server is run without CAS)", node.label)
        versioned = stores.is_versioned(node)
        if isinstance(expected, int):
            # Later checks use `is None`, because 0 is a valid token to compare with.
            return cas_of(expected) if versioned else expected
        if versioned and expected.version is not None:
            return cas_of(expected.version)
        if expected.zone != zone:
            raise InvalidArgument(
                "expected",
                f"the item has no version and was read in zone {expected.zone}, while {zone} decides about this key:"
                " read it with get_item(key, for_update=True)",
            )
        return expected.cas_token


class Renew:
    """Touch of a value in an envelope: the envelope is stored again, with the times of a lifetime that begins now."""

    __slots__ = ("key", "ttl")

    draft = None
    peeks_value = False

    def __init__(self, key: bytes, ttl: float) -> None:
        """Make the write. `ttl`: seconds that the value is fresh."""
        self.key = key
        self.ttl = ttl

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store the value again, or return `NOT_FOUND` if there is none (see `ConditionalWrite`)."""
        key, ttl = self.key, self.ttl
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_FOUND
            hit = read_hit(await get(node, key, COPY_FIELDS, deadline))
            if hit is not None and hit.cas == seen.cas:
                now = stores.unix_time()
                content = content_of(hit, None, now, key=key, zone=zone)
                life = content.life
                if hit.flags != FLAG_ENVELOPE:
                    draft = Draft(key, hit.value, hit.flags, to_exptime(ttl, now))
                elif life.expires_at <= now:
                    return Outcome.NOT_FOUND  # plain reads miss it
                else:
                    # The server keeps the item for longer than the value is fresh. The difference stays.
                    kept = math.inf if hit.ttl is None or hit.ttl < 0 else max(0.0, now + hit.ttl - life.expires_at)
                    stale = life.stale_until - life.expires_at
                    envelope = Envelope(content.data, content.flags, now, now + ttl, now + ttl + stale, life.load_seconds)
                    draft = Draft(key, wrap(envelope), FLAG_ENVELOPE, to_exptime(ttl + kept, now))
                decision = await stores.replace(node, draft, seen, deadline)
                if decision is not None:
                    return decision
            seen = await peek(node, key, deadline)
