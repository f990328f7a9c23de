"""List of contenders. Each is opened again for each kind of work, with every setting that may be its fastest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import blocking_peers, bound, peers, redis_peers
from benchmarks.measuring import (
    ARRIVAL,
    BOUND,
    BOUND_META,
    CLASSIC,
    OURS,
    PURE,
    REDIS_PY,
    UNREPAIRED,
    VALKEY_GLIDE,
    CannotTakePartError,
    Run,
)
from benchmarks.works import SMALL, ZONES, Work
from evcache import EVCache, NearCache
from evcache.zones.transport.core import selected

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]


@dataclass(frozen=True)
class Contender:
    """A client, and how it is set up for a kind of work."""

    name: str
    variants: Callable[[Work], dict[str, Opener] | str]
    """Ways to set it up, by what they are called; or why it can't do this work."""


def contenders(redis: int | str) -> list[Contender]:
    """All of them, in the order in which they are printed.

    Args:
        redis: Port of the Redis-protocol server, or the reason why there is none.
    """
    return [
        Contender(OURS, lambda _: {"": _evcache}),
        Contender(
            ARRIVAL,
            lambda work: {"": partial(_evcache, ordering="arrival")} if work.is_write else "reads are the same",
        ),
        Contender(
            CLASSIC,
            lambda work: (
                {"": partial(_evcache, transport="classic")}
                if work.kind != "near hit"
                else "what was read with it is not kept: it can't say how long it lives"
            ),
        ),
        Contender(
            PURE,
            lambda work: (
                {"": _on_python_core}
                if selected.SELECTED is not selected.PURE and work.kind != "near hit"
                else "it is the core that runs, or no core takes part"
            ),
        ),
        # What it costs to remember versions, to look for zones that are behind, and to keep what zones missed.
        Contender(
            UNREPAIRED,
            lambda work: (
                {"": partial(_evcache, repair=False, remember_versions=0, hints=None)}
                if work.callers == 32 and work.size == SMALL and work.operation in ("get hit", "set to 3 zones")
                else "compared with 32 callers alone"
            ),
        ),
        Contender("aiomcache", peers.aiomcache_variants),
        Contender("emcache", peers.emcache_variants),
        Contender("emcache, autobatching", partial(peers.emcache_variants, autobatching=True)),
        Contender(VALKEY_GLIDE, partial(redis_peers.valkey_glide_variants, server=redis)),
        Contender(REDIS_PY, partial(redis_peers.redis_py_variants, server=redis)),
        *(Contender(name, variants) for name, variants in blocking_peers.VARIANTS.items()),
        Contender(BOUND, bound.variants),
        Contender(BOUND_META, partial(bound.variants, meta=True)),
    ]


async def _evcache(stack: AsyncExitStack, work: Work, ports: list[int], **options: Any) -> Run:
    # A service has three zones, whichever of them it reads. Only a miss costs a look into the others.
    count = work.zones if work.is_write or work.kind == "get miss" or work.nodes > 1 else ZONES
    zones = {f"zone-{zone}": [f"127.0.0.1:{port}" for port in work.nodes_of(ports, zone)] for zone in range(count)}
    cache = await stack.enter_async_context(
        EVCache(
            "benchmark",
            zones,
            local_zone="zone-0",
            # A benchmark that fails on a busy machine tells nothing: long timeouts, which cost the same.
            read_timeout=30,
            write_timeout=30,
            near_cache=NearCache(ttl=3600) if work.kind == "near hit" else None,
            **options,
        )
    )
    names, value = work.names, work.value
    if work.kind == "set":
        return Run(
            OURS,
            # The peers' gather waits for every zone, so ours does too.
            [partial(cache.set, name, value, consistency="all") for name in names],
            written=[(work.nodes_of(ports, zone)[0], f"benchmark:{names[0]}".encode()) for zone in range(work.zones)],
        )
    if work.kind == "set_many":
        return Run(
            OURS,
            [partial(cache.set_many, dict.fromkeys(names, value), consistency="all")] * work.callers,
            is_right=lambda answer: len(answer) == len(names) and all(answer.values()),
            written=[(work.nodes_of(ports, zone)[0], f"benchmark:{names[0]}".encode()) for zone in range(work.zones)],
        )
    if work.kind == "get miss":
        return Run(OURS, [partial(cache.get, name + ":none") for name in names], is_right=_is_none)
    stored = await cache.set_many(dict.fromkeys(names, value), consistency="all")
    if not all(stored.values()):
        raise RuntimeError("the values could not be stored")
    if work.kind == "get_many":
        expected = len(names)
        return Run(
            OURS,
            [partial(cache.get_many, names)] * work.callers,
            is_right=lambda answer: len(answer) == expected,
            values=lambda answer: list(answer.values()),
        )
    if work.kind == "near hit":
        item = await cache.get_item(names[0])
        item = await cache.get_item(names[0])
        if item is None or item.source != "near":
            raise CannotTakePartError("the client keeps no copy of what these servers return")
    return Run(OURS, [partial(cache.get, name) for name in names], values=lambda answer: [answer])


async def _on_python_core(stack: AsyncExitStack, work: Work, ports: list[int]) -> Run:
    """Open a client whose connections run on the core in Python."""
    usual, selected.SELECTED = selected.SELECTED, selected.PURE
    try:
        run = await _evcache(stack, work, ports)
        for call in run.calls:  # each node is connected now
            await call()
    finally:
        selected.SELECTED = usual
    return run


def _is_none(answer: object) -> bool:
    return answer is None
