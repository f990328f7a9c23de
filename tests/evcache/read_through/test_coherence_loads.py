"""A load that began before another client's write, or an own one: its callers get what it found, and nobody else ever does."""

import asyncio

import pytest

from tests.support.memory_zones import TOMBSTONE, on_zones, pass_time
from tests.support.near import GRACE, KEY, Pair, heard, kept


class Source:
    """What is loaded from. A load takes until it is let go, and returns what was there when it began."""

    def __init__(self, value):
        self.value = value
        self.go = asyncio.Event()
        self.loads = 0

    async def load(self):
        self.loads += 1
        value = self.value
        await self.go.wait()
        return value

    async def load_many(self, keys):
        return dict.fromkeys(keys, await self.load())


async def one(cache, source):
    return await cache.get_or_load(KEY, source.load)


async def many(cache, source):
    return (await cache.get_or_load_many([KEY], source.load_many)).get(KEY)


LOADED_WRITES = {
    "set": (lambda cache: cache.set(KEY, "new", consistency="all"), "new"),
    "set in the reader's zone last": (lambda cache: cache.set(KEY, "new"), "new"),
    "add": (lambda cache: cache.add(KEY, "new", consistency="all"), "new"),
    "delete": (lambda cache: cache.delete(KEY, consistency="all"), TOMBSTONE),
    "incr": (lambda cache: cache.incr(KEY, initial=7, consistency="all"), 7),
}


@pytest.mark.parametrize("load", [one, many])
@pytest.mark.parametrize(("write", "new"), LOADED_WRITES.values(), ids=LOADED_WRITES)
@on_zones()
async def test_a_load_that_began_before_a_write_hides_it_nowhere(zones, load, write, new):
    """Its callers get what it found; those who come after the announcement do not, and no zone holds it in the end."""
    pair = await Pair.on(zones)
    await pair.writer.delete(KEY, consistency="all")
    zones.evict(KEY, "a", "b", "c")
    await pass_time(GRACE + 1)
    source = Source("loaded before")
    loading = asyncio.ensure_future(load(pair.reader, source))
    await pass_time(0.1)
    assert source.loads == 1
    await write(pair.writer)
    await heard()
    later = Source("loaded after")
    later.go.set()
    asked_later = asyncio.ensure_future(load(pair.reader, later))
    await pass_time(0.1)
    source.go.set()
    assert await loading == "loaded before"
    answer = await asked_later
    await pass_time(0.1)
    values = zones.values(KEY)
    if new == TOMBSTONE:
        assert answer == "loaded after"
        assert set(values.values()) <= {TOMBSTONE, "loaded after"}
    else:
        assert answer == new
        assert set(values.values()) == {new}
    assert await pair.reader.get(KEY) != "loaded before"
    await pass_time(GRACE + 1)
    assert await pair.reader.get(KEY) != "loaded before"


@on_zones()
async def test_a_load_that_began_before_a_gap_is_not_kept(zones):
    """Whatever was announced meanwhile was not heard."""
    pair = await Pair.on(zones)
    await pair.writer.delete(KEY, consistency="all")
    zones.evict(KEY, "a", "b", "c")
    await pass_time(GRACE + 1)
    source = Source("before")
    loading = asyncio.ensure_future(one(pair.reader, source))
    await pass_time(0.1)
    pair.reader._changes.invalidate_all("test")
    source.go.set()
    assert await loading == "before"
    assert kept(pair.reader, KEY) is None


@on_zones()
async def test_an_own_write_during_a_load_wins(zones):
    """In the near cache and in every zone."""
    pair = await Pair.on(zones)
    await pair.reader.delete(KEY, consistency="all")
    source = Source("loaded")
    loading = asyncio.ensure_future(one(pair.reader, source))
    await pass_time(0.1)
    assert await pair.reader.set(KEY, "written", consistency="all")
    source.go.set()
    assert await loading == "loaded"
    await pass_time(0.1)
    assert await pair.reader.get(KEY) == "written"
    assert set(zones.values(KEY).values()) == {"written"}
