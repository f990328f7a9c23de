"""Conditional writes in the coordinator's zone: `add`, `replace`, `cas`, `append`, `prepend`, `incr`, `decr`.

Each method takes what the coordinator's zone was seen to hold. It talks to the zone's node until it has an answer, or the
deadline ends it, and returns either a `Decision`, with the write for the other zones, or the outcome that says no.

A counter is an int like any other: each step has a version, is decided by compare in the one zone, and copied as a write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from evcache.errors import DecodeError
from evcache.replication.guarded_store import NAMING_LOOKS, NAMING_PAUSE_SECONDS, StoreCommand
from evcache.replication.hlc import NOT_A_VERSION, HybridLogicalClock, cas_of
from evcache.replication.node_requests import Peeked, capabilities_of, peek, send_request
from evcache.replication.read_repair import REPAIR_TIMEOUT_SECONDS
from evcache.results import Item, Outcome
from evcache.values.codec import FLAG_ENVELOPE, FLAG_INT, FLAG_STR, Codec
from evcache.values.envelope import Envelope, wrap
from evcache.values.lifetime import content_of
from evcache.values.ttl import NEVER, TTL_GRANULARITY_SECONDS, exptime_of_copy, to_exptime
from evcache.writes.coordinator import Coordinator, Decision, Draft
from evcache.writes.counting import Counted, count, count_by_arrival
from evcache.zones.errors import InvalidArgument, ServerError, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import Hit, Reply, read_hit, unexpected


class Atomic:
    """The conditional writes of one client."""

    def __init__(
        self,
        coordinator: Coordinator,
        clock: HybridLogicalClock,
        codec: Codec,
        now: Callable[[], float],
        *,
        versions: bool,
    ) -> None:
        """`versions`: whether this client's writes have them. `now`: unix time."""
        self._coordinator = coordinator
        self._clock = clock
        self._codec = codec
        self._now = now
        # Other kinds of clients store counters as text.
        self._counter_flags = FLAG_INT if versions else FLAG_STR

    async def add(self, node: Node, draft: Draft, seen: Peeked | None, deadline: float) -> Decision | Outcome:
        """Store where nothing is; a tombstone is nothing."""
        while True:
            if seen is not None and not seen.absent:
                return Outcome.NOT_STORED
            decided = await self._create(node, draft, seen, deadline)
            if decided is not None:
                return decided
            seen = await peek(node, draft.key, deadline)

    async def replace(self, node: Node, draft: Draft, seen: Peeked | None, deadline: float) -> Decision | Outcome:
        """Store over something."""
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_STORED
            decided = await self._over(node, draft, seen, deadline)
            if decided is not None:
                return decided
            seen = await peek(node, draft.key, deadline)

    async def cas(
        self, zone: str, node: Node, draft: Draft, expected: int | Item, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Store over exactly the item that was read."""
        compare = self._compare(zone, node, expected)
        # An int may be the version of a delete, and a deleted key is absent.
        if seen is None or seen.absent:
            return Outcome.NOT_FOUND
        if seen.cas != compare:
            return Outcome.EXISTS
        decided = await self._over(node, draft, seen, deadline)
        if decided is not None:
            return decided
        seen = await peek(node, draft.key, deadline)
        return Outcome.NOT_FOUND if seen is None or seen.absent else Outcome.EXISTS

    def _compare(self, zone: str, node: Node, expected: int | Item) -> int:
        capabilities = capabilities_of(node)
        if not capabilities.cas:
            raise Unsupported("cas (the server is run without CAS)", node.label)
        versioned = self._coordinator.is_versioned(node)
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

    async def join(
        self,
        zone: str,
        node: Node,
        key: bytes,
        extra: str | bytes,
        seen: Peeked | None,
        deadline: float,
        *,
        before: bool,
        ttl: int,
    ) -> Decision | Outcome:
        """Put more in front of, or behind, a str or bytes value. Its time to live stays what it was.

        `ttl`, as it goes on the wire, is for the copies in other zones where the server can't tell what that was.
        """
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_STORED
            asked_at = asyncio.get_running_loop().time()
            hit = read_hit(await send_request(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))
            if hit is None or hit.cas != seen.cas:
                seen = await peek(node, key, deadline)
                continue  # the item was written, or expired, after the look
            if hit.flags == FLAG_ENVELOPE:  # what comes out of it is a value like any other, for as long as it is fresh
                content = content_of(hit, None, self._now(), key=key, zone=zone)
                left = math.floor(content.life.expires_at - self._now())
                if left <= 0:
                    return Outcome.NOT_STORED
                hit = hit._replace(value=content.data, flags=content.flags, ttl=left + TTL_GRANULARITY_SECONDS)
            old = self._joinable(key, zone, hit, extra)
            more = _plain(extra)
            is_plain = hit.value == _plain(old)
            if is_plain:
                data, flags = (more + hit.value if before else hit.value + more), hit.flags
            else:
                data, flags = self._codec.encode(extra + old if before else old + extra)
            exptime = ttl if hit.ttl is None else self._exptime_of_copies(hit.ttl, asked_at, deadline)
            draft = Draft(key, data, flags, exptime)
            if hit.ttl is None:
                return await self._join_there(node, draft, hit, more, deadline, before=before, is_plain=is_plain)
            if seen.flags != FLAG_ENVELOPE and is_plain:
                # The server joins the bytes itself, which keeps the time to live exactly.
                mode: requests.StoreMode = "prepend" if before else "append"
                decided = await self._over(node, draft, seen, deadline, sent=more, mode=mode)
            else:
                decided = await self._over(node, draft, seen, deadline)
            if decided is not None:
                return decided
            seen = await peek(node, key, deadline)

    async def _join_there(
        self, node: Node, draft: Draft, hit: Hit, more: bytes, deadline: float, *, before: bool, is_plain: bool
    ) -> Decision | Outcome:
        """Join on a server that can't tell the time to live, and compares no joins."""
        if not is_plain:  # behind a compressed value the bytes would be lost, or make it unreadable
            raise Unsupported("joining to a compressed value", node.label)
        if len(draft.data) > capabilities_of(node).largest_value(draft.key):
            return Outcome.NOT_STORED
        mode: requests.StoreMode = "prepend" if before else "append"
        line = requests.meta_set(draft.key, len(more), ttl=0, flags=hit.flags, mode=mode)
        reply = await send_request(node, line, deadline, more)
        if reply.status == b"NS":
            return Outcome.NOT_STORED
        if reply.status != b"HD":
            return _refusal(reply)
        # The other zones get the present value, which may contain later joins of other clients.
        joined = read_hit(await send_request(node, requests.meta_get(draft.key), deadline))
        if joined is None:
            return Outcome.NOT_STORED  # evicted, or expired
        return Decision(self._copy(draft._replace(data=joined.value, flags=joined.flags), None))

    def _joinable(self, key: bytes, zone: str, hit: Hit, extra: str | bytes) -> Any:
        """Return the value that is there, a str if `extra` is one, and bytes if it is bytes."""
        try:
            value = self._codec.decode(hit.value, hit.flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=key, zone=zone, flags=hit.flags) from error
        if type(value) is not type(extra):
            kinds = f"{type(extra).__name__} to a {type(value).__name__}"
            raise InvalidArgument("value", f"can't join a {kinds}: both must be str, or both bytes")
        return value

    async def renew(
        self, zone: str, node: Node, key: bytes, ttl: float, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Write an envelope again with the times of a life that begins now, as a touch does for other values."""
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_FOUND
            hit = read_hit(await send_request(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))
            if hit is not None and hit.cas == seen.cas:
                now = self._now()
                content = content_of(hit, None, now, key=key, zone=zone)
                life = content.life
                if hit.flags != FLAG_ENVELOPE:
                    draft = Draft(key, hit.value, hit.flags, to_exptime(ttl, now))
                elif life.expires_at <= now:
                    return Outcome.NOT_FOUND  # to a plain read there is nothing
                else:
                    # The server keeps it for longer than it is fresh, and goes on to do so by as much.
                    kept = math.inf if hit.ttl is None or hit.ttl < 0 else max(0.0, now + hit.ttl - life.expires_at)
                    stale = life.stale_until - life.expires_at
                    envelope = Envelope(content.data, content.flags, now, now + ttl, now + ttl + stale, life.load_seconds)
                    draft = Draft(key, wrap(envelope), FLAG_ENVELOPE, to_exptime(ttl + kept, now))
                decided = await self._over(node, draft, seen, deadline)
                if decided is not None:
                    return decided
            seen = await peek(node, key, deadline)

    async def count(
        self,
        node: Node,
        key: bytes,
        delta: int,
        seen: Peeked | None,
        deadline: float,
        *,
        decrement: bool,
        initial: int | None,
        ttl: int,
    ) -> Decision | Outcome:
        """Move a counter, an int from 0 to 2^64-1. `NOT_FOUND` when there is none and no `initial`.

        `ttl`, as it goes on the wire, is for a counter that is made, and for the copies in other zones where the server
        can't tell how long it lives.

        Raises:
            ServerError: The value is not a counter.
        """
        looks = 0
        while True:
            if seen is None or seen.absent:
                if initial is None:
                    return Outcome.NOT_FOUND
                draft = Draft(key, b"%d" % initial, self._counter_flags, ttl)
                decided = await self._create(node, draft, seen, deadline)
                if decided is not None:
                    return decided._replace(value=initial) if isinstance(decided, Decision) else decided
            elif seen.flags != self._counter_flags:
                raise ServerError(f"{key!r} holds a value that is not a counter", node.label)
            elif seen.value is None:
                pass  # what is about to expire in another zone can't be counted here
            elif self._coordinator.is_versioned(node) and seen.cas < NOT_A_VERSION and looks < NAMING_LOOKS:
                looks += 1
                await asyncio.sleep(NAMING_PAUSE_SECONDS)
            else:
                asked_at = asyncio.get_running_loop().time()
                counted: Counted | None
                if self._coordinator.is_versioned(node):
                    after = partial(self._version_after, seen.cas)
                    counted = await count(node, key, delta, seen, after, deadline, decrement=decrement)
                else:
                    counted = await count_by_arrival(node, key, delta, deadline, decrement=decrement)
                if counted is not None:
                    return Decision(self._copy_of(key, counted, ttl, asked_at, deadline), int(counted.digits))
            seen = await peek(node, key, deadline, value=True)

    def _copy_of(self, key: bytes, counted: Counted, ttl: int, asked_at: float, deadline: float) -> StoreCommand | None:
        """Return the store of a counter for the other zones: the step, or the write that followed it."""
        found = counted.followed_by
        if found is None:
            left = counted.ttl
            exptime = ttl if left is None else self._exptime_of_copies(left, asked_at, deadline)
            return self._copy(Draft(key, counted.digits, self._counter_flags, exptime), counted.version)
        version = self._clock.version_of(found.cas)
        if version is None or found.ttl is None or found.value is None:
            return None
        data = found.value.rstrip(b" ") if found.flags == FLAG_INT else found.value
        return self._copy(Draft(key, data, found.flags, self._exptime_of_copies(found.ttl, asked_at, deadline)), version)

    def _exptime_of_copies(self, left: int, asked_at: float, deadline: float) -> int:
        """Return the exptime for the other zones of an item that keeps its time to live.

        Of what has two seconds left, and so no time for a copy, the other zones get one second: what they hold is older, and
        would be read for as long. Such a copy is copied nowhere, so that it ends a second late at the most.
        A zone that takes longer than a second to store the copy counts its time from then, as that of any write.
        """
        now = asyncio.get_running_loop().time()
        spent = now - asked_at + min(REPAIR_TIMEOUT_SECONDS, max(0.0, deadline - now))
        return exptime_of_copy(left, spent, self._now()) or (NEVER if left < 0 else 1)

    def _copy(self, draft: Draft, version: int | None) -> StoreCommand:
        """Return the store for the other zones."""
        store = StoreCommand(self._clock, draft.key, draft.data, draft.flags, ttl=draft.ttl, version=version)
        store.carried = version is not None
        store.believed = version is None or self._clock.believes(version)
        return store

    def _version_after(self, cas: int | None) -> int:
        """Return a version that is newer than all that were seen, and than the item with this CAS, believed or not."""
        return self._clock.next(0 if cas is None else self._clock.version_on_server(cas) or 0)

    async def _create(self, node: Node, draft: Draft, seen: Peeked | None, deadline: float) -> Decision | Outcome | None:
        """Store where nothing is, or over an absence that was seen; None when that has changed."""
        if seen is not None:
            return await self._over(node, draft, seen, deadline)
        return await self._compared(node, draft, deadline, mode="add")

    async def _over(
        self,
        node: Node,
        draft: Draft,
        seen: Peeked,
        deadline: float,
        *,
        sent: bytes | None = None,
        mode: requests.StoreMode = "set",
    ) -> Decision | Outcome | None:
        """Store over what was seen; None when it is not there any more. `sent`: the bytes to send, if not all of them."""
        if not capabilities_of(node).cas:
            raise Unsupported("writes that compare (the server is run without CAS)", node.label)
        return await self._compared(node, draft, deadline, compare=seen.cas, sent=sent, mode=mode)

    async def _compared(
        self,
        node: Node,
        draft: Draft,
        deadline: float,
        *,
        compare: int | None = None,
        sent: bytes | None = None,
        mode: requests.StoreMode,
    ) -> Decision | Outcome | None:
        if len(draft.data) > capabilities_of(node).largest_value(draft.key):
            return Outcome.NOT_STORED  # the server would delete what it has under the key, and then refuse
        version = self._version_after(compare) if self._coordinator.is_versioned(node) else None
        data = draft.data if sent is None else sent
        line = requests.meta_set(
            draft.key,
            len(data),
            ttl=draft.ttl,
            flags=draft.flags,
            mode=mode,
            compare=compare,
            cas=None if version is None else cas_of(version),
        )
        reply = await send_request(node, line, deadline, data)
        if reply.status == b"HD":
            return Decision(self._copy(draft, version))
        if reply.status in (b"EX", b"NF", b"NS"):
            return None
        return _refusal(reply)


def _plain(value: str | bytes) -> bytes:
    """Return the bytes that a codec without any transformation writes for a str or bytes value."""
    return value.encode() if isinstance(value, str) else value


def _refusal(reply: Reply) -> Outcome:
    if reply.status == b"SERVER_ERROR":
        return Outcome.NOT_STORED
    raise unexpected(reply)
