"""Clients of the Redis protocol: valkey-glide, whose core is in Rust, and redis-py with the parser of hiredis.

They read from a Redis-protocol server on the same machine, which holds the same values. A ratio to them compares two servers
as well as two clients.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import redis.asyncio
import redis.utils

from benchmarks.measuring import REDIS_PY, VALKEY_GLIDE, Run
from benchmarks.peers import POOLS, TTL_SECONDS, connections
from benchmarks.works import Work

try:
    import glide
except ImportError:  # it has no wheels for Windows
    glide = None  # type: ignore[assignment]

CLIENTS = {1: (1,), 32: (1, 2), 256: (1, 2, 4)}
"""Clients of valkey-glide, by callers. One has one connection, which carries the requests of all callers at once."""

TIMEOUT_MILLISECONDS = 30_000
IN_FLIGHT = 4096

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]
Variants = dict[str, Opener] | str


def valkey_glide_variants(work: Work, *, server: int | str) -> Variants:
    """With several clients. `server` is the port of the Redis-protocol server, or the reason why there is none."""
    if glide is None:
        return "is not installed"
    if isinstance(server, str):
        return server
    return _cant(work) or {
        f"{count} client{'' if count == 1 else 's'}": partial(_valkey_glide, server=server, count=count)
        for count in CLIENTS[work.callers]
    }


def redis_py_variants(work: Work, *, server: int | str) -> Variants:
    """With several sizes of its pool; a bulk read both as MGET and as a pipeline."""
    if not redis.utils.HIREDIS_AVAILABLE:
        return "hiredis is not installed"
    if isinstance(server, str):
        return server
    sizes = POOLS[work.callers]
    ways = ("MGET", "pipeline") if work.kind == "get_many" else ("",)
    return _cant(work) or {
        ", ".join(filter(None, (connections(size), way))): partial(_redis_py, server=server, pool=size, way=way)
        for size in sizes
        for way in ways
    }


def _cant(work: Work) -> str | None:
    if work.kind == "near hit" or work.is_write:
        return "takes part in reads from a server"
    if work.nodes > 1 or work.zones > 1:
        return "reads from one server alone"
    return None


async def _valkey_glide(stack: AsyncExitStack, work: Work, ports: list[int], *, server: int, count: int) -> Run:
    del ports
    clients: list[Any] = []
    for _ in range(count):
        client = await glide.GlideClient.create(
            glide.GlideClientConfiguration(
                [glide.NodeAddress("127.0.0.1", server)],
                request_timeout=TIMEOUT_MILLISECONDS,
                inflight_requests_limit=IN_FLIGHT,
            )
        )
        stack.push_async_callback(client.close)
        clients.append(client)
    expiry = glide.ExpirySet(glide.ExpiryType.SEC, TTL_SECONDS)
    return await _run(
        VALKEY_GLIDE,
        work,
        put=lambda key: clients[0].set(key, work.value, expiry=expiry),
        get=lambda caller, key: partial(clients[caller % count].get, key),
        get_many=lambda caller, keys: partial(clients[caller % count].mget, keys),
    )


async def _redis_py(stack: AsyncExitStack, work: Work, ports: list[int], *, server: int, pool: int, way: str) -> Run:
    del ports
    # Waiting for a free connection takes a lock, which a pool with a connection for each caller does not need.
    options: dict[str, Any] = {"timeout": None} if pool < work.callers else {}
    pool_class = redis.asyncio.BlockingConnectionPool if pool < work.callers else redis.asyncio.ConnectionPool
    client = redis.asyncio.Redis.from_pool(pool_class(host="127.0.0.1", port=server, max_connections=pool, **options))
    stack.push_async_callback(client.aclose)

    def many(_: int, keys: list[bytes]) -> Callable[[], Awaitable[list[bytes | None]]]:
        async def call() -> list[bytes | None]:
            async with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(key)
                return await pipeline.execute()

        return call if way == "pipeline" else partial(client.mget, keys)

    run = await _run(
        REDIS_PY,
        work,
        put=lambda key: client.set(key, work.value, ex=TTL_SECONDS),
        get=lambda _, key: partial(client.get, key),
        get_many=many,
    )
    await asyncio.gather(*(client.ping() for _ in range(pool)))  # each connection is open now
    return run


async def _run(
    name: str,
    work: Work,
    *,
    put: Callable[[bytes], Awaitable[Any]],
    get: Callable[[int, bytes], Callable[[], Awaitable[Any]]],
    get_many: Callable[[int, list[bytes]], Callable[[], Awaitable[list[bytes | None]]]],
) -> Run:
    """Store the values. `get` and `get_many` make the call of a caller, by its number."""
    keys = [f"{name.partition(' ')[0]}:{one}".encode() for one in work.names]
    if work.kind == "get miss":
        return Run(name, [get(caller, key + b":none") for caller, key in enumerate(keys)], is_right=operator.not_)
    for key in keys:
        await put(key)
    if work.kind == "get hit":
        return Run(name, [get(caller, key) for caller, key in enumerate(keys)], values=lambda answer: [answer])
    expected = len(keys)
    return Run(
        name,
        [get_many(caller, keys) for caller in range(work.callers)],
        is_right=lambda answer: len(answer) == expected and None not in answer,
        values=list,
    )
