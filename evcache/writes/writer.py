"""Writes of one client: commands to every zone, and conditional writes that one zone decides first."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, TypeVar

from evcache._helpers.background import BackgroundTasks
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable
from evcache.hooks import HookDispatcher
from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.options import Options
from evcache.replication.commands.command import Command
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.commands.touch import TouchCommand
from evcache.replication.gutter import GutterPool
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.lanes import Flow, Lanes
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.replicator import Replicator
from evcache.replication.seen_versions import SeenVersions
from evcache.results import Outcome, WriteResult
from evcache.values.ttl import to_exptime
from evcache.writes.bulk_write import BulkWrite
from evcache.writes.conditional.atomic import ConditionalWrite, Renew
from evcache.writes.conditional.coordinator import Coordinator
from evcache.writes.conditional.writer import ConditionalWriter, Coordinated
from evcache.writes.draft import Draft
from evcache.writes.ordinary_write import OrdinaryWrite, ordinary_zones
from evcache.writes.sender import RetriedWrite, Sender
from evcache.zones.snapshot import ClusterSnapshot

AnyKey = TypeVar("AnyKey", bound=Hashable)
Source = TypeVar("Source")


class Writer:
    """Writes of one client."""

    def __init__(
        self,
        hlc: HybridLogicalClock,
        coordinator: Coordinator,
        background: BackgroundTasks,
        hooks: HookDispatcher,
        *,
        versions: bool,
        tombstone_ttl: float,
        now: Callable[[], float],
        remembered: SeenVersions,
        replay: HintedHandoff | None = None,
        gutter: GutterPool | None = None,
        changes: InvalidationDispatcher,
    ) -> None:
        """Bind the parts of one client.

        Args:
            hlc: Clock that makes versions.
            coordinator: Chooses the zone that decides a conditional write.
            background: Owner of the tasks of writes.
            hooks: Receives the outcome of each zone.
            versions: True if this client's writes have versions.
            tombstone_ttl: Seconds that a delete is remembered by the zones.
            now: Returns seconds since 1970.
            remembered: Receives the versions that enough zones have.
            replay: Keeps hints for zones that miss a write. If None, there are no hints.
            gutter: Takes writes that no zone took. If None, there is no gutter.
            changes: Receives the start and the end of each write.
        """
        self._hlc = hlc
        self._coordinator = coordinator
        self._versions = versions
        self._tombstone_ttl = tombstone_ttl
        self._now = now
        self._seen_versions = remembered
        self._background = background
        self._gutter = gutter
        self._lanes = Lanes(background)
        self._replicator = Replicator(background, hooks, remembered, replay)
        self._sender = Sender(hlc, changes, self._replicator, lambda: self.wire_ttl(tombstone_ttl))
        self._conditional = ConditionalWriter(coordinator, changes, background, self._replicator, self._lanes, replay)

    @property
    def resent(self) -> int:
        """Number of writes that were sent again with a newer version."""
        return self._sender.resent

    def reopen(self) -> None:
        """Forget the locks and lanes of the last opening."""
        self._conditional.reopen()
        self._lanes.reopen()

    # Commands. Each is made once for all zones.

    def draft(self, key: bytes, encoded: tuple[bytes, int], ttl: float) -> Draft:
        """Return the draft of an encoded value (bytes and flags) that is to live `ttl` seconds."""
        return Draft(key, *encoded, self.wire_ttl(ttl))

    def wire_ttl(self, ttl: float) -> int:
        """Return the exptime of an item that is to live `ttl` seconds."""
        return to_exptime(ttl, self._now())

    def store(self, draft: Draft, *, newest_wins: bool) -> StoreCommand:
        """Return the store of a draft with a new version."""
        key, data, flags, ttl = draft
        version = self._hlc.tick() if self._versions else None
        return StoreCommand(self._hlc, key, data, flags, ttl=ttl, version=version, newest_wins=newest_wins)

    def store_at(self, draft: Draft, version: int | None) -> StoreCommand:
        """Return the store of a draft with the version of an earlier moment, such as the start of a load."""
        return StoreCommand(self._hlc, draft.key, draft.data, draft.flags, ttl=draft.ttl, version=version)

    def delete(self, key: bytes) -> DeleteCommand:
        """Return the store of a tombstone with a new version."""
        version = self._hlc.tick() if self._versions else None
        return DeleteCommand(self._hlc, key, ttl=self.wire_ttl(self._tombstone_ttl), version=version)

    # Writes.

    async def write(
        self, operation: str, view: ClusterSnapshot, key: bytes, command: Command, options: Options
    ) -> WriteResult:
        """Send a command to every zone, and wait for the number of acknowledgements that the options require.

        If a zone has a newer version that this client had not seen, the write is sent again (see `RetriedWrite`). A
        cancelled call does not end the write.

        Args:
            operation: Name of the call, for errors.
            view: Zones.
            key: Qualified key.
            command: Command that each zone gets.
            options: Timeout, number of acknowledgements, and the form of errors.

        Returns:
            The outcome in each zone. It is true if enough zones have acknowledged.

        Raises:
            CacheUnavailable: No zone could be reached. Not with `errors="miss"`.
        """
        if (
            isinstance(command, StoreCommand)
            and not self._lanes.by_node
            and (zones := ordinary_zones(self._sender, view, command))
        ):
            ordinary = OrdinaryWrite(self._sender, view, command, options, zones)
            try:
                await ordinary.completion  # `wait_until_decided`, without a coroutine for each write
                if ordinary.retried is not None:
                    await ordinary.retried.wait_until_decided()
            finally:  # also for a caller that was cancelled, because the write goes on
                ordinary.end()
            if ordinary.retried is None:
                return WriteResult(ordinary.met, command.version, ordinary.outcomes.copy())
            sending = ordinary.retried
        else:
            put = self._lanes.start_in_order if self._lanes.by_node else None
            sending = RetriedWrite(self._sender, view, key, command, options, put=put)
            try:
                await sending.wait_until_decided()
            finally:
                sending.end()
        write = sending.attempt
        if write.unreachable:
            await self._store_in_gutter(view, write, sending.deadline)
            if write.is_lost and options.errors == "raise":
                raise CacheUnavailable(operation, dict(write.failures))
        return WriteResult(write.met, sending.version, dict(write.outcomes), write.fell_short)

    async def write_many(
        self,
        operation: str,
        view: ClusterSnapshot,
        sources: Mapping[AnyKey, Source],
        command: Callable[[Source], tuple[bytes, StoreCommand]],
        options: Options,
        deadline: float,
    ) -> dict[AnyKey, WriteResult]:
        """Write several keys, as many at once as the zones take (see `BulkWrite.run`).

        `deadline`: end of the call, on the loop's clock.
        """
        bulk = BulkWrite[AnyKey](self._sender, self.flow(options), view, options, deadline, self._gutter)
        return await bulk.run(operation, sources, command)

    def coordinate(
        self, operation: str, view: ClusterSnapshot, write: ConditionalWrite, options: Options
    ) -> Coroutine[Any, Any, Coordinated]:
        """Return a coroutine that has the coordinator of the key decide a write (see `ConditionalWriter.coordinate`)."""
        return self._conditional.coordinate(operation, view, write, options)

    async def touch(self, view: ClusterSnapshot, key: bytes, ttl: float, options: Options) -> WriteResult:
        """Give a value a new TTL of `ttl` seconds in every zone. Raises as `write` does."""
        if options.consistency is Consistency.NONE:
            self.touch_in_background(view, key, ttl, options)
            return WriteResult(met=True, version=None, zones={pool.name: Outcome.PENDING for pool in view.writers})
        deadline = view.loop.time() + options.timeout
        if view.standby:
            # The set that is being filled may lack the value. It would answer that there is nothing to touch.
            await self._coordinator.copy_latest(view, key, deadline)
            options = options._replace(timeout=max(0.0, deadline - view.loop.time()))
        command = TouchCommand(self._hlc, key, ttl=self.wire_ttl(ttl), known=self._seen_versions.latest(key))
        result = await self.write("touch", view, key, command, options)
        if not result:  # a zone that is down may complete the write before another zone has answered the look
            await command.wait_until_looked(deadline)
        if not command.is_wrapped:
            return result
        left = options._replace(timeout=max(0.0, deadline - view.loop.time()))
        return (await self.coordinate("touch", view, Renew(key, ttl), left)).result

    def touch_in_background(self, view: ClusterSnapshot, key: bytes, ttl: float, options: Options) -> None:
        """Start to give a value a new TTL of `ttl` seconds. Returns at once, and no caller waits for the end."""
        # At ALL, because it must see the item of each zone.
        self._background.spawn(self.touch(view, key, ttl, options._replace(consistency=Consistency.ALL)))

    # Stores of loaded values.

    def flow(self, options: Options) -> Flow:
        """Return the flow control of a call that writes many keys."""
        return Flow(self._lanes, options.timeout)

    async def replicate(
        self,
        view: ClusterSnapshot,
        store: StoreCommand,
        zone: str | None,
        deadline: float,
        options: Options,
        flow: Flow | None = None,
    ) -> OrdinaryWrite | ReplicatedWrite:
        """Send a store to every zone except the one that has stored it, and wait for the required acknowledgements.

        No invalidation is published, because the value is the one that the source held before any later write of the key.

        Args:
            view: Zones.
            store: Store that each zone gets.
            zone: Zone that has stored it. If None, no zone has.
            deadline: Time on the loop's clock.
            options: Names the number of acknowledgements.
            flow: Flow control, if the call writes many keys.

        Returns:
            The write, with the outcome in each zone.
        """
        zones = None
        if zone is None and (flow is not None or not self._lanes.by_node):
            zones = ordinary_zones(self._sender, view, store, flow)
        write: OrdinaryWrite | ReplicatedWrite
        if zones is not None:
            ordinary = OrdinaryWrite(self._sender, view, store, options, zones, deadline, flow, is_new=False)
            await ordinary.wait_until_decided()
            write = ordinary.attempt
        else:
            put = self._lanes.start_in_order if self._lanes.by_node else None
            if flow is not None:
                put = flow.put
            write = self._replicator.replicate(view, options, store, zone, deadline, None, put)
            await write.wait_until_decided()
        if write.unreachable:
            await self._store_in_gutter(view, write, deadline)
        return write

    async def _store_in_gutter(self, view: ClusterSnapshot, write: OrdinaryWrite | ReplicatedWrite, deadline: float) -> None:
        store = write.command
        if self._gutter is not None and isinstance(store, StoreCommand):
            write.note_gutter(await self._gutter.store(view, store, deadline, write.age))
