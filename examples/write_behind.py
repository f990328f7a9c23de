"""A service that counts views, with a database that cannot be written for each view.

Run it with `python examples/write_behind.py`. It starts local zones, with memcached if a binary is found.
"""

import asyncio

from evcache import Batch, EVCache, WriteBehind
from evcache.testing import LocalZones


class Database:
    """A stand-in for a database with transactions, which store rows and batch ids together or not at all."""

    def __init__(self) -> None:
        self.rows: dict[str, object] = {}
        self.views: dict[str, int] = {}
        self.applied: set[str] = set()
        self.calls = 0
        self.loses_answers = False

    async def write(self, batch: Batch) -> None:
        self.calls += 1
        if self.applied.isdisjoint(batch.ids):
            for key, value in batch.items():
                if key in batch.deltas:
                    self.views[key] = self.views.get(key, 0) + value
                else:
                    self.rows[key] = value
            self.applied.add(batch.id)
        if self.loses_answers:
            self.loses_answers = False
            raise ConnectionError("the connection was lost after the commit")


async def main() -> None:
    database = Database()
    async with (
        LocalZones({"eu-1a": 1, "eu-1b": 1}) as zones,
        # Timeouts of a second, so that a busy machine does not change the output.
        EVCache("views", zones.zones, local_zone="eu-1a", read_timeout=1.0, write_timeout=1.0) as cache,
        WriteBehind(cache, database.write, interval=60.0) as behind,
    ):
        for number in range(100):
            await behind.set("user:42", {"page": number}, ttl=300)
            await behind.add("views:home", 1)
        print(f"in the cache at once: {await cache.get('user:42')}")
        print(f"in the database, so far: {database.rows}")

        async def load(key: str) -> object:
            return behind.waiting(key, database.rows.get(key))

        await cache.delete("user:42")
        print(f"a loader looks at what waits first: {await load('user:42')}")

        await behind.flush()
        print(f"200 updates, {database.calls} write: {database.rows}, {database.views}")

        database.loses_answers = True
        await behind.add("views:home", 1)
        await behind.flush()
        print(f"tried {database.calls - 1} times, counted once: {database.views}")

        await behind.add("views:home", 1)
    print(f"closing writes what waits: {database.views}")


if __name__ == "__main__":
    asyncio.run(main())
