"""`get_or_load` in one process: what callers get, what is kept and for how long, and what is refused."""

import asyncio
import math
from datetime import timedelta

import pytest

from evcache import NearCache
from evcache.load_policy import Loaded, LoadPolicy
from tests.support.memory_zones import Stopwatch, full, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import (
    ABSENT,
    Source,
    assert_nothing_left,
    no_stubs,
    seen,
)
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)

# One process.


@on_zones()
async def test_what_is_there_is_not_loaded(zones):
    cache, source = await zones.ready(), Source()
    await cache.set("k", "there")
    assert await cache.get_or_load("k", source.load) == "there"
    assert source.calls == 0


@on_zones()
async def test_one_loader_for_a_thousand_callers(zones):
    """Every zone holds the result of the loader before any caller gets it."""
    cache, source = await zones.ready(), Source({"a": [1]}, seconds=0.5)
    watch = Stopwatch()
    values = await asyncio.gather(*(cache.get_or_load("k", source.load) for _ in range(1000)))
    assert seen(zones, "k") == dict.fromkeys("abc", {"a": [1]})
    assert source.calls == 1
    assert watch.seconds == 0.5
    assert values == [{"a": [1]}] * 1000
    assert await cache.get_or_load("k", source.load) == {"a": [1]}
    assert source.calls == 1
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones()
async def test_each_caller_has_its_own_copy(zones):
    """A change that one caller makes to its value is not visible to other waiting callers or to later readers."""
    cache = await zones.ready(near_cache=NearCache())
    source = Source({"a": [1]}, seconds=0.1)
    own = source.value
    values = await asyncio.gather(*(cache.get_or_load("k", source.load) for _ in range(3)))
    values[0]["a"].append(2)
    values[0]["b"] = 1
    own["a"].append(3)
    assert values[1] == values[2] == {"a": [1]}
    assert await cache.get_or_load("k", source.load) == {"a": [1]}
    assert await cache.get("k") == {"a": [1]}


@pytest.mark.parametrize("value", [0, 1, -1, 2**60, 1.5, "", "text", b"", b"bytes", True, False, [], {}])
@on_zones(zones=2)
async def test_any_value_will_do(zones, value):
    """Those that are false are values, and not absences."""
    cache, other, source = await zones.ready(), await zones.ready(local_zone="b"), Source(value)
    for _ in range(2):
        got = await cache.get_or_load("k", source.load)
        assert got == value
        assert type(got) is type(value)
    assert source.calls == 1
    assert await other.get("k", "nothing") == value


@on_zones()
async def test_other_keys_are_other_loads(zones):
    cache = await zones.ready()
    sources = {key: Source(key, seconds=0.1) for key in "xyz"}
    watch = Stopwatch()
    assert await asyncio.gather(*(cache.get_or_load(key, source.load) for key, source in sources.items())) == list("xyz")
    assert watch.seconds == 0.1
    assert [source.calls for source in sources.values()] == [1, 1, 1]


@on_zones(zones=2)
async def test_a_key_is_the_same_as_str_and_bytes(zones):
    cache, source = await zones.ready(), Source(seconds=0.1)
    await asyncio.gather(cache.get_or_load("k", source.load), cache.get_or_load(b"k", source.load))
    assert source.calls == 1


@on_zones(zones=2)
async def test_any_awaitable_will_do(zones):
    """A lambda that calls an async function, or one that returns a future."""
    cache, source = await zones.ready(), Source()
    future = asyncio.get_running_loop().create_future()
    future.set_result("w")
    assert await cache.get_or_load("a", lambda: source.load()) == "v"
    assert await cache.get_or_load("b", lambda: future) == "w"


@on_zones(zones=2)
async def test_a_loader_may_load(zones):
    """Another key, through the same client; also when there is one slot only."""
    cache = await zones.ready(max_loads=1)

    async def outer():
        return await cache.get_or_load("inner", Source("deep").load) + "er"

    assert await cache.get_or_load("outer", outer) == "deeper"
    assert seen(zones, "inner") == {"a": "deep", "b": "deep"}
    await assert_nothing_left(cache)


# What is kept.


