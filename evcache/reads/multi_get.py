"""Reading many keys: every node of a zone at once, and the next zone only for the keys that are still missing.

At `QUORUM` and above, every node of every zone at once, until enough zones have answered for each key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence

from evcache.errors import FailoverDenied, StaleReplica
from evcache.options import Options
from evcache.reads.context import ReadContext
from evcache.reads.failover import unasked
from evcache.reads.quorum_read import in_order, wait_until
from evcache.replication.reconcile import (
    Answer,
    ZoneHit,
    count_answered,
    failed,
    is_decided,
    latest_of,
    reject_if_older,
    stale_replicas,
)
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones._tasks import unattended
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeSilent
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import AnyReply, read_hit
from evcache.zones.zone_pool import ZonePool

Answers = dict[bytes, dict[str, Answer]]
Hits = list[tuple[int, AnyReply]]
Batches = list[tuple[Node, Sequence[bytes]]]

# The same as Found(...), without a Python-level __new__ in between: there is one for every key.
_new_found = tuple.__new__


class MultiGet:
    """Reads of several keys."""

    def __init__(self, parts: ReadContext) -> None:
        self._parts = parts

    async def get(
        self, view: ClusterSnapshot, keys: Sequence[bytes], options: Options, flags: Fields
    ) -> tuple[dict[bytes, ZoneHit], dict[str, CacheError], int]:
        """Return the items of keys that enough zones answered for, why zones failed, and the least number of zones that
        answered for any key. Known absences are items too; tombstones are not.
        """
        asked_at = view.loop.time()
        deadline = asked_at + options.timeout
        known = self._parts.remembered.latest_of_each(keys)
        required = options.consistency.required(len(view.readers))
        if required > 1:
            answers = await self._ask_several(view, keys, flags, deadline, known, required)
            return self._what_holds(view, answers, known, required, asked_at)
        self._parts.budget.add_reads(len(keys))
        found: dict[bytes, ZoneHit] = {}
        batches = view.readers[0].batches(keys)
        if view.health.unhealthy and not self._goes_straight(view, batches):
            asked = 0
            orders = self._orders(view, keys)
            answers = {key: {} for key in keys}
        else:
            # The first zone has nearly all of them, and they are done with.
            asked = 1
            found, answers = await self._ask_first(view, batches, keys, flags, deadline, known)
            orders = _orders_after_the_first(view.readers, answers)
        if orders:
            await asyncio.gather(
                *(
                    self._ask_in_turn(view, order, some, asked, flags, options, deadline, answers, known)
                    for order, some in orders
                )
            )
            if view.gutter is not None:
                await self._ask_gutter(view, answers, deadline)
        others, failures, answered = self._what_holds(view, answers, known, required, asked_at)
        return found | others, failures, answered

    def _goes_straight(self, view: ClusterSnapshot, batches: Batches) -> bool:
        """Whether the first zone can be asked for all of it, although some node is down: of thousands, one always is."""
        if any(node.is_down or node.is_warming or node.is_silent for node, _ in batches):
            return False
        if view.readers[0].name == view.preferred_zone:
            return True
        keys = sum(len(some) for _, some in batches)  # the home zone is out
        return self._parts.budget.try_take_all(keys)

    async def _ask_first(
        self,
        view: ClusterSnapshot,
        batches: Batches,
        keys: Sequence[bytes],
        flags: Fields,
        deadline: float,
        known: Mapping[bytes, int],
    ) -> tuple[dict[bytes, ZoneHit], Answers]:
        """What the first zone has; and of the keys of which it has nothing, or nothing that holds, what it said.

        It is most of what `get_many` does, and done without an object for each key that only several answers are in need of.
        """
        zone = view.readers[0].name
        now = view.loop.time()
        found: dict[bytes, ZoneHit] = {}
        others: Answers = {}
        until = now + (deadline - now) / view.max_attempts
        for some, outcome in await _ask_all_nodes(view, batches, flags, until, deadline):
            if isinstance(outcome, CacheError):
                others.update((key, {zone: outcome}) for key in some)
            else:
                self._enter(zone, some, outcome, known, found, others)
        if len(found) + len(others) < len(keys):
            others.update((key, {zone: None}) for key in keys if key not in found and key not in others)
        self._parts.served_many(view, found)
        for key in [key for key, item in found.items() if item.hit.flags == FLAG_TOMBSTONE]:
            del found[key]
        return found, others

    def _enter(
        self,
        zone: str,
        keys: Sequence[bytes],
        hits: Hits,
        known: Mapping[bytes, int],
        found: dict[bytes, ZoneHit],
        others: Answers,
    ) -> None:
        """Enter what a node has of these keys, or what is wrong with a reply, where it belongs."""
        remembered, observe = self._parts.remembered, self._parts.clock.observe
        for index, reply in hits:
            key = keys[index]
            try:
                hit = read_hit(reply)
                if hit is None or hit.leased:
                    continue
                version = observe(hit.cas)
            except CacheError as error:
                others[key] = {zone: error}
                continue
            if version is not None and version != known[key]:
                if version < known[key]:
                    others[key] = {zone: StaleReplica(version, known[key])}
                    continue
                remembered.note(key, version)
            found[key] = _new_found(ZoneHit, (hit, zone, version))

    async def _ask_several(
        self,
        view: ClusterSnapshot,
        keys: Sequence[bytes],
        flags: Fields,
        deadline: float,
        known: Mapping[bytes, int],
        required: int,
    ) -> Answers:
        """Ask every zone for every key, and return when each key has enough answers, or can't get enough any more.

        A node that is slow delays only keys that need it.
        """
        zones = [pool.name for pool in view.readers]
        answers: Answers = {key: {} for key in keys}
        undecided = set(keys)
        asked: dict[asyncio.Future[Hits], tuple[str, Sequence[bytes]]] = {
            unattended(asyncio.ensure_future(_ask(node, some, flags, deadline, view.loop))): (pool.name, some)
            for pool in view.readers
            for node, some in pool.batches(keys)
        }

        def enter(ended: Iterable[asyncio.Future[Hits]]) -> bool:
            for request in ended:
                zone, some = asked[request]
                error = request.exception()
                if error is not None and not isinstance(error, CacheError):
                    raise error
                for key, answer in self._said(zone, some, error or request.result()).items():
                    of_key = answers[key]
                    of_key[zone] = answer
                    if key in undecided and is_decided(of_key, required, len(zones), known[key]):
                        undecided.discard(key)
            return not undecided

        await wait_until(asked, enter)
        answers = {key: in_order(zones, of_key) for key, of_key in answers.items()}
        for zone in zones:
            if any(
                isinstance(reject_if_older(of_key.get(zone), known[key]), StaleReplica) for key, of_key in answers.items()
            ):
                self._parts.hooks.zone_behind(zone)
        return answers

    def _orders(self, view: ClusterSnapshot, keys: Sequence[bytes]) -> list[tuple[Sequence[ZonePool], list[bytes]]]:
        """Return the orders in which zones are asked, each with its keys.

        A node that warms up comes last for most of its keys, and a silent node for all, if the next zone's is not silent.
        """
        first, *others = view.readers
        admitted: list[bytes] = []
        held_back: list[bytes] = []
        for key in keys:
            place = view.ring_position(key)
            node = first.node(place)
            is_silent = node.is_silent and bool(others) and not others[0].node(place).is_silent
            (admitted if not is_silent and node.admits_read() else held_back).append(key)
        if held_back:
            self._parts.hooks.fell_back(first.name, unasked(first.node(view.ring_position(held_back[0]))))
        return [(order, some) for order, some in ((view.readers, admitted), ((*others, first), held_back)) if some]

    async def _ask_in_turn(
        self,
        view: ClusterSnapshot,
        order: Sequence[ZonePool],
        wanted: list[bytes],
        asked: int,
        flags: Fields,
        options: Options,
        deadline: float,
        answers: Answers,
        known: Mapping[bytes, int],
    ) -> None:
        """Ask one zone after another for what is wanted, but for the first `asked`, whose answers are entered already."""
        hooks = self._parts.hooks
        asked_abroad = {key for pool in order[:asked] if pool.name != view.preferred_zone for key in wanted}
        for index, pool in enumerate(order):
            if index >= asked:
                now = view.loop.time()
                until = now + (deadline - now) / (len(order) - index + (view.gutter is not None))
                latest = deadline if index + 1 < len(order) else None  # the last zone is asked for as long as there is time
                to_be_asked = self._to_be_asked(view, pool, wanted, answers, asked_abroad)
                for key, answer in (await self._answers(view, pool, to_be_asked, flags, until, latest)).items():
                    answers[key][pool.name] = reject_if_older(answer, known[key])
                    if view.health.unhealthy and not isinstance(answer, CacheError):
                        pool.node(view.ring_position(key)).record_read(hit=isinstance(answers[key][pool.name], ZoneHit))
            if any(isinstance(answers[key][pool.name], StaleReplica) for key in wanted):
                hooks.zone_behind(pool.name)
            wanted = [key for key in wanted if _should_ask_next(answers[key][pool.name], options)]
            if not wanted:
                break
            if index + 1 < len(order):
                hooks.fell_back(pool.name, failed(answers[wanted[0]][pool.name]))

    def _to_be_asked(
        self, view: ClusterSnapshot, pool: ZonePool, wanted: list[bytes], answers: Answers, asked_abroad: set[bytes]
    ) -> list[bytes]:
        """The keys that this zone is asked for. For the others, why it is not is entered as its answer."""
        abroad = pool.name != view.preferred_zone
        if not abroad and not view.health.unhealthy:
            return wanted
        first: list[bytes] = []
        further: list[bytes] = []
        for key in wanted:
            node = pool.node(view.ring_position(key))
            if not node.may_answer:
                answers[key][pool.name] = node.unavailable()  # at once, and it costs the budget nothing
            elif abroad and any(isinstance(answer, FailoverDenied) for answer in answers[key].values()):
                answers[key][pool.name] = FailoverDenied()  # once for each read
            else:
                (further if key in asked_abroad else first).append(key)
        if not abroad:
            return first + further
        budget = self._parts.budget
        asked = first[: budget.try_take(len(first))] + further[: budget.try_take(len(further), spare=True)]
        asked_abroad.update(asked)
        if len(asked) < len(first) + len(further):
            self._parts.hooks.failover_denied(pool.name)
            for key in {*first, *further}.difference(asked):
                answers[key][pool.name] = FailoverDenied()
        return asked

    async def _ask_gutter(self, view: ClusterSnapshot, answers: Answers, deadline: float) -> None:
        # One by one: this is for the day on which no zone answers, and for the keys of that day.
        assert self._parts.gutter is not None
        zones = len(view.readers)
        keys = [
            key
            for key, of_key in answers.items()
            if len(of_key) == zones
            and not count_answered(of_key, zones)
            and not any(isinstance(answer, StaleReplica) for answer in of_key.values())
        ]
        found = await asyncio.gather(*(self._parts.gutter.get(view, key, deadline) for key in keys), return_exceptions=True)
        for key, answer in zip(keys, found, strict=True):
            if isinstance(answer, CacheError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            self._parts.hooks.gutter_used(hit=answer is not None)
            assert view.gutter is not None
            answers[key][view.gutter.name] = answer

    def _what_holds(
        self, view: ClusterSnapshot, answers: Answers, known: Mapping[bytes, int], required: int, asked_at: float
    ) -> tuple[dict[bytes, ZoneHit], dict[str, CacheError], int]:
        zones = len(view.readers)
        found: dict[bytes, ZoneHit] = {}
        failures: dict[str, CacheError] = {}
        answered_least = zones
        served: list[bytes] = []
        for key, of_key in answers.items():
            winner = latest_of(of_key.values())
            if winner is not None and winner.version is not None and winner.version < known[key]:
                of_key = {zone: reject_if_older(answer, known[key]) for zone, answer in of_key.items()}  # noqa: PLW2901
                winner = None
            answered = count_answered(of_key, zones)
            answered_least = min(answered_least, answered)
            failures.update({zone: answer for zone, answer in of_key.items() if isinstance(answer, CacheError)})
            if winner is None:
                continue
            if winner.version is not None:
                self._parts.remembered.note(key, winner.version)
            nodes = {pool.name: pool.node(view.ring_position(key)) for pool in view.readers}
            missed, behind = stale_replicas(winner, of_key)
            if (missed or behind) and winner.zone in nodes:
                self._parts.repair.bring(
                    view,
                    key,
                    winner,
                    nodes[winner.zone],
                    {zone: nodes[zone] for zone in missed if zone in nodes},
                    {zone: nodes[zone] for zone in behind if zone in nodes},
                    asked_at,
                )
            if required <= 1 and winner.zone in nodes:
                served.append(key)
            if winner.hit.flags != FLAG_TOMBSTONE and answered >= required:
                found[key] = winner
        self._parts.served_many(view, served)
        return found, failures, answered_least

    async def _answers(
        self,
        view: ClusterSnapshot,
        pool: ZonePool,
        keys: Sequence[bytes],
        flags: Fields,
        deadline: float,
        latest: float | None,
    ) -> dict[bytes, Answer]:
        """What one zone says about each of the keys."""
        answers: dict[bytes, Answer] = dict.fromkeys(keys)
        for some, outcome in await _ask_all_nodes(view, pool.batches(keys), flags, deadline, latest):
            answers.update(self._said(pool.name, some, outcome))
        return answers

    def _said(self, zone: str, keys: Sequence[bytes], outcome: Hits | CacheError) -> dict[bytes, Answer]:
        """Return the answer of a zone for each of the keys that one of its nodes was asked for."""
        if isinstance(outcome, CacheError):
            return dict.fromkeys(keys, outcome)
        answers: dict[bytes, Answer] = dict.fromkeys(keys)
        for index, reply in outcome:
            try:
                answers[keys[index]] = self._parts.found(zone, reply)
            except CacheError as error:  # of this key alone
                answers[keys[index]] = error
        return answers


def _orders_after_the_first(readers: Sequence[ZonePool], answers: Answers) -> list[tuple[Sequence[ZonePool], list[bytes]]]:
    """Return the orders in which zones are asked for keys that the first zone has nothing of.

    For keys of a node that fell silent the first zone is asked once more at the end: it may go on before the deadline.
    """
    first = readers[0]
    silent = [key for key, of_key in answers.items() if isinstance(of_key[first.name], NodeSilent)]
    others = [key for key, of_key in answers.items() if not isinstance(of_key[first.name], NodeSilent)]
    return [(order, keys) for order, keys in ((readers, others), ((*readers, first), silent)) if keys]


async def _ask_all_nodes(
    view: ClusterSnapshot, batches: Batches, flags: Fields, deadline: float, latest: float | None = None
) -> list[tuple[Sequence[bytes], Hits | CacheError]]:
    """Ask nodes for keys, all at once; for each which keys it was asked for, and what came of it."""
    asked = [_ask(node, some, flags, deadline, view.loop, latest) for node, some in batches]
    if len(asked) == 1:
        keys = batches[0][1]
        try:
            return [(keys, await asked[0])]
        except CacheError as error:
            return [(keys, error)]
    outcomes: list[tuple[Sequence[bytes], Hits | CacheError]] = []
    for (_, some), outcome in zip(batches, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, CacheError):
            raise outcome
        outcomes.append((some, outcome))
    return outcomes


def _ask(
    node: Node,
    keys: Sequence[bytes],
    flags: Fields,
    deadline: float,
    loop: asyncio.AbstractEventLoop,
    latest: float | None = None,
) -> Awaitable[Hits]:
    """Ask one node; what comes of it is to be awaited. Where there is a connection, that takes no task."""
    connection = node.connection()
    if connection is None:
        return _connect_and_ask(node, keys, flags, deadline, loop)
    answer: asyncio.Future[Hits] = loop.create_future()
    try:
        connection.get_many(keys, flags, answer, deadline, latest)
    except CacheError as error:
        answer.set_exception(error)
    return answer


async def _connect_and_ask(
    node: Node, keys: Sequence[bytes], flags: Fields, deadline: float, loop: asyncio.AbstractEventLoop
) -> Hits:
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Hits] = loop.create_future()
    connection.get_many(keys, flags, answer, deadline)
    return await answer


def _should_ask_next(answer: Answer, options: Options) -> bool:
    return isinstance(answer, CacheError) or (answer is None and options.fallback_on_miss)
