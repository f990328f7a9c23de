"""What the operations of a client stand on: its settings, its parts, opening and closing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from evcache.background import Background
from evcache.codec import Codec, StandardCodec
from evcache.config import (
    CLOSE_SECONDS,
    READ_TIMEOUT_SECONDS,
    TOMBSTONE_TTL_SECONDS,
    WRITE_TIMEOUT_SECONDS,
    Errors,
    Ordering,
    ZonesArgument,
    discovery_from,
    local_zone_from,
)
from evcache.consistency import Consistency
from evcache.coordinator import Coordinator, Draft
from evcache.errors import CacheUnavailable
from evcache.hooks import GuardedHooks, Hooks
from evcache.keys import Keys
from evcache.near_cache import NearCache
from evcache.near_path import Near
from evcache.options import Defaults, Options, Seconds
from evcache.owner import Owner
from evcache.read_path import ReadPath
from evcache.repair import Repair
from evcache.ttl import DEFAULT_TTL_SECONDS, seconds_to_live
from evcache.versions import VersionClock
from evcache.write_path import WritePath
from zones.cluster import Cluster, View
from zones.discovery import StaticDiscovery
from zones.node import NodeSettings
from zones.topology import Topology
from zones.transports.base import TransportChoice


class Lifecycle:
    """A client that can be opened and closed, and the parts that its operations use."""

    def __init__(
        self,
        namespace: str,
        zones: ZonesArgument,
        *,
        local_zone: str | None = None,
        read_consistency: Consistency | str = Consistency.ONE,
        write_consistency: Consistency | str = Consistency.ALL_MINUS_ONE,
        read_timeout: float = READ_TIMEOUT_SECONDS,
        write_timeout: float = WRITE_TIMEOUT_SECONDS,
        ttl: Seconds = DEFAULT_TTL_SECONDS,
        fallback_on_miss: bool = True,
        errors: Errors = "raise",
        ordering: Ordering = "newest",
        interop: bool = False,
        codec: Codec | None = None,
        tombstone_ttl: Seconds = TOMBSTONE_TTL_SECONDS,
        near_cache: NearCache | None = None,
        nodes: NodeSettings | None = None,
        transport: TransportChoice | None = None,
        hooks: Hooks | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """No I/O happens here, and no running loop is needed. Raises `InvalidArgument` naming what can't be used.

        namespace: prefix of every key, `namespace:key`.
        zones: a mapping of zone names to nodes, a node list (`eu-1a=host:port,host:port;eu-1b=...`), the path of a TOML
            file (watched for changes), a `zones.Topology` or a `zones.Discovery`.
        local_zone: the zone this process runs in, read first; None: from `EVCACHE_ZONE`, else reads are spread over all.
        read_consistency, write_consistency: how many zones must answer, where the call does not say.
        read_timeout, write_timeout: seconds for a whole call, where the call does not say.
        ttl: seconds that an item lives, where the call does not say; `math.inf`: does not expire.
        fallback_on_miss: whether a miss in the local zone is looked up in the others.
        errors: "raise", or "miss": a read that no zone could answer returns the default, and is counted by the hooks.
        ordering: "newest": the newest write wins in every zone; "arrival": the last to arrive, which is faster, and zones
            may disagree until the next write.
        interop: other kinds of clients write this namespace: no versions, no tombstones, no repair, no hashed keys.
        codec: how values become bytes; None: `StandardCodec()`.
        tombstone_ttl: seconds that a delete is remembered by the zones.
        near_cache: keeps the hottest keys in this process's memory, `NearCache(max_bytes=..., ttl=...)`; None: off. This
            client's writes are seen at once, those of others after its `ttl` at the latest.
        nodes: how nodes are connected to: connections, connect timeout, login, TLS (`SocketDialer`).
        transport: "auto": each node is asked which protocol it speaks; "meta" or "classic": that one, or it is not used;
            None: what `nodes` says, which is "auto" unless it says otherwise.
        wall_clock: unix time in seconds, for versions and for TTLs over 30 days.
        """
        self._keys = Keys(namespace, may_hash=not interop)
        self._local_zone = local_zone_from(local_zone)
        self._discovery = discovery_from(zones, self._local_zone)
        self._defaults = Defaults(
            read_consistency=read_consistency,
            write_consistency=write_consistency,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            ttl=ttl,
            fallback_on_miss=fallback_on_miss,
            errors=errors,
            ordering=ordering,
        )
        self._fallback_on_miss = fallback_on_miss
        self._codec: Codec = StandardCodec() if codec is None else codec
        self._hooks: Hooks = Hooks() if hooks is None else GuardedHooks(hooks)
        self._versions = not interop
        self._owner = Owner()
        self._background = Background()
        settings = NodeSettings() if nodes is None else nodes
        if transport is not None:
            settings = replace(settings, transport=transport)
        self._cluster = Cluster(settings, self._local_zone)
        self._starting: asyncio.Task[View] | None = None
        clock = VersionClock(wall_ms=lambda: int(wall_clock() * 1000))
        repair = Repair(clock, self._background, self._hooks, enabled=not interop, now=wall_clock)
        self._near = None if near_cache is None else Near(near_cache)
        self._reads = ReadPath(clock, repair, self._hooks, self._near)
        self._coordinator = Coordinator(clock, self._codec, wall_clock, versions=not interop)
        self._writes = WritePath(
            clock,
            self._coordinator,
            self._background,
            self._hooks,
            versions=not interop,
            tombstone_ttl=seconds_to_live(tombstone_ttl, "tombstone_ttl"),
            now=wall_clock,
            near=self._near,
        )

    @property
    def namespace(self) -> str:
        """The prefix of every key."""
        return self._keys.namespace

    @property
    def topology(self) -> Topology | None:
        """The zones as they are known now; None before the first call."""
        return None if self._cluster.view is None else self._cluster.view.topology

    def __repr__(self) -> str:
        zones = "not opened" if self.topology is None else ", ".join(zone.name for zone in self.topology.zones)
        return f"<EVCache {self.namespace} zones: {zones}; local: {self._local_zone}>"

    # Opening and closing.

    async def __aenter__(self) -> Self:
        """Load the topology. Nodes are connected to when they are first asked."""
        await self._open(self._defaults.write(None, None, None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self, drain: float = CLOSE_SECONDS) -> None:
        """Wait up to `drain` seconds for writes that are on their way, then end every connection and task.

        May be called again. Calls that are under way after that fail with `CacheUnavailable`; later ones with `UsageError`.
        """
        if not self._owner.close():
            return
        try:
            if self._starting is not None:
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._background.close(drain)
        finally:
            await self._cluster.close(drain)

    async def _open(self, options: Options) -> tuple[View, Options]:
        """The zones, for a call that did not find them ready, and its options with the time that is left.

        Raises `UsageError`, `CacheUnavailable` when the zones are not known in time, or what the discovery raises.
        """
        self._owner.enter()
        view = self._cluster.view
        if view is None and isinstance(self._discovery, StaticDiscovery):
            view = self._cluster.apply(self._discovery.topology)
        if view is not None:
            return view, options
        if self._starting is None:
            # One task for all who wait, so that a caller who is cancelled takes nobody with it.
            self._starting = asyncio.create_task(self._cluster.start(self._discovery))
            # Looked at even when every caller has been cancelled meanwhile, or asyncio reports it as nobody's error.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        starting = self._starting
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        try:
            async with asyncio.timeout_at(deadline):
                view = await asyncio.shield(starting)
        except TimeoutError:
            raise CacheUnavailable("finding the zones", {}) from None
        finally:
            if starting.done() and self._cluster.view is None:
                self._starting = None  # it failed: the next call tries again
        return view, options._replace(timeout=max(0.0, deadline - loop.time()))

    def _ready(self, options: Options) -> tuple[View, Options] | None:
        view = self._cluster.view
        return None if view is None or self._owner.open_in is not asyncio.get_running_loop() else (view, options)

    def _draft(self, key: str | bytes, value: Any, ttl: Seconds | None) -> Draft:
        return self._writes.draft(self._keys.full(key), self._codec.encode(value), self._defaults.ttl(ttl))
