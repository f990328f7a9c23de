"""Clients that block: each caller is a thread. What they show is how much of the cost is asyncio's."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import meta_memcache
import pymemcache
import pymemcache.client.hash as pymemcache_hash
from meta_memcache.serializer import MixedSerializer

from benchmarks.measuring import Run
from benchmarks.peers import TTL_SECONDS
from benchmarks.works import LARGE, Work

try:
    import pylibmc
except ImportError:  # no wheel for this Python, and libmemcached would be needed
    pylibmc = None  # type: ignore[assignment]

MAX_THREADS = 32
READ_BUFFER_BYTES = 64 * 1024
"""Of meta-memcache. With its 4,096 replies of 20 kB and more take it a hundred times as long: it bounds the socket's too."""

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]


def _cant(work: Work) -> str | None:
    if work.kind == "near hit":
        return "has no near cache"
    if work.loop != "asyncio":
        return "has no event loop"
    if work.callers > MAX_THREADS:
        return f"blocks, and {work.callers} threads are not how it is used"
    return None


class _Uncompressed(MixedSerializer):
    COMPRESSION_THRESHOLD = 2 * LARGE  # the others compress nothing


def _pymemcache_variants(work: Work) -> dict[str, Opener] | str:
    return _cant(work) or {"": _pymemcache}


async def _pymemcache(stack: AsyncExitStack, work: Work, ports: list[int]) -> Run:
    options: dict[str, Any] = {"no_delay": True, "default_noreply": False}
    clients: list[Any] = []
    for zone in range(work.zones):
        servers = [("127.0.0.1", port) for port in work.nodes_of(ports, zone)]
        if work.nodes > 1:
            clients.append(
                pymemcache_hash.HashClient(servers, use_pooling=True, max_pool_size=work.callers, **options)
                if work.callers > 1
                else pymemcache_hash.HashClient(servers, **options)
            )
        elif work.callers > 1:
            clients.append(pymemcache.PooledClient(servers[0], max_pool_size=work.callers, **options))
        else:
            clients.append(pymemcache.Client(servers[0], **options))
        stack.callback(clients[-1].close)
    return _run(
        "pymemcache",
        work,
        ports,
        [clients] * work.callers,
        get=lambda client: client.get,
        put=lambda client, key: partial(client.set, key, work.value, expire=TTL_SECONDS),
        put_many=lambda client, values: partial(client.set_many, values, expire=TTL_SECONDS),
        get_many=lambda client: client.get_many,
    )


def _pylibmc_variants(work: Work) -> dict[str, Opener] | str:
    if pylibmc is None:
        return "is not installed: no wheel for this Python, and its sources need libmemcached"
    return _cant(work) or {"text": partial(_pylibmc, binary=False), "binary": partial(_pylibmc, binary=True)}


async def _pylibmc(stack: AsyncExitStack, work: Work, ports: list[int], *, binary: bool) -> Run:
    masters = [
        pylibmc.Client(
            [f"127.0.0.1:{port}" for port in work.nodes_of(ports, zone)],
            binary=binary,
            behaviors={"tcp_nodelay": True, "ketama": True},  # as its documentation begins
        )
        for zone in range(work.zones)
    ]
    # A client belongs to one thread; its ThreadMappedPool makes the same clones.
    clients = [[master.clone() for master in masters] for _ in range(work.callers)]
    for client in (*masters, *(client for of_caller in clients for client in of_caller)):
        stack.callback(client.disconnect_all)
    return _run(
        "pylibmc",
        work,
        ports,
        clients,
        get=lambda client: client.get,
        put=lambda client, key: partial(client.set, key, work.value, time=TTL_SECONDS),
        put_many=lambda client, values: partial(client.set_multi, values, time=TTL_SECONDS),
        get_many=lambda client: client.get_multi,
    )


