"""`EVCache`: one method per operation. Each checks its arguments, then hands over to the path that does the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from evcache.answers import Found
from evcache.background import Background
from evcache.codec import FLAG_TOMBSTONE, Codec, StandardCodec
from evcache.commands import Store
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
from evcache.coordinator import MAX_COUNTER, Coordinator, Draft
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError
from evcache.hooks import Hooks
from evcache.keys import Keys
from evcache.near_cache import NearCache
from evcache.near_path import Near
from evcache.options import Defaults, Options
from evcache.owner import Owner
from evcache.read_path import ReadPath
from evcache.repair import Repair
from evcache.results import Item, Outcome, WriteResult
from evcache.ttl import DEFAULT_TTL_SECONDS, seconds_to_live
from evcache.versions import MAX_CAS, VersionClock
from evcache.write_path import Decide, WritePath
from zones.cluster import Cluster, View
from zones.discovery import StaticDiscovery
from zones.errors import CacheError, InvalidArgument, NodeError
from zones.node import Node, NodeSettings
from zones.protocol.requests import COPY_FLAGS
from zones.topology import Topology
from zones.transports.base import TransportChoice

Key = TypeVar("Key", str, bytes)
Seconds = float | timedelta
Level = Consistency | str


class EVCache:
    """A cache with a full copy in every zone.

    Use it as `async with EVCache(...) as cache`, or call `close()`. It belongs to the event loop that makes the first call;
    use from another loop, thread or a forked process, or after `close()`, raises `UsageError`.

    All operations take `timeout` (seconds for the whole call, zones and retries included) and `consistency`. They raise
    `InvalidArgument` before anything is sent when an argument can't be used. A cancelled read leaves nothing behind; a
    cancelled write goes on in every zone, for half a write is what makes zones differ.
    """

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
        self._hooks = Hooks() if hooks is None else hooks
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

    # Reading.

    async def get(
        self,
        key: str | bytes,
        default: Any = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> Any:
        """The value, or `default` when there is none.

        From the near cache, if there is one and `near_cache` is not False; from the local zone; from another when that one
        fails, or (unless `fallback_on_miss` is False) misses. With `QUORUM` and above, the newest of what that many zones
        hold. Raises `CacheUnavailable` when no zone could answer and
        `ConsistencyError` when fewer than asked for did (`default` for both with `errors="miss"`); `DecodeError`.
        """
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view = self._cluster.view
            if view is None or self._owner.open_in is not asyncio.get_running_loop():
                view, options = await self._open(options)
            found = await self._reads.get(
                view,
                full,
                options,
                fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
                near=near_cache,
            )
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        if found is None or found.hit.flags == FLAG_TOMBSTONE:
            return default
        try:
            return self._codec.decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=full, zone=found.zone, flags=found.hit.flags) from error

    async def get_item(
        self,
        key: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
        for_update: bool = False,
    ) -> Item | None:
        """The value with its version, seconds left and origin; None when there is none. Raises as `get` does.

        `for_update`: read it in the zone that will decide about a `cas` of this key; needed on servers without versions.
        """
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view, options = self._ready(options) or await self._open(options)
            if for_update:
                found = await self._read_coordinator(view, full, options)
            else:
                found = await self._reads.get(
                    view,
                    full,
                    options,
                    fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
                    flags=COPY_FLAGS,
                    near=near_cache,
                )
        except (CacheUnavailable, ConsistencyError) as error:
            self._unavailable(error, options, None)
            return None
        if found is None or not found.is_value:
            return None
        left = self._near.seconds_left(full) if found.near and self._near is not None else found.hit.ttl
        return Item(
            value=self._decode(full, found),
            version=found.version if self._versions else None,
            ttl=None if left is None or left < 0 else left,
            zone=found.zone,
            source="near" if found.near else "local" if found.zone == self._local_zone else "fallback",
            stale=found.hit.stale,
            cas_token=found.hit.cas,
        )

    async def get_many(
        self,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Errors | None = None,
        near_cache: bool = True,
    ) -> dict[Key, Any]:
        """The values of the keys that have one, by key as it was given.

        All nodes are asked at once, the next zone only for what is missing. Raises as `get` does if any key had too few
        answers, with what was read as `found`; with `errors="miss"` those keys are missing from the result.
        """
        # One key may be given twice, as str and as bytes: both are answered.
        given: dict[bytes, list[Key]] = {}
        for key in _several(keys):
            given.setdefault(self._keys.full(key), []).append(key)
        options = self._defaults.read(consistency, timeout, errors)
        try:
            view, options = self._ready(options) or await self._open(options)
        except CacheUnavailable as error:
            self._unavailable(error, options, None)
            return {}
        if not given:
            return {}
        found, failures, answered = await self._reads.get_many(
            view,
            list(given),
            options,
            fallback_on_miss=self._fallback_on_miss if fallback_on_miss is None else fallback_on_miss,
            near=near_cache,
        )
        values = {key: self._decode(full, item) for full, item in found.items() for key in given[full]}
        required = options.consistency.required(len(view.readers))
        if answered < required:
            problem: CacheError = CacheUnavailable("get_many", failures, values)
            if answered:
                problem = ConsistencyError("get_many", answered, required, failures, values)
            self._unavailable(problem, options, None)
        return values

    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        default: Any = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> Any:
        """The value, or `default`, as `get`; and the item gets `ttl` seconds in every zone, which is not waited for."""
        full = self._keys.full(key)
        options = self._defaults.read(consistency, timeout, errors)
        command = self._writes.touch(full, self._defaults.ttl(ttl))
        try:
            view, options = self._ready(options) or await self._open(options)
            # Both at once: in the usual case they travel in one packet.
            self._writes.start(view, full, command, options._replace(consistency=Consistency.NONE))
            found = await self._reads.get(view, full, options, fallback_on_miss=self._fallback_on_miss, near=False)
        except (CacheUnavailable, ConsistencyError) as error:
            return self._unavailable(error, options, default)
        return default if found is None or not found.is_value else self._decode(full, found)

    async def _read_coordinator(self, view: View, full: bytes, options: Options) -> Found | None:
        deadline = asyncio.get_running_loop().time() + options.timeout
        pool, node = await self._coordinator.elect("get_item", view, full, deadline)
        try:
            return await self._reads.get_from(pool, node, full, deadline)
        except NodeError as error:
            raise CacheUnavailable("get_item", {pool.name: error}) from error

    def _unavailable(self, error: CacheError, options: Options, default: Any) -> Any:
        if options.errors == "raise":
            raise error
        self._hooks.error_as_miss(error)
        return default

    def _decode(self, full: bytes, found: Found) -> Any:
        try:
            return self._codec.decode(found.hit.value, found.hit.flags)
        except DecodeError as error:
            raise DecodeError(error.problem, key=full, zone=found.zone, flags=found.hit.flags) from error

    # Writing.

    async def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        ordering: Ordering | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Store a value in every zone for `ttl` seconds. True when enough zones have it, or have a newer one.

        Raises `CacheUnavailable` when no zone could be reached (with `errors="miss"`: returns false); `EncodeError`,
        `ValueTooLarge`.
        """
        draft = self._draft(key, value, ttl)
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        view, options = self._ready(options) or await self._open(options)
        options = await self._writes.check_size(view, draft, options)
        store = self._writes.store(draft, newest_wins=newest_wins)
        return await self._writes.write("set", view, draft.key, store, options)

    async def set_many(
        self,
        values: Mapping[Key, Any],
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        ordering: Ordering | None = None,
        errors: Errors | None = None,
    ) -> dict[Key, WriteResult]:
        """Store several values, all at once; a result for each key. All are checked and encoded before any is sent.

        Raises `CacheUnavailable` when no zone could be reached for any of them; `EncodeError`, `ValueTooLarge`.
        """
        if not isinstance(values, Mapping):
            raise InvalidArgument("values", f"a mapping of keys to values is needed, not {type(values).__name__}")
        drafts = {key: self._draft(key, value, ttl) for key, value in values.items()}
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        view, options = self._ready(options) or await self._open(options)
        for draft in drafts.values():
            options = await self._writes.check_size(view, draft, options)
        stores = {key: (draft.key, self._writes.store(draft, newest_wins=newest_wins)) for key, draft in drafts.items()}
        return await self._writes.write_many("set_many", view, stores, options)

    async def delete(
        self,
        key: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Make the key absent in every zone. True when enough zones have done so; whether it was there is not told.

        The delete is remembered for `tombstone_ttl` seconds, so that a late copy can't bring the value back.
        Raises `CacheUnavailable` when no zone could be reached.
        """
        full = self._keys.full(key)
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        return await self._writes.write("delete", view, full, self._writes.delete(full), options)

    async def delete_many(
        self,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> dict[Key, WriteResult]:
        """Delete several keys, all at once; a result for each. Raises as `delete` does, if it is so for all of them."""
        full = {key: self._keys.full(key) for key in _several(keys)}
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        deletes = {key: (name, self._writes.delete(name)) for key, name in full.items()}
        return await self._writes.write_many("delete_many", view, deletes, options)

    async def touch(
        self,
        key: str | bytes,
        ttl: Seconds | None = None,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
        errors: Errors | None = None,
    ) -> WriteResult:
        """Give the item `ttl` seconds from now, in every zone that has it. True when enough zones had it."""
        full = self._keys.full(key)
        command = self._writes.touch(full, self._defaults.ttl(ttl))
        options = self._defaults.write(consistency, timeout, errors)
        view, options = self._ready(options) or await self._open(options)
        return await self._writes.write("touch", view, full, command, options)

    def _draft(self, key: str | bytes, value: Any, ttl: Seconds | None) -> Draft:
        return self._writes.draft(self._keys.full(key), self._codec.encode(value), self._defaults.ttl(ttl))

    # Writing where one zone decides. All of these raise `CacheUnavailable` when no zone could decide, and when the one that
    # was asked did not answer in time: then it may have decided, and nobody can say so.

    async def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store a value if the key is absent. False, with `not_stored`, when it is not."""
        draft = self._draft(key, value, ttl)

        async def decide(_: str, node: Node, deadline: float) -> Store | Outcome:
            return await self._coordinator.add(node, draft, deadline)

        return await self._decide("add", draft, decide, consistency, timeout)

    async def replace(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store a value if the key is present. False, with `not_stored`, when it is not."""
        draft = self._draft(key, value, ttl)

        async def decide(_: str, node: Node, deadline: float) -> Store | Outcome:
            return await self._coordinator.replace(node, draft, deadline)

        return await self._decide("replace", draft, decide, consistency, timeout)

    async def cas(
        self,
        key: str | bytes,
        value: Any,
        expected: int | Item,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store a value if the key still holds `expected`: a version, or the `Item` that `get_item` returned.

        False, with `exists`, when it holds something else, and with `not_found` when it holds nothing.
        Raises `Unsupported` on servers that are run without CAS.
        """
        if isinstance(expected, bool) or not isinstance(expected, int | Item):
            raise InvalidArgument("expected", f"a version or an Item is needed, not {expected!r}")
        if isinstance(expected, int) and not 0 <= expected <= MAX_CAS:
            raise InvalidArgument("expected", f"{expected} is not a number of 64 bits")
        draft = self._draft(key, value, ttl)

        async def decide(zone: str, node: Node, deadline: float) -> Store | Outcome:
            return await self._coordinator.cas(zone, node, draft, expected, deadline)

        return await self._decide("cas", draft, decide, consistency, timeout)

    async def append(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Put more behind a str or bytes value that is there; its time to live stays. False when the key is absent.

        Raises `InvalidArgument` when one is str and the other bytes.
        """
        return await self._join("append", key, value, consistency, timeout)

    async def prepend(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Put more in front of a str or bytes value that is there, as `append` does behind it."""
        return await self._join("prepend", key, value, consistency, timeout)

    async def incr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Add to a counter and return it. Where there is none: None, or `initial`, which it then is for `ttl` seconds.

        A counter is a number from 0 to 2^64-1, beyond which it starts again at 0; `get` returns it as a str. It has no
        version, and a zone other than the deciding one may lag. Raises `ServerError` for a value that is no counter.
        """
        return await self._count("incr", key, delta, initial, ttl, consistency, timeout)

    async def decr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Subtract from a counter, never below 0, and return it; otherwise as `incr`."""
        return await self._count("decr", key, delta, initial, ttl, consistency, timeout)

    async def _decide(
        self, operation: str, draft: Draft, decide: Decide, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._ready(options) or await self._open(options)
        options = await self._writes.check_size(view, draft, options)
        return await self._writes.decide(operation, view, draft.key, decide, options)

    async def _join(
        self,
        operation: str,
        key: str | bytes,
        value: str | bytes,
        consistency: Level | None,
        timeout: float | None,
    ) -> WriteResult:
        full = self._keys.full(key)
        if type(value) not in (str, bytes):
            raise InvalidArgument("value", f"a str or bytes is needed, not {type(value).__name__}")
        self._codec.encode(value)  # what can't be stored alone can't be joined either: say so before anything is sent
        copies = self._writes.wire_ttl(self._defaults.ttl(None))
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._ready(options) or await self._open(options)

        async def decide(zone: str, node: Node, deadline: float) -> Store | Outcome:
            return await self._coordinator.join(zone, node, full, value, deadline, before=operation == "prepend", ttl=copies)

        return await self._writes.decide(operation, view, full, decide, options)

    async def _count(
        self,
        operation: str,
        key: str | bytes,
        delta: int,
        initial: int | None,
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
    ) -> int | None:
        full = self._keys.full(key)
        _check_counter(delta, "delta")
        if initial is not None:
            _check_counter(initial, "initial")
        life = self._writes.wire_ttl(self._defaults.ttl(ttl))
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._ready(options) or await self._open(options)

        async def count(node: Node, deadline: float) -> tuple[int, Store] | None:
            return await self._coordinator.count(
                node, full, delta, deadline, decrement=operation == "decr", initial=initial, ttl=life
            )

        return await self._writes.count(operation, view, full, count, options)


def _several(keys: Iterable[Key]) -> Iterable[Key]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidArgument("keys", f"several keys are needed, not {keys!r}")
    return keys


def _check_counter(number: int, argument: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_COUNTER:
        raise InvalidArgument(argument, f"a number from 0 to 2^64-1 is needed, not {number!r}")
