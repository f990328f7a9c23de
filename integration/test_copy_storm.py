"""Copies in both directions, interrupted and repeated, while clients write and nodes evict, on real servers."""

import asyncio
import random
from contextlib import suppress

from evcache import Consistency, EVCache
from evcache.admin.copying.compare import Comparer
from evcache.admin.copying.copier import Copier, look
from evcache.admin.copying.key_files import ListedKeys
from evcache.admin.copying.warm import WarmLimits, WarmUp
from evcache.replication.commands.node_requests import delete
from evcache.zones.cluster import Cluster
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import INSPECT_FIELDS
from evcache.zones.routing.ketama import ring_position
from evcache.zones.topology.model import Topology
from integration.patience import PATIENT_CALLS
from integration.warm_up import SETTINGS

KEYS = 200
SECONDS = 8.0
COPIERS = 3
# A copy that lost its original is removed a round trip after it was stored. Two zones tick in other phases.
SETTLE_SECONDS = 0.5
# Copies travel in batches, so on a busy machine the round trip takes longer. A copy that is never removed is copied to the
# other zones as well, and stays wrong in spite of the evictions.
SETTLE_LOOKS = 10
SHORT_TTL = 1
LONGEST_DELAY_SECONDS = 2.0


async def call(number, cache, zones, stop, seed):
    """Write one key until `stop`, and return what a zone served that it must not. No other caller has this key."""
    choose = random.Random(seed * KEYS + number)
    key, written, wrong = f"k{number}", 0, []
    while not stop.is_set():
        await asyncio.sleep(choose.random() * LONGEST_DELAY_SECONDS)
        kind = choose.choice(["set", "set", "delete", "short", "touch", "add"])
        padding = "x" * choose.choice([1, 5_000])  # small and large values are sent in other forms
        lowest = written + 1
        try:
            if kind == "delete":
                is_done = await cache.delete(key, consistency=Consistency.ALL)
                lowest = None
            elif kind == "touch":
                await cache.touch(key, ttl=choose.choice([500, 2_000]))
                continue
            else:
                written += 1
                ttl = SHORT_TTL if kind == "short" else 1_000
                if kind == "add":
                    is_done = await cache.add(key, [written, padding], ttl=ttl)
                else:
                    is_done = await cache.set(key, [written, padding], ttl=ttl, consistency=Consistency.ALL)
                if kind == "short":
                    await asyncio.sleep(SHORT_TTL + 2 * SETTLE_SECONDS)
                    lowest = None
        except CacheError:
            continue
        if not is_done:
            continue
        for name, zone in zones.items():
            if await stays_wrong(zone, key, lowest):
                wrong.append((key, kind, name, lowest))
    return wrong


async def stays_wrong(zone, key, lowest):
    """Return True if the zone is wrong at each of several looks (see `is_wrong`)."""
    for _ in range(SETTLE_LOOKS):
        if not await is_wrong(zone, key, lowest):
            return False
        await asyncio.sleep(SETTLE_SECONDS)
    return True


async def is_wrong(zone, key, lowest):
    """Return True if the zone serves a value older than `lowest`, or any value if it is None."""
    with suppress(CacheError):
        value = await zone.get(key)
        return value is not None and (lowest is None or value[0] < lowest)
    return False


async def copy(pools, stop, choose):
    """Copy in one direction at a time, or repair in both, and cancel some of the runs. Return the number of copied items.

    Two runs in opposite directions could each take the copy of the other for its original.
    """
    copied = 0
    while not stop.is_set():
        pair = choose.sample(pools, 2)
        if choose.random() < 0.25:
            runs = [Comparer(tuple(pair), ListedKeys(SETTINGS, None), keys_per_second=1e9, repair=True, values=False)]
        else:
            runs = [WarmUp(*pair, ListedKeys(SETTINGS, None), WarmLimits(1e9)) for _ in range(COPIERS)]
        copied += sum(await asyncio.gather(*(interrupted(run, choose) for run in runs)))
    return copied


async def interrupted(run, choose):
    """Run a copy, and cancel it at some moment in one of five cases. Return the number of copied items."""
    task = asyncio.create_task(run.run())
    if choose.random() < 0.2:
        await asyncio.sleep(choose.random() * LONGEST_DELAY_SECONDS)
        task.cancel()
    with suppress(CacheError, asyncio.CancelledError):
        await task
    return (run.tally if isinstance(run, WarmUp) else run.copies).copied


async def evict(pools, stop, choose):
    """Remove values from one zone at a time, so that there is something to copy."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        await asyncio.sleep(0.001)
        pool, key = choose.choice(pools), b"ns:k%d" % choose.randrange(KEYS)
        item = (await look(pool, [key], INSPECT_FIELDS)).get(key)
        if item is not None and not item.absent:
            with suppress(CacheError):
                await delete(pool.node(ring_position(key)), key, loop.time() + 2.0, item.cas)


def test_no_copy_overwrites_a_newer_value_or_returns_a_deleted_one(servers, monkeypatch):
    store = Copier._store

    async def store_late(self, copies, *pools):
        """Wait first, as on a slow path between zones. Items change and expire in that time."""
        await asyncio.sleep(random.random() * LONGEST_DELAY_SECONDS)
        return await store(self, copies, *pools)

    monkeypatch.setattr(Copier, "_store", store_late)

    async def main():
        seed = random.randrange(1_000_000)
        stop = asyncio.Event()
        async with servers.best.local_zones({"a": 2, "b": 1}) as running:
            nodes = running.zones
            cluster = Cluster(SETTINGS, None)
            pools = list(cluster.apply(Topology.from_mapping(nodes)).writers)
            patient = {"nodes": SETTINGS, **PATIENT_CALLS}
            async with (
                EVCache("ns", nodes, **patient) as cache,
                EVCache("ns", {"a": nodes["a"]}, **patient) as in_a,
                EVCache("ns", {"b": nodes["b"]}, **patient) as in_b,
                asyncio.TaskGroup() as group,
            ):
                callers = [
                    group.create_task(call(number, cache, {"a": in_a, "b": in_b}, stop, seed)) for number in range(KEYS)
                ]
                copier = group.create_task(copy(pools, stop, random.Random(seed)))
                group.create_task(evict(pools, stop, random.Random(seed)))
                await asyncio.sleep(SECONDS)
                stop.set()
            await cluster.close(0)
        assert copier.result() > 0
        assert [wrong for caller in callers for wrong in caller.result()] == [], f"seed {seed}"

    asyncio.run(main())
