"""What was written during a load, and is gone again when the load ends: the loaded value is older, and is stored nowhere."""

import asyncio

import pytest

from tests.support.memory_zones import on_zones, pass_time


@pytest.mark.parametrize("write", ["set", "invalidate"])
@on_zones()
async def test_a_write_that_has_expired_by_the_end_of_the_load_keeps_it_out(zones, write):
    """The stub of the lease was replaced, and is gone before its time; an invalidation lasts as long as a delete."""
    loading, other = await zones.ready(local_zone="a"), await zones.ready(local_zone="b")

    async def load():
        await asyncio.sleep(5)
        return "old"

    loaded = asyncio.ensure_future(loading.get_or_load("k", load))
    await pass_time(0.5)
    await other.set("k", "new", ttl=1, consistency="all")
    if write == "invalidate":
        await other.invalidate("k", stale_while_revalidate=1, consistency="all")
    assert await loaded == "old", "whoever asked before the write may have it"
    await pass_time(1)
    assert (
        {held for held in zones.values("k").values() if held != "<tombstone>"} <= {None, "new"} if write == "set" else True
    )
    assert await other.get("k") is None
    assert await loading.get("k") is None

    async def load_new():
        return "newer"

    assert await other.get_or_load("k", load_new) == "newer"
