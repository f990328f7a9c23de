"""Conditional writes of one client: the coordinator of the key decides, and the decision goes to the other zones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple

from evcache._helpers.background import BackgroundTasks
from evcache._helpers.keyed_lock import KeyedLock
from evcache.errors import CacheUnavailable
from evcache.invalidation.dispatcher import InvalidationDispatcher
from evcache.near_cache.version_fences import Block
from evcache.options import Options
from evcache.replication.commands.node_requests import Peeked, peek
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.lanes import Lanes
from evcache.replication.replicator import Replicator
from evcache.results import Outcome, WriteResult
from evcache.writes.conditional.atomic import ConditionalWrite
from evcache.writes.conditional.compare_and_set import Decision
from evcache.writes.conditional.coordinator import Coordinator
from evcache.writes.value_limits import check_size
from evcache.zones.errors import CacheError, NodeError, NodeTimeout, NodeUnavailable, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot


class Coordinated(NamedTuple):
    """Result of a conditional write."""

    result: WriteResult
    value: int | None
    """New value of a counter. None if there is no counter."""


class ConditionalWriter:
    """Conditional writes of one client."""

    def __init__(
        self,
        coordinator: Coordinator,
        dispatcher: InvalidationDispatcher,
        background: BackgroundTasks,
        replicator: Replicator,
        lanes: Lanes,
        handoff: HintedHandoff | None,
    ) -> None:
        """Bind the parts of one client."""
        self._coordinator = coordinator
        self._dispatcher = dispatcher
        self._background = background
        self._replicator = replicator
        self._lanes = lanes
        self._handoff = handoff
        self._locks = KeyedLock()

    def reopen(self) -> None:
        """Forget the locks of the last opening."""
        self._locks.reopen()

    async def coordinate(
        self, operation: str, view: ClusterSnapshot, write: ConditionalWrite, options: Options
    ) -> Coordinated:
        """Decide a conditional write in the coordinator's zone, and send the decision to the other zones.

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
            options = await check_size(view, draft, options)
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
        key, dispatcher = write.key, self._dispatcher
        pool, node = await self._coordinator.elect(operation, view, key, deadline)
        zone = pool.name
        block = dispatcher.begin(key, None)
        look = self._coordinator.look(view, key, pool, node, deadline, value=write.peeks_value)
        seen = await self._look(operation, key, zone, look, block)
        try:
            # Two calls of this client for one key would fail each other's compare, so they decide one after another. The
            # look above is outside the lock, because a zone that hangs may make it long.
            async with self._locks.of(key, deadline) as has_waited:
                if has_waited:
                    look = peek(node, key, deadline, value=write.peeks_value)
                    seen = await self._look(operation, key, zone, look, block)
                since = view.loop.time()
                decision = await self._decide(operation, write, zone, node, seen, deadline, block)
        except TimeoutError as error:
            dispatcher.cancel(key, block)
            late = NodeTimeout("other calls of this client decide about the key", node.label)
            raise CacheUnavailable(operation, {zone: late}) from error
        if isinstance(decision, Outcome):
            dispatcher.cancel(key, block)
            return Coordinated(WriteResult(met=False, version=None, zones={zone: decision}), None)
        store = decision.store
        if store is None:
            dispatcher.end(key, None, block)
            return Coordinated(WriteResult(met=False, version=None, zones={zone: Outcome.STORED}), decision.value)
        put = self._lanes.start_in_order if self._lanes.by_node else None
        replicated = self._replicator.replicate(view, options, store, zone, deadline, since, put)
        try:
            await replicated.wait_until_decided()
        finally:  # also for a caller that was cancelled, because the write goes on
            dispatcher.end(key, replicated, block)
        result = WriteResult(replicated.met, store.version, dict(replicated.outcomes), replicated.fell_short)
        return Coordinated(result, decision.value)

    async def _look(
        self, operation: str, key: bytes, zone: str, look: Awaitable[Peeked | None], block: Block
    ) -> Peeked | None:
        """Return the item that the coordinator's node holds. If the node does not answer, it has decided nothing."""
        try:
            return await look
        except BaseException as error:
            self._dispatcher.cancel(key, block)
            if isinstance(error, NodeError) and not isinstance(error, ServerError):
                raise CacheUnavailable(operation, {zone: error}) from error
            raise

    async def _decide(
        self,
        operation: str,
        write: ConditionalWrite,
        zone: str,
        node: Node,
        seen: Peeked | None,
        deadline: float,
        block: Block,
    ) -> Decision | Outcome:
        key = write.key
        try:
            return await write.decide(self._coordinator.stores, zone, node, seen, deadline)
        except NodeError as error:
            if isinstance(error, ServerError):
                self._dispatcher.cancel(key, block)
                raise  # the node refused the write
            if self._handoff is not None:
                self._handoff.record_check(zone, key)
            # The node may have stored the write. So the near cache must not keep what it has read since.
            self._dispatcher.end(key, None, block)
            raise CacheUnavailable(operation, {zone: error}) from error
        except CacheError:  # the item of the node cannot be used
            self._dispatcher.cancel(key, block)
            raise
        except BaseException:
            self._dispatcher.end(key, None, block)
            raise
