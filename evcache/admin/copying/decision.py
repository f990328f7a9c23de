"""Decision about one key: is the item of one zone copied to another, and with which lifetime? No I/O, no clock."""

from __future__ import annotations

import enum
from typing import NamedTuple

from evcache.replication.commands.node_requests import Peeked
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import ABSENCES
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER, TOMBSTONE_TTL_SECONDS, exptime_of_copy


class Skip(enum.Enum):
    """Reason for which a key is not copied."""

    GONE = "gone"
    """The source holds no item any more, or only the stub of a lease."""
    PRESENT = "present"
    """The target holds this version or a newer one, or an item where one of the two has no version."""
    EXPIRING = "expiring"
    """The item expires before a copy could arrive."""
    UNKNOWN_LIFETIME = "unknown lifetime"
    """The source does not report how long the item lives, as servers of the classic protocol."""
    TOO_LARGE = "too large"
    """The item is larger than the target's limit."""


class Copy(NamedTuple):
    """Item that the target is to store."""

    key: bytes
    data: bytes
    flags: int
    exptime: int
    """Lifetime in the form that memcached takes. The copy of a value never outlives its original."""
    version: int | None
    """Version of the item. If None, the target stores the item only where it holds nothing."""
    original_cas: int
    """CAS of the item in the source."""
    replaced_cas: int | None = None
    """CAS of the older item or the stub that the target holds. None if it holds nothing."""


def is_held(item: Peeked | None) -> bool:
    """Return True if a zone holds an item of the key. The stub of a lease says nothing about the key."""
    return item is not None and (not item.absent or item.flags in ABSENCES)


def is_wanted(source: Peeked | None, target: Peeked | None) -> bool:
    """Return True if the target lacks what the source holds, as far as versions show it.

    A zone without versions shows no order of two items. The item of the target then stays, because it may be the newer one.
    """
    if source is None or not is_held(source):
        return False
    if target is None or not is_held(target):
        return True
    theirs = HybridLogicalClock.decode(source.cas)
    ours = HybridLogicalClock.decode(target.cas)
    return theirs is not None and ours is not None and ours < theirs


def decide(
    key: bytes, source: Peeked | None, target: Peeked | None, *, spent: float, unix_time: float, largest: int
) -> Copy | Skip:
    """Return the copy that the target is to store, or the reason for which there is none.

    Args:
        key: The key.
        source: Item of the source, with its value. None if it holds none.
        target: Item of the target. None if it holds none.
        spent: Upper bound of the seconds from the request for the item until its copy arrives.
        unix_time: Present unix time.
        largest: Size limit of a value under this key in the target, in bytes.
    """
    if source is None or not is_held(source):
        return Skip.GONE
    if not is_wanted(source, target):
        return Skip.PRESENT
    if source.ttl is None:
        return Skip.UNKNOWN_LIFETIME
    exptime = exptime_of_copy(source.ttl, spent, unix_time)
    if exptime is None and source.flags == FLAG_TOMBSTONE and is_held(target):
        # A tombstone that outlives its original hides no newer item. Without it, the older item would return.
        exptime = TOMBSTONE_TTL_SECONDS
    if exptime is None:
        return Skip.EXPIRING
    data = source.value or b""
    if len(data) > largest:
        return Skip.TOO_LARGE
    return Copy(
        key,
        data,
        source.flags,
        exptime,
        HybridLogicalClock.decode(source.cas),
        source.cas,
        None if target is None else target.cas,
    )


class Change(NamedTuple):
    """Change of a copy that the target has stored, because the original has changed since it was read."""

    exptime: int | None
    """New lifetime of the copy. If None, the copy is removed."""


def change_after(copy: Copy, original: Peeked | None, *, spent: float, unix_time: float) -> Change | None:
    """Return the change of a stored copy, or None if it stays as it is.

    Versions order two items, but not an item and its end. Clients can end an item during the copy in three ways:

    1. A client touches the item with a shorter TTL. The target does not hold the item yet.
    2. A newer item reaches both zones, and expires in both before the copy arrives.
    3. A client deletes the item, and one zone keeps no tombstones.

    Args:
        copy: The copy.
        original: What the source holds after the target has stored the copy.
        spent: Upper bound of the seconds from the look at the original until the change arrives.
        unix_time: Present unix time.
    """
    if copy.flags == FLAG_TOMBSTONE:
        return None
    if original is None or original.cas != copy.original_cas:
        return Change(None)
    if original.ttl is None or original.ttl < 0:
        return None
    left = copy.exptime if copy.exptime <= MAX_RELATIVE_SECONDS else copy.exptime - unix_time
    if copy.exptime != NEVER and left < original.ttl:
        return None
    return Change(exptime_of_copy(original.ttl, spent, unix_time))
