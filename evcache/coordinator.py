"""Writes that depend on what is there: `add`, `replace`, `cas`, `append`, `prepend`, `incr`, `decr`.

If every zone decided for itself, two callers could both win, each in another zone. So one zone decides: the *coordinator* of
the key, the same for every client as long as it is healthy. What it decided is then an ordinary write to the others.

`Coordinator.elect` says which zone it is. Each of the other methods talks to that zone's node until it has an answer, or the
deadline ends it, and returns either a `Store` that the other zones are sent, or the outcome that says no.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from evcache.answers import ABSENCES, Found
from evcache.codec import FLAG_ENVELOPE, Codec
from evcache.commands import Seen, Store, ask, capabilities_of, inspect
from evcache.errors import CacheUnavailable, DecodeError
from evcache.life import content_of
from evcache.results import Item, Outcome
from evcache.ttl import copied
from evcache.versions import VersionClock, cas_of
from zones.cluster import View
from zones.errors import CacheError, InvalidArgument, NodeError, ServerError, Unsupported
from zones.node import Node
from zones.pool import ZonePool
from zones.protocol import requests
from zones.protocol.replies import Hit, Reply, decimal, read_hit, token, unexpected

MAX_COUNTER = 2**64 - 1  # memcached's counters are unsigned 64-bit numbers


class Draft(NamedTuple):
    """A value that is ready to be stored but for its version, which the coordinator's node may have a say in."""

    key: bytes
    data: bytes
    flags: int
    ttl: int
    """As it goes on the wire."""


