"""Reports of changed keys to the near cache, loads that are under way, later reads, and other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeGuard

from evcache.near_cache.coherence import CoherentNearCache
from evcache.replication.guarded_store import Command, StoreCommand
from evcache.replication.hlc import NOTHING_NEWER, HybridLogicalClock, cas_of
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.touch import TouchCommand
from evcache.results import Outcome


class RunningLoads(Protocol):
    """Loads that are under way. A write detaches the loads of its key."""

    def detach(self, key: bytes, version: int | None) -> None:
        """Detach the loads of the key that began before this version was written."""

    def detach_all(self) -> None:
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


class InvalidationDispatcher:
    """What a client's own writes are told to, and what those of others are: a listener of the bus.

    Loads are detached by any write: whoever asks for the key from then on must not be given what a load found that began
    before.
    """

    def __init__(
        self,
        near: CoherentNearCache | None,
        flights: RunningLoads,
        zone: Callable[[], str | None],
        *,
        clock: HybridLogicalClock,
        remembered: SeenVersions,
        throttle: FailedLoads,
    ) -> None:
        """Make it for one client.

        Args:
            near: The near cache, or None.
            flights: Loads that are under way.
            zone: Returns the zone that reads go to first, or None before the zones are known.
            clock: The client's clock of versions.
            remembered: The versions that reads must not go behind.
            throttle: The keys whose loader has failed. A write ends the entry of its key.
        """
        self._near = near
        self._flights = flights
        self._zone = zone
        self._clock = clock
        self._remembered = remembered
        self._throttle = throttle
        self._throttled = throttle.until  # empty nearly always: then a write pays for a look
        self.announce: Callable[[bytes, int | None], None] | None = None
        """Tells other processes: a key, and the version that was written (None: not known)."""

    def begin(self, key: bytes, command: Command | None) -> float:
        """A write is about to be sent. Returns what `end` wants to know. None for what is not known before a zone has
        decided.
        """
        version = _version(command)
        self._flights.detach(key, version)
        if self._throttled and version:  # without one, nothing may come to be written: then `end` is not called
            self._throttle.end(key)
        if self._near is None:
            return 0.0
        if version == NOTHING_NEWER:
            self._near.invalidate(key, version)
            return 0.0
        return self._near.begin_write(key, version)

    def end(self, key: bytes, command: Command | None, round_: ReplicatedWrite | None, began: float) -> None:
        """It has ended, or its caller does not wait any more. Without a command and a round: it is not known what was
        decided.
        """
        version = _version(command)
        self._flights.detach(key, version)
        if self._throttled and version != NOTHING_NEWER:
            self._throttle.end(key)
        if self._near is not None:
            if version == NOTHING_NEWER:
                self._near.invalidate(key, version)
            elif round_ is not None and _is_held(command, round_):
                self._near.complete_write(key, command, self._zone(), began, round_.age)
            else:
                self._near.complete_uncertain_write(key, version, began, everywhere=round_ is not None and round_.everywhere)
        if self.announce is not None:
            self.announce(key, version if _may_be_relied_on(version, round_) else None)

    def unchanged(self, key: bytes, began: float) -> None:
        """It has ended, and nothing was written."""
        if self._near is not None:
            self._near.cancel_write(key, began)

    def caught_up(self, key: bytes, version: int) -> None:
        """A zone that had missed a write has it now: what has been read there since may be older."""
        if self._near is not None:
            self._near.invalidate(key, version)
        if self.announce is not None:
            self.announce(key, version)

    # What other processes say.

    def invalidate(self, key: bytes, version: int | None) -> None:
        """Another client has written this version; None: something; `NOTHING_NEWER`: nothing new, but what is held is not
        right.
        """
        self._flights.detach(key, version)
        if self._throttled and version != NOTHING_NEWER:
            self._throttle.end(key)
        if version is not None and version != NOTHING_NEWER:
            # Only if the clock believes the version: no item would be new enough for a version that is too far ahead.
            believed = self._clock.observe(cas_of(version))
            if believed is not None:
                self._remembered.note_from_peer(key, believed)
        if self._near is not None:
            self._near.invalidate(key, version)

    def invalidate_all(self, reason: str) -> None:  # noqa: ARG002  # an argument of `Listener`
        """Announcements may have been missed."""
        self._flights.detach_all()
        self._throttle.end_all()
        if self._near is not None:
            self._near.invalidate_all()

    def set_channel_up(self, up: bool) -> None:  # noqa: FBT001  # the bus's word for it
        """From now on announcements are heard, or are not."""
        if self._near is not None:
            self._near.set_channel_up(up)


def _version(command: Command | None) -> int | None:
    """Return the minimum version that readers may observe, or None if writes to the key are not version-ordered."""
    if isinstance(command, TouchCommand):
        return NOTHING_NEWER
    return command.version if isinstance(command, StoreCommand) and command.newest_wins and command.believed else None


def _may_be_relied_on(version: int | None, round_: ReplicatedWrite | None) -> bool:
    """Return whether other clients may take every older version for out of date: a zone that can be read has this one.

    If no zone has it, they would take all zones for behind. When a zone gets it later, by a hint, it is announced again.
    """
    return version == NOTHING_NEWER or (round_ is not None and round_.answered > 0)


def _is_held(command: Command | None, round_: ReplicatedWrite) -> TypeGuard[StoreCommand]:
    """Whether enough zones hold exactly this, by its version."""
    if not isinstance(command, StoreCommand):
        return False
    # If no server received the version, it says nothing about what they hold.
    ordered = command.carried and command.newest_wins and command.believed and command.version is not None
    return ordered and round_.met and Outcome.SUPERSEDED not in round_.outcomes.values()
