"""Former behaviour of the product, before single fixes: replacements for the table in `without.py`.

Each function takes the present function and returns the former one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from evcache.replication.commands.node_requests import peek, touch
from evcache.replication.commands.touch import TouchCommand
from evcache.replication.handoff.delivery import has_expired
from evcache.replication.handoff.hints import Hint, Kind
from evcache.results import Outcome
from evcache.values.flags import FLAG_INT, FLAG_STR, FLAG_TOMBSTONE
from evcache.values.ttl import NEVER, to_exptime
from evcache.writes.conditional.compare_and_set import Decision
from evcache.writes.conditional.increment import count_by_arrival
from evcache.writes.draft import Draft
from evcache.zones.protocol.operations import EncodedStore, three_copies
from evcache.zones.protocol.replies import number
from evcache.zones.transport.core.selected import Core

LONGEST_TTL_SECONDS = 5.0
"""Return the lifetime of a delete's hint: the longest ttl that the deleting client had used."""


def exptime_of_copy(_: object) -> Callable[[int, float, float], int | None]:
    """Give each copy at least a second. Copies that go back and forth then never end."""

    def exptime_of_copy(remaining: int, spent: float, now: float) -> int | None:
        del spent
        return NEVER if remaining < 0 else to_exptime(max(1, remaining), now)

    return exptime_of_copy


def look(_: object) -> Callable[..., Any]:
    """Decide on what the deciding zone holds."""

    async def look(
        _self: Any, _view: Any, key: bytes, _pool: Any, node: Any, deadline: float, *, value: bool = False
    ) -> Any:
        return await peek(node, key, deadline, value=value)

    return look


def count(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let the server count, and send its number to the other zones without a version."""

    async def decide(self: Any, stores: Any, zone: str, node: Any, seen: Any, deadline: float) -> Any:
        flags = FLAG_INT if stores.versions else FLAG_STR
        if seen is not None and not seen.absent and seen.flags == flags:
            counted = await count_by_arrival(node, self.key, self.delta, deadline, decrement=self.decrement)
            if counted is not None:
                ttl = self.ttl if counted.ttl is None else to_exptime(max(1, counted.ttl), stores.unix_time())
                return Decision(stores.copy(Draft(self.key, counted.digits, flags, ttl), None), int(counted.digits))
        decision = await original(self, stores, zone, node, seen, deadline)
        if isinstance(decision, Decision) and decision.store is not None:
            store = decision.store
            return decision._replace(store=stores.copy(Draft(self.key, store.data, store.flags, store.ttl), None))
        return decision

    return decide


def settle_touch(_: object) -> Callable[..., Any]:
    """Touch what is there, and give a tombstone its own time back afterwards."""

    async def peek_and_apply(self: TouchCommand, node: Any, deadline: float) -> Outcome:
        reply = await touch(node, self.key, self.ttl, deadline)
        if reply.status != b"HD":
            return Outcome.NOT_FOUND
        if number(reply, b"f") != FLAG_TOMBSTONE:
            return Outcome.STORED
        await touch(node, self.key, 60, deadline)
        return Outcome.NOT_FOUND

    return peek_and_apply


def put_hint(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give the hint of a delete an end: the client's own longest ttl from now."""

    def put_hint(self: Any, hint: Hint) -> Any:
        if hint.kind is Kind.DELETE and math.isinf(hint.expires_at):
            hint = hint._replace(expires_at=self._unix_time() + LONGEST_TTL_SECONDS)
        return original(self, hint)

    return put_hint


def deliver_delete(original: Callable[..., Any]) -> Callable[..., Any]:
    """Drop the hint of a delete whose end has passed."""

    async def deliver_delete(self: Any, view: Any, hint: Hint, node: Any) -> Any:
        if hint.kind is Kind.DELETE and hint.expires_at <= self._unix_time():
            self._end(hint, "expired")
            return True
        return await original(self, view, hint, node)

    return deliver_delete


def deliver(original: Callable[..., Any]) -> Callable[..., Any]:
    """Drop a hint whose item has expired."""

    async def deliver(self: Any, view: Any, hint: Hint, node: Any) -> Any:
        if has_expired(hint, self._unix_time()):
            self._end(hint, "expired")
            return True
        return await original(self, view, hint, node)

    return deliver


def store_copy(original: Callable[..., Any]) -> Callable[..., Any]:
    """Repair a zone without an invalidation of its older version."""

    async def store_copy(self: Any, *arguments: Any, **named: Any) -> Any:
        on_repaired, self._on_repaired = self._on_repaired, None
        try:
            return await original(self, *arguments, **named)
        finally:
            self._on_repaired = on_repaired

    return store_copy


def core_that_sends_three_copies(original: Core) -> Core:
    """Send a value of any size three times in a guarded store."""

    def guarded_store(key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int) -> EncodedStore:
        return EncodedStore(key, data, flags, exptime, cas, three_copies(key, data, flags, exptime, cas, stub))

    return original._replace(guarded_store=guarded_store)
