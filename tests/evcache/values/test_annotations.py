"""The type that a function is annotated to return."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Coroutine, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from evcache import InvalidArgument, Loaded
from evcache.values.annotations import mapped_type, return_type
from tests.support.memory_zones import on_zones
from tests.support.sources import Source
from tests.support.value_types import User

if TYPE_CHECKING:
    from tests.support.value_types import Row


async def plain() -> User: ...
async def optional() -> User | None: ...
async def text() -> list[User]: ...
async def nothing(): ...
async def anything() -> Any: ...
async def none() -> None: ...
async def loaded() -> Loaded[User]: ...
async def bare_loaded() -> Loaded: ...
async def either() -> User | Loaded[User] | None: ...
async def either_unknown() -> User | Loaded: ...
async def annotated() -> Annotated[User, "note"]: ...
def awaitable() -> Awaitable[User]: ...
def coroutine() -> Coroutine[Any, Any, User]: ...
def task() -> asyncio.Task[User]: ...
def not_awaitable() -> User: ...
async def later() -> Later: ...  # noqa: F821
async def unknown() -> Row: ...
async def only_return(user: Row) -> User: ...


class Loader:
    async def method(self) -> User: ...

    async def __call__(self) -> User: ...

    @classmethod
    async def of_class(cls) -> Loader: ...


def keeping(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


SAYS = [
    (plain, User),
    (optional, User | None),
    (text, list[User]),
    (nothing, Any),
    (anything, Any),
    (none, type(None)),
    (loaded, User),
    (bare_loaded, Any),
    (either, User | None),
    (either_unknown, Any),
    (annotated, Annotated[User, "note"]),
    (awaitable, User),
    (coroutine, User),
    (task, User),
    (not_awaitable, Any),
    (only_return, User),
    (functools.partial(plain), User),
    (Loader().method, User),
    (Loader.of_class, Loader),
    (Loader(), User),
    (keeping(plain), User),
    (lambda: plain(), Any),
    (Source().load, Any),
    (print, Any),
]


@pytest.mark.parametrize(("function", "kind"), SAYS)
def test_what_a_function_says(function, kind):
    for _ in range(2):  # looked up, then remembered
        assert return_type(function) == kind


def test_names_that_are_not_defined():
    with pytest.raises(NameError):
        return_type(unknown)
    with pytest.raises(NameError):
        return_type(later)
    globals()["Later"] = User
    try:
        assert return_type(later) is User
    finally:
        del globals()["Later"]


def test_a_local_type_is_found_if_the_function_uses_it():
    """By the closure, and again in each call of the enclosing function."""

    def make():
        class Local:
            pass

        async def load() -> list[Local]:
            return [Local()]

        return load, Local

    (one, first), (two, second) = make(), make()
    assert (return_type(one), return_type(two)) == (list[first], list[second])


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ("dict[str, User]", User),
        ("Mapping[bytes, User | None]", User | None),
        ("dict[str, User | Loaded[User]]", User),
        ("dict", Any),
        ("list[User]", Any),
    ],
)
def test_what_a_loader_of_several_keys_says(annotation, kind):
    async def load(keys): ...

    load.__annotations__["return"] = annotation
    assert Mapping
    assert mapped_type(load) == kind


# Forward references of cached functions.


@on_zones(zones=1)
async def test_a_type_that_is_defined_later_is_found_in_the_first_call(zones):
    """And is refused there, if its values cannot be read back, or it still is not defined."""
    cache = await zones.ready()

    @cache.cached(key="k")
    async def load() -> Later:  # noqa: F821
        return User(1)

    with pytest.raises(InvalidArgument, match="Later") as caught:
        await load()
    assert caught.value.argument == "function"
    globals()["Later"] = User
    try:
        for _ in range(2):
            assert await load() == User(1)
    finally:
        del globals()["Later"]

    @cache.cached(key="l")
    async def load_bad() -> Bad:  # noqa: F821
        raise AssertionError("not called")

    globals()["Bad"] = complex
    try:
        with pytest.raises(InvalidArgument, match="load_bad.* returns a type that cannot be stored: complex"):
            await load_bad()
    finally:
        del globals()["Bad"]


@on_zones(zones=1)
async def test_methods_share_what_was_found_out(zones):
    """A class whose methods return it, which no annotation can name while it is being defined."""
    cache = await zones.ready()

    class Service:
        def __init__(self, number):
            self.number = number

        @cache.cached(key="user:{self.number}")
        async def load(self) -> User:
            return User(self.number)

        @classmethod
        @cache.cached(key="all:{number}")
        async def load_all(cls, number: int) -> list[User]:
            return [User(number)]

    for _ in range(2):
        assert await Service(1).load() == User(1)
        assert await Service(2).load() == User(2)
        assert await Service.load_all(1) == [User(1)]
