"""The ordinary read is short. It does the same as the general one: result, packets, hooks, statistics, repair and versions."""

import asyncio
import dataclasses
from typing import NamedTuple
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from evcache import NearCache
from evcache.errors import CacheError
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.values.flags import FLAG_ABSENT, FLAG_MSGPACK
from tests.support.examples import examples
from tests.support.memory_zones import Listener, MemoryZones, full, pass_time
from tests.support.virtual_time import run


class OddCodec:
    """Codec that raises for some values, and returns tuples, exceptions and None for others."""

    def encode(self, value):
        return repr(value).encode(), 0x77

    def decode(self, data, flags):  # noqa: ARG002
        if data == b"7":
            raise KeyError("odd")
        return {b"'text'": (1, 2), b"b'bytes'": ValueError("a value")}.get(data)


KEY = "k"
VALUES = [b"bytes", "text", 7, {"a": 1}, b"", ""]
# What happens to the copies in zone a, b or c before the read.
CHANGES = ["evict", "older", "newer", "foreign", "tombstone", "absent", "unreadable", "stub"]
FAULTS = ["kill", "pause"]


class Plan(NamedTuple):
    value: object
    nodes: int
    changes: tuple  # (zone, change)
    fault: tuple | None  # (zone, fault)
    client: dict
    call: dict
    is_known: bool  # the client has read or written the key lately
    listens: bool
    cancelled_after: int | None  # turns of the event loop that the first read has. None if it ends by itself


def items(zones, zone):
    found = (fake.store.get(full(KEY)) for fake in zones.servers[zone])
    return [item for item in found if item is not None]


def store(zones, zone, data, flags, version):
    """Store an item with this version, whatever is there."""
    for fake in zones.servers[zone]:
        if fake.store.get(full(KEY)) is not None:
            fake.store.delete(full(KEY))
            line = b"ms %b %d T60 F%d E%d\r\n" % (full(KEY), len(data), flags, cas_of(version))
            assert fake.session().receive(line + data + b"\r\n").startswith(b"HD")


def change(zones, zone, how):
    versions = [HybridLogicalClock.decode(item.cas) for item in items(zones, zone)]
    if not versions or versions[0] is None:  # evicted or changed before
        return
    (version,) = versions
    if how == "evict":
        zones.evict(KEY, zone)
    elif how == "foreign":
        for fake in zones.servers[zone]:
            if fake.store.get(full(KEY)) is not None:
                fake.session().receive(b"set %b 0 0 5\r\nother\r\n" % full(KEY))
    elif how == "stub":
        zones.evict(KEY, zone)
        for fake in zones.servers[zone]:
            fake.session().receive(b"mg %b v N30\r\n" % full(KEY))
    elif how == "older":
        store(zones, zone, b"older", 0, version - (5 << 20))
    elif how == "newer":
        store(zones, zone, b"newer", 0, version + (5 << 20))
    elif how == "tombstone":
        store(zones, zone, b"", 0xED00, version + (5 << 20))
    elif how == "absent":
        store(zones, zone, b"", FLAG_ABSENT, version + (5 << 20))
    elif how == "unreadable":
        store(zones, zone, b"\xc1", FLAG_MSGPACK, version)


class Reads(Listener):
    """Hooks that record reads too, and errors by their text."""

    def __init__(self):
        super().__init__()
        self.reads = []

    def read(self, key, zone, source, *, hit):
        self.reads.append((key, zone, source, hit))

    @property
    def calls(self):
        return {name: repr(calls) for name, calls in vars(self).items()}


async def within(turns, coroutine):
    """Return the result, or "cancelled" if the call has not ended after that number of turns of the event loop."""
    task = asyncio.create_task(coroutine)
    if turns is not None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            return await task if await pass_until_done(task) else "cancelled"
    return await task


async def pass_until_done(task):
    """Wait for a task. Return False if it was cancelled."""
    await asyncio.wait([task])
    return not task.cancelled()


async def outcome(plan, *, ordinary):
    """Return all that can be seen of two reads of one key."""
    zones = MemoryZones(3, plan.nodes)
    listener = Reads()
    try:
        hooks = {"hooks": listener} if plan.listens else {}
        cache = await zones.ready(telemetry=None, **plan.client, **hooks)
        await cache.set(KEY, plan.value, ttl=60, consistency="all")
        reader = cache if plan.is_known else await zones.ready(telemetry=None, **plan.client, **hooks)
        if not ordinary:
            reader._runtime.zone_reader.ordinary_connection = lambda *_: None  # noqa: SLF001
            reader._runtime.zone_reader.read_path = lambda _: None  # noqa: SLF001
        for zone, how in plan.changes:
            change(zones, zone, how)
        if plan.fault is not None:
            zone, how = plan.fault
            if how == "kill":
                await zones.kill(zone)
            else:
                zones.pause(zone)
        zones.forget()
        results = []
        for turns in (plan.cancelled_after, None):
            try:
                value = await within(turns, reader.get(KEY, "default", **plan.call))
            except CacheError as error:
                value = (type(error), str(error))
            results.append((type(value), repr(value)))
        wire = {zone: zones.wire(zone) for zone in "abc"}
        await pass_time()
        stats = dataclasses.asdict(reader.stats())
        held = {zone: [(bytes(item.value), item.flags, item.cas) for item in items(zones, zone)] for zone in "abc"}
        seen = reader._runtime.seen_versions.latest(full(KEY))  # noqa: SLF001
        return results, wire, held, stats, listener.calls, seen
    finally:
        zones.resume("a", "b", "c")
        await zones.close_clients()


plans = st.builds(
    Plan,
    value=st.sampled_from(VALUES),
    nodes=st.sampled_from([1, 1, 3]),
    changes=st.lists(st.tuples(st.sampled_from("aaabc"), st.sampled_from(CHANGES)), max_size=2).map(tuple),
    fault=st.none() | st.tuples(st.sampled_from("aabc"), st.sampled_from(FAULTS)),
    client=st.fixed_dictionaries(
        {},
        optional={
            "fallback_on_miss": st.booleans(),
            "errors": st.sampled_from(["raise", "miss"]),
            "read_consistency": st.sampled_from(["one", "quorum"]),
            "read_repair_chance": st.just(1),
            "remember_versions": st.sampled_from([0, 2]),
            "near_cache": st.just(NearCache()),
            "codec": st.just(OddCodec()),
            "connections": st.just(2),
        },
    ),
    call=st.just({})  # half of the reads pass no option
    | st.fixed_dictionaries(
        {},
        optional={
            "consistency": st.sampled_from(["none", "one", "quorum", "all"]),
            "timeout": st.sampled_from([0.02, 5.0]),
            "fallback_on_miss": st.booleans(),
            "errors": st.sampled_from(["raise", "miss"]),
            "as_": st.sampled_from([str, bytes, dict]),
            "near_cache": st.booleans(),
        },
    ),
    is_known=st.booleans(),
    listens=st.booleans(),
    cancelled_after=st.none() | st.integers(0, 4),
)


@settings(max_examples=examples(0.3))
@given(plans)
def test_the_ordinary_read_does_the_same_as_the_general_one(plan):
    # With the same random numbers, versions and the order of zones are equal.
    with (
        mock.patch("evcache.replication.hlc.secrets.randbits", return_value=5),
        mock.patch("evcache.zones.cluster.secrets.token_bytes", return_value=b"same"),
    ):
        assert run(outcome(plan, ordinary=True)) == run(outcome(plan, ordinary=False))
