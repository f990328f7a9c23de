"""Looks at replies: the hits that need no closer look, and the values that need no further decoding.

Each function leaves what it does not handle to its caller, so it holds no policy. The caller passes the numbers that decide.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from typing import Any, TypeGuard

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


def accept_hits(
    replies: Sequence[AnyReply | None],
    keys: Sequence[bytes],
    known: Mapping[bytes, int],
    highest: int,
    lowest: int,
    mirror: int,
    new_item: Any,
    zone: str,
    special: int,
    found: MutableMapping[bytes, Any],
) -> tuple[list[int], list[tuple[bytes, int]]]:
    """Add the items of one batch that need no closer look to `found`.

    A stub of a lease needs one, and so does a hit whose version is below the known one. Others need none if their version is
    from `lowest` to `highest`.

    Args:
        replies: Replies of one node in the order of `keys`, with None for a miss.
        keys: Keys of the batch.
        known: Latest version known of each key, 0 where none is.
        highest: Highest version that the caller's clock has passed.
        lowest: Lowest version.
        mirror: Sum of a version and its CAS.
        new_item: Named tuple of hit, zone and version, which `found` gets.
        zone: Name of the zone.
        special: Flags of hits that need a closer look.
        found: Items by key.

    Returns:
        Indices of the other replies, and the keys whose version is newer than the known one, with that version.
    """
    others: list[int] = []
    newer: list[tuple[bytes, int]] = []
    for index, key in enumerate(keys):
        reply = replies[index]
        if type(reply) is not Hit or reply[5] or reply[1] == special:
            if reply is not None:
                others.append(index)
            continue
        version = mirror - reply[2]
        latest = known[key]
        if version < latest or not lowest <= version <= highest:
            others.append(index)
            continue
        if version != latest:
            newer.append((key, version))
        found[key] = _new(new_item, (reply, zone, version))
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
