"""Reads of many keys: all nodes of a zone are asked at once, and the next zone only for the keys that are still missing.

At `QUORUM` and above, all nodes of all zones are asked at once, until enough zones have answered for each key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evcache.errors import StaleReplica
from evcache.reads.bulk.multi_quorum import read_many_quorum
from evcache.reads.bulk.node_batches import Batches, Replies, ask_nodes
from evcache.reads.context import ManyItems, ReadCall, ReadContext
from evcache.reads.failover.many_keys import read_many_from_first, read_many_on
from evcache.reads.failover.one_key import try_first_zone
from evcache.reads.failover.policy import ReadAttempt, end_of_attempt, is_settled
from evcache.replication.gutter import GUTTER
from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION
from evcache.replication.reconcile import ZoneHit, count_answered, stale_replicas
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.errors import CacheError
from evcache.zones.transport.core import selected


async def read_many(context: ReadContext, call: ReadCall, keys: Sequence[bytes]) -> ManyItems:
    """Read keys from the zones. Cancellation drops the replies that are in flight."""
    view = call.view
    known = context.seen.latest_of_each(keys)
    required = call.options.consistency.required(len(view.readers))
    if required > 1:
        return await read_many_quorum(context, call, keys, known, required)
    context.budget.add_reads(len(keys))
    batches = view.readers[0].batches(keys)
    if view.health.unhealthy and not (
        all(is_settled(node) for node, _ in batches) and try_first_zone(context.budget, view, len(keys))
    ):
        attempts = {key: ReadAttempt(known[key]) for key in keys}
        await read_many_from_first(context, call, attempts)
        return _conclude(context, call, attempts)
    # The first zone serves nearly all keys, and those are done.
    found, attempts = await _ask_first_zone(context, call, batches, keys, known)
    if not attempts:
        return ManyItems(found, {}, len(view.readers))
    await read_many_on(context, call, attempts)
    others = _conclude(context, call, attempts)
    return others._replace(found=found | others.found)


async def _ask_first_zone(
    context: ReadContext, call: ReadCall, batches: Batches, keys: Sequence[bytes], known: Mapping[bytes, int]
) -> tuple[dict[bytes, ZoneHit], dict[bytes, ReadAttempt]]:
    """Ask the first zone for all keys. Return its items, and an attempt for each key that it did not serve.

    This is most of the work of a bulk read. A key that is served gets no `ReadAttempt`.
    """
    view = call.view
    zone = view.readers[0].name
    until = end_of_attempt(call.began_at, call.deadline, len(view.readers) - 1, has_gutter=view.gutter is not None)
    found: dict[bytes, ZoneHit] = {}
    others: dict[bytes, CacheError] = {}
    deleted: list[bytes] = []
    for some, outcome in await ask_nodes(view, batches, call.fields, until, call.deadline):
        if isinstance(outcome, CacheError):
            others.update(dict.fromkeys(some, outcome))
        else:
            _add_hits(context, zone, some, outcome, known, found, others, deleted)
    attempts: dict[bytes, ReadAttempt] = {}
    if len(found) < len(keys):
        is_remote = zone != view.preferred_zone
        for key in keys:
            if key not in found:
                attempts[key] = attempt = ReadAttempt(known[key])
                attempt.record(zone, others.get(key), is_remote=is_remote)
    context.count_served(view, found)
    for key in deleted:
        del found[key]
    return found, attempts


def _add_hits(
    context: ReadContext,
    zone: str,
    keys: Sequence[bytes],
    replies: Replies,
    known: Mapping[bytes, int],
    found: dict[bytes, ZoneHit],
    others: dict[bytes, CacheError],
    deleted: list[bytes],
) -> None:
    """Add the items of one batch to `found`, errors and stale items to `others`, and keys with a tombstone to `deleted`."""
    seen = context.seen
    left, newer = selected.SELECTED.accept_hits(
        replies, keys, known, context.clock.passed, NOT_A_VERSION, MAX_CAS, ZoneHit, zone, FLAG_TOMBSTONE, found
    )
    for key, version in newer:
        seen.note(key, version)
    for index in left:
        key, reply = keys[index], replies[index]
        assert reply is not None
        try:
            item = context.interpret(zone, reply)
        except CacheError as error:
            others[key] = error
            continue
        if item is None:
            continue
        if item.version is not None:
            if item.version < known[key]:
                others[key] = StaleReplica(item.version, known[key])
                continue
            seen.note(key, item.version)
        found[key] = item
        if item.hit.flags == FLAG_TOMBSTONE:
            deleted.append(key)


def _conclude(context: ReadContext, call: ReadCall, attempts: Mapping[bytes, ReadAttempt]) -> ManyItems:
    """Return the items that other zones served, and repair the zones that hold less."""
    view = call.view
    zones = len(view.readers)
    found: dict[bytes, ZoneHit] = {}
    failures: dict[str, CacheError] = {}
    served: list[bytes] = []
    answered = 1
    for key, attempt in attempts.items():
        item = attempt.item
        if item is None:
            if not attempt.has_missed and not count_answered(attempt.answers, zones):
                answered = 0
                failures.update((zone, answer) for zone, answer in attempt.answers.items() if isinstance(answer, CacheError))
            continue
        context.note(key, item)
        if item.zone != GUTTER:
            if any(stale_replicas(item, attempt.answers)):
                context.repair_others(view, key, item, attempt.answers, call.began_at)
            served.append(key)
        if item.hit.flags != FLAG_TOMBSTONE:
            found[key] = item
    context.count_served(view, served)
    return ManyItems(found, failures, answered)
