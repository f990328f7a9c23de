"""Reading one key from one zone after another, until one has it.

The way of a read whose first zone failed or missed, and of every read while a node is down or has just come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable, FailoverDenied, StaleReplica
from evcache.options import Options
from evcache.reads.context import ReadContext
from evcache.replication.node_requests import read_elsewhere_if_silent, send_request
from evcache.replication.reconcile import ZoneHit
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeSilent, NodeTimeout, NodeUnavailable
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.zone_pool import ZonePool


class Attempts:
    """What came of asking zones for a key, so far."""

    __slots__ = ("abroad", "behind", "failures", "known", "missed")

    def __init__(self, known: int) -> None:
        self.known = known
        """The newest version that this client knew of when the read began; 0: none. One that it has heard of since was
        written or read at the same time, and an answer may be older than that."""
        self.failures: dict[str, CacheError] = {}
        """Zones that did not answer, or were not asked."""
        self.missed: dict[str, Node] = {}
        """The nodes of zones that do not have it."""
        self.behind: dict[str, tuple[Node, StaleReplica]] = {}
        """The nodes of zones that have an older version than this client knows of."""
        self.abroad = 0
        """Number of requests to other zones than the home zone."""

    def enter(self, pool: ZonePool, node: Node, outcome: CacheError | None) -> None:
        """Note that a zone did not have it: why, None for a miss. The latest answer of a zone counts."""
        self.failures.pop(pool.name, None)
        if outcome is None:
            self.missed[pool.name] = node
        elif isinstance(outcome, StaleReplica):
            self.behind[pool.name] = node, outcome
        else:
            self.failures[pool.name] = outcome

    def why(self, zone: str) -> CacheError | None:
        """Why a zone did not have it; None for a miss."""
        return self.behind[zone][1] if zone in self.behind else self.failures.get(zone)


class Ended(NamedTuple):
    """End of a read."""

    found: ZoneHit | None
    """None is a miss."""


class Fallback:
    """Reads that may need several zones, one after another."""

    def __init__(self, parts: ReadContext) -> None:
        self._parts = parts

    async def from_the_first(
        self,
        view: ClusterSnapshot,
        key: bytes,
        line: bytes,
        options: Options,
    ) -> ZoneHit | None:
        """Read while not all is well.

        A node that warms up is asked first for a share of its reads, else last. A silent node is asked last.
        """
        place = view.ring_position(key)
        order = silent_last(view.readers, place)
        first = order[0].node(place)
        if order[0] is not view.readers[0]:
            self._parts.hooks.fell_back(view.readers[0].name, unasked(view.readers[0].node(place)))
        elif not first.admits_read():
            self._parts.hooks.fell_back(order[0].name, unasked(first))
            order = (*order[1:], order[0])
        deadline = view.loop.time() + options.timeout
        attempts = Attempts(self._parts.remembered.latest(key))
        return await self.go_on(view, order, 0, key, line, options, deadline, attempts)

    async def go_on(
        self,
        view: ClusterSnapshot,
        order: Sequence[ZonePool],
        start: int,
        key: bytes,
        line: bytes,
        options: Options,
        deadline: float,
        attempts: Attempts,
    ) -> ZoneHit | None:
        """Ask the zones from `start` on. Those before have been asked, and `attempts` says what came of it.

        A zone whose node fell silent is asked once more at the end, since it may go on before the deadline. If no zone
        answered in time and the event loop stood still during the call, the client asks the first late zone once more, for
        as long as the loop stood still. Raises `CacheUnavailable` when no zone answered.
        """
        zones = list(order[start:])
        left = None
        if start:
            left = order[start - 1]
            zones += [pool for pool in order[:start] if type(attempts.failures.get(pool.name)) is NodeSilent]
        ended = await self._ask_each(view, zones, left, key, line, options, deadline, attempts)
        if ended is None and not attempts.missed and not attempts.behind:
            now = view.loop.time()
            lost = view.lag.lost_since(deadline - options.timeout, now)
            late = [pool for pool in view.readers if isinstance(attempts.why(pool.name), NodeTimeout)]
            if lost and late:
                ended = await self._ask_each(view, late[:1], None, key, line, options, now + lost, attempts)
        return await self._nowhere(view, key, options, deadline, attempts) if ended is None else ended.found

    async def _ask_each(
        self,
        view: ClusterSnapshot,
        zones: list[ZonePool],
        left: ZonePool | None,
        key: bytes,
        line: bytes,
        options: Options,
        deadline: float,
        attempts: Attempts,
    ) -> Ended | None:
        """Ask these zones one after another until the read has ended. Return None if they did not end it.

        `left`: the zone that was asked before. A zone that falls silent is added at the end.
        """
        parts = self._parts
        place = view.ring_position(key)
        again = {zone for zone, error in attempts.failures.items() if isinstance(error, NodeTimeout)}
        for index, pool in enumerate(zones):  # which may grow
            node = pool.node(place)
            if left is not None:
                parts.hooks.fell_back(left.name, attempts.why(left.name))
            left = pool
            abroad = pool.name != view.preferred_zone
            if not node.may_answer:
                attempts.enter(pool, node, node.unavailable())  # at once, and it costs the budget nothing
                continue
            if abroad and not self._may_go_abroad(pool, attempts):
                attempts.enter(pool, node, FailoverDenied())
                continue
            attempts.abroad += abroad
            now = view.loop.time()
            until = now + (deadline - now) / _attempts_left(view, zones, index, place)
            if attempts.missed or attempts.behind:
                # What is found now will be brought there, which takes the seconds that it has left.
                line = requests.meta_get(key, requests.COPY_FLAGS)
            outcome: CacheError | None = None
            try:
                if pool.name in again or view.max_attempts == 1:
                    reply = await send_request(node, line, until)
                else:
                    reply = await read_elsewhere_if_silent(node, line, until, deadline)
                found = parts.found(pool.name, reply)
            except CacheError as error:
                found, outcome = None, error
                if isinstance(error, NodeSilent):
                    again.add(pool.name)
                    zones.append(pool)
            else:
                if found is not None and found.version is not None and found.version < attempts.known:
                    outcome = StaleReplica(found.version, attempts.known)
                    found = None
                    parts.hooks.zone_behind(pool.name)
                if node.is_warming:
                    node.record_read(hit=found is not None)
            if found is not None:
                if found.version is not None:
                    parts.remembered.note(key, found.version)
                behind = {zone: node for zone, (node, _) in attempts.behind.items()}
                parts.repair.bring(view, key, found, node, attempts.missed, behind, now)
                parts.served(view, key)
                return Ended(found)
            attempts.enter(pool, node, outcome)
            if outcome is None and not options.fallback_on_miss:
                return Ended(None)
        return None

    def _may_go_abroad(self, pool: ZonePool, attempts: Attempts) -> bool:
        if any(isinstance(failure, FailoverDenied) for failure in attempts.failures.values()):
            return False  # once for each read
        if self._parts.budget.try_take(spare=attempts.abroad > 0):
            return True
        self._parts.hooks.failover_denied(pool.name)
        return False

    async def _nowhere(
        self, view: ClusterSnapshot, key: bytes, options: Options, deadline: float, attempts: Attempts
    ) -> ZoneHit | None:
        """No zone has it, or none answered."""
        failures = attempts.failures | {zone: error for zone, (_, error) in attempts.behind.items()}
        # Behind everywhere: what was newer is gone from all zones, which is a miss, and no reason to go back in time.
        if attempts.missed or not attempts.failures or options.consistency is Consistency.NONE:
            return None
        if self._parts.gutter is not None and not attempts.behind:
            try:
                found = await self._parts.gutter.get(view, key, deadline)
            except CacheError as error:
                raise CacheUnavailable("get", failures) from error
            self._parts.hooks.gutter_used(hit=found is not None)
            if found is not None and found.version is not None:
                if found.version < attempts.known:
                    return None
                self._parts.remembered.note(key, found.version)
            return found
        raise CacheUnavailable("get", failures)


def _attempts_left(view: ClusterSnapshot, order: Sequence[ZonePool], index: int, place: int) -> int:
    """This zone, those after it that are not known to be down, and the gutter: none may use up the time of the next."""
    later = sum(pool.node(place).may_answer for pool in order[index + 1 :])
    return 1 + later + (view.gutter is not None)


def silent_last(readers: Sequence[ZonePool], place: int) -> Sequence[ZonePool]:
    """Return the zones in their order, but those last whose node for this place is silent."""
    silent = [pool for pool in readers if pool.node(place).is_silent]
    return [pool for pool in readers if pool not in silent] + silent if silent else readers


def unasked(node: Node) -> NodeUnavailable:
    """Return the reason why a node was not asked first."""
    if node.is_silent:
        return NodeUnavailable("reads wait on it, and no byte arrives", node.label)
    return NodeUnavailable("it has just come back, and gets a share of the reads", node.label)
