"""`@cached`: what is asked of the cache, what the decorated function still is, and what can't be decorated."""

import asyncio
import functools
import inspect
import sys
import types
from datetime import timedelta

import pytest

from evcache import InvalidArgument, LoadPolicy
from evcache.decorators.cached import cached
from tests.support.loading_memory import DONE, Memory
from tests.support.virtual_time import in_virtual_time

HERE = __name__
cache = Memory()
calls = []
# Before 3.12 nothing but a function could say so to `inspect`; from 3.14 on asyncio's is deprecated.
is_async = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction


@pytest.fixture(autouse=True)
def _empty():
    cache.held.clear()
    cache.asked.clear()
    calls.clear()


@cached(cache)
async def load_user(user_id: int, lang: str = "de") -> dict[str, object] | None:
    """Load a user."""
    calls.append((user_id, lang))
    return {"id": user_id, "lang": lang} if user_id else None


@in_virtual_time
async def test_a_result_is_kept_by_its_arguments():
    """However the call is written; other arguments, or an argument of another type, are another result."""
    assert await load_user(1) == await load_user(user_id=1) == await load_user(1, "de") == {"id": 1, "lang": "de"}
    assert calls == [(1, "de")]
    assert await load_user("1") == {"id": "1", "lang": "de"}
    assert await load_user(1, "fr") == {"id": 1, "lang": "fr"}
    assert calls == [(1, "de"), ("1", "de"), (1, "fr")]
    assert len(cache.held) == 3


@in_virtual_time
async def test_the_function_is_given_the_arguments_as_they_were():
    @cached(cache, key="all:{a}")
    async def function(a, /, b=2, *rest, c=3, **others):
        return a, b, rest, c, others

    assert await function(1, 5, 6, c=7, self=8, key=9) == (1, 5, (6,), 7, {"self": 8, "key": 9})


@in_virtual_time
async def test_an_absence_is_none():
    assert await load_user(0) is None
    assert cache.held == {}


@in_virtual_time
async def test_an_error_of_the_function_reaches_the_caller():
    @cached(cache, key="bad:{x}")
    async def bad(x):
        raise LookupError(x)

    with pytest.raises(LookupError, match="7"):
        await bad(7)


@in_virtual_time
async def test_the_options_are_those_of_get_or_load():
    """What is not said is left to the cache."""
    policy = LoadPolicy(refresh_after=1)
    one = cached(cache, key="one", ttl=timedelta(minutes=5), policy=policy, timeout=0.5, near_cache=False)(nothing)
    await one()
    await cached(cache, key="two")(nothing)()
    assert cache.asked == [
        ("get_or_load", "one", {"ttl": timedelta(minutes=5), "policy": policy, "timeout": 0.5, "near_cache": False}),
        ("get_or_load", "two", {"ttl": None, "policy": None, "timeout": None, "near_cache": True}),
    ]


async def nothing():
    """Do nothing."""


@in_virtual_time
async def test_invalidate_deletes():
    """What is kept for these arguments, and for no others."""
    await load_user(1)
    await load_user(2)
    assert await load_user.invalidate(user_id=1) is DONE
    assert cache.asked[-1] == ("delete", f"{HERE}:load_user(user_id=1,lang='de')")
    await load_user(1)
    await load_user(2)
    assert [user_id for user_id, _ in calls] == [1, 2, 1]


@in_virtual_time
async def test_invalidate_keeps_what_is_there_as_stale_if_so_decorated():
    load = cached(cache, key="user:{user_id}", stale_while_revalidate=30)(load_user.uncached)
    assert await load.invalidate(42) is DONE
    assert cache.asked == [("invalidate", "user:42", 30)]


@in_virtual_time
async def test_uncached_is_the_function_itself():
    await load_user.uncached(1)
    await load_user.uncached(1)
    assert calls == [(1, "de"), (1, "de")]
    assert cache.asked == []


def test_the_key_can_be_asked_for():
    assert load_user.key(42) == f"{HERE}:load_user(user_id=42,lang='de')"
    assert cached(cache, key="user:{user_id}")(load_user.uncached).key(42) == "user:42"
    assert cached(cache, key=lambda user_id: b"raw")(load_user.uncached).key(42) == b"raw"


def test_it_is_still_the_function():
    """Name, documentation, signature, and that it is to be awaited."""
    assert load_user.__name__ == "load_user"
    assert load_user.__qualname__ == "load_user"
    assert load_user.__module__ == HERE
    assert load_user.__doc__ == inspect.getdoc(load_user) == "Load a user."
    assert load_user.__wrapped__ is load_user.uncached
    assert inspect.signature(load_user) == inspect.signature(load_user.uncached)
    assert is_async(load_user)
    assert "load_user" in repr(load_user)


# Other things that are called ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_two_decorators_are_two_caches():
    """The outer one asks the inner one."""
    other = Memory()
    both = cached(other, key="outer:{user_id}")(cached(cache, key="inner:{user_id}")(of_one))
    assert await both(1) == 1
    assert (list(other.held), list(cache.held)) == (["outer:1"], ["inner:1"])
    assert (both.key(1), both.uncached.key(1)) == ("outer:1", "inner:1")


async def of_one(user_id):
    return user_id


