"""Reads of many keys at `QUORUM`, `ALL_MINUS_ONE` and `ALL`: the answers of several zones for each key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from evcache.errors import StaleReplica
from evcache.reads.bulk.node_batches import Batch, Replies, answers_of, ask_node
from evcache.reads.context import ManyItems, ReadCall, ReadContext
from evcache.reads.quorum_read import in_order, wait_until, winner_of
from evcache.replication.reconcile import (
    Answer,
    ZoneHit,
    count_answered,
    is_decided,
    reject_if_older,
    stale_replicas,
)
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError
from evcache.zones.zone_pool import ZonePool


async def read_many_quorum(
    context: ReadContext, call: ReadCall, keys: Sequence[bytes], known: Mapping[bytes, int], required: int
) -> ManyItems:
    """Read keys from several zones, and return the items that win. Repair the zones that hold less.

    Standby zones are asked for the keys that enough readable zones missed, as in a read of one key.

    Args:
        context: The parts of the client.
        call: The read.
        keys: Keys with their namespace.
        known: Latest version known of each key.
        required: Number of readable zones that must answer for each key.
    """
    view = call.view
    zones = len(view.readers)
    found: dict[bytes, ZoneHit] = {}
    failures: dict[str, CacheError] = {}
    missed: list[bytes] = []
    answered_least = zones
    for key, arrived in (await _ask_all_zones(context, call, keys, known, required, view.readers)).items():
        winner, answers = winner_of(arrived, known[key])
        answered = count_answered(answers, zones)
        answered_least = min(answered_least, answered)
        failures.update({zone: answer for zone, answer in answers.items() if isinstance(answer, CacheError)})
        if winner is None:
            if answered >= required:
                missed.append(key)
            continue
        context.note(key, winner)
        if any(stale_replicas(winner, answers)):
            context.repair_others(view, key, winner, answers, call.began_at)
        if winner.hit.flags != FLAG_TOMBSTONE and answered >= required:
            found[key] = winner
    if missed and view.standby:
        await _ask_standby(context, call, missed, known, found)
    return ManyItems(found, failures, answered_least)


async def _ask_standby(
    context: ReadContext, call: ReadCall, keys: Sequence[bytes], known: Mapping[bytes, int], found: dict[bytes, ZoneHit]
) -> None:
    """Add the items that enough standby zones confirm to `found`."""
    standby = call.view.standby
    required = call.options.consistency.required(len(standby))
    for key, arrived in (await _ask_all_zones(context, call, keys, known, required, standby)).items():
        winner, answers = winner_of(arrived, known[key])
        if winner is not None and count_answered(answers, len(standby)) >= required:
            context.note(key, winner)
            context.repair_others(call.view, key, winner, answers, call.began_at)
            if winner.hit.flags != FLAG_TOMBSTONE:
                found[key] = winner


async def _ask_all_zones(
    context: ReadContext,
    call: ReadCall,
    keys: Sequence[bytes],
    known: Mapping[bytes, int],
    required: int,
    pools: Sequence[ZonePool],
) -> dict[bytes, dict[str, Answer]]:
    """Ask every one of these zones for every key, and return the answers for each key.

    The call ends when each key has enough answers, or cannot get enough any more. A slow node delays only keys that need it.
    """
    view = call.view
    zones = [pool.name for pool in pools]
    answers: dict[bytes, dict[str, Answer]] = {key: {} for key in keys}
    undecided = set(keys)
    asked: dict[asyncio.Future[Replies], tuple[str, Sequence[bytes]]] = {
        unattended(asyncio.ensure_future(ask_node(Batch(node, some), call.fields, call.deadline, view.loop))): (
            pool.name,
            some,
        )
        for pool in pools
        for node, some, _ in pool.batches(keys, keys)
    }

    def enter(ended: Iterable[asyncio.Future[Replies]]) -> bool:
        for request in ended:
            zone, some = asked[request]
            error = request.exception()
            if error is not None and not isinstance(error, CacheError):
                raise error
            for key, answer in answers_of(context, zone, some, error or request.result()).items():
                of_key = answers[key]
                of_key[zone] = answer
                if key in undecided and is_decided(of_key, required, len(zones), known[key]):
                    undecided.discard(key)
        return not undecided

    await wait_until(asked, enter)
    for zone in zones:
        if any(isinstance(reject_if_older(of_key.get(zone), known[key]), StaleReplica) for key, of_key in answers.items()):
            context.hooks.zone_behind(zone)
    return {key: in_order(zones, of_key) for key, of_key in answers.items()}
