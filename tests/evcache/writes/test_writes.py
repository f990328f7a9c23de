"""Writes, on three zones in memory: what each zone holds afterwards, what callers are told, and what goes over the wire."""

import asyncio
import contextlib
import math
from datetime import timedelta

import pytest

from evcache import (
    CacheUnavailable,
    Codec,
    Consistency,
    DecodeError,
    EncodeError,
    InvalidArgument,
    Outcome,
    ServerError,
    StandardCodec,
    Unsupported,
    ValueTooLarge,
    WriteResult,
)
from evcache.replication.hlc import MAX_CAS, cas_of
from evcache.values.flags import FLAG_INT, FLAG_INT32
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES
from evcache.zones.protocol.packet import LARGE_BYTES
from tests.support.memory_zones import TOMBSTONE, WALL_START, Listener, Stopwatch, full, on_zones, pass_time

STORED = dict.fromkeys("abc", Outcome.STORED)
NOWHERE = dict.fromkeys("abc")
DAY = 86400
OLD = {"a": "1.6.18", "b": "1.6.38", "c": "1.6.38"}


def everywhere(value):
    return dict.fromkeys("abc", value)


async def coordinator_of(zones, cache, key):
    """The zone that decides about a key."""
    held = {zone: zones.held(key, zone) for zone in zones.names}
    assert held == dict.fromkeys(zones.names), "for keys that are nowhere"
    (zone,) = (await cache.replace(key, "never stored")).zones
    zones.forget()
    return zone


# Set and delete.


@on_zones()
async def test_set_stores_in_every_zone(zones):
    """Every zone holds the value, one version, and the TTL; the result says so."""
    cache = await zones.ready()
    result = await cache.set("k", {"a": 1}, ttl=90, consistency="all")
    assert result == WriteResult(met=True, version=result.version, zones=STORED)
    assert result
    assert zones.values("k") == everywhere({"a": 1})
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {90}
    assert not any(zones.held("k", zone).raw.stale for zone in "abc")


@on_zones()
async def test_each_write_is_newer(zones):
    """Versions of one client grow, and the last write is what all zones hold."""
    cache = await zones.ready()
    versions = [(await cache.set("k", number, consistency="all")).version for number in range(50)]
    assert versions == sorted(set(versions))
    assert zones.values("k") == everywhere(49)
    assert zones.stored_versions("k") == everywhere(versions[-1])


@on_zones()
async def test_a_value_of_any_size_takes_one_packet(zones):
    """Up to the bound three stores with the value each; above it four commands of which one carries it."""
    cache = await zones.ready()
    for size, commands in [
        (0, {"ms": 3}),
        (THREE_COPIES_MAX_BYTES, {"ms": 3}),
        (THREE_COPIES_MAX_BYTES + 1, {"mg": 1, "ms": 2, "md": 1}),
        (LARGE_BYTES, {"mg": 1, "ms": 2, "md": 1}),
        (1_000_000, {"mg": 1, "ms": 2, "md": 1}),
    ]:
        for ttl in (90, 60):  # where nothing is, and over an older value
            zones.forget()
            result = await cache.set(f"k{size}", b"x" * size, ttl=ttl, consistency="all")
            assert result.zones == STORED
            assert zones.all_commands() == everywhere(commands)
            assert zones.values(f"k{size}") == everywhere(b"x" * size)
            assert zones.stored_versions(f"k{size}") == everywhere(result.version)
            assert {zones.held(f"k{size}", zone).ttl for zone in "abc"} == {ttl}
            assert not any(zones.held(f"k{size}", zone).raw.stale for zone in "abc")
        copies = 3 if commands == {"ms": 3} else 1
        for packets in zones.sent.values():
            sent = sum(map(len, packets))
            assert copies * size <= sent < copies * size + 500


