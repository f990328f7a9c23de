"""Reads of one key at `QUORUM`, `ALL_MINUS_ONE` and `ALL`: several zones are asked at once, and the latest version wins.

If enough zones answered and none has the key, the standby zones are asked at the same level. A value that too few of them
confirm may be out of date. The read is then the miss that the other zones reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from evcache.errors import StaleReplica
from evcache.reads.context import ReadCall, ReadContext
from evcache.replication.commands.node_requests import get
from evcache.replication.reconcile import (
    Answer,
    ZoneHit,
    check_answered,
    count_answered,
    is_decided,
    latest_of,
    reject_if_older,
)
from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.zone_pool import ZonePool

T = TypeVar("T")


async def read_quorum(context: ReadContext, call: ReadCall, key: bytes) -> ZoneHit | None:
    """Ask every readable zone for a key, and return the item that wins among enough answers. None is a miss.

    Raises:
        CacheUnavailable: No zone answered.
        ConsistencyError: Fewer zones answered than the level requires.
    """
    view = call.view
    known = context.seen.latest(key)
    winner, answers = await _ask_all(context, call, key, view.readers, known)
    zones = len(view.readers)
    check_answered("get", answers, call.options.consistency.required(zones), zones)
    if winner is None and view.standby:
        winner, answers = await _ask_all(context, call, key, view.standby, known)
        if count_answered(answers, len(view.standby)) < call.options.consistency.required(len(view.standby)):
            return None
    if winner is not None:
        context.note(key, winner)
        context.repair_others(view, key, winner, answers, call.began_at)
    return winner


async def _ask_all(
    context: ReadContext, call: ReadCall, key: bytes, pools: Sequence[ZonePool], known: int
) -> tuple[ZoneHit | None, Mapping[str, Answer]]:
    """Ask these zones for a key, until enough have answered. Return the item that wins, and the answers."""
    zones = len(pools)
    required = call.options.consistency.required(zones)
    position = call.view.ring_position(key)
    asked: dict[asyncio.Future[Answer], str] = {
        unattended(asyncio.ensure_future(_ask(context, call, key, pool.name, pool.node(position)))): pool.name
        for pool in pools
    }
    arrived: dict[str, Answer] = {}

    def enter(ended: Iterable[asyncio.Future[Answer]]) -> bool:
        arrived.update((asked[task], task.result()) for task in ended)
        return is_decided(arrived, required, zones, known)

    await wait_until(asked, enter)
    answers: Mapping[str, Answer] = in_order((pool.name for pool in pools), arrived)
    for zone, answer in answers.items():
        if isinstance(reject_if_older(answer, known), StaleReplica):
            context.hooks.zone_behind(zone)
    return winner_of(answers, known)


async def _ask(context: ReadContext, call: ReadCall, key: bytes, zone: str, node: Node) -> Answer:
    try:
        return context.interpret(zone, await get(node, key, call.fields, call.deadline))
    except CacheError as error:
        return error


def winner_of(answers: Mapping[str, Answer], known: int) -> tuple[ZoneHit | None, Mapping[str, Answer]]:
    """Return the item that wins, and the answers. If even the latest item is older than `known`, none wins.

    The stale items among the answers are then `StaleReplica`. Otherwise they stay, because they are counted as answers.
    """
    winner = latest_of(answers.values())
    if winner is None or winner.version is None or winner.version >= known:
        return winner, answers
    return None, {zone: reject_if_older(answer, known) for zone, answer in answers.items()}


async def wait_until(asked: Collection[asyncio.Future[T]], enter: Callable[[Iterable[asyncio.Future[T]]], bool]) -> None:
    """Wait for requests until `enter` returns True. Cancel the others: their replies are dropped.

    Cancellation of the caller cancels all of them.

    Args:
        asked: Futures of requests, or tasks that send one.
        enter: Function that takes the futures that ended since its last call. It returns True if the rest is not needed.
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
    """Return the answers in the order in which zones are read. The first one wins where items have no versions."""
    return {zone: answers[zone] for zone in zones if zone in answers}
