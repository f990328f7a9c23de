"""Reads of very many keys in portions, a few of them at the same time, until the deadline of the call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence

from evcache._helpers.steps import run_concurrently
from evcache.options import Options
from evcache.reads.bulk.multi_get import read_many
from evcache.reads.context import ManyItems, PlainValues, ReadCall, ReadContext
from evcache.replication.reconcile import ZoneHit
from evcache.zones.errors import CacheError, NodeTimeout
from evcache.zones.protocol.fields import Fields
from evcache.zones.snapshot import ClusterSnapshot

# Keys that are read together: the client takes some milliseconds for their replies. There are at least some for each node of
# a zone, because a packet for one key costs twice as much as a key.
PORTION_KEYS = 1_000
PORTION_KEYS_PER_NODE = 8

# Portions in flight at once: servers answer one while the client decodes the replies to another. Single reads on the same
# connections wait behind no more than these.
PORTIONS_AT_ONCE = 3

# Seconds that a server gets for a portion shortly before the call's deadline, or half of the call's timeout if that is less.
# Without it, the circuits of healthy nodes would open during a call that is too long for its timeout.
PATIENCE_SECONDS = 0.1


def read_in_portions(
    context: ReadContext,
    view: ClusterSnapshot,
    keys: Sequence[bytes],
    options: Options,
    fields: Fields,
    plain: PlainValues | None = None,
) -> Awaitable[ManyItems]:
    """Read keys as `read_many` does, very many of them in portions.

    Keys that were not read by the deadline count as keys without an answer.
    """
    began_at = view.loop.time()
    size = max(PORTION_KEYS, PORTION_KEYS_PER_NODE * len(view.readers[0].nodes))
    if len(keys) <= size:
        return read_many(context, ReadCall(view, fields, options, began_at, began_at + options.timeout), keys, plain)
    return _read_portions(context, view, keys, options, fields, plain, began_at, size)


async def _read_portions(
    context: ReadContext,
    view: ClusterSnapshot,
    keys: Sequence[bytes],
    options: Options,
    fields: Fields,
    plain: PlainValues | None,
    began_at: float,
    size: int,
) -> ManyItems:
    deadline = began_at + options.timeout
    patience = min(PATIENCE_SECONDS, options.timeout / 2)
    found: dict[bytes, ZoneHit] = {}
    failures: dict[str, CacheError] = {}
    answered = [0] * math.ceil(len(keys) / size)

    async def read(number: int) -> None:
        # The server has this time, although the call does not wait for it.
        now = view.loop.time()
        timeout = max(deadline - now, patience)
        call = ReadCall(view, fields, options._replace(timeout=timeout), now, now + timeout)
        part = slice(number * size, (number + 1) * size)
        portion = await read_many(
            context, call, keys[part], None if plain is None else plain._replace(given=plain.given[part])
        )
        found.update(portion.found)
        failures.update(portion.failures)
        answered[number] = portion.answered

    try:
        async with asyncio.timeout_at(deadline) as scope:
            await run_concurrently(range(len(answered)), read, PORTIONS_AT_ONCE)
    except TimeoutError:
        if not scope.expired():
            raise
        # A call whose time is over before it sends a request says nothing about the zones.
        if not any(answered) and options.timeout >= PATIENCE_SECONDS / 2:
            failures.update((pool.name, NodeTimeout("no reply in time", pool.name)) for pool in view.readers)
    return ManyItems(found, failures, min(answered))
