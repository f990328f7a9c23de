"""Increment and decrement: a counter is moved on the coordinator's node, and its value copied to the other zones.

A counter is an int like any other. Each step has a version, is decided by compare in one zone, and is copied as a write.

memcached's arithmetic compares the item's CAS, keeps its TTL exactly, and lets one of several callers win. A store cannot do
that: it sets a new TTL in whole seconds, so a counter that is moved often would never expire, or too early. In three cases
arithmetic leaves work to do, which a look in the same packet shows:

- A number that lost a digit is padded with spaces.
- A number that was being sent to another connection is a new item. The server chooses its CAS, ignores the CAS in the
  request, and does not report this. Other clients wait to count until the item gets a version.
- A number that gains a digit would be such a new item, too. So the client first appends a space, to make room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from evcache.replication.commands import node_requests
from evcache.replication.commands.guarded_store import NAMING_LOOKS, NAMING_PAUSE_SECONDS, StoreCommand
from evcache.replication.commands.node_requests import Peeked, peek, read_peek
from evcache.replication.hlc import NOT_A_VERSION, cas_of
from evcache.results import Outcome
from evcache.values.flags import FLAG_INT
from evcache.writes.conditional.compare_and_set import CompareAndSet, Decision
from evcache.writes.draft import Draft
from evcache.zones.errors import ServerError, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import MAX_DIGITS, Reply, decimal, token, unexpected
from evcache.zones.validation import number

MAX_COUNTER = 2**64 - 1  # memcached's counters are unsigned 64-bit numbers


class Increment:
    """Step of a counter, an int from 0 to 2^64-1."""

    __slots__ = ("decrement", "delta", "initial", "key", "ttl")

    draft = None
    peeks_value = True

    def __init__(self, key: bytes, delta: int, *, decrement: bool = False, initial: int | None = None, ttl: int) -> None:
        """Make the write.

        Args:
            key: Qualified key.
            delta: Number to add or subtract.
            decrement: Subtract.
            initial: Value that is stored if there is no counter. If None, no counter is made.
            ttl: Exptime of a counter that is made. The copies in other zones also get it if the server cannot report the
                TTL that the counter has left.

        Raises:
            InvalidArgument: A number is not an int from 0 to 2^64-1.
        """
        number(delta, "delta", minimum=0, maximum=MAX_COUNTER, whole=True)
        if initial is not None:
            number(initial, "initial", minimum=0, maximum=MAX_COUNTER, whole=True)
        self.key = key
        self.delta = delta
        self.decrement = decrement
        self.initial = initial
        self.ttl = ttl

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Move the counter, or return `NOT_FOUND` if there is none and no `initial` (see `ConditionalWrite`).

        Raises:
            ServerError: The value is not a counter.
            Unsupported: JVM clients could not find the counter.
        """
        del zone
        if stores.loses_counters:
            feature = "incr and decr (a group hashes keys by itself, and release 5.9 hashes no counters by group)"
            raise Unsupported(feature, "interop mode")
        key, delta = self.key, self.delta
        looks = 0
        while True:
            if seen is None or seen.absent:
                if self.initial is None:
                    return Outcome.NOT_FOUND
                draft = Draft(key, b"%d" % self.initial, stores.counter_flag, self.ttl)
                decision = await stores.create(node, draft, seen, deadline)
                if decision is not None:
                    return decision._replace(value=self.initial) if isinstance(decision, Decision) else decision
            elif seen.flags not in stores.counter_flags:
                raise ServerError(f"{key!r} holds a value that is not a counter", node.label)
            elif seen.value is None:
                pass  # the copy that another zone is about to lose came without its value: look again
            elif stores.is_versioned(node) and seen.cas < NOT_A_VERSION and looks < NAMING_LOOKS:
                looks += 1
                await asyncio.sleep(NAMING_PAUSE_SECONDS)
            else:
                asked_at = asyncio.get_running_loop().time()
                counted: Counted | None
                if stores.is_versioned(node):
                    versions = partial(stores.version_after, seen.cas)
                    counted = await count(node, key, delta, seen, versions, deadline, decrement=self.decrement)
                else:
                    counted = await count_by_arrival(node, key, delta, deadline, decrement=self.decrement)
                if counted is not None:
                    copy = self._copy(stores, counted, asked_at, deadline)
                    return Decision(copy, int(counted.digits))
            seen = await peek(node, key, deadline, value=True)

    def _copy(self, stores: CompareAndSet, counted: Counted, asked_at: float, deadline: float) -> StoreCommand | None:
        """Return the store of the step, or of the write that followed it, for the other zones. If None, none is needed."""
        key = self.key
        found = counted.followed_by
        if found is None:
            left = counted.ttl
            exptime = self.ttl if left is None else stores.exptime_of_copies(left, asked_at, deadline)
            return stores.copy(Draft(key, counted.digits, stores.counter_flag, exptime), counted.version)
        version = stores.hlc.observe(found.cas)
        if version is None or found.ttl is None or found.value is None:
            return None
        data = found.value.rstrip(b" ") if found.flags == FLAG_INT else found.value
        exptime = stores.exptime_of_copies(found.ttl, asked_at, deadline)
        return stores.copy(Draft(key, data, found.flags, exptime), version)


