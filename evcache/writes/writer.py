"""Writes: one command to every zone, or a decision in one zone that the others are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from evcache._background import BackgroundTasks
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable
from evcache.hooks import HookDispatcher
from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.options import Options
from evcache.replication.guarded_store import Command, DeleteCommand, StoreCommand
from evcache.replication.gutter import GUTTER, GutterPool
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.lanes import Flow, Lanes, size_of
from evcache.replication.node_requests import Peeked, peek
from evcache.replication.replicated_write import ReplicatedWrite, ZoneWrite
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.touch import TouchCommand
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, Outcome, WriteResult
from evcache.values.ttl import to_exptime
from evcache.writes.atomic import ConditionalWrite, Renew
from evcache.writes.bulk_write import BulkWrite
from evcache.writes.compare_and_set import Decision
from evcache.writes.coordinator import Coordinator
from evcache.writes.draft import Draft
from evcache.writes.keyed_lock import KeyedLock
from evcache.writes.sender import RetriedWrite, Sender
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeError, NodeTimeout, NodeUnavailable, ServerError, ValueTooLarge
from evcache.zones.nodes.capabilities import DEFAULT_ITEM_BYTES, FITS_ANYWHERE_BYTES
from evcache.zones.nodes.node import Node
from evcache.zones.zone_pool import ZonePool

AnyKey = TypeVar("AnyKey", bound=Hashable)
Source = TypeVar("Source")


class Coordinated(NamedTuple):
    """Result of a conditional write."""

    result: WriteResult
    value: int | None
    """New value of a counter. None if there is no counter."""


class Writer:
    """How one client writes."""

    def __init__(
        self,
        clock: HybridLogicalClock,
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
        self._clock = clock
        self._changes = changes
        self._coordinator = coordinator
        self._turns = KeyedLock()
        self._background = background
        self._lanes = Lanes(background)
        self._hooks = hooks
        self._versions = versions
        self._tombstone_ttl = tombstone_ttl
        self._now = now
        self._remembered = remembered
        self._replay = replay
        self._gutter = gutter
        self._sender = Sender(clock, changes, self._round, lambda: self.wire_ttl(tombstone_ttl))

    @property
    def resent(self) -> int:
        """Number of writes that were sent again with a newer version."""
        return self._sender.resent

    def reopen(self) -> None:
        """Forget the turns and lanes of the last opening."""
        self._turns.reopen()
        self._lanes.reopen()

    # Commands, made once for all zones.

    def draft(self, key: bytes, encoded: tuple[bytes, int], ttl: float) -> Draft:
        """An encoded value (bytes, flags) that is to live `ttl` seconds."""
        return Draft(key, *encoded, self.wire_ttl(ttl))

    def wire_ttl(self, ttl: float) -> int:
        """Return seconds to live in the form that servers take."""
        return to_exptime(ttl, self._now())

    def store(self, draft: Draft, *, newest_wins: bool) -> StoreCommand:
        """The draft with a new version."""
        return StoreCommand(
            self._clock,
            draft.key,
            draft.data,
            draft.flags,
            ttl=draft.ttl,
            version=self._clock.tick() if self._versions else None,
            newest_wins=newest_wins,
        )

    def loaded(self, draft: Draft, version: int | None) -> StoreCommand:
        """What a loader has returned, with the version of when it was called."""
        return StoreCommand(self._clock, draft.key, draft.data, draft.flags, ttl=draft.ttl, version=version)

    def delete(self, key: bytes) -> DeleteCommand:
        """A tombstone with a new version."""
        version = self._clock.tick() if self._versions else None
        return DeleteCommand(self._clock, key, ttl=self.wire_ttl(self._tombstone_ttl), version=version)

    # To every zone.

    async def write(
        self, operation: str, view: ClusterSnapshot, key: bytes, command: Command, options: Options
    ) -> WriteResult:
        """Send a command to every zone, and wait for as many as the options ask for.

        If a zone has a newer version that this client had not seen, the write is sent again (see `RetriedWrite`).
        Raises `CacheUnavailable` when no zone could be reached, unless errors are to be misses.
        """
        sending = RetriedWrite(
            self._sender, view, key, command, options, put=self._lanes.in_order if self._lanes.by_node else None
        )
        try:
            await sending.decided()
        finally:  # also for a caller who was cancelled: the write goes on
            sending.end()
        await self._to_gutter(view, sending.command, sending.round, sending.deadline)
        return _result(operation, sending.round, options, sending.version)

    async def _to_gutter(self, view: ClusterSnapshot, command: Command, round_: ReplicatedWrite, deadline: float) -> None:
        if self._gutter is not None and round_.unreachable and isinstance(command, StoreCommand):
            round_.outcomes[GUTTER] = await self._gutter.store(view, command, deadline, round_.age)

    async def _decided(self, key: bytes, command: Command, round_: ReplicatedWrite, began: float) -> None:
        try:
            await round_.decided()
        finally:  # also for a caller who was cancelled: the write goes on
            self._changes.end(key, command, round_, began)

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

        `deadline`: the end of the call, on the loop's clock.
        """
        bulk = BulkWrite[AnyKey](self._sender, self.flow(options), view, options, deadline, self._gutter)
        return await bulk.run(operation, sources, command)

    async def check_size(self, view: ClusterSnapshot, draft: Draft, options: Options) -> Options:
        """Raise `ValueTooLarge` when a zone's server would not take the value: refusing, it would delete what it has.

        The limit is that of an open connection. If the value seems too large for a node without one, the client connects
        and asks again, since the server may have been restarted with another limit. Returns the options with the time left.
        """
        if len(draft.data) <= FITS_ANYWHERE_BYTES:
            return options
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        await self.check_sizes(view, [draft], deadline)
        return options._replace(timeout=max(0.0, deadline - loop.time()))

    async def check_sizes(self, view: ClusterSnapshot, drafts: Iterable[Draft], deadline: float) -> None:
        """Raise `ValueTooLarge` as `check_size` does, for any of several values.

        All servers are connected to at once. They have half of the time until `deadline`, on the loop's clock: a server that
        does not answer must not take the time of the write itself.
        """
        loop = asyncio.get_running_loop()
        large: list[tuple[Draft, Node]] = []
        for draft in drafts:
            if len(draft.data) > FITS_ANYWHERE_BYTES:
                place = view.ring_position(draft.key)
                large += [(draft, pool.node(place)) for pool in view.writers]
        doubtful = {node for draft, node in large if _is_doubtful(node, len(draft.data), draft.key)}
        if doubtful:
            now = loop.time()
            half = now + (deadline - now) / 2
            # An error is one that the write will find, and report.
            for answer in await asyncio.gather(*(node.connected(half) for node in doubtful), return_exceptions=True):
                if isinstance(answer, BaseException) and not isinstance(answer, NodeError):
                    raise answer
        for draft, node in large:
            if node in doubtful and node.state != "ready":
                continue  # its server may have been restarted with another limit
            if node.capabilities is not None:
                size, limit = len(draft.data), node.capabilities.largest_value(draft.key)
                if size > limit:
                    raise ValueTooLarge("value", f"{size} bytes when encoded, over the {limit} that {node.label} takes")

    # In one zone first.

    async def coordinate(
        self, operation: str, view: ClusterSnapshot, write: ConditionalWrite, options: Options
    ) -> Coordinated:
        """Have the coordinator of the key decide a conditional write, and send its decision to the other zones.

        A cancelled call does not end the write: a decision still goes to every zone.

        Args:
            operation: Name of the call, for errors.
            view: Zones.
            write: Conditional write.
            options: Timeout, and the number of zones that the call waits for.

        Returns:
            The result. A counter's value is there also if fewer zones than required have it in time. A caller without the
            value would count again.

        Raises:
            CacheUnavailable: No coordinator could be reached, or the one that was asked did not answer. Then it is unknown
                whether it has decided.
            ValueTooLarge: A server would not take the value.
        """
        draft = write.draft
        if draft is not None:
            options = await self.check_size(view, draft, options)
        # The work is a task of the client. A caller that is cancelled between the decision and its replication would
        # otherwise leave the zones different.
        task = self._background.spawn(self._coordinate(operation, view, write, options))
        if task is None:
            raise CacheUnavailable(operation, {"client": NodeUnavailable("too much background work, or closing")})
        return await asyncio.shield(task)

    async def _coordinate(
        self, operation: str, view: ClusterSnapshot, write: ConditionalWrite, options: Options
    ) -> Coordinated:
        deadline = asyncio.get_running_loop().time() + options.timeout
        key = write.key
        pool, node = await self._coordinator.elect(operation, view, key, deadline)
        zone = pool.name
        began = self._changes.begin(key, None)
        look = self._coordinator.look(view, key, pool, node, deadline, value=write.peeks_value)
        seen = await self._look(operation, key, pool, look, began)
        try:
            # Calls of this client for one key go one after another: each would make the others' compare fail. The look above
            # is not part of a turn, since a zone that hangs may make it long.
            async with self._turns.of(key, deadline) as has_waited:
                if has_waited:
                    look = peek(node, key, deadline, value=write.peeks_value)
                    seen = await self._look(operation, key, pool, look, began)
                since = view.loop.time()
                decision = await self._decide(operation, write, pool.name, node, seen, deadline, began)
        except TimeoutError as error:
            self._changes.unchanged(key, began)
            late = NodeTimeout("other calls of this client decide about the key", node.label)
            raise CacheUnavailable(operation, {zone: late}) from error
        if isinstance(decision, Outcome):
            self._changes.unchanged(key, began)
            return Coordinated(WriteResult(met=False, version=None, zones={zone: decision}), None)
        store = decision.store
        if store is None:
            self._changes.end(key, None, None, began)
            return Coordinated(WriteResult(met=False, version=None, zones={zone: Outcome.STORED}), decision.value)
        round_ = self._spread(view, zone, store, deadline, options, since)
        await self._decided(key, store, round_, began)
        return Coordinated(WriteResult(round_.met, store.version, dict(round_.outcomes)), decision.value)

    async def _look(
        self, operation: str, key: bytes, pool: ZonePool, look: Awaitable[Peeked | None], began: float
    ) -> Peeked | None:
        """Return what the coordinator holds. If it does not say, nothing has been decided."""
        try:
            return await look
        except BaseException as error:
            self._changes.unchanged(key, began)
            if isinstance(error, NodeError) and not isinstance(error, ServerError):
                raise CacheUnavailable(operation, {pool.name: error}) from error
            raise

    async def _decide(
        self,
        operation: str,
        write: ConditionalWrite,
        zone: str,
        node: Node,
        seen: Peeked | None,
        deadline: float,
        began: float,
    ) -> Decision | Outcome:
        key = write.key
        try:
            return await write.decide(self._coordinator.stores, zone, node, seen, deadline)
        except NodeError as error:
            if isinstance(error, ServerError):
                self._changes.unchanged(key, began)
                raise  # it did answer: it refused
            if self._replay is not None:
                self._replay.uncertain(zone, key)
            # It may have decided: what a read has kept meanwhile is not to be trusted.
            self._changes.end(key, None, None, began)
            raise CacheUnavailable(operation, {zone: error}) from error
        except CacheError:  # of what was read there, nothing could be made
            self._changes.unchanged(key, began)
            raise
        except BaseException:
            self._changes.end(key, None, None, began)
            raise

    async def touch(self, view: ClusterSnapshot, key: bytes, ttl: float, options: Options) -> WriteResult:
        """Give a value a new time to live in every zone. Raises as `write` does."""
        if options.consistency is Consistency.NONE:
            self.touch_in_background(view, key, ttl, options)
            return WriteResult(met=True, version=None, zones={pool.name: Outcome.PENDING for pool in view.writers})
        deadline = view.loop.time() + options.timeout
        command = TouchCommand(self._clock, key, ttl=self.wire_ttl(ttl), known=self._remembered.latest(key))
        result = await self.write("touch", view, key, command, options)
        if not result:  # a zone that is down may decide it before another zone has answered the look
            await command.looked(deadline)
        if not command.is_wrapped:
            return result

        left = options._replace(timeout=max(0.0, deadline - view.loop.time()))
        return (await self.coordinate("touch", view, Renew(key, ttl), left)).result

    def touch_in_background(self, view: ClusterSnapshot, key: bytes, ttl: float, options: Options) -> None:
        """Start to give a value a new time to live. Returns at once, and no caller waits for the end."""
        # At ALL, since it must see what each zone holds.
        self._background.spawn(self.touch(view, key, ttl, options._replace(consistency=Consistency.ALL)))

    def flow(self, options: Options) -> Flow:
        """Return the flow control of a call that writes many keys."""
        return Flow(self._lanes, options.timeout)

    async def spread(
        self,
        view: ClusterSnapshot,
        store: StoreCommand,
        zone: str | None,
        deadline: float,
        options: Options,
        flow: Flow | None = None,
    ) -> ReplicatedWrite:
        """Send a store to every zone but the one (None: none) that has taken it, and wait for as many as the options ask
        for.

        It is not announced: the value is what the source held before any later write of the key. `flow`: flow control of a
        call that writes many keys.
        """
        if flow is not None:
            flow.size = size_of(store)
        if zone is None:
            round_ = self._round(view, options, store)
            round_.send(store, view.writers, view.ring_position(store.key), deadline, None, self._put(flow))
        else:
            round_ = self._spread(view, zone, store, deadline, options, None, flow)
        await round_.decided()
        await self._to_gutter(view, store, round_, deadline)
        return round_

    def _spread(
        self,
        view: ClusterSnapshot,
        coordinator: str,
        store: StoreCommand,
        deadline: float,
        options: Options,
        since: float | None,
        flow: Flow | None = None,
    ) -> ReplicatedWrite:
        round_ = self._round(view, options, store)
        round_.count(coordinator, Outcome.STORED)
        others = [pool for pool in view.writers if pool.name != coordinator]
        round_.send(store, others, view.ring_position(store.key), deadline, since, self._put(flow))
        return round_

    def _put(self, flow: Flow | None) -> Callable[[ZoneWrite], object] | None:
        """Return what sends the parts of a round: at once (None), or when it is their turn."""
        if flow is not None:
            return flow.put
        return self._lanes.in_order if self._lanes.by_node else None

    def _round(self, view: ClusterSnapshot, options: Options, command: Command) -> ReplicatedWrite:
        required = options.consistency.required(len(view.readers))
        acknowledged = ACKNOWLEDGED_DELETE if isinstance(command, DeleteCommand) else ACKNOWLEDGED
        store = touch = None
        if isinstance(command, StoreCommand):
            store = command
            if self._hooks.cause is not None:
                store.cause = self._hooks.cause()
        elif isinstance(command, TouchCommand):
            touch = command
        return ReplicatedWrite(
            self._background,
            self._hooks,
            required,
            acknowledged,
            replay=self._replay,
            store=store,
            touch=touch,
            remembered=self._remembered,
            topology=view.topology,
            decided=view.loop.create_future(),
        )


def _is_doubtful(node: Node, size: int, key: bytes) -> bool:
    """Return True if a value seems too large for a node, or may be, and the node can be connected to and asked."""
    known = node.capabilities
    limit = DEFAULT_ITEM_BYTES // 2 if known is None else known.largest_value(key)
    return size > limit and node.state != "ready" and not node.is_down


def _is_lost(round_: ReplicatedWrite) -> bool:
    """Whether nobody has it, the gutter included."""
    return round_.unreachable and round_.outcomes.get(GUTTER) not in ACKNOWLEDGED


def _result(operation: str, round_: ReplicatedWrite, options: Options, version: int | None) -> WriteResult:
    if _is_lost(round_) and options.errors == "raise":
        raise CacheUnavailable(operation, dict(round_.failures))
    return WriteResult(round_.met, version, dict(round_.outcomes))
