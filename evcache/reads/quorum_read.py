"""Reading one key from several zones at once: `QUORUM`, `ALL_MINUS_ONE` and `ALL`. The newest of their items is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from evcache.errors import StaleReplica
from evcache.options import Options
from evcache.reads.context import ReadContext
from evcache.replication.node_requests import send_request
from evcache.replication.reconcile import (
    Answer,
    ZoneHit,
    check_answered,
    is_decided,
    latest_of,
    reject_if_older,
    stale_replicas,
)
from evcache.zones._tasks import unattended
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node

T = TypeVar("T")


class QuorumReader:
    """Reads that need more than one zone's answer."""

    def __init__(self, parts: ReadContext) -> None:
        self._parts = parts

    async def get(self, view: ClusterSnapshot, key: bytes, line: bytes, options: Options) -> ZoneHit | None:
        """The newest item of those that enough zones hold; None when it is a miss in all of them.

        Raises `CacheUnavailable` when no zone answered, `ConsistencyError` when fewer than asked for did.
        """
        asked_at = view.loop.time()
        deadline = asked_at + options.timeout
        zones = len(view.readers)
        required = options.consistency.required(zones)
        place = view.ring_position(key)
        nodes = {pool.name: pool.node(place) for pool in view.readers}
        known = self._parts.remembered.latest(key)

        asked: dict[asyncio.Future[Answer], str] = {
            unattended(asyncio.ensure_future(self._ask(zone, node, line, deadline))): zone for zone, node in nodes.items()
        }
        arrived: dict[str, Answer] = {}

        def enter(ended: Iterable[asyncio.Future[Answer]]) -> bool:
            arrived.update((asked[task], task.result()) for task in ended)
            return is_decided(arrived, required, zones, known)

        await wait_until(asked, enter)
        answers = in_order(nodes, arrived)
        for zone, answer in answers.items():
            if isinstance(reject_if_older(answer, known), StaleReplica):
                self._parts.hooks.zone_behind(zone)
        winner = latest_of(answers.values())
        if winner is not None and winner.version is not None and winner.version < known:
            answers = {zone: reject_if_older(answer, known) for zone, answer in answers.items()}
            winner = None
        check_answered("get", answers, required, zones)
        if winner is not None:
            if winner.version is not None:
                self._parts.remembered.note(key, winner.version)
            missed, behind = stale_replicas(winner, answers)
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
            return self._parts.found(zone, await send_request(node, line, deadline))
        except CacheError as error:
            return error


async def wait_until(asked: Collection[asyncio.Future[T]], enter: Callable[[Iterable[asyncio.Future[T]]], bool]) -> None:
    """Wait for futures until `enter` says that those which have ended are enough. Cancel the others.

    `asked`: requests, whose replies are dropped when they are cancelled, or tasks that send one. `enter` takes the futures
    that have ended since its last call, and returns whether the others are not needed any more.
    """
    waiting = set(asked)
    try:
        while waiting:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if enter(ended):
                break
    finally:
        for future in waiting:
            if not future.cancel() and not future.cancelled():
                future.exception()  # or asyncio logs that it was never retrieved


def in_order(zones: Iterable[str], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return the answers in the order in which zones are read: the first of them wins where items have no versions."""
    return {zone: answers[zone] for zone in zones if zone in answers}
