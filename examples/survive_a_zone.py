"""An outage as a service sees it: the local zone dies, reads and writes continue, and the zone recovers.

Run it with `python examples/survive_a_zone.py`. It starts local zones, with memcached if a binary is found.
"""

import asyncio

from evcache import CacheUnavailable, Consistency, EVCache
from evcache.testing import LocalZones


async def main() -> None:
    async with (
        LocalZones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}) as zones,
        # Timeouts of a second, so that a busy machine does not change the output.
        EVCache("sessions", zones.zones, local_zone="eu-1a", read_timeout=1.0, write_timeout=1.0) as cache,
    ):
        await cache.set("user:42", {"name": "Ada"}, ttl=300, consistency=Consistency.ALL)
        item = await cache.get_item("user:42")
        print(f"read from {item.zone} ({item.source})")

        await zones.kill("eu-1a")
        item = await cache.get_item("user:42")
        print(f"eu-1a is dead: read from another zone ({item.source}): {item.value}")

        result = await cache.set("user:43", {"name": "Grace"})
        print(f"a write for which all zones but one are enough: {bool(result)}; eu-1a: {result.zones['eu-1a']}")
        result = await cache.set("user:43", {"name": "Grace"}, consistency=Consistency.ALL)
        print(f"a write that asks for all of them: {bool(result)}")

        await zones.kill("eu-1b")
        await zones.kill("eu-1c")
        try:
            await cache.get("user:42")
        except CacheUnavailable:
            print("every zone is dead: CacheUnavailable, which is not a miss")
        print(f"unless the caller says so: {await cache.get('user:42', 'the default', errors='miss')}")

        await zones.restart("eu-1a")
        while not await cache.set("user:42", {"name": "Ada"}, consistency=Consistency.ONE, errors="miss"):
            await asyncio.sleep(0.1)  # the client reconnects with pauses of up to five seconds
        print(f"eu-1a is back: {await cache.get('user:42')}")


if __name__ == "__main__":
    asyncio.run(main())
