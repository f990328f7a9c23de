"""Reads of many keys: all nodes of a zone are asked at once, and the next zone only for the keys that are still missing.

At `QUORUM` and above, all nodes of all zones are asked at once, until enough zones have answered for each key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evcache.errors import StaleReplica
from evcache.reads.bulk.multi_quorum import read_many_quorum
from evcache.reads.bulk.node_batches import Batch, Replies, ask_nodes
from evcache.reads.context import ManyItems, PlainValues, ReadCall, ReadContext
from evcache.reads.failover.many_keys import read_many_from_first, read_many_on
from evcache.reads.failover.one_key import try_first_zone
from evcache.reads.failover.policy import ReadAttempt, end_of_attempt, is_settled
from evcache.replication.gutter import GUTTER
from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION
from evcache.replication.reconcile import ZoneHit, count_answered, stale_replicas
from evcache.replication.seen_versions import known_version
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import NO_FLAGS
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.transport.core.looks import Look

_LOOK = Look(NOT_A_VERSION, MAX_CAS, ZoneHit, FLAG_TOMBSTONE)


async def read_many(
    context: ReadContext, call: ReadCall, keys: Sequence[bytes], plain: PlainValues | None = None
) -> ManyItems:
    """Read keys from the zones. Cancellation drops the replies that are in flight.

    Args:
        context: The parts of the client.
        call: The read.
        keys: Keys with their namespace.
        plain: Receiver of the plain values that the first zone serves. The result does not have them.
    """
    view, fields, options, began_at, deadline = call
    readers = view.readers
    required = 1 if options.one_answer else options.consistency.required(len(readers))
    if required > 1 or (view.standby and not options.one_answer):
        return await read_many_quorum(context, call, keys, context.seen.latest_of_each(keys), required)
    context.budget.add_reads(len(keys))
    given, flags, values = plain or PlainValues(keys, NO_FLAGS, {})
    cas_of_each = context.seen.cas_of_each
    batches = [Batch(node, some, names, cas_of_each(some), flags) for node, some, names in readers[0].batches(keys, given)]
    if view.health.unhealthy and not (
        all(is_settled(batch.node) for batch in batches) and try_first_zone(context.budget, view, len(keys))
    ):
        attempts = {
            key: ReadAttempt(known_version(cas)) for batch in batches for key, cas in zip(batch.keys, batch.cas, strict=True)
        }
        await read_many_from_first(context, call, attempts)
        return _conclude(context, call, attempts)
    # The first zone serves nearly all keys, and those are done.
    until = end_of_attempt(began_at, deadline, len(view.read_order) - 1, has_gutter=view.gutter is not None)
    outcomes = await ask_nodes(view, batches, fields, until, deadline)
    found, attempts = _sort_out(context, view, batches, outcomes, values)
    if not attempts:
        context.count_served(view, keys)
        return ManyItems(found, {}, len(readers))
    context.count_served(view, [key for key in keys if key not in attempts])
    await read_many_on(context, call, attempts)
    others = _conclude(context, call, attempts)
    return others._replace(found=found | others.found)


def _sort_out(
    context: ReadContext,
    view: ClusterSnapshot,
    batches: Sequence[Batch],
    outcomes: Sequence[Replies | CacheError],
    values: dict[Any, Any],
) -> tuple[dict[bytes, ZoneHit], dict[bytes, ReadAttempt]]:
    """Add the plain values that the first zone served to `values`.

    This is most of the work of a bulk read. A key that is served gets no `ReadAttempt`, and a plain value no `ZoneHit`.

    Returns:
        The other items, and an attempt for each key that was not served.
    """
    zone = view.readers[0].name
    answers: dict[bytes, ZoneHit] = {}
    attempts: dict[bytes, ReadAttempt] = {}
    for batch, outcome in zip(batches, outcomes, strict=True):
        if isinstance(outcome, CacheError):
            unserved: Mapping[int, CacheError | None] = dict.fromkeys(range(len(batch.keys)), outcome)
        else:
            unserved = _add_hits(context, zone, batch, outcome, answers, values)
        for index, error in unserved.items():
            attempts[batch.keys[index]] = attempt = ReadAttempt(known_version(batch.cas[index]))
            attempt.record(zone, error, is_remote=zone != view.preferred_zone)
    if answers:
        answers = {key: item for key, item in answers.items() if item.hit.flags != FLAG_TOMBSTONE}
    return answers, attempts


def _add_hits(
    context: ReadContext,
    zone: str,
    batch: Batch,
    replies: Replies,
    found: dict[bytes, ZoneHit],
    values: dict[Any, Any],
) -> dict[int, CacheError | None]:
    """Add the plain values of one batch to `values`, and its other items to `found`.

    Returns:
        The indices of the keys that were not served, each with the error, or with None for a miss.
    """
    seen = context.seen
    others, newer = selected.SELECTED.accept_hits(
        _LOOK, context.clock.passed, zone, replies, batch.keys, batch.given, batch.cas, batch.flags, values, found
    )
    for key, version in newer:
        seen.note(key, version)
    unserved: dict[int, CacheError | None] = {}
    for index in others:
        key, reply = batch.keys[index], replies[index]
        known = known_version(batch.cas[index])
        assert not isinstance(reply, bytes)
        try:
            item = None if reply is None else context.interpret(zone, reply)
        except CacheError as error:
            unserved[index] = error
            continue
        if item is None:
            unserved[index] = None
        elif item.version is not None and item.version < known:
            unserved[index] = StaleReplica(item.version, known)
        else:
            context.note(key, item)
            found[key] = item
    return unserved


def _conclude(context: ReadContext, call: ReadCall, attempts: Mapping[bytes, ReadAttempt]) -> ManyItems:
    """Return the items that other zones served, and repair the zones that hold less."""
    view = call.view
    zones = len(view.read_order)
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
