"""Errors of reads, and reads that return the default in their place."""

import pytest

from evcache import CacheUnavailable, ConsistencyError, DecodeError
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from tests.support.memory_zones import Listener, Stopwatch, full, on_zones


@pytest.mark.parametrize("consistency", ["one", "quorum", "all"])
@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_a_read_without_any_answer_raises_cache_unavailable(zones, consistency, operation, how):
    """It names the failure of each zone, at the deadline at the latest."""
    cache = await zones.ready()
    if how == "kill":
        await zones.kill(*"abc")
    else:
        zones.pause(*"abc")
    call = ["k"] if operation == "get_many" else "k"
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await getattr(cache, operation)(call, consistency=consistency, timeout=0.2)
    assert watch.seconds <= 0.2
    kind = NodeUnavailable if how == "kill" else NodeTimeout
    assert set(caught.value.failures) == {"a", "b", "c"}
    assert all(isinstance(failure, kind) for failure in caught.value.failures.values())
    for zone in "abc":
        assert f"{zone}: {zone}0:11211: " in str(caught.value)


@pytest.mark.parametrize("per_call", [True, False])
@pytest.mark.parametrize("consistency", ["one", "all"])
@on_zones()
async def test_errors_as_misses_return_the_default(zones, per_call, consistency):
    """A client or a call may choose it. The hooks get each error."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, **({} if per_call else {"errors": "miss"}))
    await cache.set("k", "value")
    await zones.kill(*("abc" if consistency == "one" else "c"))
    call = {"consistency": consistency, **({"errors": "miss"} if per_call else {})}
    assert await cache.get("k", "default", **call) == "default"
    assert await cache.get_item("k", **call) is None
    assert await cache.get_and_touch("k", 5, "default", **call) == "default"
    assert len(listener.misses) == 3
    await cache.get_many(["k"], **call)
    assert len(listener.misses) == 4
    kind = CacheUnavailable if consistency == "one" else ConsistencyError
    assert all(isinstance(error, kind) for error in listener.misses)
    with pytest.raises(kind):
        await cache.get("k", **call | {"errors": "raise"})


@on_zones()
async def test_errors_as_misses_apply_to_reads_for_update(zones):
    cache = await zones.ready()
    await zones.kill(*"abc")
    assert await cache.get_item("k", for_update=True, errors="miss") is None
    with pytest.raises(CacheUnavailable):
        await cache.get_item("k", for_update=True)


@on_zones()
async def test_at_none_an_unreachable_cache_is_a_miss(zones):
    """The client asks the zones in turn."""
    cache = await zones.ready()
    await cache.set("k", "value")
    assert await cache.get("k", consistency="none") == "value"
    await zones.kill(*"abc")
    assert await cache.get("k", "default", consistency="none") == "default"
    assert await cache.get_many(["k"], consistency="none") == {}


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@on_zones()
async def test_a_value_that_cannot_be_decoded_raises_an_error(zones, operation):
    """It is no miss. The error names the key, the zone and the flags."""
    cache = await zones.ready(errors="miss")
    zones.write_as_another_client("k", b"\xff", 0x4200, "a")
    with pytest.raises(DecodeError) as caught:
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k")
    assert (caught.value.key, caught.value.zone, caught.value.flags) == (full("k"), "a", 0x4200)
    assert "t:k" in str(caught.value)
    await zones.kill("a")
    zones.write_as_another_client("k", b"\xff", 0, "b", "c")
    with pytest.raises(DecodeError) as caught:
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k")
    assert caught.value.zone in {"b", "c"}
