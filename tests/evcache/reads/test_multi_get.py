"""Reads of many keys: which nodes are asked for which keys, and the result of partial failures."""

import pytest

from evcache import CacheUnavailable, ConsistencyError
from tests.support.memory_zones import Listener, Stopwatch, full, keys_read, on_zones, pass_time

NOBODY = {"a": {}, "b": {}, "c": {}}


def asked(zones):
    """Return the zones that received a command."""
    return {zone for zone, commands in zones.all_commands().items() if commands}


@on_zones(nodes=3)
async def test_get_many_sends_one_batch_to_each_node(zones):
    """If all keys hit, no other zone is asked."""
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(60)}
    await cache.set_many(values, consistency="all")
    zones.forget()
    assert await cache.get_many(list(values)) == values
    assert [dict(fake.commands) for fake in zones.servers["a"]] == [{"gets": 1, "mn": 1}] * 3
    assert sum(map(keys_read, zones.sent["a"])) == 60
    assert asked(zones) == {"a"}
    assert len(zones.sent["a"]) == 3


@on_zones()
async def test_get_many_asks_once_for_a_repeated_key(zones):
    """The keys may come from a generator. Without keys no command is sent."""
    cache = await zones.ready()
    await cache.set_many({"k": 1, "j": 2})
    zones.forget()
    assert await cache.get_many(key for key in ("k", "j", "k", "k")) == {"k": 1, "j": 2}
    assert zones.commands("a") == {"gets": 1, "mn": 1}
    assert sum(map(keys_read, zones.sent["a"])) == 2
    zones.forget()
    assert await cache.get_many([]) == {}
    assert zones.all_commands() == NOBODY


@on_zones()
async def test_get_many_returns_the_keys_as_given(zones):
    """As str or bytes, also those that are hashed on servers."""
    cache = await zones.ready()
    for keys in (["plain", "naïve", "x" * 300], [b"plain", b"\xff\xfe", b"x" * 300]):
        await cache.set_many(dict.fromkeys(keys, "v"))
        assert await cache.get_many([*keys, keys[0] * 2]) == dict.fromkeys(keys, "v")


@on_zones()
async def test_get_many_returns_a_key_given_as_str_and_as_bytes_twice(zones):
    """Both name one item."""
    cache = await zones.ready()
    await cache.set("k", 1)
    assert await cache.get_many(["k", b"k"]) == {"k": 1, b"k": 1}


@on_zones()
async def test_get_many_asks_the_next_zone_for_missing_keys_only(zones):
    """The client then repairs the zones that missed."""
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
    reads = {zone: sum(map(keys_read, zones.sent[zone])) for zone in "abc"}
    assert reads["a"] == 6
    assert sorted(reads[zone] for zone in "bc") == [2, 4]
    await pass_time()
    assert [zones.held(f"k{number}", "a") is not None for number in range(6)] == [True, True, True, False, True, True]


@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones(nodes=3)
async def test_get_many_reads_the_keys_of_a_failed_node_from_the_next_zone(zones, how):
    """The other keys come from the local zone."""
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
    assert sum(keys_read(packet) for zone in "bc" for packet in zones.sent[zone]) == on_broken


@on_zones(nodes=3)
async def test_get_many_raises_with_the_items_found(zones):
    """If some keys have too few answers, `found` holds the others. With `errors="miss"` they are the result."""
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
async def test_get_many_reports_the_lowest_number_of_answers(zones):
    """Of all keys."""
    cache = await zones.ready()
    await zones.servers["b"][0].kill()
    with pytest.raises(ConsistencyError) as caught:
        await cache.get_many([f"k{number}" for number in range(20)], consistency="all")
    assert (caught.value.answered, caught.value.required) == (2, 3)
    assert set(caught.value.failures) == {"b"}