@on_zones(zones=2)
async def test_values_are_stored_as_they_are(zones):
    """So that any client can read them, for as long as the call says."""
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    await cache.get_or_load("k", Source("v").load, ttl=100, policy=EXACT)
    for zone in "ab":
        held = zones.held("k", zone)
        assert (held.raw.value, held.raw.flags, held.ttl) == (b"v", 0, 100)
        assert held.version is not None
    assert await other.get("k") == "v"


@pytest.mark.parametrize(
    ("ttl", "loaded", "kept"),
    [
        (None, None, 900),
        (60, None, 60),
        (timedelta(minutes=1), None, 60),
        (0.5, None, 1),
        (math.inf, None, None),
        (60, 5, 5),
        (60, 600, 600),
        (60, 0.5, 1),
        (60, math.inf, None),
    ],
)
@on_zones(zones=2)
async def test_how_long_it_lives(zones, ttl, loaded, kept):
    """As the client says, or the call, or the loader."""
    cache = await zones.ready()
    source = Source("v" if loaded is None else Loaded("v", ttl=loaded))
    assert await cache.get_or_load("k", source.load, ttl=ttl, policy=EXACT) == "v"
    assert [zones.held("k", zone).ttl for zone in "ab"] == [kept, kept]


@pytest.mark.parametrize("value", ["v", None])
@on_zones(zones=2)
async def test_what_has_no_time_to_live_is_not_kept(zones, value):
    """All callers that wait for the load get its error. The next caller loads again."""
    cache = await zones.ready(near_cache=NearCache())
    source = Source(Loaded(value, ttl=0), seconds=0.1)
    assert await asyncio.gather(*(cache.get_or_load("k", source.load) for _ in range(3))) == [value] * 3
    assert source.calls == 1
    assert seen(zones, "k") == {"a": None, "b": None}
    assert no_stubs(zones)
    assert await cache.get_or_load("k", source.load) == value
    assert source.calls == 2


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999999])
@pytest.mark.parametrize("settings", [{}, {"stale_while_revalidate": 10}])
@on_zones(zones=2)
async def test_jitter_makes_lives_shorter_and_never_longer(zones, monkeypatch, draw, settings):
    """By up to its share of the time to live, at random."""
    cache = await zones.ready()
    load_context = cache._runtime.read_through._loader._context
    monkeypatch.setattr(type(load_context), "draw", property(lambda _: lambda: draw))
    await cache.get_or_load("k", Source("v").load, ttl=1000, policy=LoadPolicy(jitter=0.2, **settings))
    whole = 1000 * (1 - 0.2 * draw)
    # A value with an envelope is stored for one more second, because servers drop items up to a second early.
    stays = whole + settings["stale_while_revalidate"] + 1 if settings else whole
    assert zones.one("a").store.get(full("k")).expires_at - asyncio.get_running_loop().time() == math.ceil(stays)
    assert (await cache.get_item("k")).ttl == pytest.approx(whole, abs=1)


@on_zones(zones=2)
async def test_lives_differ(zones):
    """What was loaded together does not go together."""
    cache = await zones.ready()
    for number in range(50):
        await cache.get_or_load(f"k{number}", Source().load, ttl=100_000)
    ttls = {zones.held(f"k{number}", "a").ttl for number in range(50)}
    assert len(ttls) > 25
    assert all(90_000 <= ttl <= 100_000 for ttl in ttls)


# Absences.


@on_zones(zones=2)
async def test_that_there_is_nothing_is_remembered_by_all(zones):
    """For `negative_ttl`; plain reads see nothing either, and their default is returned."""
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    source = Source(None, seconds=0.1)
    assert await asyncio.gather(*(cache.get_or_load("k", source.load, policy=EXACT) for _ in range(3))) == [None] * 3
    assert await other.get_or_load("k", source.load, policy=EXACT) is None
    assert source.calls == 1
    assert await other.get("k", "default") == "default"
    assert await other.get_item("k") is None
    assert await other.get_many(["k"]) == {}
    assert await other.get_and_touch("k", 10, "default") == "default"
    assert seen(zones, "k") == {"a": ABSENT, "b": ABSENT}
    await pass_time(9)
    source.value = "born"
    assert await other.get_or_load("k", source.load, policy=EXACT) is None
    await pass_time(1.1)
    assert await other.get_or_load("k", source.load, policy=EXACT) == "born"


