"""Arguments, loaders and values that `get_or_load` and `get_or_load_many` refuse."""

import math

import pytest

from evcache import EncodeError, InvalidArgument
from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import on_zones
from tests.support.sources import (
    Source,
    assert_nothing_left,
    no_stubs,
    outcomes,
    seen,
)
from tests.support.virtual_time import settle

STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)

# Bad arguments.


async def loader():
    raise AssertionError("not to be called")


BAD = [
    ("loader", {"loader": None}),
    ("loader", {"loader": 5}),
    ("loader", {"loader": "text"}),
    ("policy", {"policy": {"ttl": 5}}),
    ("policy", {"policy": LoadPolicy}),
    ("ttl", {"ttl": 0}),
    ("ttl", {"ttl": -1}),
    ("ttl", {"ttl": math.nan}),
    ("ttl", {"ttl": "5"}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": math.inf}),
    ("consistency", {"consistency": "most"}),
]


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(("argument", "given"), BAD)
@on_zones(zones=2)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(zones, argument, given, many):
    cache = await zones.ready()
    given = {"loader": loader, **given}
    with pytest.raises(InvalidArgument) as caught:
        await (cache.get_or_load_many(["k"], **given) if many else cache.get_or_load("k", **given))
    assert caught.value.argument == argument
    assert (zones.wire("a"), zones.wire("b")) == (b"", b"")


@pytest.mark.parametrize("policy", [STALE, FAIL_SAFE], ids=["stale_while_revalidate", "stale_if_error"])
@on_zones(zones=2)
async def test_where_other_clients_read_nothing_is_kept_for_longer(zones, policy):
    """They would take what is out of date for fresh, or could not read it at all."""
    cache = await zones.ready(interop=True)
    with pytest.raises(InvalidArgument) as caught:
        await cache.get_or_load("k", loader, policy=policy)
    assert caught.value.argument == "policy"
    assert zones.wire("a") == b""
    assert await cache.get_or_load("k", Source("v").load) == "v"
    assert zones.held("k", "b").raw.value == b"v"
    assert await cache.get_or_load("nothing", Source(None).load) is None
    assert seen(zones, "nothing") == {"a": None, "b": None}


def sync():
    return 5


async def generator():
    yield 5


@pytest.mark.parametrize("wrong", [sync, generator, dict])
@on_zones(zones=2)
async def test_a_loader_that_cannot_be_awaited_is_named(zones, wrong):
    """The error shows only when the loader is called. No value is stored and no lease is left."""
    cache = await zones.ready()
    with pytest.raises(InvalidArgument) as caught:
        await cache.get_or_load("k", wrong)
    assert caught.value.argument == "loader"
    await settle()
    assert seen(zones, "k") == {"a": None, "b": None}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_value_that_cannot_be_stored_is_an_error(zones):
    """All callers that wait get the error. The lease is released."""
    cache, source = await zones.ready(), Source(object(), seconds=0.1)
    got = await outcomes(*(cache.get_or_load("k", source.load) for _ in range(3)))
    assert [type(error) for error in got] == [EncodeError] * 3
    assert source.calls == 1
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2, item_size_max=2000)
async def test_a_value_that_is_too_large_is_returned_and_not_kept(zones, caplog):
    cache, source = await zones.ready(), Source("v" * 5000)
    assert await cache.get_or_load("k", source.load) == source.value
    assert seen(zones, "k") == {"a": None, "b": None}
    assert "store of the loaded value of b't:k' failed: " in caplog.text
    assert no_stubs(zones)
