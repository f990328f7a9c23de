"""Values that cannot be decoded: an error of a read that costs no other key, an absence to loads, and counted."""

import asyncio
import copy
import pickle

import pytest

from evcache import CacheUnavailable, ConsistencyError, DecodeError, Hooks, LoadPolicy, NearCache, StandardCodec
from evcache.values.flags import FLAG_ENVELOPE
from tests.support.memory_zones import full, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import Source, assert_nothing_left, no_stubs, seen
from tests.support.value_types import User
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
FORMS = pytest.mark.parametrize("form", ["flags", "bytes", "shape", "envelope"])


class Newer(StandardCodec):
    """The codec of a later release of a service."""

    def encode(self, value):
        return b"v2" + str(value).encode(), 0x1234


class Torn(StandardCodec):
    """Bytes that are not what their flags say."""

    def encode(self, value):
        return b"\xc1", 0xEC00


class Listener(Hooks):
    def __init__(self):
        self.heard = []

    def decode_failed(self, zone, error):
        self.heard.append((zone, error.key))


async def put(zones, key, form):
    """Store something under a key that a reader of `User` cannot decode."""
    if form == "shape":
        await (await zones.ready()).set(key, ["no user"], consistency="all")
        return
    codec = Torn() if form == "bytes" else Newer()
    await (await zones.ready(codec=codec)).set(key, "new", consistency="all")
    if form == "envelope":
        for fakes in zones.servers.values():
            for fake in fakes:
                if (item := fake.store.get(full(key))) is not None:
                    item.flags = FLAG_ENVELOPE
                    item.value = b"\x09" + bytes(40)  # of a format to come


async def reader(zones, near=False, **options):
    if not near:
        return await zones.ready(**options)
    cache = await zones.ready(near_cache=NearCache(), **options)
    follow_loop(cache)
    await pass_time(6)
    return cache


@FORMS
@pytest.mark.parametrize("near", [False, True])
@on_zones(zones=2)
async def test_reads_of_one_key_raise(zones, form, near):
    """Whatever `errors` says: it is no miss, and the zones did answer. The error names key, zone and flags."""
    listener = Listener()
    cache = await reader(zones, near, hooks=listener)
    await put(zones, "k", form)
    calls = (
        lambda: cache.get("k", 5, as_=User),
        lambda: cache.get("k", 5, as_=User),
        lambda: cache.get("k", 5, errors="miss", as_=User),
        lambda: cache.get("k", as_=User, consistency="all"),
        lambda: cache.get_item("k", as_=User),
        lambda: cache.get_and_touch("k", 60, as_=User),
    )
    for call in calls:
        with pytest.raises(DecodeError) as caught:
            await call()
        error = caught.value
        assert (error.key, error.zone) == (b"t:k", "a")
        assert error.flags == zones.servers["a"][0].store.get(b"t:k").flags
        assert (error.found, error.unreadable) == ({}, ())
    await settle()
    assert cache.stats().decode_errors == len(listener.heard) == len(calls)
    assert set(listener.heard) == {("a", b"t:k")}


@FORMS
@pytest.mark.parametrize("near", [False, True])
@on_zones(zones=2)
async def test_a_key_that_cannot_be_read_costs_no_other(zones, form, near):
    """The values of all others are on the error, and so is which keys these were not."""
    listener = Listener()
    cache = await reader(zones, near, hooks=listener)
    good = {f"k{number}": User(number) for number in range(20)}
    await (await zones.ready()).set_many(good, consistency="all")
    for key in ("k3", "k7"):
        await put(zones, key, form)
    found = {key: user for key, user in good.items() if key not in ("k3", "k7")}
    for times in (1, 2):
        with pytest.raises(DecodeError) as caught:
            await cache.get_many([*good, "nothing", b"k7"], as_=User, errors="miss")
        error = caught.value
        assert error.found == found
        assert sorted(map(str, error.unreadable)) == ["b'k7'", "k3", "k7"]
        assert (error.key, error.zone) == (b"t:k3", "a")
        assert str(error).endswith("(and of 2 more keys)")
        assert cache.stats().decode_errors == len(listener.heard) == 3 * times
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (str(again), again.found, again.unreadable) == (str(error), error.found, error.unreadable)
    assert await cache.get_many(found, as_=User) == found


@on_zones(zones=3)
async def test_too_few_answers_come_first(zones):
    """An outage says less about the keys than a value that cannot be read, so it is what is raised."""
    cache = await zones.ready()
    await cache.set("good", 1, consistency="all")
    await put(zones, "k", "flags")
    await zones.kill("b")
    await zones.kill("c")
    with pytest.raises(ConsistencyError):
        await cache.get_many(["good", "k"], consistency="quorum")
    await zones.kill("a")
    with pytest.raises(CacheUnavailable):
        await cache.get_many(["good", "k"])


