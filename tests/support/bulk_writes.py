"""Calls that write many keys, and zones that hold them up."""

import asyncio

from evcache import Outcome
from tests.support.memory_zones import TOMBSTONE
from tests.support.virtual_time import settle

ALL_ZONES = ("a", "b", "c")
TIMEOUT = dict.fromkeys(ALL_ZONES, Outcome.TIMEOUT)


def names(count):
    """Return the keys of a call."""
    return [f"k{number}" for number in range(count)]


async def write(cache, operation, keys, **options):
    """Set or delete the keys."""
    if operation == "set_many":
        return await cache.set_many(dict.fromkeys(keys, "new"), **options)
    return await cache.delete_many(keys, **options)


def written(operation):
    """Return what a zone holds after the write."""
    return "new" if operation == "set_many" else TOMBSTONE


def nodes_of(cache, zone):
    """Return the nodes of one zone."""
    return [node for (name, _), node in cache._runtime.cluster.nodes.items() if name == zone]


async def trickle(zones, *which, pause=0.05):
    """Let servers answer for a moment now and then, until cancelled."""
    zones.pause(*which)
    while True:
        await asyncio.sleep(pause)
        zones.resume(*which)
        await settle(1)
        zones.pause(*which)