def _meta_memcache_variants(work: Work) -> dict[str, Opener] | str:
    if work.kind == "set_many":
        return "stores one key at a time"
    sizes = (READ_BUFFER_BYTES, 2 * LARGE) if work.size == LARGE else (READ_BUFFER_BYTES,)
    return _cant(work) or {f"buffer of {size // 1000} kB": partial(_meta_memcache, buffer=size) for size in sizes}


async def _meta_memcache(stack: AsyncExitStack, work: Work, ports: list[int], *, buffer: int) -> Run:
    del stack  # it can't be closed
    clients = [
        meta_memcache.CacheClient.cache_client_from_servers(
            servers=[meta_memcache.ServerAddress("127.0.0.1", port) for port in work.nodes_of(ports, zone)],
            connection_pool_factory_fn=meta_memcache.connection_pool_factory_builder(
                initial_pool_size=work.callers,
                max_pool_size=work.callers,
                connection_timeout=30,
                recv_timeout=30,
                read_buffer_size=buffer,
            ),
            serializer=_Uncompressed(),
        )
        for zone in range(work.zones)
    ]
    return _run(
        "meta-memcache",
        work,
        ports,
        [clients] * work.callers,
        get=lambda client: client.get,
        put=lambda client, key: partial(client.set, key, work.value, TTL_SECONDS),
        get_many=lambda client: client.multi_get,
    )


def _run(
    name: str,
    work: Work,
    ports: list[int],
    clients: list[list[Any]],
    *,
    get: Callable[[Any], Callable[[str], Any]],
    put: Callable[[Any, str], Callable[[], Any]],
    get_many: Callable[[Any], Callable[[list[str]], dict[Any, Any]]],
    put_many: Callable[[Any, dict[str, bytes]], Callable[[], list[Any]]] | None = None,
) -> Run:
    """One list of clients, one for each zone, for each caller. `put_many` returns the keys that were not stored."""
    keys = [f"{name}:{one}" for one in work.names]
    if work.kind == "set":
        return Run(
            name,
            [_all_true([put(client, key) for client in mine]) for mine, key in zip(clients, keys, strict=True)],
            written=[(port, keys[0].encode()) for port in ports[: work.zones]],
            in_threads=True,
        )
    if work.kind == "set_many":
        assert put_many is not None
        values = dict.fromkeys(keys, work.value)
        return Run(
            name,
            [_none_failed([put_many(client, values) for client in mine]) for mine in clients],
            written=[(port, keys[0].encode()) for port in ports[: work.zones]],
            in_threads=True,
        )
    if work.kind == "get miss":
        calls = [_first([get(client) for client in mine], key + ":none") for mine, key in zip(clients, keys, strict=True)]
        return Run(name, calls, is_right=operator.not_, in_threads=True)
    for key in keys:
        put(clients[0][0], key)()
    if work.kind == "get hit":
        return Run(
            name,
            [partial(get(mine[0]), key) for mine, key in zip(clients, keys, strict=True)],
            values=lambda answer: [answer],
            in_threads=True,
        )
    expected = len(keys)
    return Run(
        name,
        [partial(get_many(mine[0]), keys) for mine in clients],
        is_right=lambda answer: len(answer) == expected and None not in answer.values(),
        values=lambda answer: list(answer.values()),
        in_threads=True,
    )


def _all_true(puts: list[Callable[[], Any]]) -> Callable[[], Any]:
    return puts[0] if len(puts) == 1 else lambda: all(put() for put in puts)


def _none_failed(puts: list[Callable[[], list[Any]]]) -> Callable[[], bool]:
    return lambda: sum(len(put()) for put in puts) == 0  # every zone is written, also behind a failure


def _first(gets: list[Callable[[str], Any]], key: str) -> Callable[[], Any]:
    if len(gets) == 1:
        return partial(gets[0], key)
    return lambda: next((found for get in gets if (found := get(key)) is not None), None)


VARIANTS: dict[str, Callable[[Work], dict[str, Opener] | str]] = {
    "pymemcache": _pymemcache_variants,
    "pylibmc": _pylibmc_variants,
    "meta-memcache": _meta_memcache_variants,
}
