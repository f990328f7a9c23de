"""Reads, on three zones in memory: who is asked, what is returned, what is repaired, and how long it takes at most."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError, DecodeError, InvalidTopology, Item, Outcome
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from tests.support.memory_zones import TOMBSTONE, Listener, Stopwatch, full, on_zones, pass_time

NOBODY = {"a": {}, "b": {}, "c": {}}


def asked(zones):
    """The zones that got any command."""
    return {zone for zone, commands in zones.all_commands().items() if commands}


# One zone.


@on_zones()
async def test_a_local_hit_asks_no_other_zone(zones):
    """By default a hit in this zone is one command there and nothing elsewhere."""
    cache = await zones.ready()
    await cache.set("k", "value")
    zones.forget()
    assert await cache.get("k") == "value"
    await pass_time()
    assert zones.all_commands() == NOBODY | {"a": {"mg": 1}}


@on_zones()
async def test_a_miss_falls_back(zones):
    """What this zone lacks is looked for in the others, one after the other."""
    cache = await zones.ready()
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    assert zones.all_commands() == dict.fromkeys("abc", {"mg": 2})
    await cache.set("k", "value")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k") == "value"
    commands = zones.all_commands()
    assert commands["a"]["mg"] == 1
    assert sum("mg" in commands[zone] for zone in "bc") == 1


@pytest.mark.parametrize("per_call", [True, False])
@on_zones()
async def test_without_fallback_on_miss_a_local_miss_is_final(zones, per_call):
    """Where misses are common and zones are far apart, a caller may say that the local answer will do."""
    cache = await (zones.ready() if per_call else zones.ready(fallback_on_miss=False))
    call = {"fallback_on_miss": False} if per_call else {}
    await cache.set("k", "value")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k", **call) is None
    assert await cache.get_item("k", **call) is None
    assert await cache.get_many(["k"], **call) == {}
    assert asked(zones) == {"a"}
    assert await cache.get("k", fallback_on_miss=True) == "value"


@on_zones()
async def test_without_fallback_on_miss_a_failure_still_falls_back(zones):
    """`fallback_on_miss` is about misses only."""
    cache = await zones.ready(fallback_on_miss=False)
    await cache.set("k", "value")
    await zones.kill("a")
    assert await cache.get("k") == "value"
    assert await cache.get_many(["k"]) == {"k": "value"}


@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_a_failure_falls_back_within_the_deadline(zones, how):
    """A dead zone costs no time, one that hangs no more than its share; the value comes from another zone."""
    cache = await zones.ready(read_timeout=0.3)
    await cache.set("k", "value", consistency="all")
    if how == "kill":
        await zones.kill("a")
    else:
        zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k") == "value"
    assert watch.seconds == (0 if how == "kill" else pytest.approx(0.1))


@on_zones()
async def test_the_order_of_fallback_differs_from_client_to_client(zones):
    """The load of a dead zone is spread over the others, and one client always asks in the same order."""
    seconds = set()
    writer = await zones.ready()
    await writer.set("k", "value", consistency="all")
    zones.pause("a")
    for _ in range(20):
        cache = zones.client(read_timeout=0.3)
        zones_of_client = {(await cache.get_item("k")).zone for _ in range(3)}
        assert len(zones_of_client) == 1
        seconds |= zones_of_client
    assert seconds == {"b", "c"}


@on_zones()
async def test_without_a_local_zone_reads_are_spread(zones):
    """Clients that are in no zone begin in different ones."""
    firsts = set()
    for _ in range(30):
        cache = await zones.ready(local_zone=None)
        await cache.get("k", fallback_on_miss=False)
        firsts |= asked(zones)
    assert firsts == {"a", "b", "c"}


@on_zones()
async def test_a_tombstone_is_an_authoritative_miss(zones):
    """A zone that knows of a delete does not look further: others may still hold what was deleted."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause("b", "c")
    await cache.delete("k", consistency="one", timeout=0.01)
    await pass_time(0.1)
    zones.forget()
    assert zones.values("k") == {"a": TOMBSTONE, "b": "value", "c": "value"}
    assert await cache.get("k") is None
    assert await cache.get_item("k") is None
    assert await cache.get_many(["k"]) == {}
    assert all(not packets for zone, packets in zones.sent.items() if zone != "a")


