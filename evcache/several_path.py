"""Reading one key from several zones at once: `QUORUM`, `ALL_MINUS_ONE` and `ALL`. The newest of their items is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from evcache.answers import Answer, Found, check_answered, count_answered, judged, newest, zones_behind
from evcache.commands import ask
from evcache.errors import ZoneBehind
from evcache.options import Options
from evcache.read_parts import ReadParts
from zones.cluster import View
from zones.errors import CacheError
from zones.node import Node


class SeveralPath:
    """Reads that need more than one zone's answer."""

    def __init__(self, parts: ReadParts) -> None:
        self._parts = parts

    async def get(self, view: View, key: bytes, line: bytes, options: Options) -> Found | None:
        """The newest item of those that enough zones hold; None when it is a miss in all of them.

        Raises `CacheUnavailable` when no zone answered, `ConsistencyError` when fewer than asked for did.
        """
        asked_at = view.loop.time()
        deadline = asked_at + options.timeout
        zones = len(view.readers)
        required = options.consistency.required(zones)
        place = view.place(key)
        nodes = {pool.name: pool.node(place) for pool in view.readers}
        known = self._parts.remembered.newest(key)

        def enough(answers: Mapping[str, Answer]) -> bool:
            if count_answered(answers, zones) < required:
                return False
            winner = newest(answers.values())
            # Of those that are behind what this client knows of, no number is enough while another may be not. A miss is no
            # such answer: a key that has expired everywhere must not wait for a zone that hangs.
            return winner is None or winner.version is None or winner.version >= known

        answers = await first_answers(
            {zone: self._ask(zone, node, line, deadline) for zone, node in nodes.items()}, required, enough
        )
        for zone, answer in answers.items():
            if isinstance(judged(answer, known), ZoneBehind):
                self._parts.hooks.zone_behind(zone)
        winner = newest(answers.values())
        if winner is not None and winner.version is not None and winner.version < known:
            answers = {zone: judged(answer, known) for zone, answer in answers.items()}
            winner = None
        check_answered("get", answers, required, zones)
        if winner is not None:
            if winner.version is not None:
                self._parts.remembered.note(key, winner.version)
            missed, behind = zones_behind(winner, answers)
            self._parts.repair.bring(
                view,
                key,
                winner,
                nodes[winner.zone],
                {zone: nodes[zone] for zone in missed},
                {zone: nodes[zone] for zone in behind},
                asked_at,
            )
        return winner

    async def _ask(self, zone: str, node: Node, line: bytes, deadline: float) -> Answer:
        try:
            return self._parts.found(zone, await ask(node, line, deadline))
        except CacheError as error:
            return error


async def first_answers(
    asked: Mapping[str, Awaitable[Answer]],
    required: int,
    enough: Callable[[Mapping[str, Answer]], bool] | None = None,
) -> dict[str, Answer]:
    """Ask all, and return when `required` have answered, or when that has become impossible.

    `asked`: a coroutine that returns an `Answer` for each zone. Those that are not needed any more are cancelled; their
    replies are dropped when they come. `enough`: what decides in place of the number of answers.
    """
    tasks = {zone: asyncio.ensure_future(work) for zone, work in asked.items()}
    answers: dict[str, Answer] = {}
    waiting = set(tasks.values())
    try:
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answers = {zone: task.result() for zone, task in tasks.items() if task.done()}
            answered = sum(not isinstance(answer, CacheError) for answer in answers.values())
            done = answered >= required if enough is None else enough(answers)
            if done or answered + len(waiting) < required:
                break
    finally:
        for task in waiting:
            task.cancel()
    return answers