def test_an_object_that_is_bound_and_shows_no_signature_needs_a_callable():
    """What `inspect` can't see, no template can name."""

    class Loader:
        async def __call__(self, user_id): ...
        def __get__(self, instance, owner=None): ...

    with pytest.raises(InvalidArgument, match="shows no signature"):
        cached(cache, key="user:{user_id}")(Loader())
    assert cached(cache, key=lambda user_id: f"user:{user_id}")(Loader()).key(1) == "user:1"


@in_virtual_time
async def test_an_object_that_is_called_as_an_async_function():
    class Loader:
        async def __call__(self, user_id):
            return user_id

    load = cached(cache, key="user:{user_id}")(Loader())
    assert await load(3) == 3
    assert load.key(3) == "user:3"


@in_virtual_time
async def test_a_partial_needs_a_key():
    load = cached(cache, key="french:{user_id}")(functools.partial(load_user.uncached, lang="fr"))
    assert await load(3) == {"id": 3, "lang": "fr"}
    assert load.key(3) == "french:3"


# What is refused ------------------------------------------------------------------------------------------------------------


def sync(user_id): ...


async def generator(user_id):
    yield user_id


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (sync, "is not async"),
        (lambda: nothing(), "is not async"),
        (generator, "async generator"),
        (staticmethod(nothing), "put @staticmethod above"),
        (classmethod(nothing), "put @classmethod above"),
        (Memory, "is not async"),
        (type("Loader", (), {"__call__": nothing}), "is not async"),
        (functools.partial(sync, 1), "is not async"),
        (None, "is not async"),
    ],
)
@pytest.mark.parametrize("key", [None, "key"])
def test_what_is_no_async_function_is_refused(function, words, key):
    with pytest.raises(InvalidArgument, match=words) as caught:
        cached(cache, key=key)(function)
    assert caught.value.argument == "function"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("ttl", 0),
        ("ttl", "5"),
        ("ttl", True),
        ("ttl", timedelta(0)),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("policy", object()),
        ("policy", LoadPolicy),
        ("policy", {"refresh_after": 1}),
        ("policy", False),
        ("stale_while_revalidate", -1),
        ("stale_while_revalidate", "5"),
    ],
)
def test_options_that_can_not_be_meant_are_refused_at_decoration(argument, value):
    with pytest.raises(InvalidArgument) as caught:
        cached(cache, **{argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize("no_cache", [None, nothing, {}])
def test_what_is_no_cache_is_refused(no_cache):
    """As in `@cached` without the parentheses."""
    with pytest.raises(InvalidArgument) as caught:
        cached(no_cache)
    assert caught.value.argument == "cache"


@pytest.mark.parametrize("key", ["user:{user}", "user", "{user_id}{lang}", 5, ""])
def test_keys_that_can_not_tell_calls_apart_are_refused_at_decoration(key):
    with pytest.raises(InvalidArgument) as caught:
        cached(cache, key=key)(load_user.uncached)
    assert caught.value.argument == "key"


@in_virtual_time
async def test_a_call_that_no_key_can_be_made_of_asks_nothing():
    """Neither the cache nor the function, and so do `key` and `invalidate`."""
    for use in (load_user, load_user.invalidate):
        with pytest.raises(InvalidArgument, match="'lang'") as caught:
            await use(1, ["de"])
        assert caught.value.argument == "key"
        with pytest.raises(TypeError):
            await use()
    with pytest.raises(InvalidArgument, match="'lang'"):
        load_user.key(1, ["de"])
    assert (cache.asked, calls) == ([], [])


# Names ----------------------------------------------------------------------------------------------------------------------


def defined(source, name):
    """The functions of a module that is run with this source, by name."""
    module = types.ModuleType(name)
    module.cached, module.cache = cached, cache
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    return module


TWICE = """
@cached(cache{key})
async def get(id): ...

first = get

@cached(cache{key})
async def get(id): ...
"""


def test_a_name_that_a_module_defines_twice_is_refused():
    """As handlers are, that a router has taken: each would be given the other's results."""
    with pytest.raises(InvalidArgument, match=r"cached already, from twice.py:2") as caught:
        defined(TWICE.format(key=""), "twice")
    assert caught.value.argument == "key"


def test_a_name_may_be_defined_twice_with_keys():
    module = defined(TWICE.format(key=", key='a:{id}'"), "twice_with_keys")
    assert module.first.key(1) == module.get.key(1) == "a:1"


def test_a_module_may_be_loaded_again():
    """What stands in the same place is the same function."""
    source = "@cached(cache)\nasync def get(id): ..."
    assert defined(source, "again").get.key(1) == defined(source, "again").get.key(1) == "again:get(id=1)"


WRAPPED_TWICE = """
import functools

def of(tenant):
    def decorate(function):
        @functools.wraps(function)
        async def wrapper(*args):
            return await function(tenant, *args)
        return wrapper
    return decorate

async def get(id): ...

a = cached(cache)(of("a")(get))
b = cached(cache)(of("b")(get))
"""


def test_a_function_in_two_wrappers_is_refused():
    """They have one name, and need not do the same."""
    with pytest.raises(InvalidArgument, match="cached already"):
        defined(WRAPPED_TWICE, "wrapped_twice")


def test_a_function_may_be_kept_in_two_caches():
    function = load_user.uncached
    assert cached(Memory())(function).key(1) == cached(Memory())(function).key(1) == load_user.key(1)
