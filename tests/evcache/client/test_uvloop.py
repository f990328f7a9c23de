"""The client on uvloop, whose transports and timers are not asyncio's own."""

import pytest

from evcache import CacheUnavailable, EVCache
from evcache.zones.testing import FakeMemcached

uvloop = pytest.importorskip("uvloop")


def test_the_client_works_on_uvloop():
    """Every kind of request, an outage, a deadline, and a close that leaves nothing."""

    async def main():
        async with FakeMemcached() as a, FakeMemcached() as b:
            zones = {"eu-1a": [a.address], "eu-1b": [b.address]}
            async with EVCache("ns", zones, local_zone="eu-1a", read_timeout=5, write_timeout=5) as cache:
                values = {f"key-{n}": "v" * n * 100 for n in range(50)}
                assert all((await cache.set_many(values, consistency="all")).values())
                assert await cache.get_many(values) == values
                assert await cache.get("key-7", consistency="all") == values["key-7"]
                assert await cache.incr("n", initial=3) == 3
                assert await cache.delete("key-7", consistency="all")
                assert await cache.get("key-7") is None

                a.pause()
                assert await cache.get("key-8", timeout=0.2) == values["key-8"]
                b.pause()
                with pytest.raises(CacheUnavailable):
                    await cache.get("key-8", timeout=0.1)
                a.resume()
                b.resume()
                assert await cache.get("key-8") == values["key-8"]
                await a.kill()
                assert await cache.get("key-9") == values["key-9"]

    uvloop.run(main())
