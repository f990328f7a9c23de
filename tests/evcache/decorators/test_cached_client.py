"""Decorator of a client: results are stored in the zones, for all processes, by the arguments of the call."""

import asyncio

import pytest

from evcache import InvalidArgument, LoadTimeout, NearCache
from evcache.load_policy import Loaded, LoadPolicy
from tests.support.memory_zones import TOMBSTONE, Stopwatch, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import ABSENT, Source, assert_nothing_left, no_stubs, outcomes, seen
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)


class Service:
    """Process with a client and a cached function."""

    def __init__(self, cache, **options):
        self.calls = []
        self.source = Source()

        @cache.cached(key="user:{user_id}", **options)
        async def load_user(user_id, lang="de"):
            self.calls.append(user_id)
            value = await self.source.load()
            return None if value is None else {"id": user_id, "name": value}

        self.load_user = load_user


@on_zones(zones=2)
async def test_a_result_is_stored_for_all_processes(zones):
    """Many callers of two processes cause one call of the function. Each caller gets its own copy."""
    caches = [await zones.ready() for _ in range(2)]
    services = [Service(cache) for cache in caches]
    for service in services:
        service.source.seconds = 0.1
    users = await asyncio.gather(*(service.load_user(42) for service in services for _ in range(5)))
    assert users == [{"id": 42, "name": "v"}] * 10
    assert sum(len(service.calls) for service in services) == 1
    users[0]["name"] = "changed"
    assert await services[1].load_user(user_id=42, lang="fr") == {"id": 42, "name": "v"}
    assert services[0].load_user.key(42) == "user:42"
    assert await caches[1].get("user:42") == {"id": 42, "name": "v"}
    assert await services[1].load_user(43) == {"id": 43, "name": "v"}
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


@on_zones(zones=2)
async def test_options_of_the_decorator_apply_to_the_load(zones):
    cache = await zones.ready(near_cache=NearCache(ttl=100))
    follow_loop(cache)
    service = Service(cache, ttl=50, policy=EXACT, timeout=0.5, near_cache=False)
    await service.load_user(1)
    assert zones.held("user:1", "a").ttl == 50
    zones.forget()
    await service.load_user(1)
    assert zones.commands("a") == {"mg": 1}
    service.source.seconds = 1
    assert isinstance((await outcomes(service.load_user(2)))[0], LoadTimeout)
    await pass_time(1)
    assert service.calls == [1, 2]
    await service.load_user(2)
    assert service.calls == [1, 2]


@on_zones(zones=2)
async def test_an_absence_is_remembered_and_an_error_is_not(zones):
    cache = await zones.ready()
    service = Service(cache)
    service.source.value = None
    assert [await service.load_user(1) for _ in range(3)] == [None] * 3
    assert service.calls == [1]
    assert seen(zones, "user:1") == {"a": ABSENT, "b": ABSENT}
    service.source.error = LookupError("down")
    for _ in range(2):
        with pytest.raises(LookupError):
            await service.load_user(2)
    assert service.calls == [1, 2, 2]
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_result_with_its_own_ttl_lives_that_long(zones):
    cache = await zones.ready()

    @cache.cached(key="k:{number}", policy=EXACT)
    async def load(number):
        return Loaded(number, ttl=number)

    assert await load(7) == 7
    assert zones.held("k:7", "a").ttl == 7
    assert await load(0) == 0
    assert seen(zones, "k:0") == {"a": None, "b": None}


@on_zones(zones=2)
async def test_invalidate_deletes_in_all_zones(zones):
    first, second = Service(await zones.ready()), Service(await zones.ready(local_zone="b"))
    await first.load_user(1)
    await pass_time(0.01)
    assert await second.load_user.invalidate(1)
    await settle()
    assert seen(zones, "user:1") == {"a": TOMBSTONE, "b": TOMBSTONE}
    first.source.value = "new"
    assert await first.load_user(1) == {"id": 1, "name": "new"}


@on_zones(zones=2)
async def test_invalidate_serves_the_old_result_during_the_refresh(zones):
    """One caller loads the new result in the background."""
    cache = await zones.ready()
    service = Service(cache, stale_while_revalidate=30)
    await service.load_user(1)
    assert await service.load_user.invalidate(1)
    assert await cache.get("user:1") is None
    service.source.value, service.source.seconds = "new", 1
    watch = Stopwatch()
    assert [await service.load_user(1) for _ in range(3)] == [{"id": 1, "name": "v"}] * 3
    assert watch.seconds == 0
    await pass_time(1.1)
    assert await service.load_user(1) == {"id": 1, "name": "new"}
    assert service.calls == [1, 1]
    await service.load_user.invalidate(1)
    service.source.error = LookupError("down")
    await pass_time(31)
    with pytest.raises(LookupError):
        await service.load_user(1)


@on_zones(zones=2)
async def test_results_of_methods_are_stored_by_the_object_of_the_template(zones):
    cache = await zones.ready()

    class Repository:
        def __init__(self, tenant):
            self.tenant = tenant
            self.calls = 0

        @cache.cached(key="{self.tenant}:{user_id}")
        async def load(self, user_id):
            self.calls += 1
            return [self.tenant, user_id]

    one, two, again = Repository("one"), Repository("two"), Repository("one")
    assert await one.load(1) == ["one", 1]
    assert await two.load(1) == ["two", 1]
    assert await again.load(1) == ["one", 1]
    assert (one.calls, two.calls, again.calls) == (1, 1, 0)
    await again.load.invalidate(1)
    assert await one.load(1) == ["one", 1]
    assert one.calls == 2


@on_zones(zones=2)
async def test_uncached_calls_the_function_without_the_zones(zones):
    service = Service(await zones.ready())
    assert await service.load_user.uncached(1) == {"id": 1, "name": "v"}
    assert (zones.wire("a"), seen(zones, "user:1")) == (b"", {"a": None, "b": None})


@on_zones(zones=2)
async def test_without_zones_the_function_is_called(zones):
    cache = await zones.ready()
    service = Service(cache)
    await zones.kill("a", "b")
    for _ in range(2):
        assert await service.load_user(1) == {"id": 1, "name": "v"}
        await pass_time(1)
    assert service.calls == [1, 1]


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("ttl", {"ttl": 0}),
        ("timeout", {"timeout": 0}),
        ("stale_while_revalidate", {"stale_while_revalidate": 0}),
        ("policy", {"policy": "soft"}),
    ],
)
@on_zones(zones=2)
async def test_invalid_options_of_a_client_are_refused_at_decoration(zones, argument, options):
    cache = await zones.ready()
    with pytest.raises(InvalidArgument) as caught:
        Service(cache, **options)
    assert caught.value.argument == argument