@pytest.mark.parametrize("stub", [b"", None])
@on_zones()
async def test_a_stub_of_a_lease_is_a_miss(zones, stub):
    """An empty item that says "somebody is computing this" is no value: other zones are asked, and nothing is raised."""
    cache = await zones.ready()
    if stub is None:  # a stub whose right to compute was taken by somebody else already
        zones.one("a").session().receive(b"mg %b N30 v\r\n" % full("k"))
    line = b"mg %b v N30\r\n" % full("k")
    assert zones.one("a").session().receive(line).startswith(b"VA 0")
    assert await cache.get("k") is None
    assert await cache.get_many(["k"]) == {}
    assert await cache.get("k", consistency="all") is None
    assert await cache.get_item("k") is None
    await cache.set("k", "elsewhere", consistency="all")
    zones.evict("k", "a")
    zones.one("a").session().receive(line)
    assert await cache.get("k") == "elsewhere"


@on_zones()
async def test_an_empty_value_is_a_value(zones):
    """Neither an empty str nor None is mistaken for a miss."""
    cache = await zones.ready()
    for value in ("", b"", None, 0, False, []):
        await cache.set("k", value)
        assert await cache.get("k", "default") == value
        assert await cache.get_many(["k"]) == {"k": value}
        assert (await cache.get_item("k")).value == value


# Repair.


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_a_miss_is_repaired_with_the_time_that_is_left(zones, read):
    """A zone that missed gets the value, its version and the seconds that the original has left, in the background."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    result = await cache.set("k", {"v": 1}, ttl=100, consistency="all")
    zones.evict("k", "a")
    await pass_time(40)
    if read == "get_many":
        assert await cache.get_many(["k"]) == {"k": {"v": 1}}
    else:
        assert await getattr(cache, read)("k")
    assert zones.held("k", "a") is None  # the caller does not wait for it
    await pass_time()
    held = zones.held("k", "a")
    assert held.value == {"v": 1}
    assert held.version == result.version
    assert held.ttl == zones.held("k", "b").ttl - 2, "it ends before the original does"
    assert not held.raw.stale


@on_zones()
async def test_the_hook_is_told_which_zone_was_repaired(zones):
    """`repaired` names the zone, as every other hook does."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert listener.repairs == [("a", Outcome.STORED)]