@on_zones()
async def test_values_of_any_size_go_in_one_bulk_write(zones):
    """Each key's packet is in the form that suits its value, over older ones of another size too."""
    cache = await zones.ready()
    sizes = [0, 1, THREE_COPIES_MAX_BYTES, THREE_COPIES_MAX_BYTES + 1, 5000, LARGE_BYTES - 1, LARGE_BYTES, 300_000]
    for turned in (sizes, sizes[::-1]):
        values = {f"k{number}": b"x" * size for number, size in enumerate(turned)}
        results = await cache.set_many(values, ttl=90, consistency="all")
        for key, value in values.items():
            assert results[key].zones == STORED
            assert zones.values(key) == everywhere(value)
            assert zones.stored_versions(key) == everywhere(results[key].version)
            assert {(zones.held(key, zone).ttl, zones.held(key, zone).raw.stale) for zone in "abc"} == {(90, False)}


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_a_late_older_write_is_superseded(zones, size):
    """A write whose clock is behind, and whose caller does not wait, replaces nothing newer, and counts as acknowledged."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    listener = Listener()
    behind = await zones.ready(hooks=listener)
    newest = await ahead.set("k", b"new" * size, ttl=50, consistency="all")
    listener.wrote.clear()
    result = await behind.set("k", b"old" * size, ttl=1000, consistency="none")
    await pass_time()
    assert result
    assert result.version < newest.version
    assert sorted(listener.wrote) == [(zone, Outcome.SUPERSEDED, True) for zone in "abc"]
    assert zones.values("k") == everywhere(b"new" * size)
    assert zones.stored_versions("k") == everywhere(newest.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {49}


@on_zones()
async def test_a_write_after_a_read_is_newer_than_what_was_read(zones):
    """Whoever has seen a version writes past it, whatever the clocks say."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    behind = await zones.ready()
    await ahead.set("k", "theirs", consistency="all")
    assert await behind.get("k") == "theirs"
    assert (await behind.set("k", "ours", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("ours")


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_an_item_from_a_clock_far_ahead_does_not_win_for_ever(zones, size):
    """What can't be believed has no version, and is replaced as items of other clients are."""
    broken = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10 * DAY)
    cache = await zones.ready()
    await broken.set("k", "from the future", consistency="all")
    assert (await cache.get_item("k")).version is None
    result = await cache.set("k", b"x" * size, consistency="all")
    assert result.zones == STORED
    assert zones.stored_versions("k") == everywhere(result.version)


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_items_of_other_clients_are_replaced(zones, size):
    """A small CAS would look newer than every version: it is looked at, and replaced by comparing with it."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"theirs", 0, "a", "b")
    result = await cache.set("k", b"x" * size, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere(b"x" * size)
    assert zones.stored_versions("k") == everywhere(result.version)


@on_zones()
async def test_a_stub_of_a_lease_is_replaced(zones):
    """Stubs look older than every write."""
    cache = await zones.ready()
    for zone in "abc":
        zones.one(zone).session().receive(b"mg %b v N30 E%d\r\n" % (full("k"), MAX_CAS - 12345))
    assert (await cache.set("k", "value", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("value")


@on_zones()
async def test_set_many(zones):
    """A result for each key, each with a version of its own."""
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(30)}
    results = await cache.set_many(values, ttl=33, consistency="all")
    assert results.keys() == values.keys()
    assert all(result.zones == STORED for result in results.values())
    assert len({result.version for result in results.values()}) == 30
    for key, value in values.items():
        assert zones.values(key) == everywhere(value)
        assert zones.held(key, "b").ttl == 33
    # The first few at once, to servers that have nothing to do, and the rest of the tick in one packet.
    assert [len(packets) for packets in zones.sent.values()] == [2, 2, 2]
    zones.forget()
    assert await cache.set_many({}) == {}
    assert zones.all_commands() == everywhere({})


@on_zones(nodes=3)
async def test_set_many_and_delete_many_on_several_nodes(zones):
    """Keys go to the node of each zone that they belong to, and are found again."""
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(30)}
    assert all((await cache.set_many(values, consistency="all")).values())
    assert await cache.get_many(list(values)) == values
    assert all(0 < len(fake.store) < 30 for zone in "abc" for fake in zones.servers[zone])
    results = await cache.delete_many([*values, "k0"], consistency="all")
    assert results.keys() == values.keys()
    assert await cache.get_many(list(values)) == {}
    assert await cache.delete_many([]) == {}


@on_zones()
async def test_delete_leaves_a_tombstone(zones):
    """A delete is a write of "nothing", which is kept for a while; it is acknowledged whether or not the key was there."""
    cache = await zones.ready()
    await cache.set("k", "value", ttl=1000, consistency="all")
    for key in ("k", "never-there"):
        result = await cache.delete(key, consistency="all")
        assert result.zones == STORED
        assert zones.values(key) == everywhere(TOMBSTONE)
        assert zones.stored_versions(key) == everywhere(result.version)
        assert {zones.held(key, zone).ttl for zone in "abc"} == {60}
        assert await cache.get(key) is None
    await pass_time(61)
    assert zones.values("k") == NOWHERE


@on_zones()
async def test_tombstones_live_as_long_as_the_client_says(zones):
    """`tombstone_ttl`."""
    cache = await zones.ready(tombstone_ttl=timedelta(hours=1))
    await cache.delete("k", consistency="all")
    assert zones.held("k", "a").ttl == 3600


@on_zones()
async def test_a_late_older_set_does_not_bring_back_what_was_deleted(zones):
    """A set that was made before a delete and comes after it is superseded by the tombstone."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10)
    behind = await zones.ready()
    await ahead.delete("k", consistency="all")
    await behind.set("k", "late", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere(TOMBSTONE)
    later = await ahead.set("k", "later", consistency="all")
    assert later.zones == STORED
    assert zones.values("k") == everywhere("later")


@on_zones()
async def test_a_late_older_delete_does_not_remove_a_newer_value(zones):
    """The other way round."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10)
    behind = await zones.ready()
    await ahead.set("k", "newer", consistency="all")
    await behind.delete("k", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere("newer")
    assert await behind.get("k") == "newer"


# Time to live.


@pytest.mark.parametrize(
    ("ttl", "wire"),
    [
        (1, b"T1"),
        (2.2, b"T3"),
        (timedelta(minutes=2), b"T120"),
        (timedelta(milliseconds=5), b"T1"),
        (30 * DAY, b"T%d" % (30 * DAY)),
        (timedelta(days=31), b"T%d" % (int(WALL_START) + 31 * DAY)),
        (math.inf, b"T0"),
        (None, b"T900"),
    ],
)
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "touch", "incr", "replace", "cas"])
@on_zones()
async def test_ttl_on_the_wire(zones, ttl, wire, operation):
    """Every operation that takes a TTL sends it in the servers' form: whole seconds, a date over 30 days, 0 for ever."""
    frozen = WALL_START
    cache = await zones.ready(wall_clock=lambda: frozen)
    seen = await cache.set("k", "value", consistency="all") if operation in {"replace", "cas", "touch"} else None
    zones.forget()
    match operation:
        case "set_many":
            await cache.set_many({"k": 1}, ttl=ttl, consistency="all")
        case "touch":
            await cache.touch("k", ttl, consistency="all")
        case "incr":
            await cache.incr("k", initial=1, ttl=ttl, consistency="all")
        case "cas":
            assert await cache.cas("k", 1, seen.version, ttl=ttl, consistency="all")
        case _:
            assert await getattr(cache, operation)("k", 1, ttl=ttl, consistency="all")
    tokens = [zones.wire(zone).replace(b"\r\n", b" ").split(b" ") for zone in "abc"]
    said = [{token for token in each if token[:1] in (b"T", b"N") and token[1:].isdigit()} for each in tokens]
    assert all(wire in each for each in said)


@on_zones()
async def test_the_clients_default_ttl(zones):
    """`ttl` of the client, where the call does not say."""
    cache = await zones.ready(ttl=timedelta(seconds=42))
    await cache.set("k", 1, consistency="all")
    assert zones.held("k", "c").ttl == 42


@on_zones()
async def test_touch(zones):
    """Every zone that has the item gives it the new TTL; value and version stay."""
    cache = await zones.ready()
    stored = await cache.set("k", "value", ttl=10, consistency="all")
    result = await cache.touch("k", 5000, consistency="all")
    assert result.zones == STORED
    assert result
    assert {zones.held("k", zone).ttl for zone in "abc"} == {5000}
    assert zones.stored_versions("k") == everywhere(stored.version)
    assert zones.values("k") == everywhere("value")
    zones.evict("k", "a", "b")
    result = await cache.touch("k", 60, consistency="quorum")
    assert not result
    assert {result.zones[zone] for zone in "ab"} == {Outcome.NOT_FOUND}
    assert not await cache.touch("absent", 60)


@on_zones()
async def test_touch_does_not_shorten_a_tombstone(zones):
    """To a caller there is nothing to touch, and the zones remember the delete as long as before."""
    cache = await zones.ready()
    await cache.delete("k", consistency="all")
    result = await cache.touch("k", 1, consistency="all")
    assert result.zones == everywhere(Outcome.NOT_FOUND)
    assert not result
    await pass_time(30)
    assert zones.values("k") == everywhere(TOMBSTONE)


# What is acknowledged, and when.


@pytest.mark.parametrize(
    ("consistency", "down", "met"),
    [
        ("one", "bc", True),
        ("quorum", "c", True),
        ("quorum", "bc", False),
        ("all_minus_one", "a", True),
        ("all_minus_one", "ab", False),
        ("all", "", True),
        ("all", "b", False),
        ("none", "abc", True),
    ],
)
@pytest.mark.parametrize("operation", ["set", "delete", "touch", "set_many", "delete_many"])
@on_zones()
async def test_policies_with_zones_down(zones, consistency, down, met, operation):
    """The result is true when enough zones have it, and says what each did."""
    cache = await zones.ready()
    await cache.set("k", "before", consistency="all")
    await zones.kill(*down)
    calls = {
        "set": lambda: cache.set("k", "v", consistency=consistency),
        "delete": lambda: cache.delete("k", consistency=consistency),
        "touch": lambda: cache.touch("k", 60, consistency=consistency),
        "set_many": lambda: cache.set_many({"k": "v"}, consistency=consistency),
        "delete_many": lambda: cache.delete_many(["k"], consistency=consistency),
    }
    for _ in range(2):  # the first call finds out, the second one knows
        result = await calls[operation]()
        if operation.endswith("_many"):
            (result,) = result.values()
        assert bool(result) is result.met is met
        assert result.zones.keys() == {"a", "b", "c"}
        for zone, outcome in result.zones.items():
            expected = Outcome.UNAVAILABLE if zone in down else Outcome.STORED
            assert outcome in (expected, Outcome.PENDING), zone


@pytest.mark.parametrize("operation", ["set", "delete", "touch", "set_many", "delete_many", "add", "incr", "append", "cas"])
@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_nobody_there(zones, operation, how):
    """`CacheUnavailable` says why, zone by zone, by the deadline."""
    cache = await zones.ready(write_timeout=0.2)
    if how == "kill":
        await zones.kill(*"abc")
    else:
        zones.pause(*"abc")
    arguments = {
        "set": ("k", 1),
        "set_many": ({"k": 1},),
        "delete_many": (["k"],),
        "add": ("k", 1),
        "append": ("k", "x"),
        "cas": ("k", 1, 1),
    }.get(operation, ("k",))
    for _ in range(2):
        watch = Stopwatch()
        with pytest.raises(CacheUnavailable) as caught:
            await getattr(cache, operation)(*arguments)
        assert watch.seconds <= 0.2
        assert caught.value.operation == operation
        assert caught.value.failures


@on_zones()
async def test_errors_as_misses_for_writes(zones):
    """With `errors="miss"` a write that nobody took is false, and raises nothing."""
    cache = await zones.ready(errors="miss")
    await zones.kill(*"abc")
    for result in (
        await cache.set("k", 1),
        await cache.delete("k"),
        await cache.touch("k"),
        (await cache.set_many({"k": 1}))["k"],
        (await cache.delete_many(["k"]))["k"],
    ):
        assert not result
        assert result.zones == everywhere(Outcome.UNAVAILABLE)
    with pytest.raises(CacheUnavailable):
        await cache.set("k", 1, errors="raise")


@on_zones()
async def test_a_slow_zone_is_pending_and_gets_it_later(zones):
    """A call returns with enough acknowledgements; the rest goes on, and the hooks hear of it."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    listener.wrote.clear()
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", timeout=5)
    assert watch.seconds == 0
    assert result
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.PENDING}
    await pass_time(3)
    zones.resume("c")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert result.zones["c"] is Outcome.PENDING  # a result does not change under its owner
    assert sorted(listener.wrote) == [
        ("a", Outcome.STORED, False),
        ("b", Outcome.STORED, False),
        ("c", Outcome.STORED, True),
    ]


@on_zones()
async def test_a_zone_that_does_not_answer_times_out(zones):
    """A call that needs it waits until its deadline, and not longer."""
    cache = await zones.ready()
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency="all", timeout=0.25)
    assert watch.seconds == pytest.approx(0.25)
    assert not result
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.TIMEOUT}


@on_zones()
async def test_a_policy_that_can_no_longer_be_met_is_not_waited_for(zones):
    """With one zone dead `all` fails at once, though another zone hangs."""
    cache = await zones.ready()
    await zones.kill("b")
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency="all", timeout=5)
    assert watch.seconds == 0
    assert not result
    assert result.zones["b"] is Outcome.UNAVAILABLE
    assert result.zones["c"] is Outcome.PENDING


@on_zones()
async def test_none_returns_at_once(zones):
    """Nothing is waited for, and the write arrives."""
    cache = await zones.ready()
    zones.pause(*"abc")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency=Consistency.NONE)
    assert watch.seconds == 0
    assert result
    assert result.zones == everywhere(Outcome.PENDING)
    assert result.version is not None
    zones.resume(*"abc")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert zones.stored_versions("k") == everywhere(result.version)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "delete", "add", "append", "incr"])
@on_zones()
async def test_a_cancelled_write_still_reaches_all_zones(zones, connected, operation):
    """A caller that is cancelled stops waiting, and nothing else: half a write is what makes zones differ."""
    cache = zones.client(write_timeout=30)
    if connected:
        await zones.connect(cache)
    if operation in {"delete", "append"}:
        other = await zones.ready()
        await other.set("k", "before;", consistency="all")
        await pass_time(0.1)  # within one millisecond, which of two clients' writes is newer is a matter of luck
    zones.pause("b", "c")
    call, expected = {
        "set": (lambda: cache.set("k", "v", consistency="all"), "v"),
        "set_many": (lambda: cache.set_many({"k": "v"}, consistency="all"), "v"),
        "delete": (lambda: cache.delete("k", consistency="all"), TOMBSTONE),
        "add": (lambda: cache.add("k", "v", consistency="all"), "v"),
        "append": (lambda: cache.append("k", "v", consistency="all"), "before;v"),
        "incr": (lambda: cache.incr("k", initial=5, consistency="all"), 5),
    }[operation]
    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pass_time(0.1)
    zones.resume("b", "c")
    await pass_time()
    assert zones.values("k") == everywhere(expected)


@on_zones()
async def test_close_waits_for_writes_that_are_on_their_way(zones):
    """What was sent before close() is given a while to arrive; nothing is left behind after that."""
    cache = await zones.ready(write_timeout=10)
    zones.pause("c")
    assert await cache.set("k", "value")
    closing = asyncio.create_task(cache.close(3))
    await pass_time()
    assert not closing.done()
    zones.resume("c")
    await closing
    assert zones.values("k") == everywhere("value")
    hanging = await zones.ready(write_timeout=10)
    zones.pause("c")
    await hanging.set("j", "value")
    watch = Stopwatch()
    await hanging.close(3)
    assert watch.seconds <= 3.01


@on_zones(write_only="c")
async def test_write_only_zones_are_written_and_never_count(zones):
    """A zone that is being filled takes every write; its failure changes no result, its success helps none."""
    cache = await zones.ready()
    result = await cache.set("k", "value", consistency="all")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert result
    await cache.add("added", 1)
    await cache.incr("counter", initial=1)
    await pass_time()
    assert zones.held("added", "c").value == 1
    assert zones.held("counter", "c").value == 1
    zones.pause("c")
    watch = Stopwatch()
    assert await cache.set("k", "two", consistency="all")
    assert watch.seconds == 0
    zones.resume("c")
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.set("k", "three", consistency="one")


@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones()
async def test_a_write_never_exceeds_its_timeout(zones, operation):
    """Asking an unknown server how large a value may be is part of the call's time, also for many values."""
    zones.pause("c")
    cache = zones.client()
    large = b"x" * 700_000
    watch = Stopwatch()
    arguments = {
        "set_many": ({"k": large, "j": large, "i": large},),
        "cas": ("k", large, 2**60),
    }.get(operation, ("k", large))
    with contextlib.suppress(CacheUnavailable):
        await getattr(cache, operation)(*arguments, consistency="all", timeout=0.2)
    assert watch.seconds <= 0.2


# The largest value.


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones()
async def test_a_value_over_the_limit_harms_nothing(zones, known, operation):
    """A server that refuses a large value deletes what it has: so nothing is sent, and what is there survives."""
    writer = await zones.ready()
    before = await writer.set("k", "before", consistency="all")
    await pass_time(0.1)
    cache = await zones.ready() if known else zones.client()
    zones.forget()
    large = b"x" * 1_100_000
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version),
    }.get(operation, ("k", large))
    with pytest.raises(ValueTooLarge) as caught:
        await getattr(cache, operation)(*arguments)
    assert caught.value.argument == "value"
    assert all("ms" not in commands for commands in zones.all_commands().values())
    assert zones.values("k") == everywhere("before")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones(item_size_max=2048)
