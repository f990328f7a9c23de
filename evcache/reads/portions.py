"""Reading very many keys: in portions, a few of them at the same time, until the deadline of the call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from evcache._steps import a_few_at_once
from evcache.options import Options
from evcache.reads.multi_get import MultiGet
from evcache.replication.reconcile import ZoneHit
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeTimeout
from evcache.zones.protocol.fields import Fields

# Keys that are read together: their replies take the client some milliseconds. At least some for each node of a zone, since
# a packet for one key costs twice as much as a key.
PORTION_KEYS = 1_000
PORTION_KEYS_PER_NODE = 8

# Portions under way at once: servers answer one while the client takes the replies to another apart. Single reads on the
# same connections wait behind no more than these.
PORTIONS_AT_ONCE = 3

# Seconds that a server has for a portion that is asked for shortly before the call's deadline; half of the call's timeout
# if that is less. Without it, a call that is too long for its timeout would have healthy nodes declared down.
PATIENCE_SECONDS = 0.1


async def read_in_portions(
    reads: MultiGet, view: ClusterSnapshot, keys: Sequence[bytes], options: Options, flags: Fields
) -> tuple[dict[bytes, ZoneHit], dict[str, CacheError], int]:
    """Read keys as `MultiGet.get` does, many of them in portions.

    Keys that were not read by the deadline count as keys that no zone has answered.
    """
    size = max(PORTION_KEYS, PORTION_KEYS_PER_NODE * len(view.readers[0].nodes))
    if len(keys) <= size:
        return await reads.get(view, keys, options, flags)
    deadline = view.loop.time() + options.timeout
    patience = min(PATIENCE_SECONDS, options.timeout / 2)
    found: dict[bytes, ZoneHit] = {}
    failures: dict[str, CacheError] = {}
    answered = [0] * math.ceil(len(keys) / size)

    async def read(number: int) -> None:
        # A server that is asked shortly before the deadline has its time, though the call does not wait for it.
        left = options._replace(timeout=max(deadline - view.loop.time(), patience))
        portion = keys[number * size : (number + 1) * size]
        some, problems, answered[number] = await reads.get(view, portion, left, flags)
        found.update(some)
        failures.update(problems)

    try:
        async with asyncio.timeout_at(deadline) as scope:
            await a_few_at_once(range(len(answered)), read, PORTIONS_AT_ONCE)
    except TimeoutError:
        if not scope.expired():
            raise
        # A call whose time is spent before it asks says nothing about the zones.
        if not any(answered) and options.timeout >= PATIENCE_SECONDS / 2:
            failures.update((pool.name, NodeTimeout("no reply in time", pool.name)) for pool in view.readers)
    return found, failures, min(answered)
