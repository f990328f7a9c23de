"""A near cache that keeps hot keys only."""

from evcache import NearCache
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop, near_of


@on_zones()
async def test_only_keys_that_are_read_often_are_kept_and_stay_when_their_time_is_over(zones):
    """The third read within a second makes a key hot; an entry that has expired is renewed by the next read, however late."""
    writer, cache = await zones.ready(), await zones.ready(near_cache=NearCache(ttl=2, hot_reads=3))
    follow_loop(cache)
    near_of(cache).clear()
    await writer.set("k", "v", ttl=600, consistency="all")
    for kept in (False, False, True):
        assert await cache.get("k") == "v"
        assert (cache.stats().near_entries == 1) == kept
    await pass_time(0.5)
    zones.forget()
    assert await cache.get("k") == "v"
    assert zones.wire("a") == b""
    near_of(cache)._sweeper.stop()  # what has expired is still there, as between two of its rounds
    await pass_time(2.0)
    assert await cache.get("k") == "v"
    assert zones.wire("a") != b""
    zones.forget()
    assert await cache.get("k") == "v"
    assert zones.wire("a") == b"", "one read was enough to keep it on"