class Coordinator:
    """How one client has a zone decide."""

    def __init__(self, clock: VersionClock, codec: Codec, now: Callable[[], float], *, versions: bool) -> None:
        self._clock = clock
        self._codec = codec
        self._now = now
        self._versions = versions

    async def elect(self, operation: str, view: View, key: bytes, deadline: float) -> tuple[ZonePool, Node]:
        """The zone that decides about a key now: the first in the key's order that can be reached.

        Raises `CacheUnavailable` when none can.
        """
        place = view.place(key)
        failures: dict[str, CacheError] = {}
        pools = view.coordinators(key)
        loop = asyncio.get_running_loop()
        for index, pool in enumerate(pools):
            node = pool.node(place)
            until = loop.time() + (deadline - loop.time()) / (len(pools) - index)
            try:
                await node.connected(until)
            except NodeError as error:  # nothing was sent, so the next zone may decide
                failures[pool.name] = error
            else:
                return pool, node
        raise CacheUnavailable(operation, failures)

    def store(self, draft: Draft, node: Node | None = None) -> Store:
        """The draft with a version that is newer than all that this client has seen; without one where there are none."""
        versioned = self._versions and (node is None or capabilities_of(node).versions)
        return Store(
            self._clock,
            draft.key,
            draft.data,
            draft.flags,
            ttl=draft.ttl,
            version=self._clock.next() if versioned else None,
        )

    async def add(self, node: Node, draft: Draft, deadline: float) -> Store | Outcome:
        """Store where nothing is; a tombstone is nothing."""
        while True:
            store = self.store(draft, node)
            reply = await self._send(node, store, deadline, mode="add")
            if reply is None:
                return Outcome.NOT_STORED
            if reply.status == b"HD":
                return store
            if reply.status != b"NS":
                return _refusal(reply)
            seen = await inspect(node, draft.key, deadline)
            if seen is None:
                continue  # it expired meanwhile
            if not seen.absent:
                return Outcome.NOT_STORED
            decided = await self._over(node, draft, seen, deadline)
            if decided is not None:
                return decided

    async def replace(self, node: Node, draft: Draft, deadline: float) -> Store | Outcome:
        """Store over something."""
        while True:
            seen = await inspect(node, draft.key, deadline)
            if seen is None or seen.absent:
                return Outcome.NOT_STORED
            decided = await self._over(node, draft, seen, deadline)
            if decided is not None:
                return decided

    async def cas(self, zone: str, node: Node, draft: Draft, expected: int | Item, deadline: float) -> Store | Outcome:
        """Store over exactly the item that was read."""
        compare = self._compare(zone, node, expected)
        if isinstance(expected, int):
            # It may be the version of a delete, and a deleted key is absent. An Item never is one.
            seen = await inspect(node, draft.key, deadline)
            if seen is None or seen.absent:
                return Outcome.NOT_FOUND
        self._clock.version_of(compare)  # so that ours is newer than what it replaces
        store = self.store(draft, node)
        reply = await self._send(node, store, deadline, compare=compare)
        if reply is None:
            return Outcome.NOT_STORED
        if reply.status == b"HD":
            return store
        if reply.status == b"EX":
            seen = await inspect(node, draft.key, deadline)
            return Outcome.NOT_FOUND if seen is None or seen.absent else Outcome.EXISTS
        if reply.status == b"NF":
            return Outcome.NOT_FOUND
        return _refusal(reply)

    def _compare(self, zone: str, node: Node, expected: int | Item) -> int:
        capabilities = capabilities_of(node)
        if not capabilities.cas:
            raise Unsupported("cas (the server is run without CAS)", node.label)
        versioned = self._versions and capabilities.versions
        if isinstance(expected, int):
            # By `is None` all the way down: a token of 0 is compared with, like any other.
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
        self, zone: str, node: Node, key: bytes, extra: Any, deadline: float, *, before: bool, ttl: int
    ) -> Store | Outcome:
        """Put more in front of, or behind, a str or bytes value. Its time to live stays what it was.

        `ttl`, as it goes on the wire, is for the copies in other zones where the server can't tell what that was.
        """
        while True:
            hit = read_hit(await ask(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))
            content = None if hit is None else content_of(Found(hit, zone, None), self._now(), key)
            if hit is None or content is None or hit.leased or hit.flags in ABSENCES:
                return Outcome.NOT_STORED
            if hit.flags == FLAG_ENVELOPE:  # what comes out of it is a value like any other, for as long as it is fresh
                left = math.floor(content.life.expires_at - self._now())
                if left <= 0:
                    return Outcome.NOT_STORED
                hit = hit._replace(value=content.data, flags=content.flags, ttl=left)
            try:
                value = self._codec.decode(hit.value, hit.flags)
            except DecodeError as error:
                raise DecodeError(error.problem, key=key, zone=zone, flags=hit.flags) from error
            if type(value) is not type(extra):
                kinds = f"{type(extra).__name__} to a {type(value).__name__}"
                raise InvalidArgument("value", f"can't join a {kinds}: both must be str, or both bytes")
            if hit.ttl is None:
                return await self._join_there(node, Draft(key, _plain(value), hit.flags, ttl), hit, extra, deadline, before)
            data, flags = self._codec.encode(extra + value if before else value + extra)
            draft = Draft(key, data, flags, copied(hit.ttl, self._now()))
            self._clock.version_of(hit.cas)
            decided = await self._over(node, draft, Seen(hit.flags, hit.cas, hit.ttl, absent=False), deadline)
            if decided is not None:
                return decided

    async def _join_there(
        self,
        node: Node,
        draft: Draft,
        hit: Hit,
        extra: Any,
        deadline: float,
        before: bool,  # noqa: FBT001  # passed on as it is
    ) -> Store | Outcome:
        # The server joins the bytes itself, which alone keeps a time to live that it can't tell. So they must be the value
        # as it is: behind a compressed one they would be lost, or make it unreadable.
        if hit.value != draft.data:
            raise Unsupported("joining to a compressed value", node.label)
        more = _plain(extra)
        if len(hit.value) + len(more) > capabilities_of(node).largest_value(draft.key):
            return Outcome.NOT_STORED
        mode: requests.StoreMode = "prepend" if before else "append"
        line = requests.meta_set(draft.key, len(more), ttl=0, flags=hit.flags, mode=mode)
        reply = await ask(node, line, deadline, more)
        if reply.status == b"NS":
            return Outcome.NOT_STORED
        if reply.status != b"HD":
            return _refusal(reply)
        # What it is now, with what others may have joined meanwhile, is what the other zones get.
        joined = read_hit(await ask(node, requests.meta_get(draft.key), deadline))
        if joined is None:
            return Outcome.NOT_STORED  # evicted, or expired
        return self.store(Draft(draft.key, joined.value, joined.flags, draft.ttl), node)

    async def count(
        self,
        node: Node,
        key: bytes,
        delta: int,
        deadline: float,
        *,
        decrement: bool,
        initial: int | None,
        ttl: int,
    ) -> tuple[int, Store] | None:
        """Move a counter; its value, and the copy for the other zones. None when there is no counter and no `initial`.

        A counter has no version: the server can't keep one while a number grows. The copies go out in order of arrival.
        They live as long as the counter has left, or `ttl` where the server can't tell that.
        Raises `ServerError` for a value that is not a number.
        """
        while True:
            line = requests.meta_arithmetic(key, delta, decrement=decrement, initial=initial, ttl=ttl)
            reply = await ask(node, line, deadline)
            if reply.status == b"VA" and reply.value is not None:
                left = token(reply, b"t")
                life = ttl if left is None else copied(decimal(left), self._now())
                # A number that lost a digit keeps its width, with spaces behind it.
                digits = reply.value.strip()
                return int(digits), self._counter(key, digits, life)
            if reply.status == b"NF":
                return None
            if reply.status != b"CLIENT_ERROR":
                raise unexpected(reply)
            seen = await inspect(node, key, deadline)
            if seen is None:
                continue
            if not seen.absent:
                raise ServerError(f"{key!r} holds a value that is not a counter", node.label)
            if initial is None:
                return None
            data = b"%d" % initial
            reply = await ask(node, requests.meta_set(key, len(data), ttl=ttl, flags=0, compare=seen.cas), deadline, data)
            if reply.status == b"HD":
                return initial, self._counter(key, data, ttl)

    def _counter(self, key: bytes, digits: bytes, ttl: int) -> Store:
        return Store(self._clock, key, digits, 0, ttl=ttl, version=None)

    async def _over(self, node: Node, draft: Draft, seen: Seen, deadline: float) -> Store | Outcome | None:
        """Store over what was seen; None when it is not there any more."""
        if not capabilities_of(node).cas:
            raise Unsupported("writes that compare (the server is run without CAS)", node.label)
        self._clock.version_of(seen.cas)  # so that the version that is made next is newer
        store = self.store(draft, node)
        reply = await self._send(node, store, deadline, compare=seen.cas)
        if reply is None:
            return Outcome.NOT_STORED
        if reply.status == b"HD":
            return store
        if reply.status in (b"EX", b"NF"):
            return None
        return _refusal(reply)

    async def _send(
        self,
        node: Node,
        store: Store,
        deadline: float,
        *,
        mode: requests.StoreMode = "set",
        compare: int | None = None,
    ) -> Reply | None:
        """The node's answer; None, with nothing sent, for a value that it would not take (see `Store.send`)."""
        if len(store.data) > capabilities_of(node).largest_value(store.key):
            return None
        store.carried = store.version is not None
        return await ask(node, _line(store, mode=mode, compare=compare), deadline, store.data)


def _line(store: Store, *, mode: requests.StoreMode = "set", compare: int | None = None) -> bytes:
    return requests.meta_set(
        store.key,
        len(store.data),
        ttl=store.ttl,
        flags=store.flags,
        mode=mode,
        compare=compare,
        cas=None if store.version is None else cas_of(store.version),
    )


def _plain(value: str | bytes) -> bytes:
    """A str or bytes value as codecs write it that do nothing to it."""
    return value.encode() if isinstance(value, str) else value


def _refusal(reply: Reply) -> Outcome:
    if reply.status == b"SERVER_ERROR":
        return Outcome.NOT_STORED
    raise unexpected(reply)