@on_zones()
async def test_an_item_that_never_expires_is_repaired_as_such(zones):
    """No TTL stays no TTL."""
    cache = await zones.ready()
    await cache.set("k", 1, ttl=float("inf"), consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == 1
    await pass_time()
    assert zones.held("k", "a").ttl is None
    assert zones.held("k", "a").value == 1


@on_zones()
async def test_over_30_days_left_are_repaired_as_such(zones):
    """A copy of an item that has 40 days left has nearly as many, though servers take large numbers for dates."""
    cache = await zones.ready()
    await cache.set("k", 1, ttl=40 * 86400, consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert zones.held("k", "b").ttl - zones.held("k", "a").ttl == 2


@on_zones()
async def test_a_repair_does_not_bring_back_what_was_deleted_meanwhile(zones):
    """A delete that comes between the read and the repair wins."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    found = asyncio.create_task(cache.get("k"))
    deleted = asyncio.create_task(cache.delete("k", consistency="all"))
    await asyncio.gather(found, deleted)
    await pass_time()
    assert set(zones.values("k").values()) == {TOMBSTONE}


@on_zones()
async def test_nothing_is_repaired_without_versions(zones):
    """With other kinds of clients around nobody can say what is newer, so nothing is copied."""
    cache = await zones.ready(interop=True)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k") == "value"
    assert await cache.get("k", consistency="all") == "value"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "value", "c": "value"}


@on_zones(versions="1.6.18")
async def test_nothing_is_repaired_on_servers_without_versions(zones):
    """The same on servers that can't keep versions."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == "value"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "value", "c": "value"}


@on_zones()
async def test_items_of_other_clients_are_read_and_not_repaired(zones):
    """An item with a small CAS has no version: it is returned, and copied nowhere."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"theirs", 0, "b")
    assert await cache.get("k") == "theirs"
    assert (await cache.get_item("k")).version is None
    assert await cache.get("k", consistency="all") == "theirs"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "theirs", "c": None}


@on_zones()
async def test_repairs_are_bounded(zones):
    """A zone that came back empty is not sent everything at once; what was left out is repaired by later reads."""
    cache = await zones.ready()
    keys = [f"k{number}" for number in range(200)]
    await cache.set_many(dict.fromkeys(keys, "v"), consistency="all")
    for key in keys:
        zones.evict(key, "a")
    assert len(await cache.get_many(keys)) == 200
    await pass_time()
    first = sum(zones.held(key, "a") is not None for key in keys)
    assert 0 < first < 200
    for _ in range(4):
        await cache.get_many(keys)
        await pass_time()
    assert all(zones.held(key, "a") is not None for key in keys)


# Several zones.


async def with_zone_behind(zones, cache, old="old", new="new"):
    """Zone a keeps `old`, the others hold `new`: the newer write never reached a."""
    first = await cache.set("k", old, ttl=100, consistency="all")
    kept = zones.held("k", "a").raw
    second = await cache.set("k", new, ttl=200, consistency="all")
    zones.one("a").store.link(kept, kept.cas)
    assert zones.values("k") == {"a": old, "b": new, "c": new}
    return first, second


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_all_returns_the_newest_and_repairs_those_behind(zones, read):
    """With every zone's answer the newest version wins, and older or missing ones are replaced in the background."""
    cache = await zones.ready()
    _, newest = await with_zone_behind(zones, cache)
    zones.evict("k", "c")
    if read == "get_many":
        assert await cache.get_many(["k"], consistency="all") == {"k": "new"}
    elif read == "get_item":
        item = await cache.get_item("k", consistency="all")
        assert (item.value, item.version, item.zone, item.ttl) == ("new", newest.version, "b", 200)
    else:
        assert await cache.get("k", consistency="all") == "new"
    await pass_time()
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)
    assert zones.values("k") == dict.fromkeys("abc", "new")
    assert {zone: zones.held("k", zone).ttl for zone in "abc"} == {"a": 197, "b": 199, "c": 197}


@on_zones()
async def test_a_quorum_of_the_others_knows_better_than_the_local_zone(zones):
    """After a write that a quorum took, a quorum read sees it, whichever zones it hears."""
    cache = await zones.ready()
    await with_zone_behind(zones, cache)
    for paused in "bc":
        zones.pause(paused)
        assert await cache.get("k", consistency="quorum") == "new"
        zones.resume(paused)
        await with_zone_behind(zones, cache)


@on_zones()
async def test_a_newer_tombstone_wins_and_spreads(zones):
    """A delete that some zones missed is a miss to the caller, and reaches them by repair."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    kept = zones.held("k", "a").raw
    deleted = await cache.delete("k", consistency="all")
    zones.one("a").store.link(kept, kept.cas)
    assert await cache.get("k", consistency="all") is None
    assert await cache.get_many(["k"], consistency="all") == {}
    await pass_time()
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
    assert zones.stored_versions("k") == dict.fromkeys("abc", deleted.version)


@pytest.mark.parametrize("options", [{"interop": True}, {}])
@on_zones()
async def test_without_versions_the_majority_wins(zones, options):
    """What most zones hold, and the local zone's value when all differ."""
    cache = await zones.ready(**options)
    for zone, data in zip("abc", (b"x", b"y", b"y"), strict=True):
        zones.write_as_another_client("k", data, 0, zone)
        zones.write_as_another_client("tie", zone.encode(), 0, zone)
    assert await cache.get("k", consistency="all") == "y"
    assert await cache.get("tie", consistency="all") == "a"
    assert await cache.get_many(["k", "tie"], consistency="all") == {"k": "y", "tie": "a"}


@on_zones()
async def test_quorum_needs_no_answer_from_a_slow_zone(zones):
    """A quorum read returns with the answers of the quick ones, at once."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k", consistency="quorum") == "value"
    assert watch.seconds == 0


@on_zones()
async def test_a_quorum_of_misses_is_a_miss(zones):
    """A miss is an answer."""
    cache = await zones.ready()
    await zones.kill("c")
    assert await cache.get("k", "default", consistency="quorum") == "default"


# Errors.


@pytest.mark.parametrize(
    ("consistency", "down", "answered", "required"), [("all", "c", 2, 3), ("all", "bc", 1, 3), ("quorum", "bc", 1, 2)]
)
@pytest.mark.parametrize("operation", ["get", "get_item", "get_many"])
@on_zones()
async def test_too_few_answers(zones, consistency, down, answered, required, operation):
    """`ConsistencyError` says how many answered, how many had to, and why the others did not."""
    cache = await zones.ready()
    await zones.kill(*down)
    call = ["k"] if operation == "get_many" else "k"
    with pytest.raises(ConsistencyError) as caught:
        await getattr(cache, operation)(call, consistency=consistency)
    error = caught.value
    assert (error.answered, error.required) == (answered, required)
    assert error.failures
    assert set(error.failures) <= set(down)
    assert all(isinstance(failure, NodeUnavailable) for failure in error.failures.values())
    assert all(error.failures[zone].node == f"{zone}0:11211" for zone in error.failures)


@pytest.mark.parametrize("consistency", ["one", "quorum", "all"])
@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_no_answer_at_all(zones, consistency, operation, how):
    """`CacheUnavailable` says why, zone by zone, at the deadline at the latest."""
    cache = await zones.ready()
    if how == "kill":
        await zones.kill(*"abc")
    else:
        zones.pause(*"abc")
    call = ["k"] if operation == "get_many" else "k"
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await getattr(cache, operation)(call, consistency=consistency, timeout=0.2)
    assert watch.seconds <= 0.2
    kind = NodeUnavailable if how == "kill" else NodeTimeout
    assert set(caught.value.failures) == {"a", "b", "c"}
    assert all(isinstance(failure, kind) for failure in caught.value.failures.values())
    for zone in "abc":
        assert f"{zone}: {zone}0:11211: " in str(caught.value)


@pytest.mark.parametrize("per_call", [True, False])
@pytest.mark.parametrize("consistency", ["one", "all"])
@on_zones()
async def test_errors_as_misses(zones, per_call, consistency):
    """A client or a call may ask for misses instead of errors; each is told to the hooks."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, **({} if per_call else {"errors": "miss"}))
    await cache.set("k", "value")
    await zones.kill(*("abc" if consistency == "one" else "c"))
    call = {"consistency": consistency, **({"errors": "miss"} if per_call else {})}
    assert await cache.get("k", "default", **call) == "default"
    assert await cache.get_item("k", **call) is None
    assert await cache.get_and_touch("k", 5, "default", **call) == "default"
    assert len(listener.misses) == 3
    await cache.get_many(["k"], **call)
    assert len(listener.misses) == 4
    kind = CacheUnavailable if consistency == "one" else ConsistencyError
    assert all(isinstance(error, kind) for error in listener.misses)
    with pytest.raises(kind):
        await cache.get("k", **call | {"errors": "raise"})


@on_zones()
async def test_errors_as_misses_for_update(zones):
    """`get_item(for_update=True)` heeds `errors` as well."""
    cache = await zones.ready()
    await zones.kill(*"abc")
    assert await cache.get_item("k", for_update=True, errors="miss") is None
    with pytest.raises(CacheUnavailable):
        await cache.get_item("k", for_update=True)


@on_zones()
async def test_a_read_at_none_takes_an_unreachable_cache_for_a_miss(zones):
    """`NONE` asks one zone after the other, and gives up quietly."""
    cache = await zones.ready()
    await cache.set("k", "value")
    assert await cache.get("k", consistency="none") == "value"
    await zones.kill(*"abc")
    assert await cache.get("k", "default", consistency="none") == "default"
    assert await cache.get_many(["k"], consistency="none") == {}


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@on_zones()
async def test_what_cant_be_decoded_is_an_error_that_says_where(zones, operation):
    """Not a miss: the error names the key, the zone and the flags."""
    cache = await zones.ready(errors="miss")
    zones.write_as_another_client("k", b"\xff", 0x4200, "a")
    with pytest.raises(DecodeError) as caught:
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k")
    assert (caught.value.key, caught.value.zone, caught.value.flags) == (full("k"), "a", 0x4200)
    assert "t:k" in str(caught.value)
    await zones.kill("a")
    zones.write_as_another_client("k", b"\xff", 0, "b", "c")
    with pytest.raises(DecodeError) as caught:
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k")
    assert caught.value.zone in {"b", "c"}


# Many keys.


@on_zones(nodes=3)
async def test_get_many_asks_every_node_once(zones):
    """Keys go to their nodes in one batch each, and only in this zone when all hit."""
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(60)}
    await cache.set_many(values, consistency="all")
    zones.forget()
    assert await cache.get_many(list(values)) == values
    assert [dict(fake.commands)["mn"] for fake in zones.servers["a"]] == [1, 1, 1]
    assert sum(fake.commands["mg"] for fake in zones.servers["a"]) == 60
    assert asked(zones) == {"a"}
    assert len(zones.sent["a"]) == 3