@FORMS
@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("lease", [True, False])
@on_zones(zones=2)
async def test_get_or_load_loads_over_it(zones, form, near, lease):
    """Once, in every zone, and for the near cache; it is counted once."""
    listener, source = Listener(), Source(User(1))
    cache = await reader(zones, near, hooks=listener)
    policy = LoadPolicy(jitter=0, lease=lease)
    await put(zones, "k", form)
    if near:
        with pytest.raises(DecodeError):
            await cache.get("k", as_=User)  # and it is in the near cache, if it can be
    heard = len(listener.heard)
    for _ in range(3):
        assert await cache.get_or_load("k", source.load, as_=User, policy=policy) == User(1)
    assert source.calls == 1
    assert 1 <= len(listener.heard) - heard <= 2  # an envelope is read twice
    assert cache.stats().decode_errors == len(listener.heard)
    await settle()
    assert seen(zones, "k") == dict.fromkeys("ab", {"id": 1, "name": "Ada"})
    assert await cache.get("k", as_=User) == User(1)
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@FORMS
@pytest.mark.parametrize("near", [False, True])
@on_zones(zones=2)
async def test_get_or_load_many_loads_over_it(zones, form, near):
    """The loader is asked for these keys alone. Each form of a key gets an object of its own."""
    cache, source = await reader(zones, near), Source({"k1": User(1), "k2": User(2), "none": None})
    await (await zones.ready()).set_many({"good": User(0)}, consistency="all")
    for key in ("k1", "k2"):
        await put(zones, key, form)
    if near:
        with pytest.raises(DecodeError):
            await cache.get_many(["k1", "k2"], as_=User)
    wanted = {"good": User(0), "k1": User(1), b"k1": User(1), "k2": User(2)}
    for _ in range(2):
        found = await cache.get_or_load_many(["good", "k1", b"k1", "k2", "none"], source.load_many, as_=User, policy=EXACT)
        assert found == wanted
        assert list(found) == list(wanted)
        assert found["k1"] is not found[b"k1"]
    assert [key for asked in source.asked for key in asked].count("k1") == 1
    assert not any("good" in asked for asked in source.asked)
    await settle()
    assert seen(zones, "k2") == dict.fromkeys("ab", {"id": 2, "name": "Ada"})
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_many_callers_load_over_it_once(zones):
    cache, source = await zones.ready(), Source(User(1), seconds=0.1)
    await put(zones, "k", "flags")
    users = await asyncio.gather(*(cache.get_or_load("k", source.load, as_=User) for _ in range(20)))
    assert users == [User(1)] * 20
    assert source.calls == 1
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_what_cannot_be_read_is_never_served_in_place_of_an_error(zones):
    """Not by `stale_if_error` either, although it is kept for that."""
    cache, source = await zones.ready(), Source(["no user"])
    policy = LoadPolicy(jitter=0, stale_if_error=60)
    await cache.get_or_load("k", source.load, ttl=5, policy=policy)
    await pass_time(6)
    source.error = LookupError("down")
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load, ttl=5, policy=policy, as_=User)
    assert await cache.get_or_load("k", source.load, ttl=5, policy=policy) == ["no user"]
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_two_releases_that_cannot_read_each_other(zones):
    """Each is served: one loads again what the other has stored."""
    old, new, source = await zones.ready(), await zones.ready(codec=Newer()), Source("old")
    for calls in (1, 2):
        for _ in range(2):
            assert await old.get_or_load("k", source.load, policy=EXACT) == "old"
        assert source.calls == calls
        await new.set("k", 1, consistency="all")


@on_zones(zones=2)
async def test_a_value_that_stays_unreadable_is_an_error_in_the_end(zones):
    """As where another process stores what this one cannot read, each time while this one loads."""
    cache, new, calls = await zones.ready(), await zones.ready(codec=Newer()), 0
    await new.set("k", 1, consistency="all")

    async def load():
        nonlocal calls
        calls += 1
        return "v"

    get = cache._runtime.read_through._content

    async def finds_the_old_one(view, key, asked):
        return await get(view, key, asked._replace(readable=None))

    cache._runtime.read_through._content = finds_the_old_one
    with pytest.raises(DecodeError, match="flags 4660"):
        await cache.get_or_load("k", load)
    assert calls == 0
    assert cache.stats().decode_errors == 2
