"""Bulk writes whose keys take the ordinary way do the same as those that take the general way. All lanes are empty in the end."""

import asyncio
import dataclasses
import random
import re
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evcache import Gutter, LoadPolicy, NearCache
from evcache.errors import CacheError
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.zones.transport.core.selected import PURE
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.bulk_writes import names, nodes_of, trickle
from tests.support.cores import CORES, running
from tests.support.examples import examples
from tests.support.gutter import add_gutter
from tests.support.memory_zones import Listener, MemoryZones, full, pass_time
from tests.support.near import follow_loop, kept
from tests.support.virtual_time import run

ZONES = "abc"
KEYS = names(20)
NEW_KEYS = [f"n{number}" for number in range(5)]


WITHOUT_LEASES = {"policy": LoadPolicy(lease=False, xfetch_beta=0)}  # no zone stores the value before the others


async def load(keys):
    """Return values of keys that the source has."""
    await asyncio.sleep(0.002)
    return dict.fromkeys(keys, b"loaded")


CALLS = {
    "set_many": lambda cache, value, options: cache.set_many(dict.fromkeys(KEYS, value), **options),
    "large set_many": lambda cache, value, options: cache.set_many(dict.fromkeys(KEYS, value * 90), **options),
    "delete_many": lambda cache, _, options: cache.delete_many(KEYS, **options),
    "set": lambda cache, value, options: cache.set(KEYS[-1], value, **options),
    "delete": lambda cache, _, options: cache.delete(KEYS[0], **options),
    "load_many": lambda cache, _, options: cache.get_or_load_many([*KEYS[:9], *NEW_KEYS], load, **WITHOUT_LEASES, **options),
    "load": lambda cache, value, options: cache.get_or_load(
        "n0", lambda: asyncio.sleep(0, value), **WITHOUT_LEASES, **options
    ),
}
CHANGES = {"evict": None, "older": -5, "newer": 5, "much newer": 5_000_000, "foreign": None}


class Plan(NamedTuple):
    calls: tuple  # names, run together
    nodes: int = 1
    connections: int = 1  # with two, the order of events after a fault is not fixed
    latency: float = 0.0  # seconds
    window: int = 512
    max_pending: int = 16_384
    cancelled: float | None = None  # seconds after which the first call is cancelled
    changes: tuple = ()  # (zone, number of the key, change)
    fault: tuple | None = None  # (zones, fault, seconds after the calls, seconds for which it lasts)
    modes: tuple = ()  # mode of zones that are not read-write, by name
    client: tuple = ()
    options: tuple = (("consistency", "all"),)
    listens: bool = False
    core: object = PURE


def change(zones, zone, key, how):
    """Change the copy of one key in one zone."""
    for fake in zones.servers[zone]:
        item = fake.store.get(full(key))
        if item is None:
            continue
        version = HybridLogicalClock.decode(item.cas)
        fake.store.evict(full(key))
        if how == "foreign":
            fake.session().receive(b"set %b 0 0 5\r\nother\r\n" % full(key))
        elif how != "evict":
            version += CHANGES[how] << 20
            fake.session().receive(b"ms %b 5 T60 F0 E%d\r\nother\r\n" % (full(key), cas_of(version)))


def items(zones, zone, key):
    """Return the items of a key in one zone."""
    found = [fake.store.get(full(key)) for fake in zones.servers[zone]]
    return [(bytes(item.value), item.flags, item.cas, item.expires_at) for item in found if item is not None]


def zone_of(call):
    """Return the zone of a call of a listener, or nothing."""
    return call[0] if isinstance(call, tuple) else ""


async def fail(zones, which, how, after, lasts):
    """Have zones fail for some time."""
    await asyncio.sleep(after)
    if how == "kill":
        await zones.kill(*which)
        await asyncio.sleep(lasts)
        zones.restart(*which)
    elif how == "pause":
        zones.pause(*which)
        await asyncio.sleep(lasts)
        zones.resume(*which)
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(trickle(zones, *which, pause=0.02), lasts)
        zones.resume(*which)


def requests(wire):
    """Return the requests of each key, in their order and without their opaques, and everything else sorted.

    The requests of two keys may change places: an exchange of the compiled core wakes all callers of a chunk together. No-ops
    are left out, because probes of several zones that come back together are sent at any place among the requests.
    """
    of_key, others = defaultdict(list), []
    for line in wire.replace(b"mn\r\n", b"").split(b"\r\n"):
        command, _, rest = line.partition(b" ")
        if command in (b"mg", b"ms", b"md"):
            of_key[rest.split()[0]].append(re.sub(rb" O\d+", b"", line))
        else:
            others.append(line)
    return dict(of_key), sorted(others)


