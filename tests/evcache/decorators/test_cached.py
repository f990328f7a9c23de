"""Decorator `@cached`: calls of the cache, properties of the decorated function, and refused functions."""

import asyncio
import functools
import inspect
import sys
import types
from datetime import timedelta

import pytest

from evcache import InvalidArgument, LoadPolicy
from evcache.decorators.cached import cached
from tests.support.sources import DONE, Memory
from tests.support.virtual_time import in_virtual_time

HERE = __name__
cache = Memory()
calls = []
# Before 3.12 `inspect` recognizes functions only. From 3.14 on the function of asyncio is deprecated.
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
async def test_a_result_is_stored_by_the_arguments_of_its_call():
    """Positional and keyword arguments make one key. Different values or types make different keys."""
    assert await load_user(1) == await load_user(user_id=1) == await load_user(1, "de") == {"id": 1, "lang": "de"}
    assert calls == [(1, "de")]
    assert await load_user("1") == {"id": "1", "lang": "de"}
    assert await load_user(1, "fr") == {"id": 1, "lang": "fr"}
    assert calls == [(1, "de"), ("1", "de"), (1, "fr")]
    assert len(cache.held) == 3


@in_virtual_time
async def test_the_function_gets_the_arguments_of_the_call():
    @cached(cache, key="all:{a}")
    async def function(a, /, b=2, *rest, c=3, **others):
        return a, b, rest, c, others

    assert await function(1, 5, 6, c=7, self=8, key=9) == (1, 5, (6,), 7, {"self": 8, "key": 9})


@in_virtual_time
async def test_an_absence_is_returned_as_none():
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
async def test_options_are_passed_to_get_or_load():
    """Options that are not given are the cache's."""
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
async def test_invalidate_deletes_the_result_of_its_arguments():
    await load_user(1)
    await load_user(2)
    assert await load_user.invalidate(user_id=1) is DONE
    assert cache.asked[-1] == ("delete", f"{HERE}:load_user(user_id=1,lang='de')")
    await load_user(1)
    await load_user(2)
    assert [user_id for user_id, _ in calls] == [1, 2, 1]


@in_virtual_time
async def test_invalidate_with_stale_while_revalidate_marks_the_value_as_out_of_date():
    load = cached(cache, key="user:{user_id}", stale_while_revalidate=30)(load_user.uncached)
    assert await load.invalidate(42) is DONE
    assert cache.asked == [("invalidate", "user:42", 30)]


@in_virtual_time
async def test_uncached_is_the_function_itself():
    await load_user.uncached(1)
    await load_user.uncached(1)
    assert calls == [(1, "de"), (1, "de")]
    assert cache.asked == []


def test_key_returns_the_key_of_a_call():
    assert load_user.key(42) == f"{HERE}:load_user(user_id=42,lang='de')"
    assert cached(cache, key="user:{user_id}")(load_user.uncached).key(42) == "user:42"
    assert cached(cache, key=lambda user_id: b"raw")(load_user.uncached).key(42) == b"raw"


def test_the_decorated_function_keeps_its_metadata():
    """That is its name, documentation and signature, and that it is a coroutine function."""
    assert load_user.__name__ == "load_user"
    assert load_user.__qualname__ == "load_user"
    assert load_user.__module__ == HERE
    assert load_user.__doc__ == inspect.getdoc(load_user) == "Load a user."
    assert load_user.__wrapped__ is load_user.uncached
    assert inspect.signature(load_user) == inspect.signature(load_user.uncached)
    assert is_async(load_user)
    assert "load_user" in repr(load_user)


# Other callables -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_two_decorators_read_one_cache_after_the_other():
    """The outer cache loads from the inner one."""
    other = Memory()
    both = cached(other, key="outer:{user_id}")(cached(cache, key="inner:{user_id}")(of_one))
    assert await both(1) == 1
    assert (list(other.held), list(cache.held)) == (["outer:1"], ["inner:1"])
    assert (both.key(1), both.uncached.key(1)) == ("outer:1", "inner:1")


async def of_one(user_id):
    return user_id


def test_a_bound_object_without_a_signature_needs_a_callable():
    """A template cannot name parameters that `inspect` does not show."""

    class Loader:
        async def __call__(self, user_id): ...
        def __get__(self, instance, owner=None): ...

    with pytest.raises(InvalidArgument, match="shows no signature"):
        cached(cache, key="user:{user_id}")(Loader())
    assert cached(cache, key=lambda user_id: f"user:{user_id}")(Loader()).key(1) == "user:1"


@in_virtual_time
async def test_an_object_with_an_async_call_method_is_cached():
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


# Refused functions and options ----------------------------------------------------------------------------------------------


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
def test_a_function_that_is_not_async_is_refused(function, words, key):
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
def test_invalid_options_are_refused_at_decoration(argument, value):
    with pytest.raises(InvalidArgument) as caught:
        cached(cache, **{argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize("no_cache", [None, nothing, {}])
def test_an_object_without_get_or_load_is_refused(no_cache):
    """This is the mistake of `@cached` without parentheses."""
    with pytest.raises(InvalidArgument) as caught:
        cached(no_cache)
    assert caught.value.argument == "cache"


@pytest.mark.parametrize("key", ["user:{user}", "user", "{user_id}{lang}", 5, ""])
def test_keys_that_cannot_tell_calls_apart_are_refused_at_decoration(key):
    with pytest.raises(InvalidArgument) as caught:
        cached(cache, key=key)(load_user.uncached)
    assert caught.value.argument == "key"


@in_virtual_time
async def test_a_call_without_a_canonical_key_reads_no_cache_and_calls_no_function():
    """`key` and `invalidate` refuse the same arguments."""
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
    """Return the functions of a module with this source, by name."""
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


def test_a_second_function_of_the_same_name_is_refused():
    """Handlers of a router often share a name. They would share their results."""
    with pytest.raises(InvalidArgument, match=r"cached already, from twice.py:2") as caught:
        defined(TWICE.format(key=""), "twice")
    assert caught.value.argument == "key"


def test_two_functions_of_one_name_may_have_keys_of_their_own():
    module = defined(TWICE.format(key=", key='a:{id}'"), "twice_with_keys")
    assert module.first.key(1) == module.get.key(1) == "a:1"


def test_a_module_that_is_loaded_again_is_accepted():
    """A function of the same file and line is the same function."""
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
    """Both wrappers have one name, and may behave differently."""
    with pytest.raises(InvalidArgument, match="cached already"):
        defined(WRAPPED_TWICE, "wrapped_twice")


def test_one_function_may_be_cached_in_two_caches():
    function = load_user.uncached
    assert cached(Memory())(function).key(1) == cached(Memory())(function).key(1) == load_user.key(1)
