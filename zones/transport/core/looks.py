"""Looks at replies: the hits that need no closer look, and the values that need no further decoding.

Each function leaves what it does not handle to its caller, so it holds no policy. The caller passes the numbers that decide.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from evcache.zones.protocol.replies import AnyReply, Hit

_new = tuple.__new__  # without the Python frame of a named tuple's own


def is_same(reply: AnyReply, version: int | None, mirror: int) -> TypeGuard[Hit]:
    """Return True if the reply is a hit with exactly this version, and no stub of a lease.

    Args:
        reply: Reply to a read.
        version: The version. None is the version of no hit.
        mirror: Sum of a version and its CAS.
    """
    return type(reply) is Hit and not reply[5] and mirror - reply[2] == version


class Look(NamedTuple):
    """Numbers that decide whether a hit needs a closer look."""

    lowest: int
    """Lowest version."""
    mirror: int
    """Sum of a version and its CAS."""
    new_item: Any
    """Named tuple of hit, zone and version."""
    special: int
    """Flags of hits that need a closer look."""


def cas_of_each(versions: Mapping[bytes, int], keys: Sequence[bytes], mirror: int) -> tuple[array[int], list[int]]:
    """Return the CAS of the known version of each key.

    Args:
        versions: Known versions.
        keys: Keys, in the order of the result.
        mirror: Sum of a version and its CAS.

    Returns:
        The CAS of each key, and the indices of the keys without a version, whose CAS is 0.
    """
    found = list(map(versions.get, keys))
    cas = array("Q", [0 if version is None else mirror - version for version in found])
    return cas, [index for index, version in enumerate(found) if version is None] if None in found else []


def accept_hits(
    look: Look,
    highest: int,
    zone: str,
    replies: Sequence[AnyReply | bytes | None],
    keys: Sequence[bytes],
    given: Sequence[Any],
    known: array[int],
    plain: int,
    values: MutableMapping[Any, bytes],
    found: MutableMapping[bytes, Any],
) -> tuple[list[int], list[tuple[bytes, int]]]:
    """Add the hits of one batch that need no closer look to `values` or `found`.

    A stub of a lease needs one, and so does a hit whose version is below the known one. Others need none if their version is
    from `lowest` to `highest`.

    Args:
        look: Numbers that decide.
        highest: Highest version that the caller's clock has passed.
        zone: Name of the zone.
        replies: Replies of one node in the order of `keys`: see `Transport.get_many`.
        keys: Keys of the batch.
        given: Keys of `values`, in the same order.
        known: CAS of the latest version known of each key, 0 where none is.
        plain: Flags of a value that is its own bytes. -1 if there are none.
        values: Values by given key, of hits with the flags `plain`.
        found: Items by key, of other hits.

    Returns:
        Indices of the other replies, and the keys whose version is newer than the known one, with that version.
    """
    lowest, mirror, new_item, special = look
    others: list[int] = []
    newer: list[tuple[bytes, int]] = []
    for index, reply in enumerate(replies):
        if type(reply) is bytes:
            values[given[index]] = reply
            continue
        if type(reply) is not Hit or reply[5]:
            others.append(index)
            continue
        value, flags, cas = reply[:3]
        version = mirror - cas
        if cas != known[index] or not cas:  # a server without CAS sends 0
            latest = mirror - known[index] if known[index] else 0
            if version < latest or not lowest <= version <= highest or flags == special:
                others.append(index)
                continue
            if version != latest:
                newer.append((keys[index], version))
        elif flags == special:
            others.append(index)
            continue
        if flags == plain:
            values[given[index]] = value
        else:
            found[keys[index]] = _new(new_item, (reply, zone, version))
    return others, newer


def decode_values(
    names: Sequence[bytes],
    given: Sequence[Any],
    found: Mapping[bytes, Any],
    start: int,
    budget: int,
    bytes_of_one: int,
    decode: Callable[[bytes, int], Any],
    plain: int,
    special: Container[int],
    values: MutableMapping[Any, Any],
) -> tuple[int, Exception | None]:
    """Decode items into `values`, until one needs a closer look or the budget is spent.

    Args:
        names: Keys of the items.
        given: Keys of `values`, in the same order.
        found: Items, named tuples whose first field is a `Hit`.
        start: Index of the first key.
        budget: Work that may be done: one for each item, and one for each `bytes_of_one` bytes of its value.
        bytes_of_one: Bytes of a value that count as one more item.
        decode: Decoder of values.
        plain: Flags of a value that is its own bytes. -1 if there are none.
        special: Flags of items that need a closer look.
        values: Values by key.

    Returns:
        Index of the first key that is left, and the exception if its value cannot be decoded. The index is the number of
        keys if none is left.
    """
    for index in range(start, len(names)):
        item = found.get(names[index])
        if item is None:
            continue
        hit = item[0]
        data, flags = hit[0], hit[1]
        budget -= 1 + len(data) // bytes_of_one
        if budget < 0:
            return index, None
        if flags == plain:
            values[given[index]] = data
            continue
        if flags in special:
            return index, None
        try:
            values[given[index]] = decode(data, flags)
        except Exception as error:  # the caller judges it
            return index, error
    return len(names), None
