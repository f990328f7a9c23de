"""Lowest versions that the near cache accepts for a time after an invalidation.

1. A writer publishes the invalidation of a key.
2. This client drops its entry and fetches the key again.
3. The replica that it asks has not applied the write yet, so the fetch returns the old value.

So for some seconds after an invalidation, a *fence* rejects older versions of the key. If the version of the write is
unknown, the fence *blocks* all versions, like the cold-cluster rule in "Scaling Memcache at Facebook".
"""

from __future__ import annotations

from collections import OrderedDict

# Keys that have a fence at once. A fence takes about 150 bytes, so this is 10 MB at most. Over the limit the oldest fence
# goes, and all keys are blocked until it would have ended: safe, and slow.
MAX_FENCES = 65_536

# Ended fences that each new fence removes. More than one, so that they never pile up. Not all, which would stall the loop.
_REMOVED_PER_FENCE = 4

Block = float
"""Handle of a block of one key: the monotonic time at which the block ends."""

NO_BLOCK: Block = 0.0
"""Handle of a write that blocks nothing."""


class Fence:
    """Versions that are rejected under one key."""

    __slots__ = ("blocked_until", "min_version", "own_blocks", "until")

    def __init__(self) -> None:
        self.min_version = 0
        """Lowest accepted version. An item without a version is rejected, unless this is 0."""
        self.until = 0.0
        """Monotonic time at which the fence ends."""
        self.blocked_until = 0.0
        """End of the block that an invalidation without a version began."""
        self.own_blocks: tuple[Block, ...] = ()
        """Ends of the blocks of this client's writes in flight, ascending. They are separate, because the end of one write
        must end neither the block of another write nor that of an invalidation."""


class VersionFences:
    """Fences of one near cache. Has no clock: `now` is monotonic seconds."""

    def __init__(self, grace: float, limit: int = MAX_FENCES) -> None:
        """Create it without a fence.

        Args:
            grace: Seconds that a fence lasts. Must exceed the sum of replica lag, fetch time and delay of an invalidation.
            limit: Largest number of fences.
        """
        self._grace = grace
        self._limit = limit
        self._fences: OrderedDict[bytes, Fence] = OrderedDict()  # ordered by their end
        self._all_blocked_until = 0.0

    def __len__(self) -> int:
        """Number of fences, ended ones included."""
        return len(self._fences)

    def raise_to(self, key: bytes, version: int | None, now: float) -> None:
        """Reject versions of a key that are lower than `version`. If it is None, reject all."""
        fence = self._renew(key, now)
        if version is None:
            fence.blocked_until = fence.until
        elif version > fence.min_version:
            fence.min_version = version

    def block(self, key: bytes, now: float) -> Block:
        """Reject all versions of a key while a write of this client is in flight. Return the handle for `unblock`."""
        fence = self._renew(key, now)
        fence.own_blocks = (*fence.own_blocks, fence.until)
        return fence.until

    def unblock(self, key: bytes, block: Block) -> None:
        """End one block of a key. No effect if `block` is `NO_BLOCK` or has ended."""
        fence = self._fences.get(key)
        if fence is not None and block in fence.own_blocks:
            index = fence.own_blocks.index(block)
            fence.own_blocks = fence.own_blocks[:index] + fence.own_blocks[index + 1 :]

    def admits(self, key: bytes, version: int | None, now: float) -> bool:
        """Return True if an item of this version may be stored. None is an item without a version."""
        if now < self._all_blocked_until:
            return False
        fence = self._fences.get(key)
        if fence is None or now >= fence.until:
            return True
        if now < fence.blocked_until or (fence.own_blocks and now < fence.own_blocks[-1]):
            return False
        return not fence.min_version or (version is not None and version >= fence.min_version)

    def block_all(self, now: float) -> None:
        """Block all keys for the grace time, because invalidations may have been lost. Remove the fences of single keys."""
        self._fences.clear()
        self._all_blocked_until = now + self._grace

    def _renew(self, key: bytes, now: float) -> Fence:
        """Return the fence of a key, which lasts the grace time from `now`."""
        fences = self._fences
        self._remove_ended(now)
        fence = fences.get(key)
        if fence is not None and fence.until > now:
            fences.move_to_end(key)
        else:
            fences.pop(key, None)
            fence = fences[key] = Fence()
            if len(fences) > self._limit:
                self._all_blocked_until = max(self._all_blocked_until, fences.popitem(last=False)[1].until)
        fence.until = now + self._grace
        return fence

    def _remove_ended(self, now: float) -> None:
        fences = self._fences
        for _ in range(_REMOVED_PER_FENCE):
            if not fences or next(iter(fences.values())).until > now:
                break
            fences.popitem(last=False)