async def test_a_value_over_a_small_limit_harms_nothing(zones, known, operation):
    """The same where servers take less than usual, which a client that is not connected yet does not know."""
    writer = await zones.ready()
    before = await writer.set("k", "before", consistency="all")
    await pass_time(0.1)
    cache = await zones.ready() if known else zones.client()
    large = b"x" * 4000
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version),
    }.get(operation, ("k", large))
    try:
        result = await getattr(cache, operation)(*arguments)
    except ValueTooLarge as error:
        assert error.argument == "value"
    else:
        assert not known
        assert not (result["k"] if operation == "set_many" else result)
    await pass_time()
    assert zones.values("k") == everywhere("before")


@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas", "append"])
@on_zones(item_size_max=2048)
async def test_the_item_limit_is_asked_again_after_a_restart(zones, operation):
    """The limit of a connection that is gone refuses nothing, also if the client only ever stores large values."""
    cache = await zones.ready()
    large = b"x" * 4000
    with pytest.raises(ValueTooLarge):
        await cache.set("k", large)
    if operation not in ("set", "add"):
        before = await cache.set("k", b"before", consistency="all")
    for zone in zones.names:
        await zones.one(zone).stop()
        zones.one(zone).store.item_size_max = 8192
        zones.one(zone).revive()
    await pass_time(0.01)
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version if operation == "cas" else None),
    }.get(operation, ("k", large))
    result = await getattr(cache, operation)(*arguments, consistency="all")
    assert result["k"] if operation == "set_many" else result
    assert zones.values("k") == everywhere(b"before" + large if operation == "append" else large)


