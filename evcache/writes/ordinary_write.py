"""The ordinary write: one encoded store to every zone, of which nearly all have the usual result.

The connections count the usual result, and the write looks at them when enough zones have it, and when the last one has.
Another result of a zone turns the write into a `RetriedWrite`, which knows all results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evcache.options import Options
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.results import Outcome
from evcache.writes.sender import RetriedWrite, Sender
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.transport.core.waiters import Completion, Zone
from evcache.zones.zone_pool import ZonePool

# A member of an enum is looked up by a descriptor before Python 3.12, which takes three times as long.
_PENDING, _STORED = Outcome.PENDING, Outcome.STORED


def ordinary_zones(sender: Sender, view: ClusterSnapshot, command: StoreCommand) -> list[Zone] | None:
    """Return the zones of an ordinary write. None if the write takes the general way.

    A store is ordinary if it has a version, and neither hints nor listeners wait for the result of each zone.
    Each node has an open connection, keeps versions and takes the value. There are no standby zones, which count separately.

    Args:
        sender: Parts of the client.
        view: Zones.
        command: The store.
    """
    parts = sender.replicator
    if command.version is None or parts.hooks.of_writes or view.standby:
        return None
    if parts.handoff is not None and parts.handoff.hints.count:
        return None
    key = command.key
    size = len(key) + len(command.data)
    return sender.store_zones(view).of(key, size) or _take_turns(view.writers, view.ring_position(key), size)


def _take_turns(pools: Sequence[ZonePool], place: int, size: int) -> list[Zone] | None:
    """Return the zones of an ordinary write, if some nodes have several connections or none."""
    nodes = [pool.node(place) for pool in pools]
    # All are looked at before any connection is taken, because that moves the turn of the node's connections.
    if any(not node.connections.ready or node.versioned_bytes < size for node in nodes):
        return None
    zones: list[Zone] = []
    for pool, node in zip(pools, nodes, strict=True):
        connection = node.connection()
        if connection is None:
            return None
        zones.append((pool.name, pool.readable, connection))
    return zones


class OrdinaryWrite:
    """One ordinary write in flight."""

    # Defaults in the class and not in `__init__`, because a write sets few of them.
    retried: RetriedWrite | None = None
    """The write from the first unusual result on, if its call had not ended."""
    _attempt: ReplicatedWrite | None = None
    _cause: object = None
    _is_over = False

    def __init__(
        self, sender: Sender, view: ClusterSnapshot, command: StoreCommand, options: Options, zones: list[Zone]
    ) -> None:
        """Send a command to every zone. Returns at once and raises nothing.

        Args:
            sender: Parts of the client.
            view: Zones.
            command: Write to send.
            options: Timeout, and the number of zones that must acknowledge.
            zones: Result of `ordinary_zones`.
        """
        self.command = command
        self._sender = sender
        self._view = view
        self._options = options
        self._sent_at = view.loop.time()
        self._required = options.consistency.required(len(view.readers))
        self.fence = command.fence
        """Lowest version that readers may observe after the write (see `Command.fence`)."""
        store, (usual, self._interpret) = command.encoded()
        self._block = sender.dispatcher.begin(command.key, self.fence)
        ask = sender.replicator.hooks.cause
        if ask is not None:
            self._cause = ask()
        if command.newest_wins:
            sender.latest[command.key] = self
        self._tally = tally = selected.SELECTED.tally(self, view.loop, self._required, usual, _PENDING, _STORED)
        self.completion: Completion = tally.completion
        """Done when enough zones have acknowledged, or when that has become impossible. It has no result."""
        self.outcomes: dict[str, Outcome] = tally.outcomes
        """Outcome in each zone."""
        tally.send(zones, store, self._sent_at + options.timeout)

    # What the dispatcher asks of a write that has ended, see `EndedWrite`.

    @property
    def met(self) -> bool:
        """True if enough zones have acknowledged."""
        return self._tally.acknowledged >= self._required

    @property
    def stored(self) -> StoreCommand | None:
        """The store, if enough zones hold it by its version."""
        return self.command if self.met and self.fence is not None else None

    @property
    def everywhere(self) -> bool:
        """True if every zone has acknowledged by now, write-only zones included."""
        return all(outcome is _STORED for outcome in self.outcomes.values())

    @property
    def age(self) -> float:
        """Seconds since the start of its TTL."""
        return self._view.loop.time() - self._sent_at

    @property
    def is_readable(self) -> bool:
        """True if a readable zone holds the write."""
        return self._tally.acknowledged > 0

    # Results of zones.

    def reach(self, stored: list[Zone]) -> None:
        """Remember the version, which enough zones hold."""
        command, parts = self.command, self._sender.replicator
        if command.believed:
            parts.seen_versions.note(command.key, command.version)  # type: ignore[arg-type]  # see `ordinary_zones`
        if parts.hooks.of_writes or (parts.handoff is not None and parts.handoff.hints.count):
            self._report(stored)

    def finish(self, stored: list[Zone]) -> None:
        """End the write, which all zones hold."""
        parts = self._sender.replicator
        handoff = parts.handoff
        if parts.hooks.of_writes or (handoff is not None and handoff.hints.count):
            self._report(stored)
        if handoff is not None:
            handoff.check_new_zones(self._view.topology, self.command.key)

    def _report(self, stored: list[Zone]) -> None:
        """Report zones with the usual result to hints and listeners, which were none when the write began."""
        parts = self._sender.replicator
        for name, _, _ in stored:
            if parts.handoff is not None:
                parts.handoff.end_superseded(name, self.command)
        if parts.hooks.of_writes:
            for name, _, _ in stored:
                parts.hooks.zone_wrote(name, Outcome.STORED, late=self.completion.done())

    def settle(self, zone: str, answer: Any) -> None:
        """Continue in a zone that has another result, or follows one that had.

        Args:
            zone: Name of the zone.
            answer: Replies of its node, or the `CacheError` of a request without replies.
        """
        view, deadline = self._view, self._sent_at + self._options.timeout
        (pool,) = (pool for pool in view.writers if pool.name == zone)
        attempt = self._attempt or self._become_general()
        attempt.resume(pool, view.ring_position(self.command.key), deadline, self._interpret, answer)

    def _become_general(self) -> ReplicatedWrite:
        """Return this write in the general form."""
        view, sender, command, tally = self._view, self._sender, self.command, self._tally
        self._report(tally.take())
        attempt = self._attempt = ReplicatedWrite(
            sender.replicator, command, self._required, self.completion, view.topology, self._cause
        )
        attempt.adopt(self.outcomes, tally.acknowledged, len(view.readers), self._sent_at)
        if not self._is_over:
            retried = self.retried = RetriedWrite.continuing(
                sender, view, command.key, self._options, attempt, self._sent_at, self._block
            )
            if sender.latest.get(command.key) is self:
                sender.latest[command.key] = retried
        return attempt

    def end(self) -> None:
        """Report the change. Its caller has its result, or does not wait for it."""
        if self.retried is not None:
            self.retried.end()
            return
        self._is_over = True
        stored = self._tally.take()
        if stored:  # a caller that was cancelled has not waited for enough zones
            self._report(stored)
        sender, key = self._sender, self.command.key
        if sender.latest.get(key) is self:
            del sender.latest[key]
        sender.dispatcher.end(key, self, self._block)
