"""Dispatch of changed keys to the near cache, running loads, later reads and other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.version_fences import NO_BLOCK, Block
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.hlc import NOTHING_NEWER, HybridLogicalClock, cas_of
from evcache.replication.seen_versions import SeenVersions


class RunningLoads(Protocol):
    """Loads that are under way. A write detaches the loads of its key."""

    @property
    def by_key(self) -> Mapping[bytes, object]:
        """Loads that a write may detach, by key."""

    def forget(self, key: bytes, version: int | None) -> None:
        """Detach the loads of the key that began before this version was written."""

    def forget_all(self) -> None:
        """Detach every load."""


class FailedLoads(Protocol):
    """Keys whose loader has failed. A write ends the backoff of its key."""

    @property
    def until(self) -> Mapping[bytes, float]:
        """Times at which the backoff of a key ends, by key."""

    def end(self, key: bytes) -> None:
        """End the backoff of the key."""

    def end_all(self) -> None:
        """End every backoff."""


class EndedWrite(Protocol):
    """Write that has ended, or whose caller does not wait any more."""

    @property
    def fence(self) -> int | None:
        """Lowest version that readers may observe from now on. If None, the zones do not order the write by version.

        `NOTHING_NEWER` if the write made no version.
        """

    @property
    def stored(self) -> StoreCommand | None:
        """Store that enough zones hold by its version. None if they may hold another value."""

    @property
    def age(self) -> float:
        """Seconds since the write was sent."""

    @property
    def everywhere(self) -> bool:
        """True if every zone has acknowledged."""

    @property
    def is_readable(self) -> bool:
        """True if a readable zone holds the write."""


class InvalidationDispatcher:
    """Receiver of this client's own writes, and of the invalidation messages of other clients.

    Any write detaches the loads of its key. A caller that asks for the key later must not get the result of a load that
    began before the write.
    """

    def __init__(
        self,
        near: CoherentNearCache | None,
        loads: RunningLoads,
        zone: Callable[[], str | None],
        *,
        clock: HybridLogicalClock,
        remembered: SeenVersions,
        throttle: FailedLoads,
        publish: Callable[[bytes, int | None], None] | None = None,
    ) -> None:
        """Bind the parts of one client.

        Args:
            near: Near cache. If None, there is none.
            loads: Running loads.
            zone: Returns the zone that reads go to first. None before the zones are known.
            clock: Clock that makes versions.
            remembered: Versions that later reads must not be older than.
            throttle: Keys whose loader has failed. A write ends the backoff of its key.
            publish: Publishes the invalidation of a key, with the version that was written, or None if it is unknown. If
                None, there is no channel.
        """
        self._near = near
        self._loads = loads
        self._running = loads.by_key  # as `_backoffs`
        self._zone = zone
        self._hlc = clock
        self._seen_versions = remembered
        self._failed_loads = throttle
        self._backoffs = throttle.until  # nearly always empty, so a write only tests for truth
        self._publish = publish

    def begin(self, key: bytes, fence: int | None) -> Block:
        """Dispatch a write that is about to be sent.

        Args:
            key: Qualified key.
            fence: Version of the write (see `Command.fence`). None also if a zone has yet to decide on it.

        Returns:
            The handle of the block of the near cache, for `end` or `cancel`.
        """
        if self._running:
            self._loads.forget(key, fence)
        if self._backoffs and fence:  # a write without a version may be cancelled, and then ends no backoff
            self._failed_loads.end(key)
        if self._near is None:
            return NO_BLOCK
        if fence == NOTHING_NEWER:
            self._near.invalidate(key, fence)
            return NO_BLOCK
        return self._near.begin_write(key, fence)

    def end(self, key: bytes, write: EndedWrite | None, block: Block) -> None:
        """Dispatch a write that has ended, or whose caller does not wait any more.

        Args:
            key: Qualified key.
            write: The write. If None, it is unknown whether a zone stored something.
            block: Result of `begin`.
        """
        fence = None if write is None else write.fence
        if self._running:
            self._loads.forget(key, fence)
        if self._backoffs and fence != NOTHING_NEWER:
            self._failed_loads.end(key)
        if self._near is not None:
            if fence == NOTHING_NEWER:
                self._near.invalidate(key, fence)
            elif write is not None and (store := write.stored) is not None:
                self._near.complete_write(key, store, self._zone(), block, write.age)
            else:
                everywhere = write is not None and write.everywhere
                self._near.complete_uncertain_write(key, fence, block, everywhere=everywhere)
        if self._publish is not None:
            # Other clients take every older version for stale. So the version must be in a zone that they can read. A zone
            # that gets it later, by a hint, is reported by `caught_up`.
            is_known = fence == NOTHING_NEWER or (write is not None and write.is_readable)
            self._publish(key, fence if is_known else None)

    def cancel(self, key: bytes, block: Block) -> None:
        """Dispatch that a write has ended without storing anything."""
        if self._near is not None:
            self._near.cancel_write(key, block)

    def caught_up(self, key: bytes, version: int) -> None:
        """Dispatch that a zone has received a write that it had missed. Values read there before may be older."""
        if self._near is not None:
            self._near.invalidate(key, version)
        if self._publish is not None:
            self._publish(key, version)

    # Invalidation messages of other processes.

    def invalidate(self, key: bytes, version: int | None) -> None:
        """Dispatch a write of another client.

        Args:
            key: Qualified key.
            version: Version of the write. If None, it is unknown. `NOTHING_NEWER` if the item changed without a new version.
        """
        self._loads.forget(key, version)
        if self._backoffs and version != NOTHING_NEWER:
            self._failed_loads.end(key)
        if version is not None and version != NOTHING_NEWER:
            # A version that the clock does not believe is not noted, because every item would be too old for it.
            believed = self._hlc.observe(cas_of(version))
            if believed is not None:
                self._seen_versions.note_from_peer(key, believed)
        if self._near is not None:
            self._near.invalidate(key, version)

    def invalidate_all(self, reason: str) -> None:  # noqa: ARG002  # an argument of `Listener`
        """Dispatch that invalidation messages may have been lost."""
        self._loads.forget_all()
        self._failed_loads.end_all()
        if self._near is not None:
            self._near.invalidate_all()

    def set_channel_up(self, up: bool) -> None:  # noqa: FBT001  # the bus's word for it
        """Dispatch that the invalidation channel is up from now on, or is down."""
        if self._near is not None:
            self._near.set_channel_up(up)