@pytest.mark.parametrize(
    ("ttl", "negative_ttl", "kept"), [(900, 10, 10), (5, 10, 5), (900, 0.5, 1), (900, 0, None), (math.inf, 20, 20)]
)
@on_zones(zones=2)
async def test_how_long_an_absence_is_remembered(zones, ttl, negative_ttl, kept):
    """Never longer than a value; 0: not at all."""
    cache = await zones.ready()
    source = Source(None)
    assert await cache.get_or_load("k", source.load, ttl=ttl, policy=LoadPolicy(jitter=0, negative_ttl=negative_ttl)) is None
    held = zones.one("b").store.get(full("k"))
    assert (held and zones.one("b").store.ttl_left(held)) == kept
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_an_absence_that_says_how_long_lives_so_long(zones):
    cache = await zones.ready()
    assert await cache.get_or_load("k", Source(Loaded(None, ttl=77)).load, policy=EXACT) is None
    assert zones.one("a").store.ttl_left(zones.one("a").store.get(full("k"))) == 77


@pytest.mark.parametrize("near_cache", [None, NearCache()])
@pytest.mark.parametrize("write", ["set", "add", "cas", "replace", "incr", "append"])
@on_zones(zones=2)
async def test_an_absence_is_no_item(zones, write, near_cache):
    """What stores where nothing is does so over it; what needs something finds nothing."""
    cache = await zones.ready(near_cache=near_cache)
    source = Source(None)
    await cache.get_or_load("k", source.load)
    if write == "replace":
        assert not await cache.replace("k", "v")
    elif write == "cas":
        assert await cache.get_item("k", for_update=True) is None
    elif write == "append":
        assert not await cache.append("k", "v")
    elif write == "incr":
        assert await cache.incr("k") is None
        assert await cache.incr("k", initial=7) == 7
        assert await cache.get("k", near_cache=False) in (7, "7")
    else:
        assert await getattr(cache, write)("k", "v")
        assert await cache.get("k") == "v"
        assert await cache.get_or_load("k", source.load) == "v"
    assert source.calls == 1


# The near cache.


@on_zones(zones=2)
async def test_what_was_loaded_is_in_the_near_cache(zones):
    """Values and absences; until their time there is over."""
    cache = await zones.ready(near_cache=NearCache(ttl=30))
    follow_loop(cache)
    source, nothing = Source([1]), Source(None)
    await cache.get_or_load("k", source.load, ttl=100)
    await cache.get_or_load("nothing", nothing.load, ttl=100)
    zones.forget()
    for _ in range(3):
        assert await cache.get_or_load("k", source.load, ttl=100) == [1]
        assert await cache.get_or_load("nothing", nothing.load, ttl=100) is None
        assert await cache.get("k") == [1]
    assert (zones.wire("a"), source.calls, nothing.calls) == (b"", 1, 1)
    assert await cache.get_or_load("k", source.load, ttl=100, near_cache=False) == [1]
    assert zones.commands("a") == {"mg": 1}


@on_zones(zones=2)
async def test_the_near_cache_serves_nothing_out_of_date(zones):
    """An item that its servers keep for longer is not kept for longer there."""
    cache = await zones.ready(near_cache=NearCache(ttl=300))
    follow_loop(cache)
    source = Source("old")
    for key, policy in (("stale", STALE), ("safe", FAIL_SAFE)):
        await cache.get_or_load(key, source.load, ttl=10, policy=policy)
        await pass_time(9)
        assert await cache.get(key) == "old"
        await pass_time(1.1)
        assert await cache.get(key) is None


@on_zones(zones=2)
async def test_a_near_value_is_loaded_anew_after_its_soft_time(zones):
    """Though it is read from memory alone."""
    cache, source = await zones.ready(near_cache=NearCache(ttl=300)), Source("old")
    follow_loop(cache)
    await cache.get_or_load("k", source.load, ttl=100, policy=EXACT)
    source.value = "new"
    await pass_time(81)
    assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "old"
    await settle()
    assert await cache.get_or_load("k", source.load, ttl=100, policy=EXACT) == "new"
