"""Write-through, write-behind and the near cache while there are standby zones: both sets have the value, before and after
the sets exchange their modes."""

import pytest

from evcache import Mode, NearCache
from evcache.write_behind import WriteBehind
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import BatchWriter, Source
from tests.support.standby import NEW, OLD, migrating

BOTH = OLD + NEW


class Through:
    """Writes that reach the source first."""

    def __init__(self, cache):
        self._cache = cache
        self._source = Source("before")

    async def write(self, value):
        return await self._cache.write_through("k", value, self._source.write, ttl=100, consistency="all")

    async def read_source(self):
        return self._source.value


class Behind:
    """Writes that reach the source with a flush."""

    def __init__(self, cache):
        self._source = BatchWriter()
        self._behind = WriteBehind(cache, self._source, interval=60)

    async def write(self, value):
        return await self._behind.set("k", value, ttl=100)

    async def read_source(self):
        assert await self._behind.close() == {}
        return self._source.values["k"]


each_way = pytest.mark.parametrize("way", [Through, Behind])


@each_way
@pytest.mark.parametrize("near", [None, NearCache(ttl=60)], ids=["", "near"])
@pytest.mark.parametrize("lacking", ["", OLD, NEW], ids=["both sets", "the new set", "the old set"])
@on_zones(zones=6)
async def test_a_written_value_is_read_before_and_after_the_sets_exchange_their_modes(zones, way, near, lacking):
    cache = (client := await migrating(zones, near_cache=near, write_consistency="all")).cache
    writes = way(cache)
    for value, modes in (("first", (OLD, NEW)), ("second", (NEW, OLD))):
        await client.use(*modes)
        result = await writes.write(value)
        assert (result.met, set(result.zones)) == (True, set(BOTH))
        assert zones.values("k") == dict.fromkeys(BOTH, value)
        if lacking:
            zones.evict("k", *lacking)
        assert await cache.get("k") == value
        assert await cache.get_many(["k"]) == {"k": value}
        await pass_time()
    assert await writes.read_source() == "second"


@each_way
@on_zones(zones=6)
async def test_a_standby_set_that_cannot_store_leaves_a_value_in_the_source_and_in_the_read_write_zones(zones, way):
    cache = (await migrating(zones)).cache
    writes = way(cache)
    await zones.kill(*NEW)
    result = await writes.write("value")
    assert (result.met, result.fell_short) == (False, (Mode.STANDBY,))
    assert await cache.get("k") == "value"
    assert await writes.read_source() == "value"


@on_zones(zones=6)
async def test_a_failed_writer_deletes_the_key_in_both_sets(zones):
    """The value of a standby zone does not come back."""
    client = await migrating(zones, near_cache=NearCache(ttl=60))
    await client.cache.set("k", "old", consistency="all")
    with pytest.raises(LookupError):
        await client.cache.write_through("k", "new", Source(error=LookupError()).write)
    await pass_time()
    assert await client.cache.get("k") is None
    await client.use(NEW, OLD)
    assert await client.cache.get("k") is None


@pytest.mark.parametrize("read", ["get", "get_many"])
@on_zones(zones=6)
async def test_a_near_value_of_a_standby_zone_ends_with_the_near_ttl_and_with_its_own(zones, read):
    client = await migrating(zones, near_cache=NearCache(ttl=4), repair=False)
    cache = client.cache
    follow_loop(cache)
    await cache.write_through("k", "value", Source().write, ttl=10, consistency="all")
    zones.evict("k", *OLD)
    await pass_time(4.5)  # what the write left in the near cache has expired
    found = []
    for _ in range(7):
        zones.forget()
        value = await cache.get("k") if read == "get" else (await cache.get_many(["k"])).get("k")
        found.append((value, any(zones.sent[zone] for zone in NEW)))
        await pass_time(1)
    asked, near, miss = ("value", True), ("value", False), (None, True)
    # From 4.5 s on. The near cache keeps nothing in the last second of an item, because servers count in whole seconds.
    assert found == [asked, near, near, near, asked, asked, miss]
