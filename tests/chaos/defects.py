"""The shortest history that shows each defect for which a fix can be switched off, on zones in memory and in virtual time.

Each function returns True if the defect shows.
"""

import asyncio

from evcache import LoadPolicy, LocalChannel
from tests.support.memory_zones import QUICK, TOMBSTONE, MemoryZones, cut_off, full, pass_time
from tests.support.near import GRACE, near_client, settled

BACK_SECONDS = 10.0


def decided_by(cache, zone, tag="k"):
    """A key about which this zone decides."""
    view = cache._runtime.cluster.view
    return next(key for number in range(1_000) if view.coordinators(full(key := f"{tag}{number}"))[0].name == zone)


async def copy_ttl(zones: MemoryZones) -> bool:
    """An item that ends in one zone half a second before it ends in another is kept alive by copies."""
    readers = [await zones.ready(local_zone=zone) for zone in "ab"]
    await readers[0].set("k", "v", ttl=3, consistency="all")
    held = zones.held("k", "b")
    await asyncio.sleep(0.5)
    zones.put_back("k", held, "b")
    for _ in range(300):
        await asyncio.gather(*(reader.get("k") for reader in readers))
        await asyncio.sleep(0.05)
    return any(value is not None for value in zones.values("k").values())


async def latest_state(zones: MemoryZones) -> bool:
    """The deciding zone missed an acknowledged set; an append builds on what it holds."""
    cache = await zones.ready()
    key = decided_by(cache, "a")
    await cache.set(key, "old", consistency="all")
    old = zones.held(key, "a")
    await cache.set(key, "new", consistency="all")
    zones.put_back(key, old, "a")
    await cache.append(key, "+more")
    await pass_time()
    return await cache.get(key, consistency="all") == "old+more"


async def counter_versions(zones: MemoryZones) -> bool:
    """A zone that missed a counter's last move keeps the number that it had."""
    cache = await zones.ready(circuit=QUICK)
    key = decided_by(cache, "a")
    await cache.incr(key, 1, initial=1, consistency="all")
    await cut_off(zones, cache, "c")
    await cache.incr(key, 1)
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    await cache.get(key, consistency="all")
    await pass_time()
    return len(set(zones.values(key).values())) > 1


async def touch_values(zones: MemoryZones) -> bool:
    """A remembered absence is touched."""
    cache = await zones.ready()

    async def find_nothing():
        return None

    await cache.get_or_load("k", find_nothing, policy=LoadPolicy(negative_ttl=3, jitter=0))
    touched = await cache.touch("k", 300, consistency="one")
    await pass_time()
    return bool(touched)


async def delete_hints(zones: MemoryZones) -> bool:
    """A zone misses a delete for longer than the deleting client's own values live."""
    writer = await zones.ready(circuit=QUICK)
    deleter = await zones.ready(ttl=3, tombstone_ttl=2, circuit=QUICK)
    await writer.set("k", "old", ttl=600, consistency="all")
    await cut_off(zones, deleter, "c")
    await deleter.delete("k")
    await pass_time(8)
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    return zones.values("k")["c"] == "old"


async def lapsed_hints(zones: MemoryZones) -> bool:
    """A zone misses a short-lived value over a long-lived one, and is back when it has expired."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "old", ttl=600, consistency="all")
    await cut_off(zones, cache, "c")
    await cache.set("k", "new", ttl=2)
    await pass_time(6)
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    return zones.values("k")["c"] == "old"


async def resend(zones: MemoryZones) -> bool:
    """A client with a slow clock deletes what another one has just set."""
    ahead = await zones.ready()
    behind = await zones.ready(wall_clock=lambda: zones.wall_clock() - 0.2)
    await ahead.set("k", "v", consistency="all")
    await behind.delete("k", consistency="all")
    return set(zones.values("k").values()) != {TOMBSTONE}


async def heard_versions(zones: MemoryZones) -> bool:
    """Write that a client was notified of, and that its own zone has missed."""
    channel = LocalChannel()
    listener = await zones.ready(invalidation=channel)
    writer = await zones.ready(local_zone="b", invalidation=channel)
    await writer.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await writer.set("k", "new", consistency="all")
    await pass_time()
    zones.put_back("k", old, "a")
    return await listener.get("k") == "old"


async def sampling(zones: MemoryZones) -> bool:
    """Only bulk reads see a zone that is behind."""
    writer = await zones.ready(local_zone="b")
    reader = await zones.ready(read_repair_chance=1.0)
    keys = ["k0", "k1", "k2"]
    await writer.set_many(dict.fromkeys(keys, "old"), consistency="all")
    held = {key: zones.held(key, "a") for key in keys}
    await writer.set_many(dict.fromkeys(keys, "new"), consistency="all")
    for key in keys:
        zones.put_back(key, held[key], "a")
    for _ in range(5):
        await reader.get_many(keys)
        await pass_time()
    return any(zones.values(key)["a"] == "old" for key in keys)


async def repair_announced(zones: MemoryZones) -> bool:
    """A client keeps a value that its zone has missed the change of; then another client's read repairs the zone.

    The client remembers no versions: one that does reads around its zone, and keeps nothing old, while it remembers the key.
    """
    channel = LocalChannel()
    reader, _ = near_client(zones, "a", invalidation=channel, remember_versions=0)
    writer = zones.client(local_zone="b", invalidation=channel)
    await settled(zones, reader, writer)
    await writer.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await writer.set("k", "new", consistency="all")
    await pass_time(GRACE + 2)
    zones.put_back("k", old, "a")
    await reader.get("k")
    await writer.get("k", consistency="all")
    await pass_time()
    return zones.values("k")["a"] == "new" and await reader.get("k") == "old"


async def one_copy_store(zones: MemoryZones) -> bool:
    """A value of 1 kB travels to each zone more than once."""
    cache = await zones.ready()
    zones.forget()
    await cache.set("k", b"x" * 1_000, consistency="all")
    return len(zones.wire("a")) > 2_000


DEFECTS = {
    "copy-ttl": copy_ttl,
    "latest-state": latest_state,
    "counter-versions": counter_versions,
    "touch-values": touch_values,
    "delete-hints": delete_hints,
    "lapsed-hints": lapsed_hints,
    "resend": resend,
    "heard-versions": heard_versions,
    "sampling": sampling,
    "repair-announced": repair_announced,
    "one-copy-store": one_copy_store,
}
"""Scenarios by the name of the fix."""
