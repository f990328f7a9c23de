"""Reads of many keys: which nodes are asked for which keys, and the result of partial failures."""

import pytest

from evcache import CacheUnavailable, ConsistencyError
from tests.support.memory_zones import Listener, Stopwatch, full, on_zones, pass_time

NOBODY = {"a": {}, "b": {}, "c": {}}


def asked(zones):
    """The zones that got any command."""
    return {zone for zone, commands in zones.all_commands().items() if commands}


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
