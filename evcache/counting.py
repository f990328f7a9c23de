"""One step of a counter in the zone that decides about it.

memcached's arithmetic compares the item's CAS, keeps its time to live exactly, and lets one of several callers win, which no
store can do: a store sets the time to live anew, to whole seconds, and a counter that is moved often would never expire, or
too early. In three cases it leaves something to be put right, which a look in the same packet shows:

- A number that lost a digit is padded with spaces.
- A number that gained a digit is a new item. The server chooses its CAS, whatever it was told, and does not say so.
- So is a number that was being sent to another connection.
"""

from __future__ import annotations

from typing import NamedTuple

from evcache.codec import FLAG_INT
from evcache.commands import ask, ask_both
from evcache.versions import NOT_A_VERSION, cas_of
from zones.errors import ServerError
from zones.node import Node
from zones.protocol import requests
from zones.protocol.replies import Reply, decimal, number, token, unexpected

# The value as it is and its CAS, without counting as a use.
_LOOK_FLAGS = b"v c u"


class Counted(NamedTuple):
    """A counter that was moved."""

    digits: bytes
    ttl: int | None
    """Seconds left, -1: it does not expire; None: the server does not tell."""
    version: int | None = None
    is_moved_on: bool = False
    """Whether another write followed before this step was done: what that one left is newer, and copied by its client."""


async def count(
    node: Node, key: bytes, delta: int, seen: int, version: int, deadline: float, *, decrement: bool
) -> Counted | None:
    """Add to a counter, or subtract from it, if it is still the one that was seen.

    Args:
        node: The node that holds the counter.
        key: The key.
        delta: The number to add or subtract.
        seen: The CAS that the counter must have.
        version: A version that is newer than all that were seen. The counter gets it, or one that differs in the lowest bit.
        deadline: On the loop's clock.
        decrement: Subtract.

    Returns:
        The counter; None when it is gone, or is not the one that was seen any more.

    Raises:
        ServerError: The value is not a number.
        NodeError: The node did not answer; it may have counted.
    """
    # Two versions with no other one between them: what takes over items older than the second replaces only the first.
    first, second = version & ~1, version | 1
    line = requests.meta_arithmetic(key, delta, decrement=decrement, compare=seen, cas=cas_of(first))
    reply, look = await ask_both(node, (line, None), (requests.meta_get(key, _LOOK_FLAGS), None), deadline)
    if reply.status == b"CLIENT_ERROR" and (look.status == b"EN" or number(look, b"c") != seen):
        return None  # the server refuses an empty value, as of a tombstone, before it compares: the counter is gone
    counted = _counted(key, reply, node)
    if counted is None or look.status == b"EN":
        return counted and counted._replace(version=first)
    if look.status != b"VA" or look.value is None:
        raise unexpected(look)
    cas = number(look, b"c")
    if cas == cas_of(first):
        if look.value == counted.digits:
            return counted._replace(version=first)
        return counted._replace(version=await _strip(node, key, counted.digits, first, second, deadline))
    # An append of nothing gives the item a version, and keeps its time to live.
    if cas < NOT_A_VERSION and look.value == counted.digits:
        line = requests.meta_set(key, 0, ttl=0, flags=0, mode="append", compare=cas, cas=cas_of(second))
        if (await ask(node, line, deadline, b"")).status == b"HD":
            return counted._replace(version=second)
    return counted._replace(is_moved_on=True)


async def count_by_arrival(node: Node, key: bytes, delta: int, deadline: float, *, decrement: bool) -> Counted | None:
    """Add to a counter, or subtract from it, on a server without versions. Returns and raises as `count` does."""
    return _counted(key, await ask(node, requests.meta_arithmetic(key, delta, decrement=decrement), deadline), node)


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
    """Store a number without the spaces behind it. Returns its version.

    The store takes over what is older and so keeps the time to live; the append clears the stale mark that it leaves.
    """
    cas = cas_of(second)
    store = requests.meta_set(key, len(digits), ttl=0, flags=FLAG_INT, compare=cas, cas=cas, older_or_equal=True)
    clear = requests.meta_set(key, 0, ttl=0, flags=0, mode="append", compare=cas, cas=cas)
    stored, _ = await ask_both(node, (store, digits), (clear, b""), deadline)
    # Where it is refused, another write has followed, or the counter has expired: then the spaces are gone with it.
    return second if stored.status == b"HD" else first