async def outcome(plan):
    """Return all that can be seen of some writes."""
    random.seed(5)  # for the pauses between attempts to connect
    zones = MemoryZones(3, plan.nodes, **dict(plan.modes))
    zones.latency = plan.latency
    listener = Listener()
    client = dict(plan.client)
    if plan.listens:
        client["hooks"] = listener
    if client.pop("gutter", False):
        client["gutter"] = Gutter(add_gutter(zones))
    try:
        cache = await zones.ready(
            telemetry=None, connections=plan.connections, limits=ConnectionLimits(max_pending=plan.max_pending), **client
        )
        if "near_cache" in client:
            follow_loop(cache)  # on a busy machine, entries would expire in the middle of one of the two runs
        lanes = cache._runtime.writer._lanes  # noqa: SLF001
        for key in KEYS:
            await cache.set(key, b"before", ttl=60, consistency="all")
        await pass_time()
        for zone, number, how in plan.changes:
            change(zones, zone, KEYS[number], how)
        failing = None
        if plan.fault is not None:
            failing = asyncio.ensure_future(fail(zones, *plan.fault))
            await asyncio.sleep(0)
        zones.forget()
        options = dict(plan.options)
        tasks = [
            asyncio.ensure_future(CALLS[name](cache, b"value %d" % number, options))
            for number, name in enumerate(plan.calls)
        ]
        if plan.cancelled is not None:
            await asyncio.sleep(0)
            await asyncio.sleep(plan.cancelled)
            tasks[0].cancel()
        results = [repr(result) for result in await asyncio.gather(*tasks, return_exceptions=True)]
        held_up = [(zone, [node.pending for node in nodes_of(cache, zone)]) for zone in ZONES]
        held_up += sorted((lane.node.name, lane.count, lane.bytes, len(lane.queue)) for lane in lanes.by_node.values())
        if "near_cache" in client:  # before its entries expire
            entries = {key: kept(cache, key) for key in KEYS}
            held_up += [(key, entry and (entry.data, entry.flags, entry.version)) for key, entry in entries.items()]
        wire = {zone: requests(zones.wire(zone)) for zone in ZONES}
        if failing is not None:
            await failing
        await pass_time(8)
        assert lanes.by_node == {}
        assert not lanes.waiting
        assert not cache._runtime.writer._sender.latest  # noqa: SLF001
        read = []
        for key in KEYS:
            try:
                read.append(await cache.get(key))
            except CacheError as error:
                read.append((type(error), str(error)))
        found = [(zone, key, items(zones, zone, key)) for zone in ZONES for key in (*KEYS, *NEW_KEYS)]
        stats = dataclasses.asdict(cache.stats())
        seen = [cache._runtime.seen_versions.latest(full(key)) for key in KEYS]  # noqa: SLF001
        # Zones that come back at the same time get their hints in any order.
        told = {name: repr(sorted(calls, key=zone_of)) for name, calls in vars(listener).items()}
        return results, held_up, wire, read, found, stats, seen, told
    finally:
        zones.resume(*ZONES)
        await zones.close_clients()


@contextmanager
def limits_of(plan):
    """Run with the lanes of a plan, on its core. With the same random numbers, versions and the order of zones are equal."""
    with ExitStack() as stack:
        stack.enter_context(running(plan.core))
        for target, value in (
            ("evcache.replication.lanes.WINDOW", plan.window),
            ("evcache.replication.lanes.WINDOW_BYTES", 6_000),
            ("evcache.replication.lanes.MAX_WRITES", max(9, plan.window)),
            ("evcache.writes.bulk_write.STEP", 5),
        ):
            stack.enter_context(mock.patch(target, value))
        stack.enter_context(mock.patch("evcache.replication.hlc.secrets.randbits", return_value=5))
        stack.enter_context(mock.patch("evcache.zones.cluster.secrets.token_bytes", return_value=b"same"))
        yield


@contextmanager
def general_way():
    """Let no write take the ordinary way."""
    with (
        mock.patch("evcache.writes.writer.ordinary_zones", return_value=None),
        mock.patch("evcache.writes.bulk_write.ordinary_zones", return_value=None),
    ):
        yield


