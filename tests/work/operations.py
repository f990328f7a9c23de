"""The operations whose work is counted: each in a world of its own, three zones in memory, in virtual time."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from evcache import EVCache, NearCache
from tests.support.cores import PURE, running
from tests.support.memory_zones import MemoryZones
from tests.support.near import follow_loop
from tests.support.virtual_time import run
from tests.work.counting import Calls, Instructions, Work, garbage, held_while_pending

VALUE = b"v" * 100
MANY = [f"key-{number}" for number in range(100)]
AT_ONCE = 32  # callers, as in benchmarks

# Runs of an operation that are counted, after as many until dicts and lists of freed objects have the size at which they
# stay. All are alike, but for numbers on the wire that gain a digit: few are enough.
TIMES = 20
TIMES_OF_MANY = 3


@dataclass(frozen=True)
class Operation:
    """Something that is done over and over."""

    call: Callable[[EVCache], Awaitable[Any]]
    nodes: int = 1
    """In each zone."""
    waits: bool = True
    """Whether a server is asked."""
    home_is_out: bool = False
    """Whether the client's own zone is down, and it knows."""
    client: dict[str, Any] = field(default_factory=dict)
    """Settings of the client."""
    times: int = TIMES


async def _never():
    raise AssertionError("it is there")


async def _gets(cache):
    await asyncio.gather(*(cache.get("k") for _ in range(AT_ONCE)))


async def _sets(cache):
    await asyncio.gather(*(cache.set(key, VALUE, consistency="all") for key in MANY[:AT_ONCE]))


NEAR = {"near_cache": NearCache(ttl=3600)}

OPERATIONS = {
    "get hit": Operation(lambda cache: cache.get("k")),
    "get hit, 6 nodes": Operation(lambda cache: cache.get("k"), nodes=6),
    "get hit, 32 at once": Operation(_gets, times=TIMES_OF_MANY),
    "get miss": Operation(lambda cache: cache.get("nothing")),
    "get hit, home is out": Operation(lambda cache: cache.get("k"), home_is_out=True),
    "get near hit": Operation(lambda cache: cache.get("k"), waits=False, client=NEAR),
    "get_many of 100": Operation(lambda cache: cache.get_many(MANY), times=TIMES_OF_MANY),
    "get_many of 100, 6 nodes": Operation(lambda cache: cache.get_many(MANY), nodes=6, times=TIMES_OF_MANY),
    "get_many of 100, home is out": Operation(lambda cache: cache.get_many(MANY), home_is_out=True, times=TIMES_OF_MANY),
    "set guarded": Operation(lambda cache: cache.set("k", VALUE, consistency="all")),
    "set guarded, 32 at once": Operation(_sets, times=TIMES_OF_MANY),
    "set guarded, 6 nodes": Operation(lambda cache: cache.set("k", VALUE, consistency="all"), nodes=6),
    "set_many of 100": Operation(lambda cache: cache.set_many(dict.fromkeys(MANY, VALUE)), times=TIMES_OF_MANY),
    "set_many of 100, 6 nodes": Operation(
        lambda cache: cache.set_many(dict.fromkeys(MANY, VALUE)), nodes=6, times=TIMES_OF_MANY
    ),
    "delete_many of 100": Operation(lambda cache: cache.delete_many(MANY), times=TIMES_OF_MANY),
    "set arrival": Operation(lambda cache: cache.set("k", VALUE, consistency="all", ordering="arrival")),
    "delete": Operation(lambda cache: cache.delete("k", consistency="all")),
    "incr": Operation(lambda cache: cache.incr("number", consistency="all")),
    "get_or_load hit": Operation(lambda cache: cache.get_or_load("k", _never)),
    "get_or_load near hit": Operation(lambda cache: cache.get_or_load("k", _never), waits=False, client=NEAR),
}


def count(name, core=PURE):
    """The `Work` of one of `OPERATIONS` on a core."""
    # No collection in between: what others have left in this process would be finished off, and counted here.
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with running(core):
            return run(_count(OPERATIONS[name]))
    finally:
        if collects:
            gc.enable()


async def _count(operation):
    zones = MemoryZones(3, operation.nodes)
    try:
        cache = await zones.ready(telemetry=None, **operation.client)
        if operation.client:
            follow_loop(cache)
        await cache.set_many({**dict.fromkeys(MANY, VALUE), "k": VALUE}, ttl=3600, consistency="all")
        await cache.incr("number", initial=1_000_000, ttl=3600, consistency="all")  # no digit more after all of this
        await asyncio.sleep(30)  # past what a fresh write holds up
        if operation.home_is_out:
            await zones.kill("a")
            while not cache.stats().zones_out:
                await cache.get("k")
        return await _work(zones, cache, operation)
    finally:
        await zones.close_clients()


async def _work(zones, cache, operation):
    times = operation.times

    def once():
        return operation.call(cache)

    async def repeat():
        for _ in range(times):
            await once()

    await repeat()
    zones.forget()
    with Calls() as calls:
        await repeat()
    packets = [packet for sent in zones.sent.values() for packet in sent]
    assert bool(packets) is operation.waits
    with Instructions() as instructions:
        await repeat()
    blocks, size = await held_while_pending(zones, once, times) if operation.waits else (None, None)
    return Work(
        calls=calls.ours / times,
        library=calls.library / times,
        builtins=calls.builtins / times,
        instructions=instructions.count / times,
        turns=calls.turns / times,
        packets=len(packets) / times,
        bytes=sum(map(len, packets)) / times,
        garbage=await garbage(once, times),
        pending=blocks,
        pending_bytes=size,
    )
