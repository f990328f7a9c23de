"""Decorator `@cached` in classes: methods are bound as Python binds them, and the bound object is in their keys."""

import asyncio
import inspect
import sys
import types

import pytest

from evcache import InvalidArgument
from evcache.decorators.cached import Cached, cached
from tests.support.sources import Memory
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


class Repository:
    """Users of one tenant."""

    def __init__(self, tenant):
        self.tenant = tenant

    @cached(cache, key="{self.tenant}:{user_id}", stale_while_revalidate=30)
    async def load(self, user_id=1):
        """Load a user of this tenant."""
        calls.append((self.tenant, user_id))
        return self.tenant, user_id

    @staticmethod
    @cached(cache)
    async def shared(user_id):
        return user_id

    @classmethod
    @cached(cache, key="class:{user_id}")
    async def of_class(cls, user_id):
        return cls.__name__, user_id


@in_virtual_time
async def test_a_method_is_bound_to_its_object():
    """`key`, `invalidate` and `uncached` are bound too, so that the object is in the key."""
    a, b = Repository("a"), Repository("b")
    assert await a.load(1) == await a.load() == await a.load(user_id=1) == ("a", 1)
    assert await b.load(1) == ("b", 1)
    assert calls == [("a", 1), ("b", 1)]
    assert (a.load.key(5), b.load.key(5)) == ("a:5", "b:5")
    assert await b.load.uncached(1) == ("b", 1)
    await a.load.invalidate()
    assert cache.asked[-1] == ("invalidate", "a:1", 30)


@in_virtual_time
async def test_a_method_is_a_function_of_its_class():
    a = Repository("a")
    assert await Repository.load(a, 1) == await Repository.load(self=a, user_id=1) == ("a", 1)
    assert Repository.load.key(a, 1) == "a:1"
    assert len(calls) == 1


def test_a_method_is_still_the_method():
    method = Repository("a").load
    assert method.__name__ == "load"
    assert method.__qualname__ == "Repository.load"
    assert inspect.getdoc(method) == "Load a user of this tenant."
    assert list(inspect.signature(method).parameters) == ["user_id"]
    assert list(inspect.signature(Repository.load).parameters) == ["self", "user_id"]
    assert is_async(method)


def test_a_bound_method_stays_bound_where_another_class_has_it():
    """Methods of Python behave in the same way."""

    class Other:
        load = Repository("a").load

    assert Other().load.key(1) == "a:1"


@in_virtual_time
async def test_static_and_class_methods_are_cached_below_their_decorator():
    assert await Repository.shared(1) == await Repository("a").shared(1) == 1
    assert Repository("a").shared.key(1) == f"{HERE}:Repository.shared(user_id=1)"
    assert await Repository.of_class(1) == await Repository("a").of_class(1) == ("Repository", 1)
    assert [key for _, key, _ in cache.asked] == [f"{HERE}:Repository.shared(user_id=1)"] * 2 + ["class:1"] * 2


class Untold:
    """`classmethod` of Python 3.13 and later, which does not bind the decorator below it to the class."""

    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner=None):
        return types.MethodType(self.function, owner or type(instance))


def users(decorator, key="{cls.tenant}:{user_id}"):
    """Return a class and a derived class. All parameters of their class method are optional."""

    class Users:
        tenant = "a"

        @decorator
        @cached(cache, key=key)
        async def load(cls, user_id=1, lang="de"):
            calls.append((cls.tenant, user_id))
            return cls.tenant, user_id

    class Others(Users):
        tenant = "b"

    return Users, Others


decorators = pytest.mark.parametrize("decorator", [classmethod, Untold])


@decorators
@in_virtual_time
async def test_a_class_method_works_in_every_version_if_the_class_is_given(decorator):
    """Calls are bound as for any class method. Keys contain the given class."""
    for owner in users(decorator):
        tenant = owner.tenant
        assert await owner.load(42) == await owner().load(user_id=42) == (tenant, 42)
        assert [key for _, key, _ in cache.asked[-2:]] == [f"{tenant}:42"] * 2
        assert owner.load.key(owner, 42) == owner().load.key(owner, user_id=42) == f"{tenant}:42"
        assert owner.load.key(owner) == f"{tenant}:1"
        await owner.load.invalidate(owner, 42)
        assert cache.asked[-1] == ("delete", f"{tenant}:42")
    assert calls == [("a", 42), ("b", 42)]
    base, derived = users(decorator)
    assert base.load.key(derived, 42) == "b:42"


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((42,), {}), ((42, "fr"), {}), ((), {"user_id": 42})])
@pytest.mark.parametrize("key", ["{cls.tenant}:{user_id}", "user:{user_id}", lambda *_, **__: "user"])
@in_virtual_time
async def test_a_class_method_without_its_class_is_refused(key, args, kwargs):
    """The user would be bound to `cls`, and every caller would get user 1."""
    owner, _ = users(Untold, key)
    for use in (owner.load.invalidate, owner.load.uncached):
        with pytest.raises(InvalidArgument) as caught:
            await use(*args, **kwargs)
        assert caught.value.argument == "cls"
    with pytest.raises(InvalidArgument, match=r"Users\.load .* the class first"):
        owner.load.key(*args, **kwargs)
    assert (cache.asked, calls) == ([], [])


@in_virtual_time
async def test_a_class_method_without_its_class_has_the_right_key_or_is_refused():
    """The result depends on the version of Python."""
    owner, derived = users(classmethod)
    if sys.version_info >= (3, 13):
        with pytest.raises(InvalidArgument):
            derived.load.key(42)
        return
    assert (owner.load.key(42), derived.load.key(), derived().load.key(user_id=7)) == ("a:42", "b:1", "b:7")
    assert await derived.load.uncached(42) == ("b", 42)


def test_the_class_may_be_given_by_keyword():
    owner, _ = users(Untold)
    assert owner.load.key(cls=owner, user_id=42) == "a:42"


async def of_a_travel_class(cls, seat=1): ...


def test_a_parameter_named_cls_is_a_class_in_classes_only():
    async def in_function(cls, seat=1): ...

    for function in (of_a_travel_class, in_function):
        assert cached(cache, key=lambda cls, seat=1: f"{cls}:{seat}")(function).key("first", 7) == "first:7"


def test_a_bound_method_is_a_cached_function():
    assert type(Repository.load) is type(Repository("a").load) is type(Repository.shared) is Cached