@on_zones()
async def test_get_many_asks_once_for_a_key_that_is_given_twice(zones):
    """Duplicates and generators are welcome; no keys are no command."""
    cache = await zones.ready()
    await cache.set_many({"k": 1, "j": 2})
    zones.forget()
    assert await cache.get_many(key for key in ("k", "j", "k", "k")) == {"k": 1, "j": 2}
    assert zones.commands("a") == {"mg": 2, "mn": 1}
    zones.forget()
    assert await cache.get_many([]) == {}
    assert zones.all_commands() == NOBODY


@on_zones()
async def test_get_many_answers_with_the_keys_as_they_were_given(zones):
    """str and bytes keys, plain and hashed, come back as they are."""
    cache = await zones.ready()
    for keys in (["plain", "naïve", "x" * 300], [b"plain", b"\xff\xfe", b"x" * 300]):
        await cache.set_many(dict.fromkeys(keys, "v"))
        assert await cache.get_many([*keys, keys[0] * 2]) == dict.fromkeys(keys, "v")


@on_zones()
async def test_get_many_loses_no_key_that_is_given_as_str_and_as_bytes(zones):
    """Both name the same item, and the caller finds both in the result."""
    cache = await zones.ready()
    await cache.set("k", 1)
    assert await cache.get_many(["k", b"k"]) == {"k": 1, b"k": 1}


