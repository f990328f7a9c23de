"""Retried write: an unconditional write that is sent again if it lost to a write that it should follow.

Versions come from clocks, and clocks differ. A client whose clock is 50 ms slow deletes a key 10 ms after the `set` of
another client has returned. The delete has the older version, every zone refuses it, and the value stays. So a zone may
report a newer version that this client had not seen when it made its own. The client then sends the write to every zone
again, with a version that is newer than that one.

The client sends no write again after it has completed, because the caller may have returned by then:

  1. zones a and b acknowledge this client's delete, and the call returns;
  2. another client, which knows of the delete, sets the key with a newer version;
  3. zone c reports that it holds a version which this client had not seen.

A delete that was sent again now would remove the value of event 2, which was written after it. Zone c keeps the newer
version, as it does for every late write.

The new version is newer than the one that was found first. Another zone may hold one that is newer still, so the client
sends a write at most `MAX_ATTEMPTS` times. Two writers that keep finding each other's newer version write at the same time,
and either order of the two is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.near_cache.version_fences import Block
from evcache.options import Options
from evcache.replication.commands.command import Command
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.replicator import Replicator
from evcache.replication.zone_write import ZoneWrite
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.transport.core.store_zones import Placement, StoreZones
from evcache.zones.zone_pool import ZonePool

# If the clocks of all clients differ, each zone may hold the latest write of another client. As many attempts as there are
# zones, in most topologies, end above all of them.
MAX_ATTEMPTS = 4


class Sender:
    """Factory of the unconditional writes of one client."""

    def __init__(
        self,
        hlc: HybridLogicalClock,
        dispatcher: InvalidationDispatcher,
        replicator: Replicator,
        tombstone_ttl: Callable[[], int],
    ) -> None:
        """Bind the parts of one client. `tombstone_ttl` returns the exptime of a delete that is sent now."""
        self.hlc = hlc
        self.dispatcher = dispatcher
        self.replicator = replicator
        self.tombstone_ttl = tombstone_ttl
        self.latest: dict[bytes, object] = {}
        """Last write of each key, until its call ends."""
        self.resent = 0
        """Number of writes that were sent again."""
        self._view: ClusterSnapshot | None = None
        self._store_zones: StoreZones

    def store_zones(self, view: ClusterSnapshot) -> StoreZones:
        """Return the zones of a snapshot with their sole connections. It is made once for each snapshot."""
        if view is not self._view:
            self._store_zones = selected.SELECTED.store_zones([_placement(pool) for pool in view.writers])
            self._view = view
        return self._store_zones


def _placement(pool: ZonePool) -> Placement:
    nodes, ring = pool.placement()
    points, owners = (None, None) if ring is None else ring.arrays()
    return Placement(pool.name, pool.readable, nodes, points, owners)


class RetriedWrite:
    """One write in flight: its latest attempt, and the command of that attempt."""

    __slots__ = (
        "_attempts_left",
        "_block",
        "_options",
        "_put",
        "_sender",
        "_sent_at",
        "_view",
        "attempt",
        "command",
        "deadline",
        "key",
    )

    attempt: ReplicatedWrite
    command: Command

    def __init__(
        self,
        sender: Sender,
        view: ClusterSnapshot,
        key: bytes,
        command: Command,
        options: Options,
        *,
        deadline: float | None = None,
        put: Callable[[ZoneWrite], object] | None = None,
    ) -> None:
        """Send a command to every zone. Returns at once and raises nothing.

        Args:
            sender: Parts of the client.
            view: Zones.
            key: Qualified key.
            command: Write to send.
            options: Timeout, and the number of zones that must acknowledge.
            deadline: End of the call, on the loop's clock. If None, the timeout of the options begins now.
            put: See `ReplicatedWrite.send`.
        """
        self._sender = sender
        self._view = view
        self._options = options
        self._sent_at = view.loop.time()
        self._attempts_left = MAX_ATTEMPTS - 1
        self.key = key
        self.deadline = self._sent_at + options.timeout if deadline is None else deadline
        self._put = put
        self._send(command, None)

    @classmethod
    def continuing(
        cls,
        sender: Sender,
        view: ClusterSnapshot,
        options: Options,
        attempt: ReplicatedWrite,
        block: Block,
        *,
        sent_at: float,
        deadline: float,
        put: Callable[[ZoneWrite], object] | None,
    ) -> RetriedWrite:
        """Return a write whose first attempt was sent in another way, at a time on the loop's clock.

        `block` is that of the dispatcher. The other arguments are those of `RetriedWrite`.
        """
        assert isinstance(attempt.command, StoreCommand)
        self = cls.__new__(cls)
        self._sender = sender
        self._view = view
        self._options = options
        self._sent_at = sent_at
        self._attempts_left = MAX_ATTEMPTS - 1
        self.key = attempt.command.key
        self.deadline = deadline
        self._put = put
        self.command = attempt.command
        self._block = block
        self.attempt = attempt
        if attempt.command.newest_wins:
            attempt.resend_with(self._send_again)
        return self

    def _send(self, command: Command, former: ReplicatedWrite | None) -> None:
        """Send one attempt. `former` is the one before it."""
        sender, view = self._sender, self._view
        self.command = command
        self._block = sender.dispatcher.begin(self.key, command.fence)
        attempt = self.attempt = sender.replicator.begin(view, self._options, command, former)
        if isinstance(command, StoreCommand) and command.newest_wins:
            attempt.resend_with(self._send_again)
            sender.latest[self.key] = self
        since = self._sent_at if former is None else None
        attempt.send(view.writers, view.ring_position(self.key), self.deadline, since, self._put)

    def _send_again(self) -> bool:
        """Send another attempt, unless this client has written the key since. Return True if it was sent.

        The later write is newer, or is sent again itself. This one must not go past it, because writes of one client take
        effect in the order in which they were made.

        The attempt calls this when a zone has answered, from a connection or a background task. A caller of `set_many` may
        then be waiting for another key, until the deadline.
        """
        former, store, sender = self.attempt, self.command, self._sender
        assert isinstance(store, StoreCommand)
        if not self._attempts_left or sender.latest.get(self.key) is not self:
            return False
        self._attempts_left -= 1
        sender.resent += 1
        elapsed = self._view.loop.time() - self._sent_at
        self._send(renewed(store, sender.hlc, elapsed, sender.tombstone_ttl()), former)
        return True

    @property
    def version(self) -> int | None:
        """Version that servers were sent. None if there is none."""
        command = self.command
        return command.version if isinstance(command, StoreCommand) and command.carried else None

    @property
    def is_decided(self) -> bool:
        """True if enough zones have acknowledged the latest attempt, or if that has become impossible."""
        completion = self.attempt.completion
        return completion.done() and not completion.cancelled()  # with a caller that waited for it

    async def wait_until_decided(self) -> None:
        """Wait until `is_decided`."""
        while not (completion := self.attempt.completion).done():
            await completion

    def end(self) -> None:
        """Report the change. Nothing is sent again from now on: the caller has its result, or does not wait for it."""
        sender = self._sender
        self.attempt.resend_with(None)  # a reference to this object would keep both until the garbage collector runs
        if sender.latest.get(self.key) is self:
            del sender.latest[self.key]
        sender.dispatcher.end(self.key, self.attempt, self._block)


def renewed(store: StoreCommand, hlc: HybridLogicalClock, elapsed: float, tombstone_ttl: int) -> StoreCommand:
    """Return the write with a version that is newer than the one for which a zone refused it.

    A value never ends later than `ttl` seconds and one more after it was sent first. If its time is over, the write is a
    delete. The values that it should have replaced must not stay, and its own value has expired.

    Args:
        store: A set or a delete that a zone has refused.
        hlc: Clock that makes the version.
        elapsed: Seconds since the store was sent.
        tombstone_ttl: Exptime of a delete.

    """
    version = hlc.tick(after=store.unseen)
    ttl = store.ttl
    is_over = False
    # An item with a unix time ends at that time. An envelope has its times inside, and its item stays as long as tombstones
    # do.
    if NEVER < ttl <= MAX_RELATIVE_SECONDS and store.flags != FLAG_ENVELOPE:
        ttl = math.ceil(ttl - elapsed)
        is_over = ttl <= 0
    believed = hlc.believes(version)
    if is_over or isinstance(store, DeleteCommand):
        return DeleteCommand(hlc, store.key, ttl=tombstone_ttl, version=version, believed=believed)
    return StoreCommand(hlc, store.key, store.data, store.flags, ttl=ttl, version=version, believed=believed)
