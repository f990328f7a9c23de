"""Failover of a read of many keys: zones are asked one after another for the keys that are still missing.

Each key follows the rule of `failover_policy`. Keys with the same order of zones are read together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from evcache.errors import FailoverDenied, StaleReplica
from evcache.reads.bulk.node_batches import Batch, answers_of, ask_nodes
from evcache.reads.context import ReadCall, ReadContext
from evcache.reads.failover.one_key import draw_first
from evcache.reads.failover.policy import (
    Cost,
    ReadAttempt,
    come_to_standby,
    cost_of,
    end_of_attempt,
    may_ask_gutter,
    reason_not_first,
    remote_cost,
    should_ask_next,
    silent_last,
)
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
        plans.setdefault((*order, *view.standby), []).append(key)
    if reason is not None:
        context.hooks.fell_back(readers[0].name, reason)
    await _follow(context, call, plans, None, attempts, frozenset())
    await _ask_gutter(context, call, attempts)


async def read_many_on(context: ReadContext, call: ReadCall, attempts: Attempts) -> None:
    """Read keys that the first zone did not serve. Record the answers of the other zones."""
    first, *others = call.view.read_order
    keys = _still_wanted(context, call, first.name, list(attempts), attempts)
    plans = _plans_after(first, tuple(others), keys, attempts)
    await _follow(context, call, plans, first, attempts, frozenset({first.name}))
    await _ask_gutter(context, call, attempts)


def _plans_after(pool: ZonePool, later: tuple[ZonePool, ...], keys: list[bytes], attempts: Attempts) -> Plans:
    """Return the zones to ask after this one. A zone that is silent for a key is asked for it again at the end."""
    silent: list[bytes] = []
    others: list[bytes] = []
    for key in keys:
        (silent if isinstance(attempts[key].answers[pool.name], NodeSilent) else others).append(key)
    return {later: others, (*later, pool): silent}


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
        has_silent = await _ask_zone(
            context, call, zones[index:], keys, attempts, is_patient=is_last or pool.name in patient
        )
        keys = _still_wanted(context, call, pool.name, keys, attempts)
        if has_silent:
            plans = _plans_after(pool, zones[index + 1 :], keys, attempts)
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
) -> bool:
    """Ask the first of the zones for keys, and record its answers. `is_patient` waits for a silent node.

    Returns:
        True if a node is silent.
    """
    view, pool = call.view, zones[0]
    is_remote = pool.name != view.preferred_zone
    asked = _admit(context, call, pool, keys, attempts)
    if not asked:
        return False
    now = view.loop.time()
    later = sum(any(node.may_answer for node in following.nodes) for following in zones[1:])
    until = end_of_attempt(now, call.deadline, later, has_gutter=view.gutter is not None)
    answers: dict[bytes, Answer] = dict.fromkeys(asked)
    latest = None if is_patient else call.deadline
    has_silent = False
    batches = [Batch(node, some) for node, some, _ in pool.batches(asked, asked)]
    for batch, outcome in zip(batches, await ask_nodes(view, batches, call.fields, until, latest), strict=True):
        has_silent = has_silent or isinstance(outcome, NodeSilent)
        answers.update(answers_of(context, pool.name, batch.keys, outcome))
    for key, answer in answers.items():
        attempts[key].record(pool.name, answer, is_remote=is_remote)
    if view.health.unhealthy:
        for key, answer in answers.items():
            if not isinstance(answer, CacheError):
                hit = isinstance(attempts[key].answers[pool.name], ZoneHit)
                pool.node(view.ring_position(key)).record_read(hit=hit)
    return has_silent


def _admit(context: ReadContext, call: ReadCall, pool: ZonePool, keys: list[bytes], attempts: Attempts) -> list[bytes]:
    """Take what requests for keys to a zone cost. Return the keys to ask for, and record the reason for the others."""
    view = call.view
    is_remote = pool.name != view.preferred_zone
    budget = context.budget
    if pool.standby:
        budget = context.standby_budget
        come_to_standby((attempts[key] for key in keys), budget)
    is_healthy = not view.health.unhealthy  # so every node may answer
    if is_healthy and not is_remote:
        return keys
    free: list[bytes] = []
    exempt: list[bytes] = []
    first: list[bytes] = []
    spare: list[bytes] = []
    for key in keys:
        attempt = attempts[key]
        if is_healthy:
            cost: Cost | CacheError = remote_cost(attempt, is_standby=pool.standby)
        else:
            node = pool.node(view.ring_position(key))
            cost = cost_of(node, attempt, is_remote=is_remote, is_standby=pool.standby)
        if cost is Cost.ONE:
            first.append(key)
        elif cost is Cost.ONE_SPARE:
            spare.append(key)
        elif cost is Cost.EXEMPT:
            exempt.append(key)
        elif cost is Cost.FREE:
            free.append(key)
        else:
            attempt.record(pool.name, cost)
    budget.count_exempt(len(exempt))
    # Not for 0: that would limit the tokens that these keys have added, before they take them.
    granted = budget.try_take(len(first)) if first else 0
    granted_spare = budget.try_take(len(spare), spare=True) if spare else 0
    refused = first[granted:] + spare[granted_spare:]
    if refused:
        context.hooks.failover_denied(pool.name)
        for key in refused:
            attempts[key].record(pool.name, FailoverDenied())
    return free + exempt + first[:granted] + spare[:granted_spare]


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
    zones = len(view.read_order)
    keys = [key for key, attempt in attempts.items() if may_ask_gutter(attempt, zones)]
    found = await asyncio.gather(*(gutter.get(view, key, call.deadline) for key in keys), return_exceptions=True)
    for key, answer in zip(keys, found, strict=True):
        if isinstance(answer, CacheError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        context.hooks.gutter_used(hit=answer is not None)
        attempts[key].record(GUTTER, answer)
