"""Failover of a read of many keys: zones are asked one after another for the keys that are still missing.

Each key follows the rule of `failover_policy`. Keys with the same order of zones are read together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from evcache.errors import FailoverDenied, StaleReplica
from evcache.reads.context import ReadCall, ReadContext
from evcache.reads.failover import draw_first
from evcache.reads.failover_policy import (
    Cost,
    ReadAttempt,
    cost_of,
    end_of_attempt,
    may_ask_gutter,
    reason_not_first,
    should_ask_next,
    silent_last,
    zones_to_ask,
)
from evcache.reads.node_batches import answers_of, ask_nodes
from evcache.replication.gutter import GUTTER
from evcache.replication.reconcile import Answer, ZoneHit, failure_of
from evcache.zones.errors import CacheError, NodeSilent, NodeUnavailable
from evcache.zones.zone_pool import ZonePool

Attempts = Mapping[bytes, ReadAttempt]

# Keys by the zones that are still to be asked for them.
Plans = dict[tuple[ZonePool, ...], list[bytes]]


async def read_many_from_first(context: ReadContext, call: ReadCall, attempts: Attempts) -> None:
    """Read keys, some of which have a first node that is not settled. Record the answers of the zones."""
    view = call.view
    readers = view.readers
    has_silent = any(node.is_silent for pool in readers for node in pool.nodes)
    plans: Plans = {}
    reason: NodeUnavailable | None = None
    for key in attempts:
        position = view.ring_position(key)
        order = draw_first(silent_last(readers, position) if has_silent else readers, readers[0], position)
        if reason is None and order[0] is not readers[0]:
            reason = reason_not_first(readers[0].node(position))
        plans.setdefault(tuple(order), []).append(key)
    if reason is not None:
        context.hooks.fell_back(readers[0].name, reason)
    await _follow(context, call, plans, None, attempts, frozenset())
    await _ask_gutter(context, call, attempts)


async def read_many_on(context: ReadContext, call: ReadCall, attempts: Attempts) -> None:
    """Read keys that the first zone did not serve. Record the answers of the other zones."""
    first = call.view.readers[0]
    plans: Plans = {}
    for key in _still_wanted(context, call, first.name, list(attempts), attempts):
        plans.setdefault(tuple(zones_to_ask(call.view.readers, 1, attempts[key].answers)), []).append(key)
    await _follow(context, call, plans, first, attempts, frozenset({first.name}))
    await _ask_gutter(context, call, attempts)


async def _follow(
    context: ReadContext, call: ReadCall, plans: Plans, left: ZonePool | None, attempts: Attempts, patient: frozenset[str]
) -> None:
    """Follow several plans at once. The arguments are those of `_ask_in_turn`."""
    work = [_ask_in_turn(context, call, zones, left, keys, attempts, patient) for zones, keys in plans.items() if keys]
    if len(work) == 1:
        await work[0]
    elif work:
        await asyncio.gather(*work)


async def _ask_in_turn(
    context: ReadContext,
    call: ReadCall,
    zones: tuple[ZonePool, ...],
    left: ZonePool | None,
    keys: list[bytes],
    attempts: Attempts,
    patient: frozenset[str],
) -> None:
    """Ask zones one after another for keys, until no key needs another zone.

    Args:
        context: The parts of the client.
        call: The read.
        zones: Zones to ask. A zone that is silent for some of the keys is asked for them again at the end.
        left: The zone that was asked before, if there is one.
        keys: Keys with their namespace.
        attempts: Answers so far.
        patient: Names of zones that were silent before. They are not left early again.
    """
    for index, pool in enumerate(zones):
        if left is not None:
            context.hooks.fell_back(left.name, failure_of(attempts[keys[0]].answers[left.name]))
        left = pool
        is_last = index + 1 == len(zones)
        await _ask_zone(context, call, zones[index:], keys, attempts, is_patient=is_last or pool.name in patient)
        keys = _still_wanted(context, call, pool.name, keys, attempts)
        silent: list[bytes] = []
        others: list[bytes] = []
        for key in keys:
            (silent if isinstance(attempts[key].answers[pool.name], NodeSilent) else others).append(key)
        if silent:
            later = zones[index + 1 :]
            plans = {later: others, (*later, pool): silent}
            await _follow(context, call, plans, pool, attempts, patient | {pool.name})
            return
        if not keys:
            return


async def _ask_zone(
    context: ReadContext,
    call: ReadCall,
    zones: tuple[ZonePool, ...],
    keys: list[bytes],
    attempts: Attempts,
    *,
    is_patient: bool,
) -> None:
    """Ask the first of the zones for keys, and record its answers. `is_patient` waits for a silent node."""
    view, pool = call.view, zones[0]
    is_remote = pool.name != view.preferred_zone
    asked = _admit(context, call, pool, keys, attempts)
    if not asked:
        return
    now = view.loop.time()
    later = sum(any(node.may_answer for node in following.nodes) for following in zones[1:])
    until = end_of_attempt(now, call.deadline, later, has_gutter=view.gutter is not None)
    answers: dict[bytes, Answer] = dict.fromkeys(asked)
    latest = None if is_patient else call.deadline
    for some, outcome in await ask_nodes(view, pool.batches(asked), call.fields, until, latest):
        answers.update(answers_of(context, pool.name, some, outcome))
    for key, answer in answers.items():
        accepted = attempts[key].record(pool.name, answer, is_remote=is_remote)
        if view.health.unhealthy and not isinstance(answer, CacheError):
            pool.node(view.ring_position(key)).record_read(hit=isinstance(accepted, ZoneHit))


def _admit(context: ReadContext, call: ReadCall, pool: ZonePool, keys: list[bytes], attempts: Attempts) -> list[bytes]:
    """Take what requests for keys to a zone cost. Return the keys to ask for, and record the reason for the others."""
    view = call.view
    is_remote = pool.name != view.preferred_zone
    if not is_remote and not view.health.unhealthy:
        return keys
    keys_of: dict[Cost, list[bytes]] = {cost: [] for cost in Cost}
    for key in keys:
        cost = cost_of(pool.node(view.ring_position(key)), attempts[key], is_remote=is_remote)
        if isinstance(cost, CacheError):
            attempts[key].record(pool.name, cost)
        else:
            keys_of[cost].append(key)
    admitted = keys_of[Cost.FREE]
    refused: list[bytes] = []
    for cost in (Cost.ONE, Cost.ONE_SPARE):
        granted = context.budget.try_take(len(keys_of[cost]), spare=cost is Cost.ONE_SPARE)
        admitted += keys_of[cost][:granted]
        refused += keys_of[cost][granted:]
    if refused:
        context.hooks.failover_denied(pool.name)
        for key in refused:
            attempts[key].record(pool.name, FailoverDenied())
    return admitted


def _still_wanted(context: ReadContext, call: ReadCall, zone: str, keys: list[bytes], attempts: Attempts) -> list[bytes]:
    """Return the keys that go on to the next zone after the answers of this one. Report a zone that is stale."""
    if any(isinstance(attempts[key].answers[zone], StaleReplica) for key in keys):
        context.hooks.zone_behind(zone)
    fallback_on_miss = call.options.fallback_on_miss
    return [key for key in keys if should_ask_next(attempts[key].answers[zone], fallback_on_miss=fallback_on_miss)]


async def _ask_gutter(context: ReadContext, call: ReadCall, attempts: Attempts) -> None:
    """Read the keys that no zone answered for from the gutter, one by one, and record its answers.

    This is for an outage of every zone, which is rare. A request for many keys would save time only then.
    """
    view, gutter = call.view, context.gutter
    if gutter is None:
        return
    zones = len(view.readers)
    keys = [key for key, attempt in attempts.items() if may_ask_gutter(attempt, zones)]
    found = await asyncio.gather(*(gutter.get(view, key, call.deadline) for key in keys), return_exceptions=True)
    for key, answer in zip(keys, found, strict=True):
        if isinstance(answer, CacheError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        context.hooks.gutter_used(hit=answer is not None)
        attempts[key].record(GUTTER, answer)
