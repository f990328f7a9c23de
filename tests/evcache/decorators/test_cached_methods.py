"""`@cached` in classes: methods are bound as Python binds them, and their keys are those of what they are bound to."""

import asyncio
import inspect
import sys
import types

import pytest

from evcache import InvalidArgument
from evcache.decorators.cached import Cached, cached
from tests.support.loading_memory import Memory
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


class Repository:
    """Of one tenant."""

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
    """So are `key`, `invalidate` and `uncached`, so that the object's part of the key is there."""
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
    """As with methods of Python."""

    class Other:
        load = Repository("a").load

    assert Other().load.key(1) == "a:1"


@in_virtual_time
async def test_static_and_class_methods():
    """With the decorator beneath."""
    assert await Repository.shared(1) == await Repository("a").shared(1) == 1
    assert Repository("a").shared.key(1) == f"{HERE}:Repository.shared(user_id=1)"
    assert await Repository.of_class(1) == await Repository("a").of_class(1) == ("Repository", 1)
    assert [key for _, key, _ in cache.asked] == [f"{HERE}:Repository.shared(user_id=1)"] * 2 + ["class:1"] * 2


class Untold:
    """What `classmethod` is from Python 3.13 on: it calls what is beneath it, and tells it nothing."""

    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner=None):
        return types.MethodType(self.function, owner or type(instance))


def users(decorator, key="{cls.tenant}:{user_id}"):
    """A class, and one derived from it, with a class method whose own parameters are all optional."""

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
async def test_a_class_method_works_in_every_version_where_the_class_is_said(decorator):
    """Calls are bound as those of any class method; keys are those of the class that is said."""
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
async def test_without_its_class_a_class_method_that_is_not_told_of_it_is_refused(key, args, kwargs):
    """The user would be taken for the class, and everybody be user 1."""
    owner, _ = users(Untold, key)
    for use in (owner.load.invalidate, owner.load.uncached):
        with pytest.raises(InvalidArgument) as caught:
            await use(*args, **kwargs)
        assert caught.value.argument == "cls"
    with pytest.raises(InvalidArgument, match=r"Users\.load .* the class first"):
        owner.load.key(*args, **kwargs)
    assert (cache.asked, calls) == ([], [])


@in_virtual_time
async def test_without_its_class_a_class_method_is_right_or_refused():
    """Whatever this version of Python tells."""
    owner, derived = users(classmethod)
    if sys.version_info >= (3, 13):
        with pytest.raises(InvalidArgument):
            derived.load.key(42)
        return
    assert (owner.load.key(42), derived.load.key(), derived().load.key(user_id=7)) == ("a:42", "b:1", "b:7")
    assert await derived.load.uncached(42) == ("b", 42)


def test_a_class_may_be_said_by_its_name():
    owner, _ = users(Untold)
    assert owner.load.key(cls=owner, user_id=42) == "a:42"


async def of_a_travel_class(cls, seat=1): ...


def test_a_parameter_that_is_called_cls_is_a_class_in_classes_only():
    async def in_function(cls, seat=1): ...

    for function in (of_a_travel_class, in_function):
        assert cached(cache, key=lambda cls, seat=1: f"{cls}:{seat}")(function).key("first", 7) == "first:7"


def test_a_method_is_the_same_kind_of_thing():
    assert type(Repository.load) is type(Repository("a").load) is type(Repository.shared) is Cached
