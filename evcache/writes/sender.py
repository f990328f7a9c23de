"""A caller's unconditional write on its way to every zone, sent again if it lost to a write that it should follow.

Versions come from clocks, and clocks differ. A client whose clock is 50 ms slow deletes a key 10 ms after the `set` of
another client has returned. The delete has the older version, every zone refuses it, and the value stays. So when a zone
reports a newer version that this client had not seen when it made its own, the client sends the write to every zone again,
with a version that is newer than that one.

The client sends nothing again after the round is decided, because the caller may have returned by then:

  1. zones a and b acknowledge this client's delete, and the call returns;
  2. another client, which knows of the delete, sets the key with a newer version;
  3. zone c reports that it holds a version which this client had not seen.

A delete that was sent again now would remove the value of event 2, which was written after it. Zone c keeps the newer
version, as it does for every late write.

The new version is newer than the one that was found first. Another zone may hold one that is newer still, so the client
sends a write again up to `MOST_ROUNDS - 1` times. Two writers that keep finding each other's newer version write at the same
time, and either order of the two is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.options import Options
from evcache.replication.guarded_store import Command, DeleteCommand, StoreCommand
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.replicated_write import ReplicatedWrite, ZoneWrite
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.ttl import MAX_RELATIVE_SECONDS, NEVER
from evcache.zones.cluster import ClusterSnapshot

# Of clients whose clocks all differ, each zone may hold the newest write of another one: as many rounds as there are zones,
# in most topologies, end above all of them.
MOST_ROUNDS = 4


class Sender:
    """The parts of one client that its unconditional writes use."""

    def __init__(
        self,
        clock: HybridLogicalClock,
        changes: InvalidationDispatcher,
        make_round: Callable[[ClusterSnapshot, Options, Command], ReplicatedWrite],
        tombstone_ttl: Callable[[], int],
    ) -> None:
        """`tombstone_ttl`: lifetime of a delete that is sent now, in the wire form."""
        self.clock = clock
        self.changes = changes
        self.make_round = make_round
        self.tombstone_ttl = tombstone_ttl
        self.latest: dict[bytes, RetriedWrite] = {}
        """The last write of each key, until its call ends."""
        self.resent = 0
        """Number of writes that were sent again."""


class RetriedWrite:
    """One write on its way: its latest round, and what that round sends."""

    __slots__ = (
        "_began",
        "_options",
        "_put",
        "_rounds_left",
        "_sender",
        "_sent_at",
        "_view",
        "command",
        "deadline",
        "key",
        "round",
    )

    round: ReplicatedWrite
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

        `deadline`: the end of the call, on the loop's clock; if None, the timeout of the options begins now. `put`: see
        `ReplicatedWrite.send`.
        """
        self._sender = sender
        self._view = view
        self._options = options
        self._sent_at = view.loop.time()
        self._rounds_left = MOST_ROUNDS - 1
        self.key = key
        self.deadline = self._sent_at + options.timeout if deadline is None else deadline
        self._put = put
        self._send(command, None)

    def _send(self, command: Command, first: StoreCommand | None) -> None:
        """Send a round; `first`: the store whose round it follows."""
        sender, view = self._sender, self._view
        self.command = command
        self._began = sender.changes.begin(self.key, command)
        round_ = self.round = sender.make_round(view, self._options, command)
        if isinstance(command, StoreCommand) and command.newest_wins:
            if first is not None:
                command.cause = first.cause  # the span that is current now is not the caller's
            round_.send_again = self._send_again
            sender.latest[self.key] = self
        since = None if first else self._sent_at
        round_.send(command, view.writers, view.ring_position(self.key), self.deadline, since, self._put)

    def _send_again(self) -> bool:
        """Send another round, unless this client has written the key since.

        The later write is newer, or is sent again itself. This one must not go past it: writes of one client take effect in
        the order in which they were made.

        The round calls this at the moment when a zone has answered, out of a connection or a background task. A caller of
        `set_many` may be waiting for another key then, until the deadline.
        """
        first, sender = self.command, self._sender
        assert isinstance(first, StoreCommand)
        if not self._rounds_left or sender.latest.get(self.key) is not self:
            return False
        self._rounds_left -= 1
        sender.resent += 1
        elapsed = self._view.loop.time() - self._sent_at
        self._send(renewed(first, sender.clock, elapsed, sender.tombstone_ttl()), first)
        return True

    @property
    def version(self) -> int | None:
        """Version that servers were sent; None if there is none."""
        command = self.command
        return command.version if isinstance(command, StoreCommand) and command.carried else None

    async def decided(self) -> None:
        """Wait until the latest round is decided."""
        while not (decision := self.round.decision).done():
            await decision

    def end(self) -> None:
        """Report the change. From now on nothing is sent again: the caller has its result, or does not wait for it."""
        sender = self._sender
        self.round.send_again = None  # which refers to this object, and would keep both until the garbage collector runs
        if sender.latest.get(self.key) is self:
            del sender.latest[self.key]
        sender.changes.end(self.key, self.command, self.round, self._began)


def renewed(store: StoreCommand, clock: HybridLogicalClock, elapsed: float, tombstone_ttl: int) -> StoreCommand:
    """Return the same write with a version that is newer than the one it was refused for.

    A value never ends later than `ttl` seconds and one more after it was sent first. If its time is over, the write is a
    delete: what the value should have replaced must not stay, and the value itself has come and gone.

    Args:
        store: a set or a delete that a zone has refused.
        clock: makes the version.
        elapsed: seconds since the store was sent.
        tombstone_ttl: lifetime of a delete, in the wire form.

    """
    version = clock.tick(after=store.unseen)
    ttl = store.ttl
    is_over = False
    # An item with a unix time ends at that time. An envelope has its times inside, and its item stays as long as deletes are
    # remembered.
    if NEVER < ttl <= MAX_RELATIVE_SECONDS and store.flags != FLAG_ENVELOPE:
        ttl = math.ceil(ttl - elapsed)
        is_over = ttl <= 0
    if is_over or isinstance(store, DeleteCommand):
        newer: StoreCommand = DeleteCommand(clock, store.key, ttl=tombstone_ttl, version=version)
    else:
        newer = StoreCommand(clock, store.key, store.data, store.flags, ttl=ttl, version=version)
    newer.believed = clock.believes(version)
    return newer