@on_zones()
async def test_get_many_asks_the_next_zone_only_for_what_is_missing(zones):
    """Partial misses are filled from other zones, and then repaired."""
    cache = await zones.ready()
    await cache.set_many({f"k{number}": number for number in range(6)}, consistency="all")
    zones.evict("k0", "a")
    zones.evict("k1", "a", "b")
    zones.evict("k2", "a", "c")
    zones.evict("k3", "a", "b", "c")
    zones.forget()
    assert await cache.get_many([f"k{number}" for number in range(6)]) == {
        f"k{number}": number for number in (0, 1, 2, 4, 5)
    }
    reads = {zone: zones.commands(zone).get("mg", 0) for zone in "abc"}
    assert reads["a"] == 6
    assert sorted(reads[zone] for zone in "bc") == [2, 4]
    await pass_time()
    assert [zones.held(f"k{number}", "a") is not None for number in range(6)] == [True, True, True, False, True, True]


@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones(nodes=3)
async def test_get_many_survives_a_node(zones, how):
    """The keys of a node that fails come from the next zone, the others from this one."""
    cache = await zones.ready(read_timeout=0.3)
    values = {f"k{number}": number for number in range(60)}
    await cache.set_many(values, consistency="all")
    broken = zones.servers["a"][1]
    on_broken = sum(zones.held(key, "a") is not None and full(key) in broken.store for key in values)
    assert 0 < on_broken < 60
    zones.forget()
    if how == "kill":
        await broken.kill()
    else:
        broken.pause()
    watch = Stopwatch()
    assert await cache.get_many(list(values)) == values
    assert watch.seconds == (0 if how == "kill" else pytest.approx(0.1))
    assert sum(zones.commands(zone).get("mg", 0) for zone in "bc") == on_broken


