"""Types of values in the near cache, in loads, with other codecs, and under `@cached`."""

import asyncio
import pickle
from datetime import date
from typing import Any

import msgspec
import pytest

from evcache import DecodeError, EncodeError, NearCache, StandardCodec
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop, kept
from tests.support.sources import Source, assert_nothing_left, seen
from tests.support.value_types import PERSON, STORED, Color, Pair, Person, Point, User, near_client, same
from tests.support.virtual_time import settle

# The near cache.


@on_zones(zones=2)
async def test_the_near_cache_gives_each_caller_the_type_that_it_names(zones):
    cache = await near_client(zones)
    await cache.set("k", Point(1, 2.0), consistency="all")
    for _ in range(2):
        assert same(await cache.get("k"), [1, 2.0])
        assert same(await cache.get("k", as_=Point), Point(1, 2.0))
        assert same(await cache.get("k", as_=tuple[int, float]), (1, 2.0))
        assert same((await cache.get_many(["k"], as_=list[float]))["k"], [1.0, 2.0])
    await cache.set("date", "2026-01-01", consistency="all")
    for number, value in enumerate(("text", b"bytes", 7, 1.5, True)):
        await cache.set(f"s{number}", value, consistency="all")
        assert await cache.get(f"s{number}", as_=type(value)) is await cache.get(f"s{number}", as_=type(value))
    assert kept(cache, "date").data is not None
    assert same(await cache.get("date", as_=date), date(2026, 1, 1))
    assert kept(cache, "date").data is None  # kept as a str, of which other types are made
    assert same(await cache.get("date", as_=date), date(2026, 1, 1))
    assert same((await cache.get_item("date", as_=date)).value, date(2026, 1, 1))
    await cache.set("day", date(2026, 1, 1), consistency="all")
    assert await cache.get("day") == "2026-01-01"
    assert kept(cache, "day").data is None  # the same of what is in MessagePack
    assert same(await cache.get("day", as_=date), date(2026, 1, 1))
    assert await cache.get("day") == "2026-01-01"
    with pytest.raises(DecodeError, match="key b't:date' in zone a, flags 0"):
        await cache.get("date", as_=int)
    assert await cache.get("date") == "2026-01-01"


@on_zones(zones=2)
async def test_near_hits_of_immutable_types_share_one_object(zones):
    """By type: a caller that names another never gets it."""
    cache = await zones.ready(near_cache=NearCache(immutable=(Pair,)))
    follow_loop(cache)
    await pass_time(6)
    await cache.set("k", Pair(1, 2), consistency="all")
    first = await cache.get("k", as_=Pair)
    assert await cache.get("k", as_=Pair) is first
    assert await cache.get("k") == {"a": 1, "b": 2}
    assert same(await cache.get("k", as_=dict[str, float]), {"a": 1.0, "b": 2.0})
    assert await cache.get("k", as_=Pair) is first
    await cache.set("k", Pair(3, 4), consistency="all")
    assert await cache.get("k", as_=Pair) == Pair(3, 4)


# Loads.


async def load_user() -> User:
    return User(1)


async def load_maybe(keys: list) -> dict[str, User | None]:
    return {key: User(1) if key != "none" else None for key in keys}


@on_zones(zones=2)
async def test_a_loader_says_the_type_if_the_caller_does_not(zones):
    """Just loaded, and from the cache."""
    for _ in range(2):
        cache = await zones.ready()
        assert same(await cache.get_or_load("k", load_user), User(1))
        assert same(await cache.get_or_load_many(["a", "none"], load_maybe), {"a": User(1)})
    assert await cache.get("k") == {"id": 1, "name": "Ada"}


