"""The table of the guide that compares evcache with redis-py: each call of redis-py gives the result of the page."""

import asyncio

import pytest
import redis.asyncio as redis

from integration.redis_server import RedisServer, find_redis
from tests.support.side_by_side import calls, results


@pytest.fixture
def server():
    server = RedisServer(find_redis())
    server.start()
    yield server
    server.kill()


def test_calls_of_redis_py_give_what_the_page_says(server):
    async def main():
        async with redis.Redis(port=server.port) as client:
            return await results(made, {"r": client})

    made = calls("from-redis-py.md", "redis-py")
    assert len(made) > 15
    assert asyncio.run(main()) == made
