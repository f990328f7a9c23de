"""The ordinary write: one encoded store to every zone, of which nearly all have the usual result.

The connections count the usual result, and the write looks at them when enough zones have it, and when the last one has.
Another result of a zone turns the write into a `RetriedWrite`, which knows all results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from evcache.near_cache.version_fences import NO_BLOCK
from evcache.options import Options
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.gutter import GUTTER
from evcache.replication.lanes import Flow, size_of
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.zone_write import ZoneWrite
from evcache.results import Outcome
from evcache.writes.sender import RetriedWrite, Sender
from evcache.zones.errors import CacheError, NodeTimeout, QueueFull
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.transport.core.waiters import Completion, Zone
from evcache.zones.zone_pool import ZonePool

# A member of an enum is looked up by a descriptor before Python 3.12, which takes three times as long.
_PENDING, _STORED = Outcome.PENDING, Outcome.STORED


def ordinary_zones(
    sender: Sender, view: ClusterSnapshot, command: StoreCommand, flow: Flow | None = None
) -> list[Zone] | None:
    """Return the zones of an ordinary write. None if the write takes the general way.

    A store is ordinary if it has a version, and neither hints nor listeners wait for the result of each zone.
    Each node has an open connection, keeps versions and takes the value. There are no standby zones, which count separately.
    If the store is one of many, the lane of each node takes it at once.

    Args:
        sender: Parts of the client.
        view: Zones.
        command: The store.
        flow: Flow control, if the call writes many keys.
    """
    parts = sender.replicator
    if command.version is None or parts.hooks.of_writes or view.standby:
        return None
    if parts.handoff is not None and parts.handoff.hints.count:
        return None
    size = len(command.key) + len(command.data)
    zones = sender.store_zones(view).of(command.key, size)
    if zones is not None and flow is None:
        return zones
    place = view.ring_position(command.key)
    nodes = [pool.only or pool.node(place) for pool in view.writers]
    # All are looked at before any connection is taken, because that moves the turn of the node's connections.
    if zones is None and any(not node.connections.ready or node.versioned_bytes < size for node in nodes):
        return None
    lanes = None
    if flow is not None:
        lanes = flow.lanes(nodes, size_of(command))
        if lanes is None:
            return None
    if zones is None:
        zones = _take_turns(view.writers, nodes)
    if zones is None or lanes is None:
        return zones
    return [(name, counts, connection, lane) for (name, counts, connection, _), lane in zip(zones, lanes, strict=True)]


def _take_turns(pools: Sequence[ZonePool], nodes: Sequence[Node]) -> list[Zone] | None:
    """Return the zones with a connection of each node, if some nodes have several. None if one has none any more."""
    zones: list[Zone] = []
    for pool, node in zip(pools, nodes, strict=True):
        connection = node.connection()
        if connection is None:
            return None
        zones.append((pool.name, pool.readable, connection, None))
    return zones


class OrdinaryWrite:
    """One ordinary write in flight.

    A bulk write collects it in the same way as a `RetriedWrite`. It is its own attempt until it becomes general.
    """

    # Defaults in the class and not in `__init__`, because a write sets few of them.
    retried: RetriedWrite | None = None
    """The write from the first unusual result on, if its call had not ended."""
    size = 0
    """Bytes that it takes in each lane."""
    failures: Mapping[str, CacheError] = MappingProxyType({})
    """Error of each zone that had no result by the deadline of the call."""
    fell_short = ()
    """See `ReplicatedWrite.fell_short`. There are no standby zones."""
    _flow: Flow | None = None
    _attempt: ReplicatedWrite | None = None
    _cause: object = None
    _is_over = False
    _block = NO_BLOCK

    def __init__(
        self,
        sender: Sender,
        view: ClusterSnapshot,
        command: StoreCommand,
        options: Options,
        zones: list[Zone],
        deadline: float | None = None,
        flow: Flow | None = None,
        *,
        is_new: bool = True,
    ) -> None:
        """Send a command to every zone. Returns at once and raises nothing.

        Args:
            sender: Parts of the client.
            view: Zones.
            command: Write to send.
            options: Timeout, and the number of zones that must acknowledge.
            zones: Result of `ordinary_zones`.
            deadline: Time on the loop's clock. If None, the timeout of the options begins now.
            flow: Flow control, if the call writes many keys.
            is_new: False for a value that was loaded before it is written. It is not sent again, and `end` is not called.
        """
        self.command = command
        self._sender = sender
        self._view = view
        self._options = options
        self._sent_at = sent_at = view.loop.time()
        self.deadline = sent_at + options.timeout if deadline is None else deadline
        self._required = options.consistency.required(len(view.readers))
        self.fence = command.fence
        """Lowest version that readers may observe after the write (see `Command.fence`)."""
        store, (usual, self._interpret) = command.encoded()
        if is_new:
            self._block = sender.dispatcher.begin(command.key, self.fence)
            if command.newest_wins:
                sender.latest[command.key] = self
        else:
            self._is_over = True
        ask = sender.replicator.hooks.cause
        if ask is not None:
            self._cause = ask()
        self._tally = tally = selected.SELECTED.tally(self, view.loop, self._required, usual, _PENDING, _STORED)
        self.completion: Completion = tally.completion
        """Done when enough zones have acknowledged, or when that has become impossible. It has no result."""
        self.outcomes: dict[str, Outcome] = tally.outcomes
        """Outcome in each zone."""
        if flow is not None:
            self._flow = flow
            self.size = size_of(command)
            flow.enter([lane for *_, lane in zones], self.size)
        tally.send(zones, store, self.deadline)

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

    # What a bulk write asks of a write, see `RetriedWrite` and `ReplicatedWrite`.

    @property
    def attempt(self) -> OrdinaryWrite | ReplicatedWrite:
        """Latest attempt: this write, until it becomes general."""
        if self.retried is not None:
            return self.retried.attempt
        return self._attempt or self

    @property
    def version(self) -> int | None:
        """Version that servers were sent."""
        return self.command.version if self.retried is None else self.retried.version

    @property
    def is_decided(self) -> bool:
        """True if enough zones have acknowledged the latest attempt, or if that has become impossible."""
        if self.retried is not None:
            return self.retried.is_decided
        completion = self.completion
        return completion.done() and not completion.cancelled()  # with a caller that waited for it

    async def wait_until_decided(self) -> None:
        """Wait until `is_decided`."""
        if not self.completion.done():
            await self.completion
        if self.retried is not None:
            await self.retried.wait_until_decided()

    @property
    def unanswered(self) -> bool:
        """True if no readable zone has a result, although at least one had to."""
        return self._required > 0 and not self._tally.acknowledged

    @property
    def unreachable(self) -> bool:
        """True if every readable zone failed to answer. False, because no zone has failed."""
        return False

    def time_out_pending(self) -> dict[str, Outcome]:
        """Record that zones had no result by the deadline of the call. See `ReplicatedWrite.time_out_pending`."""
        pending = [zone for zone, outcome in self.outcomes.items() if outcome is _PENDING]
        self.failures = {zone: NodeTimeout("no reply in time", zone) for zone in pending}
        return self.outcomes | dict.fromkeys(pending, Outcome.TIMEOUT)

    def note_gutter(self, outcome: Outcome) -> None:
        """Record the outcome of the write in the gutter."""
        self.outcomes[GUTTER] = outcome

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
        for zone in stored:
            if parts.handoff is not None:
                parts.handoff.end_superseded(zone[0], self.command)
        if parts.hooks.of_writes:
            for zone in stored:
                parts.hooks.zone_wrote(zone[0], Outcome.STORED, late=self.completion.done())

    def settle(self, zone: Zone, answer: Any) -> None:
        """Continue in a zone that has another result, or follows one that had.

        The write of the zone keeps its place in its lane until it ends, because it may take a task, which the lane bounds.

        Args:
            zone: The zone.
            answer: Replies of its node, or the `CacheError` of a request without replies.
        """
        view, flow, lane = self._view, self._flow, zone[3]
        (pool,) = (pool for pool in view.writers if pool.name == zone[0])
        attempt = self._attempt or self._become_general()
        write = ZoneWrite(attempt, pool, pool.node(view.ring_position(self.command.key)), self.deadline)
        if flow is None:
            write.resume(self._interpret, answer)
        elif isinstance(answer, QueueFull):  # nothing was sent
            lane.wait_again(write, self.size, flow.patience)
        else:
            write.enter(lane, self.size)
            write.resume(self._interpret, answer)

    def _become_general(self) -> ReplicatedWrite:
        """Return this write in the general form."""
        view, sender, command, tally = self._view, self._sender, self.command, self._tally
        self._report(tally.take())
        attempt = self._attempt = ReplicatedWrite(
            sender.replicator, command, self._required, self.completion, view.topology, self._cause
        )
        attempt.adopt(self.outcomes, tally.acknowledged, len(view.readers), self._sent_at)
        attempt.failures.update(self.failures)
        if not self._is_over:
            retried = self.retried = RetriedWrite.continuing(
                sender,
                view,
                self._options,
                attempt,
                self._block,
                sent_at=self._sent_at,
                deadline=self.deadline,
                put=None if self._flow is None else self._flow.put,
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
