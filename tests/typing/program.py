"""Calls whose types checkers and run time must agree on. `tests/evcache/values/test_types.py` has both look at it.

Checkers verify each `says(value, assert_type(...))`; at run time `SEEN` collects the values, which must be of these types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, assert_type
from uuid import UUID

from evcache import EVCache, Item, Loaded, WriteResult


@dataclass(frozen=True)
class User:
    id: int
    name: str


class Point(NamedTuple):
    x: int
    y: int


class Row(TypedDict):
    id: int


ADA = User(1, "Ada")

SEEN: list[tuple[str, object, object]] = []
"""Of each call: where, the value, and what it must equal."""


def see(where: str, value: object, expected: object) -> None:
    SEEN.append((where, value, expected))


async def load_user() -> User:
    return ADA


async def load_user_or_none() -> User | None:
    return None


async def load_with_ttl() -> Loaded[User]:
    return Loaded(ADA, ttl=5)


async def load_either() -> User | Loaded[User]:
    return ADA


async def load_users(keys: Sequence[str]) -> Mapping[str, User]:
    return dict.fromkeys(keys, ADA)


async def load_some(keys: list[str]) -> dict[str, User | None]:
    return {keys[0]: ADA, **dict.fromkeys(keys[1:])}


async def reads(cache: EVCache) -> None:
    await cache.set_many({"u": ADA, "v": ADA})
    await cache.set("n", 7)
    await cache.set("us", [ADA])
    await cache.set(b"row", {"id": 1})
    await cache.set("id", UUID(int=1))
    await cache.set("word", "on")

    plain = await cache.get("u")
    assert_type(plain, Any)
    see("get", plain, {"id": 1, "name": "Ada"})
    user = await cache.get("u", as_=User)
    assert_type(user, User | None)
    see("get as_", user, ADA)
    missing = await cache.get("nothing", as_=User)
    assert_type(missing, User | None)
    see("get as_, a miss", missing, None)
    other = await cache.get("nothing", 0, as_=User)
    assert_type(other, User | int)
    see("get as_ default", other, 0)
    options = await cache.get("u", as_=User, timeout=1, consistency="one", near_cache=False)
    assert_type(options, User | None)
    see("get as_ with options", options, ADA)
    users = await cache.get("us", as_=list[User])
    assert_type(users, list[User] | None)
    see("get as_ list", users, [ADA])
    union = await cache.get("n", as_=int | str)
    assert_type(union, int | str | None)
    see("get as_ union", union, 7)
    literal = await cache.get("word", as_=Literal["on", "off"])
    assert_type(literal, Literal["on", "off"] | None)
    see("get as_ literal", literal, "on")
    row = await cache.get(b"row", as_=Row)
    assert_type(row, Row | None)
    see("get as_ TypedDict", row, {"id": 1})

    item = await cache.get_item("id", as_=UUID)
    assert_type(item, Item[UUID] | None)
    assert item is not None
    assert_type(item.value, UUID)
    see("get_item as_", item.value, UUID(int=1))
    plain_item: Item | None = await cache.get_item("id")
    assert plain_item is not None
    assert_type(plain_item.value, Any)
    see("get_item", plain_item.value, str(UUID(int=1)))

    touched = await cache.get_and_touch("u", as_=User)
    assert_type(touched, User | None)
    see("get_and_touch as_", touched, ADA)
    touched_default = await cache.get_and_touch("nothing", 60, "none", as_=User)
    assert_type(touched_default, User | str)
    see("get_and_touch as_ default", touched_default, "none")
    touched_named = await cache.get_and_touch("nothing", default="none", as_=User)
    assert_type(touched_named, User | str)
    see("get_and_touch as_ default by name", touched_named, "none")

    many = await cache.get_many(["u", "v"], as_=User)
    assert_type(many, dict[str, User])
    see("get_many as_", many, {"u": ADA, "v": ADA})
    many_bytes = await cache.get_many([b"row"], as_=Row)
    assert_type(many_bytes, dict[bytes, Row])
    see("get_many as_, bytes", many_bytes, {b"row": {"id": 1}})
    many_plain = await cache.get_many(["n"])
    assert_type(many_plain, dict[str, Any])
    see("get_many", many_plain, {"n": 7})


async def concurrent_calls(cache: EVCache) -> None:
    user, result, count = await asyncio.gather(cache.get("u", as_=User), cache.set("w", 1), cache.incr("counter", initial=3))
    assert_type(user, User | None)
    assert_type(result, WriteResult)
    assert_type(count, int | None)
    see("gather", (user, bool(result), count), (ADA, True, 3))
    task = asyncio.create_task(cache.delete("w"))
    assert_type(await task, WriteResult)
    see("create_task", bool(task.result()), True)


async def loads(cache: EVCache) -> None:
    for _ in range(2):  # loaded, then read
        loaded = await cache.get_or_load("l:1", load_user)
        assert_type(loaded, User)
        see("get_or_load", loaded, ADA)
        nothing = await cache.get_or_load("l:2", load_user_or_none)
        assert_type(nothing, User | None)
        see("get_or_load, None", nothing, None)
        with_ttl = await cache.get_or_load("l:3", load_with_ttl)
        assert_type(with_ttl, User)
        see("get_or_load, Loaded", with_ttl, ADA)
        by_type = await cache.get_or_load("l:4", lambda: load_user(), as_=User, ttl=60)
        assert_type(by_type, User)
        see("get_or_load as_", by_type, ADA)
        optional = await cache.get_or_load("l:5", load_user_or_none, as_=User | None)
        assert_type(optional, User | None)
        see("get_or_load as_ Optional", optional, None)
        either = await cache.get_or_load("l:6", load_either, as_=User)
        assert_type(either, User)
        see("get_or_load as_, either", either, ADA)

        several = await cache.get_or_load_many(["m:1", "m:2"], load_users)
        assert_type(several, dict[str, User])
        see("get_or_load_many", several, {"m:1": ADA, "m:2": ADA})
        some = await cache.get_or_load_many(["m:3", "m:4"], load_some)
        assert_type(some, dict[str, User])
        see("get_or_load_many, None", some, {"m:3": ADA})
        typed = await cache.get_or_load_many(["m:5"], load_users, as_=User)
        assert_type(typed, dict[str, User])
        see("get_or_load_many as_", typed, {"m:5": ADA})


class Users:
    def __init__(self, cache: EVCache) -> None:
        @cache.cached(key="c:{user_id}")
        async def load(user_id: int, *, loud: bool = False) -> User:
            return User(user_id, "ADA" if loud else "Ada")

        @cache.cached(key="p:{number}")
        async def points(number: int) -> list[Point] | None:
            return [Point(number, n) for n in range(number)] or None

        @cache.cached(key="t:{number}")
        async def short(number: int) -> Loaded[Point]:
            return Loaded(Point(number, number), ttl=5)

        self.load = load
        self.points = points
        self.short = short


async def cached_functions(cache: EVCache) -> None:
    users = Users(cache)
    for _ in range(2):
        user = await users.load(1, loud=False)
        assert_type(user, User)
        see("cached", user, ADA)
        points = await users.points(1)
        assert_type(points, list[Point] | None)
        see("cached, a list", points, [Point(1, 0)])
        short = await users.short(2)
        assert_type(short, Point)
        see("cached, Loaded", short, Point(2, 2))
    see("key", users.load.key(1), "c:1")
    assert_type(users.load.key(1, loud=True), str | bytes)
    await users.load.invalidate(1)
    uncached = await users.load.uncached(1)
    assert_type(uncached, User)
    see("uncached", uncached, ADA)


async def wrong(cache: EVCache) -> None:
    """Make calls that checkers must refuse. Each has a comment that ignores its error, and an unused one is an error too."""
    users = Users(cache)
    await users.load("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.load(1, quiet=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await cache.get("u", as_=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await cache.get("u", as_=User, tiemout=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await cache.get_or_load("u", load_user, as_=Point)  # type: ignore[arg-type]  # to pyright it is a union


async def main(cache: EVCache) -> None:
    await reads(cache)
    await concurrent_calls(cache)
    await loads(cache)
    await cached_functions(cache)