moments = st.sampled_from([0.0, 0.0, 0.005, 0.015, 0.03])
# On the compiled core, callers that wake together take their versions in another order than futures would give them. Both
# orders are right. So a plan has several calls on the core in Python alone.
names_of_calls = st.sampled_from([*CALLS, "set_many", "delete_many", "load_many"])
calls_and_core = st.tuples(st.lists(names_of_calls, min_size=1, max_size=3).map(tuple), st.just(PURE)) | st.tuples(
    st.tuples(names_of_calls), st.sampled_from(CORES)
)
rest_of_plans = st.builds(
    Plan,
    calls=st.just(()),
    nodes=st.sampled_from([1, 1, 3]),
    connections=st.just(1),
    latency=st.sampled_from([0.0, 0.01]),
    window=st.sampled_from([2, 8, 512, 512]),
    max_pending=st.sampled_from([16, 16_384, 16_384]),
    cancelled=st.none() | moments,
    changes=st.lists(
        st.tuples(st.sampled_from(ZONES), st.integers(0, len(KEYS) - 1), st.sampled_from([*CHANGES])),
        max_size=8,
        unique_by=lambda found: found[:2],
    ).map(tuple),
    fault=st.none()
    | st.tuples(
        st.sampled_from(["a", "b", "c", "bc", "abc"]),
        st.sampled_from(["pause", "pause", "trickle", "kill"]),
        moments,
        st.sampled_from([0.02, 0.3, 2.0]),
    ),
    modes=st.sampled_from([(), (), (("write_only", "c"),), (("standby", "c"),)]),
    client=st.sampled_from(
        [
            (),
            (),
            (("hints", None),),
            (("gutter", True),),
            (("near_cache", NearCache()),),
            (("ordering", "arrival"),),
            (("errors", "miss"),),
        ]
    ),
    options=st.fixed_dictionaries(
        {"consistency": st.sampled_from(["none", "one", "quorum", "all_minus_one", "all"])},
        optional={"timeout": st.sampled_from([0.05, 0.3, 5.0])},
    ).map(lambda options: tuple(options.items())),
    listens=st.sampled_from([False, False, False, True]),
)
plans = st.builds(lambda rest, of: rest._replace(calls=of[0], core=of[1]), rest_of_plans, calls_and_core)


def options_of(consistency, timeout):
    return (("consistency", consistency), ("timeout", timeout))


@settings(max_examples=examples(0.6))
@given(plans)
@example(Plan(("set_many",)))
@example(Plan(("set_many", "delete_many"), fault=("b", "pause", 0.0, 0.3), core=CORES[-1]))
@example(Plan(("set_many",), window=2, fault=("c", "trickle", 0.0, 2.0), options=options_of("one", 0.3)))
@example(Plan(("set_many",), fault=("abc", "pause", 0.0, 2.0), options=options_of("quorum", 0.05)))
@example(Plan(("set_many",), fault=("abc", "pause", 0.0, 2.0), client=(("gutter", True),), options=options_of("all", 0.3)))
@example(Plan(("set_many",), max_pending=16, core=CORES[-1]))
@example(Plan(("delete_many",), max_pending=16, fault=("c", "pause", 0.0, 0.3), options=options_of("one", 0.3)))
@example(Plan(("set_many",), changes=(("b", 3, "newer"), ("c", 5, "much newer")), core=CORES[-1]))
@example(
    Plan(("delete_many",), changes=(("c", 3, "foreign"),), fault=("a", "pause", 0.0, 0.3), options=options_of("one", 5.0))
)
@example(Plan(("set_many",), latency=0.01, cancelled=0.005, changes=(("c", 3, "newer"), ("b", 4, "foreign"))))
@example(Plan(("large set_many",), nodes=3, latency=0.01, fault=("b", "kill", 0.005, 0.3)))
@example(Plan(("load_many",), core=CORES[-1]))
@example(Plan(("load_many", "set_many"), window=2, fault=("c", "trickle", 0.0, 2.0), options=options_of("one", 0.3)))
@example(Plan(("load", "load_many"), fault=("b", "kill", 0.0, 0.3), options=options_of("quorum", 0.3)))
@example(Plan(("load_many",), max_pending=16, fault=("c", "pause", 0.0, 0.3), options=options_of("one", 0.3)))
@example(
    Plan(
        ("set_many", "set_many"),
        nodes=3,
        latency=0.01,
        window=8,
        max_pending=16,
        cancelled=0.0,
        changes=(("a", 4, "foreign"),),
        options=options_of("one", 5.0),
        core=CORES[-1],
    )  # fmt: skip
)
@example(Plan(("set_many", "delete_many"), connections=2, changes=(("b", 3, "newer"),), core=CORES[-1]))
def test_a_bulk_write_does_the_same_on_both_ways(plan):
    with limits_of(plan):
        ordinary = run(outcome(plan))
        with general_way():
            assert ordinary == run(outcome(plan))
