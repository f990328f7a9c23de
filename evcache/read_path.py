"""Reads: the local zone, then the others; or several at once, when the call asks for more than one answer.

A miss is an answer, a failure is not. A tombstone is an answer too: "deleted, at this version", and a miss to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any

from evcache.answers import Answer, Found, check_answered, failed, newest, zones_behind
from evcache.commands import ask
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable
from evcache.hooks import Hooks
from evcache.near_path import Near
from evcache.options import Options
from evcache.repair import Repair
from evcache.versions import VersionClock
from zones.cluster import View
from zones.errors import CacheError
from zones.node import Node
from zones.pool import ZonePool
from zones.protocol import requests
from zones.protocol.replies import Reply, read_hit
from zones.ring import position

# The same as Found(...), without a Python-level __new__ in between: there is one for every read.
_new_found = tuple.__new__


class ReadPath:
    """How one client reads."""

    def __init__(self, clock: VersionClock, repair: Repair, hooks: Hooks, near: Near | None = None) -> None:
        self._clock = clock
        self._near = near
        self._repair = repair
        self._hooks = hooks

    def get(
        self,
        view: View,
        key: bytes,
        options: Options,
        *,
        fallback_on_miss: bool,
        flags: bytes = requests.READ_FLAGS,
        near: bool = True,
    ) -> Coroutine[Any, Any, Found | None]:
        """Read a key. What was found may be a tombstone, which is a miss to the caller; None: nothing was.

        Raises `CacheUnavailable` when no zone answered, `ConsistencyError` when fewer than asked for did.
        """
        if self._near is not None and near and options.one_answer:
            return self._near_first(self._near, view, key, options, fallback_on_miss)
        line = requests.meta_get(key, flags)
        if options.one_answer:
            return self._from_one(view, key, line, options, fallback_on_miss)
        return self._from_several(view, key, line, options)

    async def _near_first(
        self,
        near: Near,
        view: View,
        key: bytes,
        options: Options,
        fallback_on_miss: bool,  # noqa: FBT001  # passed on as it is
    ) -> Found | None:
        found = near.get(key)
        if found is not None:
            return found
        flight = near.take_off(key)
        try:
            # With the seconds that are left, which bound how long it may be kept.
            line = requests.meta_get(key, requests.COPY_FLAGS)
            found = await self._from_one(view, key, line, options, fallback_on_miss)
        except BaseException:
            near.crash(flight)
            raise
        near.land(flight, found)
        return found

    async def _from_one(
        self,
        view: View,
        key: bytes,
        line: bytes,
        options: Options,
        fallback_on_miss: bool,  # noqa: FBT001  # passed on as it is
    ) -> Found | None:
        loop = view.loop
        now = loop.time()
        place = position(key) if view.sharded else 0
        readers = view.readers
        local = readers[0]
        node = local.node(place)
        # One zone may not use up the time of those after it.
        left = _attempts_left(readers, 0, place) if view.tally.failing else len(readers)
        until = now + options.timeout / left
        failure: CacheError | None = None
        try:
            connection = node.connection() or await node.connected(until)
            answer: asyncio.Future[Reply] = loop.create_future()
            connection.request(line, answer, until)
            hit = read_hit(await answer)
        except CacheError as error:
            failure = error
        else:
            if hit is not None and not hit.leased:
                return _new_found(Found, (hit, local.name, self._clock.version_of(hit.cas), False))
            if not fallback_on_miss:
                return None
        return await self._from_the_others(view, key, line, options, fallback_on_miss, now + options.timeout, failure)

    async def _from_the_others(
        self,
        view: View,
        key: bytes,
        line: bytes,
        options: Options,
        fallback_on_miss: bool,  # noqa: FBT001  # passed on as it is
        deadline: float,
        failure: CacheError | None,
    ) -> Found | None:
        """The first zone failed (`failure`), or missed (None): one after the other, until one has it."""
        readers = view.readers
        place = view.place(key)
        failures: dict[str, CacheError] = {}
        missed: dict[str, Node] = {}
        asked = readers[0]
        for index, pool in enumerate(readers[1:], 1):
            _enter(asked, place, failure, failures, missed)
            self._hooks.fell_back(asked.name, failure)
            asked, node, failure = pool, pool.node(place), None
            now = view.loop.time()
            until = now + (deadline - now) / _attempts_left(readers, index, place)
            try:
                found = self._found(pool.name, await ask(node, line, until))
            except CacheError as error:
                failure = error
                continue
            if found is not None:
                self._repair.bring(key, found, node, missed)
                return found
            if not fallback_on_miss:
                return None
        _enter(asked, place, failure, failures, missed)
        if missed or options.consistency is Consistency.NONE:
            return None
        raise CacheUnavailable("get", failures)

    async def _from_several(self, view: View, key: bytes, line: bytes, options: Options) -> Found | None:
        deadline = asyncio.get_running_loop().time() + options.timeout
        required = options.consistency.required(len(view.readers))
        place = view.place(key)
        nodes = {pool.name: pool.node(place) for pool in view.readers}
        answers = await first_answers(
            {zone: self._ask(zone, node, line, deadline) for zone, node in nodes.items()}, required
        )
        check_answered("get", answers, required, len(nodes))
        winner = newest(answers.values())
        if winner is not None:
            behind = zones_behind(winner, answers)
            self._repair.bring(key, winner, nodes[winner.zone], {zone: nodes[zone] for zone in behind})
        return winner

    async def get_from(self, pool: ZonePool, node: Node, key: bytes, deadline: float) -> Found | None:
        """The item in one zone, or None for a miss. Raises a `NodeError`."""
        return self._found(pool.name, await ask(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))

    async def _ask(self, zone: str, node: Node, line: bytes, deadline: float) -> Answer:
        try:
            return self._found(zone, await ask(node, line, deadline))
        except CacheError as error:
            return error

    def _found(self, zone: str, reply: Reply) -> Found | None:
        hit = read_hit(reply)
        return None if hit is None or hit.leased else Found(hit, zone, self._clock.version_of(hit.cas))

    async def get_many(
        self, view: View, keys: Sequence[bytes], options: Options, *, fallback_on_miss: bool, near: bool = True
    ) -> tuple[dict[bytes, Found], dict[str, CacheError], int]:
        """The items that a caller may see, why zones failed, and the least number of zones that answered for any key.

        Every node of a zone is asked at once, and the next zone only for the keys that are still missing.
        """
        if self._near is None or not near or not options.one_answer:
            return await self._many_from_zones(view, keys, options, fallback_on_miss, requests.READ_FLAGS)
        kept = {key: item for key in keys if (item := self._near.get(key)) is not None}
        flights = [self._near.take_off(key) for key in keys if key not in kept]
        found: dict[bytes, Found] = {}
        try:
            found, failures, answered = await self._many_from_zones(
                view, [flight.key for flight in flights], options, fallback_on_miss, requests.COPY_FLAGS
            )
        finally:
            for flight in flights:
                self._near.land(flight, found.get(flight.key))
        found.update({key: item for key, item in kept.items() if item.is_value})
        return found, failures, answered

    async def _many_from_zones(
        self,
        view: View,
        keys: Sequence[bytes],
        options: Options,
        fallback_on_miss: bool,  # noqa: FBT001  # passed on as it is
        flags: bytes,
    ) -> tuple[dict[bytes, Found], dict[str, CacheError], int]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        required = options.consistency.required(len(view.readers))
        failures: dict[str, CacheError] = {}
        answers: dict[bytes, dict[str, Answer]] = {key: {} for key in keys}
        if required > 1:
            zones = await asyncio.gather(*(self._ask_many(view, pool, keys, flags, deadline) for pool in view.readers))
            for pool, answered in zip(view.readers, zones, strict=True):
                for key, answer in answered.items():
                    answers[key][pool.name] = answer
        else:
            wanted = list(keys)
            for index, pool in enumerate(view.readers):
                now = loop.time()
                until = now + (deadline - now) / (len(view.readers) - index)
                for key, answer in (await self._ask_many(view, pool, wanted, flags, until)).items():
                    answers[key][pool.name] = answer
                wanted = [key for key in wanted if _should_ask_next(answers[key][pool.name], fallback_on_miss)]
                if not wanted or index + 1 == len(view.readers):
                    break
                self._hooks.fell_back(pool.name, failed(answers[wanted[0]][pool.name]))
        found: dict[bytes, Found] = {}
        answered_least = len(view.readers)
        for key, of_key in answers.items():
            answered_least = min(answered_least, sum(not isinstance(answer, CacheError) for answer in of_key.values()))
            failures.update({zone: answer for zone, answer in of_key.items() if isinstance(answer, CacheError)})
            winner = newest(of_key.values())
            if winner is None:
                continue
            nodes = {pool.name: pool.node(view.place(key)) for pool in view.readers}
            behind = zones_behind(winner, of_key)
            self._repair.bring(key, winner, nodes[winner.zone], {zone: nodes[zone] for zone in behind})
            if winner.is_value:
                found[key] = winner
        return found, failures, answered_least

    async def _ask_many(
        self, view: View, pool: ZonePool, keys: Sequence[bytes], flags: bytes, deadline: float
    ) -> dict[bytes, Answer]:
        batches: dict[Node, list[bytes]] = {}
        for key in keys:
            batches.setdefault(pool.node(view.place(key)), []).append(key)
        answers: dict[bytes, Answer] = {}
        for part in await asyncio.gather(*(self._batch(pool.name, *batch, flags, deadline) for batch in batches.items())):
            answers.update(part)
        return answers

    async def _batch(self, zone: str, node: Node, keys: list[bytes], flags: bytes, deadline: float) -> dict[bytes, Answer]:
        try:
            connection = node.connection() or await node.connected(deadline)
            answer: asyncio.Future[list[tuple[int, Reply]]] = asyncio.get_running_loop().create_future()
            connection.request_quietly([requests.meta_get(key, flags) for key in keys], answer, deadline)
            answers: dict[bytes, Answer] = dict.fromkeys(keys)
            for index, reply in await answer:
                answers[keys[index]] = self._found(zone, reply)
        except CacheError as error:
            return dict.fromkeys(keys, error)
        return answers


async def first_answers(asked: Mapping[str, Awaitable[Answer]], required: int) -> dict[str, Answer]:
    """Ask all, and return when `required` have answered, or when that has become impossible.

    `asked`: a coroutine that returns an `Answer` for each zone. Those that are not needed any more are cancelled; their
    replies are dropped when they come.
    """
    tasks = {zone: asyncio.ensure_future(work) for zone, work in asked.items()}
    answers: dict[str, Answer] = {}
    waiting = set(tasks.values())
    try:
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answers = {zone: task.result() for zone, task in tasks.items() if task.done()}
            answered = sum(not isinstance(answer, CacheError) for answer in answers.values())
            if answered >= required or answered + len(waiting) < required:
                break
    finally:
        for task in waiting:
            task.cancel()
    return answers


def _enter(
    pool: ZonePool, place: int, failure: CacheError | None, failures: dict[str, CacheError], missed: dict[str, Node]
) -> None:
    """Note what came of asking a zone that did not have it."""
    if failure is None:
        missed[pool.name] = pool.node(place)
    else:
        failures[pool.name] = failure


def _attempts_left(readers: Sequence[ZonePool], index: int, place: int) -> int:
    """This zone and those after it that are not known to be down: a zone that fails at once needs no time."""
    return 1 + sum(not pool.node(place).is_down for pool in readers[index + 1 :])


def _should_ask_next(answer: Answer, fallback_on_miss: bool) -> bool:  # noqa: FBT001  # passed on as it is
    return isinstance(answer, CacheError) or (answer is None and fallback_on_miss)