@pytest.mark.parametrize("value", [User(1), Point(1), {1}, (1, 2), Color.RED])
@on_zones(zones=2)
async def test_a_loaded_value_never_changes_its_type_unseen(zones, value):
    """Without a type, what would come back as something else is refused and not stored."""
    cache, source = await zones.ready(), Source(value)
    for call in (cache.get_or_load("k", source.load), cache.get_or_load_many(["k"], source.load_many)):
        with pytest.raises(EncodeError, match=f"{type(value).__name__}.*as_="):
            await call
    await settle()
    assert seen(zones, "k") == {"a": None, "b": None}
    for _ in range(2):  # asked for plainly: as the codec makes it
        assert await cache.get_or_load("k", source.load, as_=Any) == StandardCodec().decode(*StandardCodec().encode(value))
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_loader_that_returns_another_type_than_it_says(zones):
    """Its value is not stored: no reader could read it, and each would load again."""
    cache, source = await zones.ready(), Source({"id": "one"})
    with pytest.raises(EncodeError, match="type dict that cannot be read back.*User"):
        await cache.get_or_load("k", source.load, as_=User)
    await settle()
    assert seen(zones, "k") == {"a": None, "b": None}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_callers_of_one_load_may_name_several_types(zones):
    """The load is shared. A caller that cannot read what another one's loader returned loads for itself."""
    cache, source = await zones.ready(), Source(Point(1, 2.0), seconds=0.1)

    async def load_pair():
        return Pair(1, 2)

    point, values, pair = await asyncio.gather(
        cache.get_or_load("k", source.load, as_=Point),
        cache.get_or_load("k", source.load, as_=list[float]),
        cache.get_or_load("k", load_pair, as_=Pair),
    )
    assert same((point, values, pair), (Point(1, 2.0), [1.0, 2.0], Pair(1, 2)))
    assert source.calls == 1
    await assert_nothing_left(cache)


# Codecs of the user's own.


class Pickling:
    def encode(self, value):
        return pickle.dumps(value), 1

    def decode(self, data, flags):
        return pickle.loads(data)


class Json:
    def encode(self, value):
        return msgspec.json.encode(value), 16

    def decode(self, data, flags):
        return msgspec.json.decode(data)


@pytest.mark.parametrize(
    ("codec", "value", "kind"),
    [
        (Json(), User(1), User),
        (Json(), [User(1)], list[User]),
        (Pickling(), User(1), User),
        (Pickling(), [Color.RED], list[Color]),
        (Pickling(), {"a": {1, 2}}, dict[str, set[int]]),
        (Pickling(), PERSON, Person),
        (Pickling(), 1 + 2j, complex),
        (Pickling(), [1 + 2j], list[complex]),
    ],
)
@on_zones(zones=2)
async def test_types_with_a_codec_of_the_users_own(zones, codec, value, kind):
    """What the codec returns is converted if it is not of the type already. It knows which classes it can store."""
    cache = await near_client(zones, codec=codec)
    await cache.set("k", value, consistency="all")
    for _ in range(2):
        assert same(await cache.get("k", as_=kind), value)

    async def load():
        return value

    for _ in range(2):
        assert same(await cache.get_or_load("l", load, as_=kind), value)
    with pytest.raises(DecodeError):
        await cache.get("k", as_=bytes)


# Functions.


@on_zones(zones=2)
async def test_cached_functions_of_every_type(zones):
    cache = await near_client(zones)
    for number, (_, kind, values, _) in enumerate(STORED):

        async def function(which: int, number=number, values=values):
            return values[which]

        function.__annotations__["return"] = kind
        load = cache.cached(key=f"f{number}:{{which}}")(function)
        for _ in range(3):
            for which, value in enumerate(values):
                assert same(await load(which), value)


@on_zones(zones=1)
async def test_without_an_annotation_a_cached_function_returns_what_the_codec_makes(zones):
    cache = await zones.ready()

    @cache.cached(key="k")
    async def load():
        return User(1)

    @cache.cached(key="any")
    async def load_any() -> Any:
        return User(1)

    for function in (load, load_any):
        for _ in range(2):
            assert await function() == {"id": 1, "name": "Ada"}