@on_zones(nodes=3)
async def test_get_many_with_an_error_hands_over_what_it_has(zones):
    """When some keys had too few answers, the error carries those that did not, and `errors="miss"` returns them."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    values = {f"k{number}": number for number in range(200)}
    await cache.set_many(values, consistency="all")
    lost = {key for key in values if all(full(key) in zones.servers[zone][1].store for zone in "abc")}
    assert 0 < len(lost) < 200
    for zone in "abc":
        await zones.servers[zone][1].kill()
    rest = {key: value for key, value in values.items() if key not in lost}
    with pytest.raises(CacheUnavailable) as caught:
        await cache.get_many(list(values))
    assert caught.value.found == rest
    assert set(caught.value.failures) == {"a", "b", "c"}
    assert await cache.get_many(list(values), errors="miss") == rest
    assert len(listener.misses) == 1


@on_zones(nodes=2)
async def test_get_many_at_all_says_how_few_answered(zones):
    """The least number of answers that any key had."""
    cache = await zones.ready()
    await zones.servers["b"][0].kill()
    with pytest.raises(ConsistencyError) as caught:
        await cache.get_many([f"k{number}" for number in range(20)], consistency="all")
    assert (caught.value.answered, caught.value.required) == (2, 3)
    assert set(caught.value.failures) == {"b"}


# Items.


@on_zones()
async def test_item_fields(zones):
    """An item says its version, seconds left, and where it comes from."""
    cache = await zones.ready()
    result = await cache.set("k", [1], ttl=60, consistency="all")
    await pass_time(10)
    item = await cache.get_item("k")
    assert item == Item(
        value=[1],
        version=result.version,
        ttl=50,
        zone="a",
        source="local",
        stale=False,
        cas_token=2**64 - 1 - result.version,
    )
    zones.evict("k", "a")
    await zones.kill("b")
    item = await cache.get_item("k")
    assert (item.zone, item.source, item.version) == ("c", "fallback", result.version)
    await cache.set("k", 1, ttl=float("inf"))
    assert (await cache.get_item("k")).ttl is None
    assert await cache.get_item("absent") is None


@on_zones()
async def test_a_stale_item_is_marked(zones):
    """An item that another client invalidated is returned, and says so."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.one("a").session().receive(b"md %b I T30\r\n" % full("k"))
    assert (await cache.get_item("k")).stale is True
    assert await cache.get("k") == "value"


@on_zones()
async def test_an_item_for_update_comes_from_the_zone_that_decides(zones):
    """`for_update` reads where a `cas` of the key will be decided, the same zone for every client."""
    first, second = await zones.ready(local_zone="a"), await zones.ready(local_zone="b")
    used = set()
    for number in range(20):
        key = f"k{number}"
        await first.set(key, number, consistency="all")
        one, other = await first.get_item(key, for_update=True), await second.get_item(key, for_update=True)
        assert one.zone == other.zone
        assert one.value == number
        used.add(one.zone)
    assert used == {"a", "b", "c"}
    assert await first.get_item("absent", for_update=True) is None
    await first.delete("k0", consistency="all")
    assert await first.get_item("k0", for_update=True) is None


