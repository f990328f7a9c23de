"""The ordinary write is short. It does the same as the general one: results, packets, hints, hooks, statistics, versions."""

import asyncio
import dataclasses
from typing import NamedTuple
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from evcache import NearCache
from evcache.errors import CacheError
from evcache.replication.hlc import HybridLogicalClock, cas_of
from tests.support.examples import examples
from tests.support.memory_zones import Listener, MemoryZones, full, pass_time
from tests.support.near import follow_loop
from tests.support.virtual_time import run

KEY = "k"
CALLS = {
    "set": lambda cache, number, options: cache.set(KEY, b"value %d" % number, **options),
    "set large": lambda cache, number, options: cache.set(KEY, b"value %d" % number * 100, **options),
    "delete": lambda cache, number, options: cache.delete(KEY, **options),
    "incr": lambda cache, number, options: cache.incr("number", **options),
    "other": lambda cache, number, options: cache.set("other", number, **options),
}
CHANGES = ["evict", "older", "newer", "much newer", "foreign"]


class Plan(NamedTuple):
    nodes: int
    calls: tuple  # names, run together
    cancelled: bool  # the first call is cancelled after its requests have been sent
    changes: tuple  # (zone, change)
    fault: tuple | None  # (zone, fault)
    modes: dict  # of zones that are not read-write
    client: dict
    options: dict
    listens: bool


def items(zones, zone, key=KEY):
    found = (fake.store.get(full(key)) for fake in zones.servers[zone])
    return [item for item in found if item is not None]


def change(zones, zone, how):
    """Change the copy of one zone."""
    versions = [HybridLogicalClock.decode(item.cas) for item in items(zones, zone)]
    if not versions or versions[0] is None:
        return
    later = {"older": -5, "newer": 5, "much newer": 5_000_000}
    for fake in zones.servers[zone]:
        if fake.store.get(full(KEY)) is None:
            continue
        if how == "foreign":
            fake.session().receive(b"set %b 0 0 5\r\nother\r\n" % full(KEY))
        elif how == "evict":
            fake.store.evict(full(KEY))
        else:
            fake.store.delete(full(KEY))
            version = versions[0] + (later[how] << 20)
            fake.session().receive(b"ms %b 5 T60 F0 E%d\r\nother\r\n" % (full(KEY), cas_of(version)))


async def outcome(plan):
    """Return all that can be seen of some writes."""
    zones = MemoryZones(3, plan.nodes, **plan.modes)
    listener = Listener()
    try:
        hooks = {"hooks": listener} if plan.listens else {}
        cache = await zones.ready(telemetry=None, **plan.client, **hooks)
        if "near_cache" in plan.client:
            follow_loop(cache)  # on a busy machine, entries would expire in the middle of one of the two runs
        await cache.set(KEY, b"before", ttl=60, consistency="all")
        await cache.incr("number", initial=1, ttl=60, consistency="all")
        await pass_time()
        for zone, how in plan.changes:
            change(zones, zone, how)
        if plan.fault is not None:
            zone, how = plan.fault
            if how == "kill":
                await zones.kill(zone)
            else:
                zones.pause(zone)
        zones.forget()
        tasks = [asyncio.ensure_future(CALLS[name](cache, number, plan.options)) for number, name in enumerate(plan.calls)]
        if plan.cancelled:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tasks[0].cancel()
        results = [repr(result) for result in await asyncio.gather(*tasks, return_exceptions=True)]
        try:
            read = await cache.get(KEY)
        except CacheError as error:
            read = (type(error), str(error))
        wire = {zone: zones.wire(zone) for zone in "abc"}
        zones.resume("a", "b", "c")
        await pass_time(2)
        held = {
            zone: [(bytes(item.value), item.flags, item.cas) for key in (KEY, "other") for item in items(zones, zone, key)]
            for zone in "abc"
        }
        stats = dataclasses.asdict(cache.stats())
        seen = cache._runtime.seen_versions.latest(full(KEY))  # noqa: SLF001
        told = {name: repr(calls) for name, calls in vars(listener).items()}
        return results, read, wire, held, stats, seen, told
    finally:
        zones.resume("a", "b", "c")
        await zones.close_clients()


changes = st.tuples(st.sampled_from("abc"), st.sampled_from(CHANGES))
faults = st.tuples(st.sampled_from("abc"), st.sampled_from(["pause", "pause", "kill"]))
# Most plans have ordinary writes, and a zone with another result.
plans = st.builds(
    Plan,
    nodes=st.sampled_from([1, 1, 3]),
    calls=st.lists(st.sampled_from(["set", "set", "delete", *CALLS]), min_size=1, max_size=3).map(tuple),
    cancelled=st.sampled_from([False, False, True]),
    changes=st.lists(changes, min_size=1, max_size=3).map(tuple) | st.just(()),
    fault=faults | faults | st.none(),
    modes=st.sampled_from([{}, {}, {"write_only": "c"}, {"standby": "c"}, {"standby": "bc"}]),
    client=st.sampled_from(
        [{}, {}, {}, {"hints": None}, {"near_cache": NearCache()}, {"ordering": "arrival"}, {"errors": "miss"}]
    ),
    options=st.fixed_dictionaries(
        {"consistency": st.sampled_from(["none", "one", "quorum", "all_minus_one", "all"])},
        optional={"timeout": st.sampled_from([0.05, 5.0])},
    ),
    listens=st.sampled_from([False, False, False, True]),
)


def plan_of(*calls, changes=(), fault=None, cancelled=False, **options):
    return Plan(1, calls, cancelled, changes, fault, modes={}, client={}, options=options, listens=False)


@settings(max_examples=examples(0.4))
@given(plans)
@example(plan_of("set", fault=("b", "pause"), consistency="all"))
@example(plan_of("set", fault=("b", "pause"), consistency="quorum", timeout=0.05))
@example(plan_of("set", "set", fault=("a", "pause"), consistency="one"))
@example(plan_of("set", fault=("b", "kill"), consistency="all"))
@example(plan_of("set", changes=(("b", "newer"),), consistency="all"))
@example(plan_of("delete", changes=(("c", "newer"),), consistency="quorum"))
@example(plan_of("set", changes=(("b", "foreign"), ("c", "much newer")), consistency="all"))
@example(
    plan_of("set", changes=(("b", "foreign"), ("a", "evict")), fault=("a", "pause"), consistency="quorum", timeout=0.05)
)
@example(plan_of("set", "incr", "delete", cancelled=True, consistency="all"))
@example(plan_of("set", fault=("b", "pause"), cancelled=True, consistency="none"))
def test_the_ordinary_write_does_the_same_as_the_general_one(plan):
    # With the same random numbers, versions and the order of zones are equal.
    with (
        mock.patch("evcache.replication.hlc.secrets.randbits", return_value=5),
        mock.patch("evcache.zones.cluster.secrets.token_bytes", return_value=b"same"),
    ):
        ordinary = run(outcome(plan))
        with mock.patch("evcache.writes.writer.ordinary_zones", return_value=None):
            assert ordinary == run(outcome(plan))
