"""Failover of a read of one key: zones are asked one after another, until one of them has the key.

A read comes here if its first zone failed or missed. While a node is down, silent or warming up, a read of its keys begins
here.
"""

from __future__ import annotations

from collections.abc import Sequence

from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable, FailoverDenied, StaleReplica
from evcache.reads.context import ReadCall, ReadContext
from evcache.reads.failover.budget import TokenBucket
from evcache.reads.failover.policy import (
    Cost,
    ReadAttempt,
    come_to_standby,
    cost_of,
    end_of_attempt,
    first_to_end,
    is_unanswered,
    may_ask_gutter,
    reason_not_first,
    should_ask_next,
    silent_last,
    zones_to_ask,
)
from evcache.replication.commands.node_requests import get
from evcache.replication.reconcile import Answer, ZoneHit, failure_of, reject_if_older
from evcache.zones.errors import CacheError, NodeSilent, NodeTimeout
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool


def draw_first(order: Sequence[ZonePool], first: ZonePool, position: int) -> Sequence[ZonePool]:
    """Return the order, with `first` at the end if its node warms up and this read is not in its share."""
    if order[0] is first and not first.node(position).admits_read():
        return first_to_end(order)
    return order


def try_first_zone(budget: TokenBucket, view: ClusterSnapshot, keys: int) -> bool:
    """Take what a read of settled nodes in the first zone costs. Return False if the budget has too few tokens."""
    return view.readers[0].name == view.preferred_zone or budget.try_take_all(keys)


async def read_from_first(context: ReadContext, call: ReadCall, key: bytes) -> ZoneHit | None:
    """Read a key whose first node is not settled. Raises `CacheUnavailable` if no zone answered."""
    readers = call.view.readers
    position = call.view.ring_position(key)
    order = draw_first(silent_last(readers, position), readers[0], position)
    if order[0] is not readers[0]:
        context.hooks.fell_back(readers[0].name, reason_not_first(readers[0].node(position)))
    if call.view.standby:
        order = (*order, *call.view.standby)
    return await read_on(context, call, key, order, 0, ReadAttempt(context.seen.latest(key)))


async def read_on(
    context: ReadContext, call: ReadCall, key: bytes, order: Sequence[ZonePool], start: int, attempt: ReadAttempt
) -> ZoneHit | None:
    """Ask the zones from `start` on. The attempt holds the answers of those before.

    If no zone answered in time and the event loop stalled during the call, the client repeats the request to the first late
    zone. It waits for the time of the stall.

    Raises:
        CacheUnavailable: No zone answered.
    """
    left = order[start - 1] if start else None
    answer = await _ask_in_turn(context, call, key, zones_to_ask(order, start, attempt.answers), left, attempt)
    if not should_ask_next(answer, fallback_on_miss=call.options.fallback_on_miss):
        return answer if isinstance(answer, ZoneHit) else None
    view = call.view
    if not attempt.has_missed and not attempt.has_stale:
        now = view.loop.time()
        lost = view.lag.lost_since(call.began_at, now)
        late = [pool for pool in view.readers if isinstance(attempt.answers.get(pool.name), NodeTimeout)]
        if lost and late:
            answer = await _ask_in_turn(context, call._replace(deadline=now + lost), key, late[:1], None, attempt)
            if isinstance(answer, ZoneHit):
                return answer
    if (
        attempt.has_missed
        or call.options.consistency is Consistency.NONE
        or not is_unanswered(attempt, len(view.read_order))
    ):
        return None
    return await _ask_gutter(context, call, key, attempt)


async def _ask_in_turn(
    context: ReadContext, call: ReadCall, key: bytes, zones: list[ZonePool], left: ZonePool | None, attempt: ReadAttempt
) -> Answer:
    """Ask zones one after another until one of them ends the read. Return the last answer.

    Args:
        context: The parts of the client.
        call: The read.
        key: Key with its namespace.
        zones: Zones to ask. A zone that becomes silent is added at the end.
        left: The zone that was asked before, if there is one.
        attempt: Answers so far.
    """
    view, hooks, fallback_on_miss = call.view, context.hooks, call.options.fallback_on_miss
    position = view.ring_position(key)
    answer = None if left is None else attempt.answers[left.name]
    for index, pool in enumerate(zones):
        zone, node = pool.name, pool.node(position)
        if left is not None:
            hooks.fell_back(left.name, failure_of(answer))
        left = pool
        is_remote = zone != view.preferred_zone
        budget = context.budget
        if pool.standby:
            budget = context.standby_budget
            come_to_standby((attempt,), budget)
        cost = cost_of(node, attempt, is_remote=is_remote, is_standby=pool.standby)
        refusal = _pay(context, budget, zone, cost)
        if refusal is not None:
            answer = attempt.record(zone, refusal)
            continue
        now = view.loop.time()
        later = 0
        for following in zones[index + 1 :]:
            later += following.node(position).may_answer
        until = end_of_attempt(now, call.deadline, later, has_gutter=view.gutter is not None)
        # A copy that repairs another zone needs the seconds that the item has left.
        fields = COPY_FIELDS if attempt.has_missed or attempt.has_stale else call.fields
        # A zone that has answered before was late or silent, and gets all of its time now.
        latest = None if zone in attempt.answers or view.max_attempts == 1 else call.deadline
        try:
            answer = context.interpret(zone, await get(node, key, fields, until, latest))
        except CacheError as error:
            answer = attempt.record(zone, error, is_remote=is_remote)
            if isinstance(error, NodeSilent):
                zones.append(pool)
            continue
        answer = attempt.record(zone, answer, is_remote=is_remote)
        if isinstance(answer, StaleReplica):
            hooks.zone_behind(zone)
        if node.is_warming:
            node.record_read(hit=isinstance(answer, ZoneHit))
        if isinstance(answer, ZoneHit):
            context.note(key, answer)
            context.repair_others(view, key, answer, attempt.answers, now)
            context.count_served(view, (key,))
        if not should_ask_next(answer, fallback_on_miss=fallback_on_miss):
            return answer
    return answer


def _pay(context: ReadContext, budget: TokenBucket, zone: str, cost: Cost | CacheError) -> CacheError | None:
    """Take what a request to a zone costs. Return the reason if the request must not be sent."""
    if cost is Cost.FREE:
        return None
    if isinstance(cost, CacheError):
        return cost
    if cost is Cost.EXEMPT:
        budget.count_exempt()
        return None
    if budget.try_take(spare=cost is Cost.ONE_SPARE):
        return None
    context.hooks.failover_denied(zone)
    return FailoverDenied()


async def _ask_gutter(context: ReadContext, call: ReadCall, key: bytes, attempt: ReadAttempt) -> ZoneHit | None:
    """Read a key that no zone answered for from the gutter. Raises `CacheUnavailable`."""
    failures = {zone: answer for zone, answer in attempt.answers.items() if isinstance(answer, CacheError)}
    if context.gutter is None or not may_ask_gutter(attempt, len(call.view.read_order)):
        raise CacheUnavailable("get", failures)
    try:
        item = await context.gutter.get(call.view, key, call.deadline)
    except CacheError as error:
        raise CacheUnavailable("get", failures) from error
    context.hooks.gutter_used(hit=item is not None)
    answer = reject_if_older(item, attempt.known)
    if not isinstance(answer, ZoneHit):
        return None
    context.note(key, answer)
    return answer