class Counted(NamedTuple):
    """A counter that was moved."""

    digits: bytes
    ttl: int | None
    """Seconds left; -1 if it does not expire. If None, the server does not report it."""
    version: int | None = None
    followed_by: Peeked | None = None
    """Item that a later write left before this step was complete. It is newer."""


async def count(
    node: Node, key: bytes, delta: int, seen: Peeked, versions: Callable[[], int], deadline: float, *, decrement: bool
) -> Counted | None:
    """Add to a counter, or subtract from it, if it is still the one that was seen.

    Args:
        node: The node that holds the counter.
        key: The key.
        delta: The number to add or subtract.
        seen: The counter, with its value.
        versions: Makes a version that is newer than all that were seen.
        deadline: On the loop's clock.
        decrement: Subtract.

    Returns:
        The counter; None when it is gone, or is not the one that was seen any more.

    Raises:
        ServerError: The value is not a number.
        NodeError: The node did not answer; it may have counted.
    """
    compare = seen.cas
    room = _digits_gained(key, seen.value or b"", delta, node, decrement=decrement)
    if room:
        version = versions()
        spaces, cas = b" " * room, cas_of(version)
        reply = await node_requests.store(node, key, spaces, 0, 0, deadline, mode="append", compare=compare, cas=cas)
        if reply.status != b"HD":
            return None
        compare = cas
    # Two versions with no other one between them: what takes over items older than the second replaces only the first.
    version = versions()
    first, second = version & ~1, version | 1
    reply, look = await node_requests.count_and_peek(
        node, key, delta, deadline, decrement=decrement, compare=compare, cas=cas_of(first)
    )
    found = read_peek(look)
    if reply.status == b"CLIENT_ERROR" and (found is None or found.cas != compare):
        return None  # the server refuses an empty value, as of a tombstone, before it compares: the counter is gone
    counted = _counted(key, reply, node)
    if counted is None or found is None:
        return counted and counted._replace(version=first)
    if found.cas == cas_of(first):
        if found.value == counted.digits:
            return counted._replace(version=first)
        return counted._replace(version=await _strip(node, key, counted.digits, first, second, deadline))
    # An append of nothing gives the item a version, and keeps its time to live.
    if found.cas < NOT_A_VERSION and found.value == counted.digits:
        cas = cas_of(second)
        named = await node_requests.store(node, key, b"", 0, 0, deadline, mode="append", compare=found.cas, cas=cas)
        if named.status == b"HD":
            return counted._replace(version=second)
        found = await peek(node, key, deadline, value=True)
    return counted._replace(version=first, followed_by=found)


def _digits_gained(key: bytes, value: bytes, delta: int, node: Node, *, decrement: bool) -> int:
    """Return how many bytes longer the number will be than the item is."""
    digits = value.rstrip(b" ")
    if not digits.isdigit() or len(digits) > MAX_DIGITS or int(digits) > MAX_COUNTER:
        raise ServerError(f"{key!r} holds a value that is not a counter", node.label)
    after = 0 if decrement else (int(digits) + delta) & MAX_COUNTER
    return max(0, len(b"%d" % after) - len(value))


async def count_by_arrival(node: Node, key: bytes, delta: int, deadline: float, *, decrement: bool) -> Counted | None:
    """Add to a counter, or subtract from it, on a server without versions. Returns and raises as `count` does."""
    return _counted(key, await node_requests.count(node, key, delta, deadline, decrement=decrement), node)


def _counted(key: bytes, reply: Reply, node: Node) -> Counted | None:
    if reply.status in (b"EX", b"NF"):
        return None
    if reply.status == b"CLIENT_ERROR":
        raise ServerError(f"{key!r} holds a value that is not a counter", node.label)
    if reply.status != b"VA" or reply.value is None:
        raise unexpected(reply)
    left = token(reply, b"t")
    return Counted(reply.value.strip(), None if left is None else decimal(left))


async def _strip(node: Node, key: bytes, digits: bytes, first: int, second: int, deadline: float) -> int:
    """Store a number without the spaces behind it, and keep its TTL. Return its version."""
    replies = await node_requests.replace_older(node, key, digits, FLAG_INT, cas_of(second), deadline)
    # A refusal means that another write has followed, or that the counter has expired: then the spaces are gone with it.
    return second if replies[0].status == b"HD" else first
