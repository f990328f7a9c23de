"""`EVCache`, the client: every operation with its signature and its documentation, on one page."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from evcache._helpers.coroutine_function import coroutine_function
from evcache._lifecycle import CLOSE_SECONDS
from evcache._runtime import Runtime
from evcache.channels import InvalidationChannel
from evcache.config import (
    DEFAULT_FAILOVER,
    DEFAULT_GUARD,
    DEFAULT_HINTS,
    DEFAULT_LOADING,
    DEFAULT_TELEMETRY,
    MAX_LOADS,
    READ_REPAIR_CHANCE,
    READ_TIMEOUT_SECONDS,
    WRITE_TIMEOUT_SECONDS,
    ClientConfig,
)
from evcache.consistency import Consistency
from evcache.decorators.cached import CachedDecorator
from evcache.decorators.cached import cached as cached_by
from evcache.hooks import Hooks
from evcache.interop.settings import Interop
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache.settings import NearCache
from evcache.options import ItemOptions, Key, LoadOptions, ReadOptions, TouchOptions
from evcache.readiness.report import CheckResult
from evcache.reads.failover.budget import Failover
from evcache.reads.hedging import Hedging
from evcache.replication.gutter import Gutter
from evcache.replication.handoff.hints import Hints
from evcache.replication.seen_versions import REMEMBERED_KEYS
from evcache.results import Item, WriteResult
from evcache.stats import Stats
from evcache.telemetry import Instrument, Telemetry
from evcache.values.codec import Codec
from evcache.values.ttl import DEFAULT_TTL_SECONDS, TOMBSTONE_TTL_SECONDS
from evcache.values.type_forms import TypeForm
from evcache.zones._live import Live
from evcache.zones.discovery.base import Discovery
from evcache.zones.discovery.guard import TopologyGuard
from evcache.zones.discovery.local_zone import LocalZone
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Topology, Zone

T = TypeVar("T")
D = TypeVar("D")

# Operations return `Coroutine[object, None, ...]`, as the event loop drives it. With `Coroutine[Any, Any, ...]`, mypy takes
# the overloads of `asyncio.gather` for ambiguous, and the results of different operations for Any.


class EVCache:
    """Asyncio client for memcached with a full copy of the data in every availability zone.

        async with EVCache("sessions", {"eu-1a": ["10.0.1.4:11211"], "eu-1b": ["10.0.2.4:11211"]}) as cache:
            await cache.set("user:42", {"name": "Ada"}, ttl=300)
            user = await cache.get("user:42")

    The first call opens the client, on the event loop of that call. After `close()`, `async with` opens it again, on any
    loop. A read without an answer raises. A write that too few zones stored returns a false `WriteResult`: check it.

    `consistency` is the number of zones that must answer: "none", "one", "quorum" (more than half), "all_minus_one" or
    "all". See `Consistency`. Operations are shown as functions that return a coroutine: await them.

    Every operation raises `InvalidArgument` before it sends anything if an argument cannot be used. It raises `UsageError`
    if the client is closed, or open on another event loop, in another thread or in another process.

    A cancelled read has no effect. A cancelled write goes on in every zone, because half a write would make zones differ.
    A cancelled bulk write sends no further key.
    """

    def __init__(
        self,
        namespace: str,
        zones: str | os.PathLike[str] | Mapping[str, Iterable[str] | Zone] | Topology | Discovery,
        *,
        local_zone: str | LocalZone | None = None,
        topology_guard: TopologyGuard | None = DEFAULT_GUARD,
        read_consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] = Consistency.ONE,
        write_consistency: Consistency
        | Literal["none", "one", "quorum", "all_minus_one", "all"] = Consistency.ALL_MINUS_ONE,
        read_timeout: float = READ_TIMEOUT_SECONDS,
        write_timeout: float = WRITE_TIMEOUT_SECONDS,
        ttl: float | timedelta = DEFAULT_TTL_SECONDS,
        fallback_on_miss: bool = True,
        errors: Literal["raise", "miss"] = "raise",
        ordering: Literal["newest", "arrival"] = "newest",
        interop: bool | Interop = False,
        codec: Codec | None = None,
        tombstone_ttl: float | timedelta = TOMBSTONE_TTL_SECONDS,
        near_cache: NearCache | None = None,
        invalidation: InvalidationChannel | None = None,
        loading: LoadPolicy = DEFAULT_LOADING,
        max_loads: int = MAX_LOADS,
        nodes: NodeSettings | None = None,
        transport: Literal["auto", "meta", "classic"] | None = None,
        repair: bool = True,
        read_repair_chance: float = READ_REPAIR_CHANCE,
        hints: Hints | None = DEFAULT_HINTS,
        remember_versions: int = REMEMBERED_KEYS,
        failover: Failover = DEFAULT_FAILOVER,
        hedging: Hedging | None = None,
        gutter: Gutter | None = None,
        hooks: Hooks | None = None,
        telemetry: Telemetry | None = DEFAULT_TELEMETRY,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the settings. No I/O happens here, and no running event loop is needed.

        Args:
            namespace: Prefix of every key, `namespace:key`.
            zones: Mapping of zone names to nodes, node list (`eu-1a=host:port,host:port;eu-1b=...`), path of a TOML file
                (watched for changes), `Topology` or `Discovery`.
            local_zone: Zone of this process, read first. "auto" or `LocalZone(...)` finds it from the environment or the
                metadata server of the cloud. If None, `EVCACHE_ZONE` names it. Without a local zone, clients spread
                their reads over all zones.
            topology_guard: Limits of a change of `zones` that is applied at once. A larger one is held back. If None, every
                change is applied.
            read_consistency: Zones that must answer a read.
            write_consistency: Zones that must acknowledge a write.
            read_timeout: Seconds for a whole read.
            write_timeout: Seconds for a whole write.
            ttl: Seconds or a timedelta that an item lives. `math.inf` does not expire.
            fallback_on_miss: True if a read asks the next zone after a miss in the local zone.
            errors: "raise", or "miss" if a read that no zone answers returns its default. The hooks count such reads.
            ordering: "newest" if the write with the latest version wins in every zone. "arrival" if the last write to arrive
                wins, which is faster. Zones may then differ until the next write.
            interop: `Interop(...)` if EVCache for the JVM uses the namespace too, or True for its usual settings. Keys,
                values and the placement on nodes are those of the JVM client. It turns off versions, tombstones and repair.
            codec: Encoder and decoder of values. If None, `StandardCodec()`, or with `interop` a codec for the types of the
                JVM client.
            tombstone_ttl: Seconds or a timedelta that the zones remember a delete.
            near_cache: Cache in this process for the hottest keys. If None, there is none. Writes of this client show at
                once, those of other clients after at most its TTL.
            invalidation: Channel that tells other processes of this client's writes, and this near cache of theirs. If None,
                there is none. The client does not close it.
            loading: Policy of `get_or_load`, `get_or_load_many` and `cached`.
            max_loads: Number of loaders that run at once. It protects the source while the cache is down.
            nodes: Connections: their number, connect timeout, login and TLS (`SocketDialer`). If None, `NodeSettings()`.
            transport: "auto" asks each node which protocol it speaks. "meta" and "classic" use that protocol only. If None,
                the transport of `nodes` applies.
            repair: True if the client copies the latest version of a key to stale replicas, in the background.
            read_repair_chance: Fraction of keys read from one zone that are then compared in all zones, if `repair` is on.
            hints: Limits of the missed writes that are stored for zones, and the file for them. If None, none are stored.
            remember_versions: Number of keys whose latest version is remembered, to guarantee monotonic reads. Up to twice
                as many are held, and as many again for writes of other clients. 0 remembers undelivered deletes only.
            failover: Budget of requests to other zones than the first.
            hedging: Delay after which a read asks a second zone. If None, a read asks one zone at a time.
            gutter: Servers that stand in when no zone can serve a key. If None, there are none.
            hooks: Object whose methods are called on events inside the client, such as failovers. If None, there is none.
            telemetry: Reports to OpenTelemetry, if the service has installed its SDK. If None, there are none.
            wall_clock: Function that returns the unix time in seconds, for versions and for TTLs over 30 days.

        Raises:
            InvalidArgument: An argument cannot be used. `InvalidTopology` for zones.
        """
        config = ClientConfig(
            namespace=namespace,
            zones=zones,
            local_zone=local_zone,
            topology_guard=topology_guard,
            read_consistency=read_consistency,
            write_consistency=write_consistency,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            ttl=ttl,
            fallback_on_miss=fallback_on_miss,
            errors=errors,
            ordering=ordering,
            interop=interop,
            codec=codec,
            tombstone_ttl=tombstone_ttl,
            near_cache=near_cache,
            invalidation=invalidation,
            loading=loading,
            max_loads=max_loads,
            nodes=nodes,
            transport=transport,
            repair=repair,
            read_repair_chance=read_repair_chance,
            hints=hints,
            remember_versions=remember_versions,
            failover=failover,
            hedging=hedging,
            gutter=gutter,
            hooks=hooks,
            telemetry=telemetry,
            unix_time=wall_clock,
        )
        self._config = config
        # None without an SDK, which costs each call one test. See `evcache.telemetry`.
        self._instrument: Instrument | None = None
        self._runtime = runtime = Runtime(config, self._set_instrument)
        self._reads = runtime.reads
        self._ordinary_reads = runtime.reads.ordinary
        self._writes = runtime.writes
        self._read_through = runtime.read_through

    # One key.

    @overload
    async def get(
        self, key: str | bytes, default: Any = None, *, as_: None = None, **options: Unpack[ReadOptions]
    ) -> Any: ...
    @overload
    async def get(
        self, key: str | bytes, default: None = None, *, as_: TypeForm[T], **options: Unpack[ReadOptions]
    ) -> T | None: ...
    @overload
    async def get(self, key: str | bytes, default: D, *, as_: TypeForm[T], **options: Unpack[ReadOptions]) -> T | D: ...
    @coroutine_function
    def get(
        self,
        key: str | bytes,
        default: Any = None,
        *,
        as_: Any = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Literal["raise", "miss"] | None = None,
        near_cache: bool = True,
    ) -> Coroutine[object, None, Any]:
        """Return the value of `key`, or `default` if there is none.

        The value comes from the near cache or the local zone. If the local zone fails or misses, another zone answers. The
        client also asks another zone if a zone holds an older version than this client wrote or saw. If every zone misses or
        holds an older version, the later value is gone, and the result is a miss.

        Args:
            key: Key without the namespace.
            default: Result of a miss.
            as_: Type of the value: a class, or an expression such as `list[User]`. If None, the codec decides.
            consistency: Zones that must answer. From "quorum" on, the latest of their versions is returned. If None, the
                client's `read_consistency`.
            timeout: Seconds for the whole call. If None, the client's `read_timeout`.
            fallback_on_miss: False if a miss in the local zone is the result. If None, the client's setting.
            errors: "raise", or "miss" to return `default` in place of `CacheUnavailable` and `ConsistencyError`. If
                None, the client's setting.
            near_cache: False to bypass the near cache.

        Returns:
            The decoded value, or `default`.

        Raises:
            CacheUnavailable: No zone answered.
            ConsistencyError: Fewer zones answered than the call required.
            DecodeError: The value cannot be decoded, or does not fit `as_`.
        """
        if (
            self._ordinary_reads is not None
            and as_ is None
            and consistency is None
            and timeout is None
            and errors is None
            and fallback_on_miss is None
            and near_cache
        ):
            call = self._ordinary_reads.get(key, default)
        else:
            call = self._reads.get(key, default, as_, consistency, timeout, errors, fallback_on_miss, near_cache)
        return call if self._instrument is None else self._instrument.call("get", call, key, consistency)

    @overload
    async def get_item(self, key: str | bytes, *, as_: None = None, **options: Unpack[ItemOptions]) -> Item | None: ...
    @overload
    async def get_item(self, key: str | bytes, *, as_: TypeForm[T], **options: Unpack[ItemOptions]) -> Item[T] | None: ...
    @coroutine_function
    def get_item(
        self,
        key: str | bytes,
        *,
        as_: Any = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Literal["raise", "miss"] | None = None,
        near_cache: bool = True,
        for_update: bool = False,
    ) -> Coroutine[object, None, Item | None]:
        """Return the value of `key` with its version, remaining TTL and origin.

        Args:
            key: Key without the namespace.
            as_: Type of the value, as for `get`.
            consistency: Zones that must answer. If None, the client's `read_consistency`.
            timeout: Seconds for the whole call. If None, the client's `read_timeout`.
            fallback_on_miss: False if a miss in the local zone is the result. If None, the client's setting.
            errors: "raise", or "miss" to return None in place of `CacheUnavailable` and `ConsistencyError`. If
                None, the client's setting.
            near_cache: False to bypass the near cache.
            for_update: True to read the zone that decides a `cas` of this key. Servers without versions require it.

        Returns:
            The item, or None for a miss.

        Raises:
            CacheUnavailable: No zone answered.
            ConsistencyError: Fewer zones answered than the call required.
            DecodeError: The value cannot be decoded, or does not fit `as_`.
        """
        call = self._reads.get_item(
            key,
            as_,
            consistency,
            timeout,
            errors,
            fallback_on_miss=fallback_on_miss,
            near_cache=near_cache,
            for_update=for_update,
        )
        return call if self._instrument is None else self._instrument.call("get_item", call, key, consistency)

    @coroutine_function
    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        ordering: Literal["newest", "arrival"] | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Store a value in every zone.

        A zone that misses the write receives it later by hinted handoff, also if the result is false. A cancelled call does
        not end the write.

        Args:
            key: Key without the namespace.
            value: Value that the codec can encode.
            ttl: Seconds or a timedelta that the value lives. If None, the client's `ttl`.
            consistency: Zones that must store the value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.
            ordering: "newest" or "arrival". If None, the client's setting.
            errors: "raise", or "miss" for a false result in place of `CacheUnavailable`. If None, the client's setting.

        Returns:
            The outcome in each zone. It is true if enough zones hold the value, or a newer one.

        Raises:
            CacheUnavailable: No zone could be reached.
            EncodeError: The codec cannot encode the value.
            ValueTooLarge: A server would refuse the value for its size. Nothing was sent.
        """
        call = self._writes.set(key, value, ttl, consistency, timeout, ordering, errors)
        return call if self._instrument is None else self._instrument.call("set", call, key, consistency)

    @coroutine_function
    def delete(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Delete a key in every zone, whether or not it exists.

        The zones remember the delete for the client's `tombstone_ttl`, so that a late copy cannot store the value again. A
        cancelled call does not end the delete.

        Args:
            key: Key without the namespace.
            consistency: Zones that must delete the key. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.
            errors: "raise", or "miss" for a false result in place of `CacheUnavailable`. If None, the client's setting.

        Returns:
            The outcome in each zone. It is true if enough zones deleted the key.

        Raises:
            CacheUnavailable: No zone could be reached.
        """
        call = self._writes.delete(key, consistency, timeout, errors)
        return call if self._instrument is None else self._instrument.call("delete", call, key, consistency)

    @coroutine_function
    def touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None = None,
        *,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Give a value a new TTL in every zone. A zone that misses the touch receives it later.

        The call touches values only: no deleted key, no known absence, and no key that is being loaded. The fresh and the
        stale time of a value of `get_or_load` move together.

        Args:
            key: Key without the namespace.
            ttl: Seconds or a timedelta from now. If None, the client's `ttl`.
            consistency: Zones that must touch the value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.
            errors: "raise", or "miss" for a false result in place of `CacheUnavailable`. If None, the client's setting.

        Returns:
            The outcome in each zone, `not_found` for a zone that holds no value. It is true if enough zones touched it.

        Raises:
            CacheUnavailable: No zone could be reached.
        """
        call = self._writes.touch(key, ttl, consistency, timeout, errors)
        return call if self._instrument is None else self._instrument.call("touch", call, key, consistency)

    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None = None,
        default: Any = None,
        *,
        as_: None = None,
        **options: Unpack[TouchOptions],
    ) -> Any: ...
    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None = None,
        default: None = None,
        *,
        as_: TypeForm[T],
        **options: Unpack[TouchOptions],
    ) -> T | None: ...
    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None,
        default: D,
        *,
        as_: TypeForm[T],
        **options: Unpack[TouchOptions],
    ) -> T | D: ...
    @overload
    async def get_and_touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None = None,
        *,
        default: D,
        as_: TypeForm[T],
        **options: Unpack[TouchOptions],
    ) -> T | D: ...
    @coroutine_function
    def get_and_touch(
        self,
        key: str | bytes,
        ttl: float | timedelta | None = None,
        default: Any = None,
        *,
        as_: Any = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, Any]:
        """Return the value of `key`, and give it a new TTL in the background.

        Args:
            key: Key without the namespace.
            ttl: Seconds or a timedelta from now. If None, the client's `ttl`.
            default: Result of a miss.
            as_: Type of the value, as for `get`.
            consistency: Zones that must answer the read. If None, the client's `read_consistency`.
            timeout: Seconds for the read, and for the touch. If None, the client's `read_timeout`.
            errors: "raise", or "miss" to return `default` in place of `CacheUnavailable` and `ConsistencyError`. If
                None, the client's setting.

        Returns:
            The decoded value, or `default`. A failed touch is not reported; a zone that misses the touch receives it later.

        Raises:
            CacheUnavailable: No zone answered.
            ConsistencyError: Fewer zones answered than the call required.
            DecodeError: The value cannot be decoded, or does not fit `as_`.
        """
        call = self._reads.get_and_touch(key, ttl, default, as_, consistency, timeout, errors)
        return call if self._instrument is None else self._instrument.call("get_and_touch", call, key, consistency)

    # Many keys.

    @overload
    async def get_many(self, keys: Iterable[Key], *, as_: None = None, **options: Unpack[ReadOptions]) -> dict[Key, Any]: ...
    @overload
    async def get_many(self, keys: Iterable[Key], *, as_: TypeForm[T], **options: Unpack[ReadOptions]) -> dict[Key, T]: ...
    @coroutine_function
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        as_: Any = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        fallback_on_miss: bool | None = None,
        errors: Literal["raise", "miss"] | None = None,
        near_cache: bool = True,
    ) -> Coroutine[object, None, dict[Key, Any]]:
        """Return the values of several keys.

        The client asks all nodes of a zone at once, and the next zone only for keys that are still missing. It reads very
        many keys in portions. A key whose portion was not read by the deadline has no answer.

        Args:
            keys: Keys without the namespace.
            as_: Type of each value, as for `get`.
            consistency: Zones that must answer for each key. If None, the client's `read_consistency`.
            timeout: Seconds for the whole call. If None, the client's `read_timeout`.
            fallback_on_miss: False if a miss in the local zone is the result. If None, the client's setting.
            errors: "raise", or "miss" to leave keys without an answer out of the result. If None, the client's setting.
            near_cache: False to bypass the near cache.

        Returns:
            The values by key, as given and in their order. Keys that are misses are not in it.

        Raises:
            CacheUnavailable: No zone answered for any key.
            ConsistencyError: Too few zones answered for some key. `found` holds the values that were read.
            DecodeError: A value cannot be decoded, or does not fit `as_`. `found` holds the values that can be decoded,
                `unreadable` the keys whose values cannot.
        """
        call = self._reads.get_many(
            keys, as_, consistency, timeout, errors, fallback_on_miss=fallback_on_miss, near_cache=near_cache
        )
        return call if self._instrument is None else self._instrument.call("get_many", call, keys, consistency)

    @coroutine_function
    def set_many(
        self,
        values: Mapping[Key, Any],
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        ordering: Literal["newest", "arrival"] | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, dict[Key, WriteResult]]:
        """Store several values in every zone, as many at a time as the zones take.

        The client checks and encodes all values before it sends any. A cancelled call sends no further key. A value that
        was sent to one zone goes on to every zone.

        Args:
            values: Values by key.
            ttl: Seconds or a timedelta that the values live. If None, the client's `ttl`.
            consistency: Zones that must store each value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call, encoding included. If None, the client's `write_timeout`.
            ordering: "newest" or "arrival". If None, the client's setting.
            errors: "raise", or "miss" for false results in place of `CacheUnavailable`. If None, the client's setting.

        Returns:
            The result of each key, in the order of `values`. A key that was not sent in time has the outcome `timeout` in
            every zone, and is not sent later.

        Raises:
            CacheUnavailable: No zone could be reached for any key.
            EncodeError: The codec cannot encode a value. Nothing was sent.
            ValueTooLarge: A server would refuse a value for its size. Nothing was sent.
        """
        call = self._writes.set_many(values, ttl, consistency, timeout, ordering, errors)
        return call if self._instrument is None else self._instrument.call("set_many", call, values, consistency)

    @coroutine_function
    def delete_many(
        self,
        keys: Iterable[Key],
        *,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        errors: Literal["raise", "miss"] | None = None,
    ) -> Coroutine[object, None, dict[Key, WriteResult]]:
        """Delete several keys in every zone, as many at a time as the zones take.

        A cancelled call sends no further key. A delete that was sent to one zone goes on to every zone.

        Args:
            keys: Keys without the namespace.
            consistency: Zones that must delete each key. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.
            errors: "raise", or "miss" for false results in place of `CacheUnavailable`. If None, the client's setting.

        Returns:
            The result of each key, in the order of `keys`. A key that was not sent in time has the outcome `timeout` in
            every zone, and is not deleted later.

        Raises:
            CacheUnavailable: No zone could be reached for any key.
        """
        call = self._writes.delete_many(keys, consistency, timeout, errors)
        return call if self._instrument is None else self._instrument.call("delete_many", call, keys, consistency)

    # Values with a source.

    @overload
    async def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[Loaded[T]]],
        *,
        as_: None = None,
        **options: Unpack[LoadOptions],
    ) -> T: ...
    @overload
    async def get_or_load(
        self, key: str | bytes, loader: Callable[[], Awaitable[T]], *, as_: None = None, **options: Unpack[LoadOptions]
    ) -> T: ...
    @overload
    async def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[T | Loaded[T]]],
        *,
        as_: TypeForm[T],
        **options: Unpack[LoadOptions],
    ) -> T: ...
    @coroutine_function
    def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[Any]],
        *,
        as_: Any = None,
        ttl: float | timedelta | None = None,
        policy: LoadPolicy | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> Coroutine[object, None, Any]:
        """Return the value of `key`. If the cache has none, call the loader and store its result.

        One loader runs for a key in this process, and by default one in each zone. All callers wait for it, and each gets
        its own copy of the value. The load ends when its last caller is cancelled. A caller that times out does not end it.

        If no zone can be reached, the read takes up to its `read_timeout`, and up to three times that if zones stall. The
        loaded value is not stored then, so the next call loads again. At most `max_loads` loaders run at once.

        Args:
            key: Key without the namespace.
            loader: Async function without parameters. None is the absence of a value, which is remembered for
                `policy.negative_ttl`. `Loaded(value, ttl=...)` sets the TTL of this value.
            as_: Type of the value, as for `get`. If None, the return annotation of the loader, if it has one.
            ttl: Seconds or a timedelta that the value lives. If None, the client's `ttl`.
            policy: Refresh and staleness of values. If None, the client's `loading`.
            consistency: Zones that must answer the read. If None, the client's `read_consistency`.
            timeout: Seconds that the caller waits for a load. If None, `policy.hard_timeout`.
            near_cache: False to bypass the near cache.

        Returns:
            The value, or None. A value that cannot be decoded counts as absent: the result of a load replaces it.

        Raises:
            LoadTimeout: The load takes longer than the caller waits. The load goes on.
            LoadAborted: The load was cut off.
            EncodeError: The codec cannot encode the loaded value, or the value would come back as another type.
            Exception: The loader raised it.
        """
        call = self._read_through.get_or_load(key, loader, as_, ttl, policy, consistency, timeout, near_cache=near_cache)
        return call if self._instrument is None else self._instrument.call("get_or_load", call, key, consistency)

    @overload
    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, T | Loaded[T] | None]]],
        *,
        as_: None = None,
        **options: Unpack[LoadOptions],
    ) -> dict[Key, T]: ...
    @overload
    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, T | Loaded[T] | None]]],
        *,
        as_: TypeForm[T],
        **options: Unpack[LoadOptions],
    ) -> dict[Key, T]: ...
    @coroutine_function
    def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, Any]]],
        *,
        as_: Any = None,
        ttl: float | timedelta | None = None,
        policy: LoadPolicy | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> Coroutine[object, None, dict[Key, Any]]:
        """Return the values of several keys. One call of the loader loads those that the cache does not have.

        Args:
            keys: Keys without the namespace.
            loader: Async function of a list of keys that no other call is loading. It returns a mapping. A key that is not
                in the mapping, or None, is an absence, which is remembered for `policy.negative_ttl`.
            as_: Type of each value, as for `get`. If None, the return annotation of the loader, such as `dict[str, User]`.
            ttl: Seconds or a timedelta that the values live. If None, the client's `ttl`.
            policy: Refresh and staleness of values. If None, the client's `loading`.
            consistency: Zones that must answer the read. If None, the client's `read_consistency`.
            timeout: Seconds that the caller waits for loads. If None, `policy.hard_timeout`.
            near_cache: False to bypass the near cache.

        Returns:
            The values by key, as given. Absent keys are not in it.

        Raises:
            LoadTimeout: A load takes longer than the caller waits. The load goes on.
            LoadAborted: A load was cut off.
            EncodeError: The codec cannot encode a loaded value, or a value would come back as another type.
            Exception: The loader raised it.
        """
        call = self._runtime.bulk_read_through.get_or_load_many(
            keys, loader, as_, ttl, policy, consistency, timeout, near_cache=near_cache
        )
        return call if self._instrument is None else self._instrument.call("get_or_load_many", call, keys, consistency)

    def cached(
        self,
        *,
        key: Callable[..., str | bytes] | str | None = None,
        ttl: float | timedelta | None = None,
        policy: LoadPolicy | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
        stale_while_revalidate: float | timedelta | None = None,
    ) -> CachedDecorator:
        """Return a decorator that caches the results of an async function by its arguments, as `get_or_load` does.

        Values come back as the type that the function is annotated to return. The decorated function has the methods
        `key(...)` and `invalidate(...)`, and the original as `uncached`.

        Args:
            key: Template that names parameters, such as "user:{user_id}", or a function of the arguments that returns the
                key. If None, the function's name and all arguments, which must be plain values.
            ttl: Seconds or a timedelta that results live. If None, the client's `ttl`.
            policy: Refresh and staleness of results. If None, the client's `loading`.
            timeout: Seconds that a caller waits for the function. If None, `policy.hard_timeout`.
            near_cache: False to bypass the near cache.
            stale_while_revalidate: Seconds or a timedelta for which callers get the old result after `invalidate(...)`,
                while one caller loads the new one. If None, `invalidate(...)` deletes the result.

        Returns:
            The decorator.

        Raises:
            InvalidArgument: The keys of different calls could be equal, or values of the return type cannot be read back.
        """
        return cached_by(
            self,
            key=key,
            ttl=ttl,
            policy=policy,
            timeout=timeout,
            near_cache=near_cache,
            stale_while_revalidate=stale_while_revalidate,
            check_type=self._runtime.decoding.new_decoder,
        )

    @coroutine_function
    def invalidate(
        self,
        key: str | bytes,
        *,
        stale_while_revalidate: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Mark a value as out of date. Plain reads miss from now on, and `get_or_load` loads the value again.

        A cancelled call does not end a write that was sent.

        Args:
            key: Key without the namespace.
            stale_while_revalidate: Seconds or a timedelta for which `get_or_load` returns the old value while one caller
                loads the new one. If None, no caller gets the old value, as after `delete`. A second call does not extend
                the first.
            consistency: Zones that must acknowledge. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones acknowledged.

        Raises:
            CacheUnavailable: No zone could be reached.
        """
        call = self._runtime.invalidator.invalidate(key, stale_while_revalidate, consistency, timeout)
        return call if self._instrument is None else self._instrument.call("invalidate", call, key, consistency)

    @coroutine_function
    def write_through(
        self,
        key: str | bytes,
        value: Any,
        writer: Callable[[Any], Awaitable[object]],
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Write a value to its source with `await writer(value)`, and then to every zone.

        If the writer raises or is cancelled, the source may hold either value, so the client deletes the key. Calls of this
        process for one key run one after another, so that the cache holds the last value that reached the source. If two
        processes write one key at once, the cache may hold the other value until its TTL.

        Args:
            key: Key without the namespace.
            value: Value that the codec can encode.
            writer: Async function that stores its argument in the source.
            ttl: Seconds or a timedelta that the value lives. If None, the client's `ttl`.
            consistency: Zones that must store the value. If None, the client's `write_consistency`.
            timeout: Seconds for the writes to the zones, without the writer. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones hold the value, and false if no zone could be reached.

        Raises:
            EncodeError: The codec cannot encode the value. The writer was not called.
            ValueTooLarge: A server would refuse the value for its size. The writer was not called.
            Exception: The writer raised it.
        """
        call = self._runtime.write_through.write(key, value, writer, ttl, consistency, timeout)
        return call if self._instrument is None else self._instrument.call("write_through", call, key, consistency)

    # Conditional writes. One zone decides each, and the others receive the result. One client's calls for a key run one
    # after another.

    @coroutine_function
    def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Store a value if the key is absent. A cancelled call does not end a write that was decided.

        Args:
            key: Key without the namespace.
            value: Value that the codec can encode.
            ttl: Seconds or a timedelta that the value lives. If None, the client's `ttl`.
            consistency: Zones that must store the value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones hold the value. It is false with `not_stored` if the key
            exists, and false with `stored` for a zone if too few others confirmed in time.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have decided.
            EncodeError: The codec cannot encode the value.
            ValueTooLarge: A server would refuse the value for its size.
        """
        call = self._writes.add(key, value, ttl, consistency, timeout)
        return call if self._instrument is None else self._instrument.call("add", call, key, consistency)

    @coroutine_function
    def replace(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Store a value if the key is present. A cancelled call does not end a write that was decided.

        Args:
            key: Key without the namespace.
            value: Value that the codec can encode.
            ttl: Seconds or a timedelta that the value lives. If None, the client's `ttl`.
            consistency: Zones that must store the value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones hold the value. It is false with `not_stored` if the key is
            absent, and false with `stored` for a zone if too few others confirmed in time.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have decided.
            EncodeError: The codec cannot encode the value.
            ValueTooLarge: A server would refuse the value for its size.
        """
        call = self._writes.replace(key, value, ttl, consistency, timeout)
        return call if self._instrument is None else self._instrument.call("replace", call, key, consistency)

    @coroutine_function
    def cas(
        self,
        key: str | bytes,
        value: Any,
        expected: int | Item,
        *,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Store a value if the key still holds the item that was read.

        A cancelled call does not end a write that was decided.

        Args:
            key: Key without the namespace.
            value: Value that the codec can encode.
            expected: Version, or `Item` of `get_item`. On servers without versions, an `Item` of
                `get_item(key, for_update=True)`. `append` and `incr` change the version, `touch` does not.
            ttl: Seconds or a timedelta that the new value lives. If None, the client's `ttl`.
            consistency: Zones that must store the value. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones hold the value. It is false with `exists` if the key holds
            another item, with `not_found` if it is absent, and with `stored` if too few zones confirmed in time.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have decided.
            EncodeError: The codec cannot encode the value.
            ValueTooLarge: A server would refuse the value for its size.
            InvalidArgument: The item was read in a zone that does not decide, on servers without versions.
            Unsupported: The server runs without CAS.
        """
        call = self._writes.cas(key, value, expected, ttl, consistency, timeout)
        return call if self._instrument is None else self._instrument.call("cas", call, key, consistency)

    @coroutine_function
    def append(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Append to a str or bytes value. The value keeps its TTL. A cancelled call does not end a decided write.

        Args:
            key: Key without the namespace.
            value: The str or bytes to append, of the same type as the stored value.
            consistency: Zones that must store the result. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone. It is true if enough zones hold the result. It is false with `not_stored` if the key is
            absent, or the result would be too large. It is false with `stored` for a zone if the value was appended and too
            few other zones confirmed in time: do not repeat the call.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have decided.
            InvalidArgument: One value is a str and the other bytes.
        """
        call = self._writes.concat(key, value, consistency, timeout, is_prepend=False)
        return call if self._instrument is None else self._instrument.call("append", call, key, consistency)

    @coroutine_function
    def prepend(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, WriteResult]:
        """Prepend to a str or bytes value. The value keeps its TTL. A cancelled call does not end a decided write.

        Args:
            key: Key without the namespace.
            value: The str or bytes to prepend, of the same type as the stored value.
            consistency: Zones that must store the result. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The outcome in each zone, as that of `append`.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have decided.
            InvalidArgument: One value is a str and the other bytes.
        """
        call = self._writes.concat(key, value, consistency, timeout, is_prepend=True)
        return call if self._instrument is None else self._instrument.call("prepend", call, key, consistency)

    @coroutine_function
    def incr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, int | None]:
        """Add to a counter, and return its new value. A cancelled call does not end a decided write.

        A counter is an int from 0 to 2^64-1. After that it starts again at 0. An int that `set` stored is a counter.

        Args:
            key: Key without the namespace.
            delta: Number to add, from 0 to 2^64-1.
            initial: Value of a new counter, to which `delta` is not added. If None, no counter is created.
            ttl: Seconds or a timedelta that a new counter lives. If None, the client's `ttl`. A counter that exists keeps
                its TTL.
            consistency: Zones that must store the new value before the call returns. If fewer do so in time, the call
                returns the value, too. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The new value, or `initial` of a new counter. None if there is no counter and no `initial`.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have counted.
            ServerError: The key holds a value that is not a counter, such as a negative int.
        """
        call = self._writes.increment(key, delta, initial, ttl, consistency, timeout, decrement=False)
        return call if self._instrument is None else self._instrument.call("incr", call, key, consistency)

    @coroutine_function
    def decr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | timedelta | None = None,
        consistency: Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[object, None, int | None]:
        """Subtract from a counter, never below 0, and return its new value. A cancelled call does not end a decided write.

        Args:
            key: Key without the namespace.
            delta: Number to subtract, from 0 to 2^64-1.
            initial: Value of a new counter, from which `delta` is not subtracted. If None, no counter is created.
            ttl: Seconds or a timedelta that a new counter lives. If None, the client's `ttl`. A counter that exists keeps
                its TTL.
            consistency: Zones that must store the new value, as for `incr`. If None, the client's `write_consistency`.
            timeout: Seconds for the whole call. If None, the client's `write_timeout`.

        Returns:
            The new value, or `initial` of a new counter. None if there is no counter and no `initial`.

        Raises:
            CacheUnavailable: No zone could decide, or the zone that was asked did not answer: it may have counted.
            ServerError: The key holds a value that is not a counter, such as a negative int.
        """
        call = self._writes.increment(key, delta, initial, ttl, consistency, timeout, decrement=True)
        return call if self._instrument is None else self._instrument.call("decr", call, key, consistency)

    # State and life cycle.

    @property
    def namespace(self) -> str:
        """Prefix of every key."""
        return self._config.namespace

    @property
    def topology(self) -> Topology | None:
        """Zones as they are known now, or None before the first call."""
        view = self._runtime.cluster.view
        return None if view is None else view.topology

    def confirm_topology(self) -> bool:
        """Use the topology that the guard holds back now, without waiting for the end of its hold.

        `stats().topology_held` has the reasons for which it is held back.

        Returns:
            True if a topology was held back and is in use now. False if there was none.
        """
        return self._runtime.cluster.confirm_topology()

    async def check(self, *, timeout: float | None = None) -> CheckResult:
        """Ask every node of every zone at once, and return the state of each zone.

        The check opens the client if necessary. It connects to nodes without a connection, and sends each node one
        harmless request. A node with an open circuit is reported with its reason, without a request. Failures are part of
        the result. They do not count against nodes. A cancelled check sends no further request.

        The client is ready if it can read at least one zone: at most one node of the zone failed, or at most a third of
        its nodes. It stays ready while other zones or nodes are down, because other zones serve their reads.

        Args:
            timeout: Seconds for the whole check. If None, the connect timeout of `nodes` plus the client's `read_timeout`.

        Returns:
            The zones with their nodes and missing features, and the problems. It is true if the client is ready. A topology
            that is unknown or unusable makes it false, without zones.

        Raises:
            UsageError: The client is closed, or open on another event loop or in another process.
            InvalidArgument: The timeout is no positive number.
        """
        return await self._runtime.readiness.check(timeout)

    def stats(self) -> Stats:
        """Return the present state of the client and its counts, as plain numbers. No I/O happens here.

        Returns:
            The numbers at this moment. They do not change afterwards.
        """
        return self._runtime.stats()

    async def close(self, drain: float = CLOSE_SECONDS) -> None:
        """Wait for writes that are under way, then end every connection and task.

        Calls that are still under way then fail with `CacheUnavailable`; later calls raise `UsageError`. The client logs
        the writes that it could not finish, and reports them to the hooks. A cancelled call ends everything without
        waiting; a second call waits until nothing is left.

        Loaders, discoveries, channels and dialers of the service may catch their cancellation and go on. After two seconds
        the client logs a warning about each and returns.

        Args:
            drain: Seconds to wait for writes. 0 does not wait.

        Raises:
            UsageError: The client is open on another event loop that is not closed, or in another process.
        """
        await self._runtime.lifecycle.close(drain)

    async def __aenter__(self) -> Self:
        """Open the client, also after `close`. Nodes are connected when they are first asked.

        Raises:
            CacheUnavailable: The zones are not known in time.
            InvalidTopology: The zones cannot be used.
            UsageError: The client is open on another event loop, or in another process.
        """
        await self._runtime.lifecycle.enter(self._config.defaults.writes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    def _set_instrument(self, instrument: Instrument | None) -> None:
        self._instrument = instrument

    def __repr__(self) -> str:
        zones = "not opened" if self.topology is None else ", ".join(zone.name for zone in self.topology.zones)
        return f"<EVCache {self.namespace} zones: {zones}; local: {self._config.local_zone}>"

    __reduce_ex__ = Live.__reduce_ex__