# Time.


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@pytest.mark.parametrize(("paused", "seconds"), [("a", 0.1), ("ab", None), ("abc", 0.3)])
@on_zones()
async def test_a_call_never_exceeds_its_timeout(zones, operation, paused, seconds):
    """One zone that hangs costs a third of the time with three zones, and all of them no more than all of it."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause(*paused)
    watch = Stopwatch()
    call = getattr(cache, operation)(["k"] if operation == "get_many" else "k", timeout=0.3)
    if len(paused) == 3:
        with pytest.raises(CacheUnavailable):
            await call
    else:
        assert await call
    assert watch.seconds <= 0.3
    if seconds is not None:
        assert watch.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("consistency", "seconds"), [("quorum", 0), ("all", 0.25)])
@on_zones()
async def test_several_answers_by_the_deadline(zones, consistency, seconds):
    """A policy that a hanging zone can still spoil waits for it until the deadline, and not longer."""
    cache = await zones.ready()
    zones.pause("c")
    watch = Stopwatch()
    if consistency == "all":
        with pytest.raises(ConsistencyError) as caught:
            await cache.get("k", consistency=consistency, timeout=0.25)
        assert isinstance(caught.value.failures["c"], NodeTimeout)
    else:
        await cache.get("k", consistency=consistency, timeout=0.25)
    assert watch.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("for_update", [True, False])
@on_zones()
async def test_the_first_call_is_in_time_too(zones, for_update):
    """Connecting counts: a zone that accepts and says nothing costs its share, on the very first call."""
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await zones.client().get_item("k", timeout=0.2, for_update=for_update)
    assert watch.seconds == pytest.approx(0.2)


class SlowSource:
    """A discovery that takes its time."""

    def __init__(self, topology, seconds):
        self._topology = topology
        self._seconds = seconds

    async def load(self):
        await asyncio.sleep(self._seconds)
        return self._topology

    async def watch(self):
        return
        yield


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@on_zones()
async def test_finding_the_zones_counts_towards_the_timeout(zones, operation):
    """A discovery that takes most of the time leaves the rest for the zones, not all of it again."""
    cache = zones.client(zones=SlowSource(zones.topology, 0.15))
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k", timeout=0.2)
    assert watch.seconds <= 0.2


@on_zones()
async def test_a_discovery_that_hangs_is_cache_unavailable(zones):
    """Callers wait for it as long as for anything else, and it goes on for those who come later."""
    cache = zones.client(zones=SlowSource(zones.topology, 0.5))
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await cache.get("k", timeout=0.2)
    assert watch.seconds == pytest.approx(0.2)
    assert await cache.get("k", "default", timeout=0.4) == "default"
    assert watch.seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("operation", "argument", "nothing"),
    [("get", "k", None), ("get_item", "k", None), ("get_many", ["k"], {}), ("get_and_touch", "k", None)],
)
@on_zones()
async def test_a_discovery_that_hangs_is_a_miss_where_errors_are(zones, operation, argument, nothing):
    """`errors="miss"` covers the time before the zones are known."""
    listener = Listener()
    cache = zones.client(zones=SlowSource(zones.topology, 5), errors="miss", hooks=listener)
    assert await getattr(cache, operation)(argument, timeout=0.2) == nothing
    assert len(listener.misses) == 1


@on_zones()
async def test_a_discovery_that_fails_is_tried_again(zones):
    """The first call gets the error of the source; a later one the zones, once there are some."""

    class Source(SlowSource):
        ready = False

        async def load(self):
            if not self.ready:
                raise InvalidTopology("zones", "not yet")
            return self._topology

    source = Source(zones.topology, 0)
    cache = zones.client(zones=source)
    with pytest.raises(InvalidTopology):
        await cache.get("k")
    source.ready = True
    assert await cache.get("k", "default") == "default"


@on_zones()
async def test_a_cancelled_read_disturbs_nobody(zones):
    """Whoever gives up leaves no reply for the next caller, and no connection is lost."""
    cache = await zones.ready()
    await cache.set_many({"k": "k", "j": "j"}, consistency="all")
    made = zones.connections_made()
    zones.pause("a", "b", "c")
    tasks = [asyncio.create_task(cache.get("k", timeout=5)) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    assert all(isinstance(result, asyncio.CancelledError) for result in await asyncio.gather(*tasks, return_exceptions=True))
    zones.resume("a", "b", "c")
    for _ in range(20):
        assert await cache.get("j") == "j"
        assert await cache.get("k") == "k"
    assert zones.connections_made() == made


# Write-only zones, and what the hooks are told.


@on_zones(write_only="c")
async def test_write_only_zones_are_never_read_and_never_count(zones):
    """A zone that is being filled gets no read, and two readable zones are all there are."""
    cache = await zones.ready()
    assert await cache.set("k", "value", consistency="all")
    zones.forget()
    for consistency in ("one", "quorum", "all"):
        assert await cache.get("k", consistency=consistency) == "value"
        assert await cache.get("absent", consistency=consistency) is None
        assert await cache.get_many(["k", "absent"], consistency=consistency) == {"k": "value"}
        assert (await cache.get_item("k", for_update=True)).zone in {"a", "b"}
    assert "mg" not in zones.commands("c")
    zones.evict("k", "a", "b")
    assert await cache.get("k") is None
    await zones.kill("c")
    assert await cache.get("k", consistency="all") is None


@on_zones(write_only="a")
async def test_a_local_zone_that_is_write_only_is_not_read(zones):
    """Reads go to the others, as if this process were in none of them."""
    cache = await zones.ready(local_zone="a")
    await cache.set("k", "value", consistency="all")
    zones.forget()
    assert (await cache.get_item("k")).source == "preferred"
    assert "mg" not in zones.commands("a")


@on_zones()
async def test_the_hook_is_told_of_each_zone_that_was_left_for_another(zones):
    """With the error of a failure, with None for a miss, and not for the last zone, after which there is none."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.get("k")
    assert [error for _, error in listener.left] == [None, None]
    assert listener.left[0][0] == "a"
    listener.left.clear()
    await cache.get_many(["k", "j"])
    assert [error for _, error in listener.left] == [None, None]
    listener.left.clear()
    await cache.set("k", 1, consistency="all")
    await zones.kill("a")
    await cache.get("k")
    ((zone, error),) = listener.left
    assert zone == "a"
    assert isinstance(error, NodeUnavailable)


