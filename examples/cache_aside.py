"""Two processes of a service with a database: loads are shared, hot rows are in near caches, writes go through.

Run it with `python examples/cache_aside.py`. It starts local zones, with memcached if a binary is found. Both processes are
clients in this program; real processes use a `RedisChannel` in place of the `LocalChannel`.
"""

import asyncio
from typing import Any

from evcache import EVCache, LocalChannel, NearCache
from evcache.testing import LocalZones

Row = dict[str, Any]


class Database:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {42: {"name": "Ada"}}
        self.reads = 0

    async def read(self, user_id: int) -> Row | None:
        self.reads += 1
        await asyncio.sleep(0.05)
        return self.rows.get(user_id)

    async def write(self, user_id: int, row: Row) -> None:
        if not row["name"]:
            raise ValueError("a user has a name")
        self.rows[user_id] = row


def process(zones: LocalZones, channel: LocalChannel) -> EVCache:
    # Timeouts of a second, so that a busy machine does not change the output. A short grace, because the near cache stores
    # nothing for that time after the channel connects.
    return EVCache(
        "users",
        zones.zones,
        local_zone="eu-1a",
        read_timeout=1.0,
        write_timeout=1.0,
        near_cache=NearCache(grace=0.2),
        invalidation=channel,
    )


async def main() -> None:
    database, channel = Database(), LocalChannel()
    async with LocalZones({"eu-1a": 1, "eu-1b": 1}) as zones, process(zones, channel) as one, process(zones, channel) as two:

        @one.cached(key="user:{user_id}", ttl=300, stale_while_revalidate=30)
        async def load_user(user_id: int) -> Row | None:
            return await database.read(user_id)

        async def in_two(key: str = "user:42") -> Any:
            return await two.get_or_load(key, lambda: database.read(42), ttl=300)

        users = await asyncio.gather(*(load_user(42) for _ in range(50)), *(in_two() for _ in range(50)))
        print(f"100 callers in 2 processes: {users[0]} for {users.count(users[0])} of them, {database.reads} read")

        print(f"a user that does not exist: {await load_user(7)}, {await load_user(7)}, {database.reads - 1} read")

        while not (item := await two.get_item("user:42")) or item.source != "near":
            await asyncio.sleep(0.05)
        print(f"in the near cache of the second process: {item.value}")

        await one.write_through("user:42", {"name": "Grace"}, lambda row: database.write(42, row), ttl=300)
        while (user := await in_two()) != {"name": "Grace"}:
            await asyncio.sleep(0.01)  # without the invalidation the near cache would serve the old row
        print(f"written through, and invalidated in the second process: {user}")

        try:
            await one.write_through("user:42", {"name": ""}, lambda row: database.write(42, row))
        except ValueError as error:
            print(f"the database refuses: {error}; the cache holds {await one.get('user:42')}")
        await load_user(42)

        database.rows[42] = {"name": "Barbara"}
        await load_user.invalidate(42)
        print(f"stale, returned without waiting: {await load_user(42)}")
        while (user := await load_user(42)) != {"name": "Barbara"}:
            await asyncio.sleep(0.01)
        print(f"loaded in the background: {user}")
    await channel.close()


if __name__ == "__main__":
    asyncio.run(main())