@on_zones()
async def test_the_largest_value_fits(zones):
    """Values up to what the client takes are taken by the server, to the byte that the client allows."""
    cache = await zones.ready()
    with pytest.raises(ValueTooLarge) as caught:
        await cache.set("k", b"x" * 2_000_000)
    limit = int(caught.value.problem.split("over the ")[1].split(" ")[0])
    assert limit > 1_048_000
    assert (await cache.set("k", b"x" * limit, consistency="all")).zones == STORED
    with pytest.raises(ValueTooLarge):
        await cache.set("k", b"x" * (limit + 1))


@on_zones()
async def test_an_append_over_the_limit_harms_nothing(zones):
    """It is refused, and the value stays as it was."""
    for zone in zones.names:
        zones.one(zone).store.item_size_max = 4096
    cache = await zones.ready()
    await cache.set("k", b"x" * 3000, consistency="all")
    for operation in (cache.append, cache.prepend):
        result = await operation("k", b"y" * 2000)
        assert not result
        assert set(result.zones.values()) == {Outcome.NOT_STORED}
    assert zones.values("k") == everywhere(b"x" * 3000)


# One zone decides.


@on_zones()
async def test_add(zones):
    """Stores where there is nothing, and says no where there is something."""
    cache = await zones.ready()
    result = await cache.add("k", "first", ttl=70, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere("first")
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {70}
    refused = await cache.add("k", "second", consistency="all")
    assert not refused
    assert set(refused.zones.values()) == {Outcome.NOT_STORED}
    assert refused.version is None
    assert zones.values("k") == everywhere("first")


@on_zones()
async def test_add_over_a_tombstone(zones):
    """What was deleted is absent."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    deleted = await cache.delete("k", consistency="all")
    result = await cache.add("k", "new", ttl=500, consistency="all")
    assert result.zones == STORED
    assert result.version > deleted.version
    assert zones.values("k") == everywhere("new")
    assert {zones.held("k", zone).ttl for zone in "abc"} == {500}


@on_zones()
async def test_add_over_a_tombstone_of_a_client_that_is_ahead(zones):
    """The add is newer than the tombstone it replaces, so it holds in every zone."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    cache = await zones.ready()
    await ahead.delete("k", consistency="all")
    assert (await cache.add("k", "new", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("new")


@pytest.mark.parametrize("options", [{}, {"versions": "1.6.18"}])
def test_two_concurrent_adds_have_one_winner(options):
    """Of clients in different zones that add at once, one wins, and its value is what all zones hold."""

    @on_zones(**options)
    async def main(zones):
        clients = [await zones.ready(local_zone=zone) for zone in "abc"]
        for number in range(20):
            key = f"k{number}"
            adds = [client.add(key, client_number, consistency="all") for client_number, client in enumerate(clients)]
            results = await asyncio.gather(*adds)
            assert sum(map(bool, results)) == 1
            await pass_time(0.1)
            assert zones.values(key) == everywhere(results.index(next(filter(None, results))))

    main()


@on_zones()
async def test_the_coordinator_is_the_same_for_all_clients_and_spread_by_key(zones):
    """One zone decides about a key whoever asks; keys are shared out over the zones."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    used = set()
    for number in range(30):
        deciding = {await coordinator_of(zones, client, f"k{number}") for client in clients}
        assert len(deciding) == 1
        used |= deciding
    assert used == {"a", "b", "c"}


@on_zones()
async def test_the_coordinator_moves_on_when_it_is_down(zones):
    """A dead zone decides about nothing; the next in the key's order does, for all clients; and it gets it back."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    first = await coordinator_of(zones, clients[0], "k")
    await zones.kill(first)
    await pass_time(0.01)
    second = {await coordinator_of(zones, client, "k") for client in clients}
    assert len(second) == 1
    assert second != {first}
    assert await clients[0].add("k", "v")
    assert not await clients[1].add("k", "w")
    zones.restart(first)
    await pass_time(10)
    await zones.connect(*clients)
    assert {await coordinator_of(zones, client, "other") for client in clients} <= {"a", "b", "c"}
    assert zones.held("k", first).value == "v", "what it missed was kept for it"
    await clients[0].delete("k", consistency="all")
    await pass_time(61)
    assert {await coordinator_of(zones, client, "k") for client in clients} == {first}


@pytest.mark.parametrize("operation", ["add", "replace", "append", "incr", "cas"])
@on_zones()
async def test_a_coordinator_that_hangs_is_unavailable(zones, operation):
    """It may have decided, and nobody can say: an error at the deadline, no second opinion."""
    cache = await zones.ready()
    key = "k"
    zone = await coordinator_of(zones, cache, key)
    before = await cache.set(key, "1", consistency="all")
    zones.pause(zone)
    arguments = {"add": (2,), "replace": (2,), "append": ("2",), "incr": (), "cas": (2, before.version)}[operation]
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await getattr(cache, operation)(key, *arguments, timeout=0.3)
    assert watch.seconds == pytest.approx(0.3)
    assert set(caught.value.failures) == {zone}


@on_zones()
async def test_replace(zones):
    """Stores over something, and says no where there is nothing or a tombstone."""
    cache = await zones.ready()
    assert set((await cache.replace("k", "v")).zones.values()) == {Outcome.NOT_STORED}
    assert zones.values("k") == NOWHERE
    await cache.delete("k", consistency="all")
    assert not await cache.replace("k", "v")
    assert zones.values("k") == everywhere(TOMBSTONE)
    await cache.set("k", "old", consistency="all")
    result = await cache.replace("k", "new", ttl=11, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere("new")
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {11}


@pytest.mark.parametrize("form", ["version", "item", "item for update"])
@on_zones()
async def test_cas(zones, form):
    """Stores over what was read, and nothing else."""
    cache = await zones.ready()
    await cache.set("k", 1, consistency="all")
    item = await cache.get_item("k", for_update=form == "item for update")
    expected = item.version if form == "version" else item
    result = await cache.cas("k", 2, expected, ttl=20, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere(2)
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {20}
    again = await cache.cas("k", 3, expected, consistency="all")
    assert not again
    assert set(again.zones.values()) == {Outcome.EXISTS}
    assert zones.values("k") == everywhere(2)
    assert await cache.cas("k", 3, result.version)


@on_zones()
async def test_cas_on_what_is_gone(zones):
    """Absent and deleted are the same: not found."""
    cache = await zones.ready()
    stored = await cache.set("k", 1, consistency="all")
    assert set((await cache.cas("other", 2, stored.version)).zones.values()) == {Outcome.NOT_FOUND}
    deleted = await cache.delete("k", consistency="all")
    assert set((await cache.cas("k", 2, stored.version)).zones.values()) == {Outcome.NOT_FOUND}
    assert zones.stored_versions("k") == everywhere(deleted.version)


@on_zones()
async def test_cas_treats_a_tombstone_as_absence_even_by_its_version(zones):
    """The version of a delete is no version of a value: there is nothing to compare with."""
    cache = await zones.ready()
    deleted = await cache.delete("k", consistency="all")
    result = await cache.cas("k", "value", deleted.version, consistency="all")
    assert not result
    assert set(result.zones.values()) == {Outcome.NOT_FOUND}
    assert zones.values("k") == everywhere(TOMBSTONE)


@pytest.mark.parametrize("form", ["version", "item"])
@on_zones()
async def test_cas_is_newer_than_what_it_replaces(zones, form):
    """Over a version of a client that is ahead, which came by other ways than a read here, and still in every zone."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    cache = await zones.ready()
    theirs = await ahead.set("k", "theirs", consistency="all")
    expected = theirs.version if form == "version" else await ahead.get_item("k")
    result = await cache.cas("k", "ours", expected, consistency="all")
    assert result.version > theirs.version
    assert result.zones == STORED
    assert zones.values("k") == everywhere("ours")


@on_zones()
async def test_concurrent_cas_loses_no_update(zones):
    """Clients that read, change and compare in a loop: every change is in the end result."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("k", 0, consistency="all")

    async def count(client):
        for _ in range(10):
            while True:
                item = await client.get_item("k", for_update=True)
                if await client.cas("k", item.value + 1, item, consistency="all"):
                    break

    await asyncio.gather(*map(count, clients))
    await pass_time(0.1)
    assert zones.values("k") == everywhere(30)


@pytest.mark.parametrize(("options", "expected"), [({}, MAX_CAS), ({"interop": True}, 0)])
@on_zones()
async def test_a_cas_token_of_0_matches_nothing(zones, options, expected):
    """0 is a number like any other: it is compared with, and matches nothing, instead of comparing nothing."""
    cache = await zones.ready(**options)
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    result = await cache.cas("k", "ours", expected)
    assert not result
    assert set(result.zones.values()) == {Outcome.EXISTS}
    assert zones.values("k") == everywhere("theirs")


@on_zones()
async def test_append_and_prepend(zones):
    """More behind or in front of a str or bytes; the TTL stays, the version is new."""
    cache = await zones.ready()
    for key, parts in (("s", ("b", "c", "a")), ("b", (b"b", b"c", b"a"))):
        before = await cache.set(key, parts[0], ttl=100, consistency="all")
        await pass_time(10)
        assert (await cache.append(key, parts[1], consistency="all")).zones == STORED
        result = await cache.prepend(key, parts[2], consistency="all")
        assert result.zones == STORED
        assert result.version > before.version
        assert zones.values(key) == everywhere(parts[2] + parts[0] + parts[1])
        assert zones.stored_versions(key) == everywhere(result.version)
        decides = next(zone for zone in "abc" if zones.held(key, zone).ttl == 90)
        assert {zones.held(key, zone).ttl for zone in "abc" if zone != decides} == {88}, "no copy outlives what was decided"
    for absent in ("absent", "deleted"):
        if absent == "deleted":
            await cache.delete("deleted", consistency="all")
        assert set((await cache.append(absent, "x")).zones.values()) == {Outcome.NOT_STORED}
        assert set((await cache.prepend(absent, "x")).zones.values()) == {Outcome.NOT_STORED}


@on_zones()
async def test_append_keeps_an_item_that_never_expires(zones):
    """No TTL stays no TTL."""
    cache = await zones.ready()
    await cache.set("k", "a", ttl=math.inf, consistency="all")
    await cache.append("k", "b", consistency="all")
    assert {zones.held("k", zone).ttl for zone in "abc"} == {None}


@pytest.mark.parametrize(("value", "extra"), [("s", b"b"), (b"b", "s"), (1, "s"), ([1], "s"), (None, b"b")])
@on_zones()
async def test_what_does_not_join(zones, value, extra):
    """A str and bytes, or something that is neither: the error names `value`, and nothing changes."""
    cache = await zones.ready()
    await cache.set("k", value, consistency="all")
    for operation in (cache.append, cache.prepend):
        with pytest.raises(InvalidArgument) as caught:
            await operation("k", extra)
        assert caught.value.argument == "value"
    assert zones.values("k") == everywhere(value)


@on_zones()
async def test_append_to_what_cant_be_decoded_says_where(zones):
    """The error names the key, the zone and the flags, as that of a read does."""
    cache = await zones.ready()
    zone = await coordinator_of(zones, cache, "k")
    zones.write_as_another_client("k", b"\xff", 0, *"abc")
    with pytest.raises(DecodeError) as caught:
        await cache.append("k", "x")
    assert (caught.value.key, caught.value.zone, caught.value.flags) == (full("k"), zone, 0)


@on_zones()
async def test_concurrent_appends_lose_nothing(zones):
    """Ten clients' worth of appends are all in the end result, once each."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("k", "", consistency="all")
    letters = "abcdefghijklmnopqrstuvwxyz"
    appends = [clients[number % 3].append("k", letter, consistency="all") for number, letter in enumerate(letters)]
    assert all(await asyncio.gather(*appends))
    await pass_time(0.1)
    (value,) = set(zones.values("k").values())
    assert sorted(value) == sorted(letters)


@on_zones()
async def test_counters(zones):
    """Add and subtract, never below 0, around at 2^64; every zone gets the number."""
    cache = await zones.ready()
    assert await cache.incr("n") is None
    assert await cache.decr("n") is None
    assert zones.values("n") == NOWHERE
    assert await cache.incr("n", 7, initial=5, ttl=100, consistency="all") == 5
    assert zones.values("n") == everywhere(5)
    assert {zones.held("n", zone).ttl for zone in "abc"} == {100}
    assert await cache.incr("n", 7, consistency="all") == 12
    assert await cache.decr("n", 3, consistency="all") == 9
    assert {zones.held("n", zone).raw.value for zone in "abc"} == {b"9"}, "no zone keeps memcached's padding"
    assert await cache.decr("n", 100, consistency="all") == 0
    assert await cache.incr("n", 2**64 - 1, consistency="all") == 2**64 - 1
    assert await cache.incr("n", 2, consistency="all") == 1
    assert await cache.incr("n", 0, consistency="all") == 1
    assert await cache.get("n") == 1
    assert zones.values("n") == everywhere(1)
    assert len(set(zones.stored_versions("n").values())) == 1
    assert zones.stored_versions("n")["a"] is not None
    assert sorted(zones.held("n", zone).ttl for zone in "abc") == [98, 98, 100], "no copy outlives what was decided"


@pytest.mark.parametrize("ttl", [math.inf, 40 * DAY])
@on_zones()
async def test_counters_keep_their_time_to_live(zones, ttl):
    """Copies have the seconds that are left where it was decided, for ever and over 30 days too."""
    cache = await zones.ready()
    await cache.incr("n", initial=9, ttl=ttl, consistency="all")
    assert await cache.incr("n", consistency="all") == 10
    for zone in "abc":
        left = zones.held("n", zone).ttl
        assert left is None if ttl == math.inf else left == pytest.approx(ttl, abs=2)


@on_zones()
async def test_a_counter_over_a_tombstone(zones):
    """What was deleted is absent: None, or the initial value."""
    cache = await zones.ready()
    await cache.set("n", 5, consistency="all")
    await cache.delete("n", consistency="all")
    assert await cache.incr("n") is None
    assert zones.values("n") == everywhere(TOMBSTONE)
    assert await cache.decr("n", initial=3, ttl=50, consistency="all") == 3
    assert zones.values("n") == everywhere(3)
    assert {zones.held("n", zone).ttl for zone in "abc"} == {50}
    assert await cache.incr("n", consistency="all") == 4


@pytest.mark.parametrize("value", ["text", "5", b"5", [1], -7, b"\0", True, 2.5, None])
@on_zones()
async def test_what_is_no_counter(zones, value):
    """An error that says so, which is not "unavailable", since the zone did answer; and the value stays."""
    cache = await zones.ready()
    await cache.set("n", value, consistency="all")
    with pytest.raises(ServerError, match="not a counter"):
        await cache.incr("n")
    with pytest.raises(ServerError, match="not a counter"):
        await cache.incr("n", initial=1)
    assert zones.values("n") == everywhere(value)


@on_zones()
async def test_concurrent_counting_loses_nothing(zones):
    """Every increment of every client is counted, and each sees another number."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].incr("n", initial=0, consistency="all")
    numbers = await asyncio.gather(*(clients[number % 3].incr("n", consistency="all") for number in range(60)))
    assert sorted(numbers) == list(range(1, 61))


@on_zones()
async def test_a_counter_is_told_although_copies_are_missing(zones):
    """The number has been decided: too few copies are no reason to hide it from a caller who would count again."""
    cache = await zones.ready()
    zone = await coordinator_of(zones, cache, "n")
    await zones.kill(*(set("abc") - {zone}))
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.incr("n", consistency="all") == 2


# Other kinds of servers and clients.


@pytest.mark.parametrize("options", [{"versions": "1.6.18"}, {"versions": OLD}, {}])
@pytest.mark.parametrize("interop", [True, False])
def test_every_operation_on_every_kind_of_server(options, interop):
    """Old servers, new ones, a mix, and namespaces that others write too: all operations do what they say."""

    @on_zones(**options)
    async def main(zones):
        versions = {zone: options.get("versions", "1.6.38") for zone in "abc"}
        versions |= options["versions"] if isinstance(options.get("versions"), dict) else {}
        versioned = not interop and "1.6.38" in versions.values()
        cache = await zones.ready(interop=interop)
        result = await cache.set("k", "v", ttl=60, consistency="all")
        assert result.zones == STORED
        assert (result.version is not None) is versioned
        for zone in "abc":
            held = zones.held("k", zone)
            assert (held.value, held.ttl) == ("v", 60)
            assert held.version == (result.version if versions[zone] == "1.6.38" and not interop else None)
        assert await cache.get("k") == "v"
        assert await cache.get("k", consistency="all") == "v"
        assert await cache.get_many(["k", "absent"]) == {"k": "v"}
        assert await cache.touch("k", 500, consistency="all")
        assert {zones.held("k", zone).ttl for zone in "abc"} == {500}
        assert await cache.get_and_touch("k", 600) == "v"
        assert not await cache.add("k", "w")
        assert await cache.replace("k", "w", consistency="all")
        assert await cache.append("k", "x", consistency="all")
        assert await cache.prepend("k", "<", consistency="all")
        assert zones.values("k") == everywhere("<wx")
        item = await cache.get_item("k", for_update=True)
        assert await cache.cas("k", "y", item, consistency="all")
        assert set((await cache.cas("k", "z", item, consistency="all")).zones.values()) == {Outcome.EXISTS}
        assert zones.values("k") == everywhere("y")
        deleted = await cache.delete("k", consistency="all")
        assert deleted
        assert await cache.get("k") is None
        assert await cache.get("k", consistency="all") is None
        for zone in "abc":
            keeps = versions[zone] == "1.6.38" and not interop
            assert zones.values("k")[zone] == (TOMBSTONE if keeps else None)
        assert set((await cache.cas("k", "z", item)).zones.values()) == {Outcome.NOT_FOUND}
        assert not await cache.replace("k", "z")
        assert not await cache.append("k", "z")
        assert await cache.delete("k", consistency="all")
        assert await cache.add("k", "again", consistency="all")
        assert zones.values("k") == everywhere("again")
        assert await cache.incr("n", initial=9, consistency="all") == 9
        assert await cache.incr("n", consistency="all") == 10
        assert await cache.decr("n", 4, consistency="all") == 6
        assert all(await cache.set_many({"x": b"1" * 2000, "y": 2}, consistency="all"))
        assert await cache.get_many(["x", "y"], consistency="all") == {"x": b"1" * 2000, "y": 2}
        assert all((await cache.delete_many(["x", "y"], consistency="all")).values())
        assert await cache.get_many(["x", "y"]) == {}

    main()


@on_zones(versions="1.6.18")
async def test_cas_on_old_servers_needs_an_item_from_the_zone_that_decides(zones):
    """An item of another zone has a token that says nothing there: the error says how to read it."""
    cache = await zones.ready(local_zone="a")
    refused = 0
    for number in range(12):
        key = f"k{number}"
        await cache.set(key, 1, consistency="all")
        item = await cache.get_item(key)
        if item.zone == (await cache.get_item(key, for_update=True)).zone:
            assert await cache.cas(key, 2, item)
            continue
        refused += 1
        with pytest.raises(InvalidArgument, match="for_update=True") as caught:
            await cache.cas(key, 2, item)
        assert caught.value.argument == "expected"
    assert 0 < refused < 12


@on_zones(versions="1.6.18")
async def test_deletes_on_old_servers_say_what_was_there(zones):
    """Without tombstones the item is removed; a key that was not there is as good as deleted."""
    cache = await zones.ready()
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "b")
    result = await cache.delete("k", consistency="all")
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.NOT_FOUND, "c": Outcome.STORED}
    assert result
    assert zones.values("k") == NOWHERE


@on_zones(versions=OLD)
async def test_in_a_mix_the_newest_version_wins_where_there_are_some(zones):
    """Two zones keep versions, one does not: reads at `all` return the newest, and the old server is left alone."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    kept = zones.held("k", "b").raw
    newest = await cache.set("k", "new", consistency="all")
    zones.one("b").store.link(kept, kept.cas)
    zones.evict("k", "a")
    assert await cache.get("k", consistency="all") == "new"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "new", "c": "new"}
    assert zones.stored_versions("k") == {"a": None, "b": newest.version, "c": newest.version}


@on_zones(cas_enabled=False)
async def test_servers_without_cas(zones):
    """What has to compare is refused with `Unsupported`, which names the node; all else works without versions."""
    cache = await zones.ready()
    result = await cache.set("k", "v", consistency="all")
    assert result.zones == STORED
    assert result.version is None
    assert (await cache.get_item("k")).version is None
    item = await cache.get_item("k", for_update=True)
    for call in (
        lambda: cache.cas("k", "w", item),
        lambda: cache.cas("k", "w", 0),
        lambda: cache.cas("k", "w", 5),
        lambda: cache.replace("k", "w"),
        lambda: cache.append("k", "w"),
        lambda: cache.prepend("k", "w"),
    ):
        with pytest.raises(Unsupported) as caught:
            await call()
        assert caught.value.node == f"{item.zone}0:11211"
    assert zones.values("k") == everywhere("v")
    assert not await cache.add("k", "w")
    assert await cache.delete("k", consistency="all")
    assert await cache.add("k", "w", consistency="all")
    assert zones.values("k") == everywhere("w")
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.touch("k", 5, consistency="all")


@on_zones()
async def test_interop_writes_what_others_can_read(zones):
    """No versions, no tombstones, no hashed keys: plain stores and deletes."""
    cache = await zones.ready(interop=True)
    result = await cache.set("k", "v", consistency="all")
    assert result.version is None
    assert zones.all_commands() == everywhere({"ms": 1})
    assert (await cache.get_item("k")).version is None
    await cache.delete("k", consistency="all")
    assert zones.values("k") == NOWHERE
    assert zones.commands("b")["md"] == 1
    with pytest.raises(InvalidArgument, match="hashing"):
        await cache.set("x" * 300, 1)


class Hexadecimal(Codec):
    """A codec of a user."""

    def encode(self, value):
        return b"%x" % value, 77

    def decode(self, data, flags):
        return int(data, 16)


@pytest.mark.parametrize(
    ("codec", "interop", "expected"),
    [
        (None, False, (b"300", FLAG_INT)),
        (None, True, (b"\x01\x2c", FLAG_INT32)),
        (StandardCodec(compress_over=100), False, (b"300", FLAG_INT)),
        (StandardCodec(compress_over=100), True, (b"\x01\x2c", FLAG_INT32)),
        (StandardCodec(packed_ints=True), False, (b"\x01\x2c", FLAG_INT32)),
        (Hexadecimal(), True, (b"12c", 77)),
    ],
)
@on_zones()
async def test_int_when_interop_is_what_jvm_clients_read(zones, codec, interop, expected):
    """Every operation that stores a value packs ints with `interop`, as digits without it; a user's codec is left alone."""
    cache = await zones.ready(interop=interop, codec=codec, write_consistency="all")

    async def load():
        return 300

    async def load_many(keys):
        return dict.fromkeys(keys, 300)

    await cache.set("set", 300)
    await cache.add("add", 300)
    await cache.set_many({"set_many": 300})
    await cache.set("replace", "x" if type(codec) is not Hexadecimal else 1)
    await cache.replace("replace", 300)
    await cache.get_or_load("load", load)
    await cache.get_or_load_many(["load_many"], load_many)
    await asyncio.sleep(0.1)
    for key in ("set", "add", "set_many", "replace", "load", "load_many"):
        stored = zones.one("b").store.get(full(key))
        assert (stored.value, stored.flags) == expected, key
        assert await cache.get(key) == 300


@pytest.mark.parametrize("per_call", [True, False])
@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_order_of_arrival(zones, per_call, size):
    """One plain store for each zone, with a version, and the last to arrive wins even when it is older."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    await ahead.set("k", "newer", consistency="all")
    cache = await zones.ready(**({} if per_call else {"ordering": "arrival"}))
    zones.forget()
    result = await cache.set("k", b"x" * size, consistency="all", **({"ordering": "arrival"} if per_call else {}))
    assert result.zones == STORED
    assert zones.all_commands() == everywhere({"ms": 1})
    assert zones.values("k") == everywhere(b"x" * size)
    assert zones.stored_versions("k") == everywhere(result.version)
    guarded = await cache.set("j", 1, ordering="newest", consistency="all")
    assert guarded.zones == STORED
    assert zones.commands("a")["ms"] == 4


@on_zones()
async def test_nothing_is_sent_of_many_when_one_cant_be_encoded(zones):
    """All values are encoded before any is sent."""
    cache = await zones.ready()
    with pytest.raises(EncodeError):
        await cache.set_many({"k": 1, "j": object()})
    assert zones.all_commands() == everywhere({})


@on_zones()
async def test_versions_travel_inverted(zones):
    """What goes out as CAS is the version's complement, and is the same in every zone."""
    cache = await zones.ready()
    result = await cache.set("k", "v", consistency="all")
    for zone in "abc":
        assert b" E%d " % cas_of(result.version) in zones.wire(zone)