@on_zones()
async def test_get_and_touch(zones):
    """The value, and a new time to live wherever it is; the caller waits for the value only."""
    cache = await zones.ready()
    await cache.set("k", "value", ttl=50, consistency="all")
    zones.pause("b", "c")
    watch = Stopwatch()
    assert await cache.get_and_touch("k", 500) == "value"
    assert watch.seconds == 0
    await pass_time(0.05)
    assert zones.held("k", "a").ttl == 500
    zones.resume("b", "c")
    await pass_time()
    assert zones.held("k", "a").ttl == 499
    assert {zones.held("k", zone).ttl for zone in "bc"} == {499}
    assert await cache.get_and_touch("absent", default="default") == "default"
    assert zones.values("absent") == dict.fromkeys("abc")


@on_zones()
async def test_get_and_touch_uses_the_clients_ttl(zones):
    """No `ttl` is the client's, as for a write."""
    cache = await zones.ready(ttl=77)
    await cache.set("k", "value", ttl=5, consistency="all")
    assert await cache.get_and_touch("k") == "value"
    await pass_time(0.1)
    assert zones.held("k", "a").ttl == 77


@on_zones()
async def test_get_and_touch_of_a_deleted_key_is_a_miss_that_stays_deleted(zones):
    """A short touch must not let the zones forget a delete."""
    cache = await zones.ready()
    await cache.delete("k", consistency="all")
    assert await cache.get_and_touch("k", 1, "default") == "default"
    await pass_time(2)
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
