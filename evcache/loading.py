"""The operations that load a value if the cache has none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from evcache.decorators.cached import CachedDecorator
from evcache.decorators.cached import cached as cached_by
from evcache.decorators.call_keys import CallKey
from evcache.invalidating import Invalidating
from evcache.load_policy import Loaded, LoadPolicy
from evcache.options import Key, Level, LoadOptions, Seconds
from evcache.values.type_forms import TypeForm

T = TypeVar("T")


class Loading(Invalidating):
    """The operations with a loader behind them."""

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
    async def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[Any]],
        *,
        as_: Any = None,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> Any:
        """Return the value; if the cache has none, what `await loader()` returns, which is then kept for `ttl` seconds.

        One loader runs for a key in this process, however many callers ask, and by default one in each zone. Its result is
        encoded once. Each caller gets its own copy, of the same type as from `get`. A caller that is cancelled leaves alone;
        the load ends when no caller waits for it. If the cache cannot be reached, the call costs as much more time as reads
        have, up to three times that if zones hang. The loader then runs for each call, up to `max_loads` at once.

        Args:
            key: The key.
            loader: An async function without parameters. None from it means that there is nothing, which is remembered for
                `policy.negative_ttl` and returned. `Loaded(value, ttl=...)` sets the time to live of this value.
            as_: The type of the value, as for `get`. If None, the return annotation of the loader, if it has one.
            ttl: Seconds or a timedelta. If None, the client's default.
            policy: When a value is loaded before and after it is out of date. If None, the client's `loading`.
            consistency: How many zones must answer the read. If None, the client's default.
            timeout: Seconds that the caller waits for a load. If None, `policy.hard_timeout`.
            near_cache: False to pass by the near cache.

        Returns:
            The value, or None. A value that cannot be decoded counts as absent: the result of a load replaces it.

        Raises:
            LoadTimeout: The load takes longer than the caller waits. The load goes on.
            LoadAborted: The load was cut off.
            EncodeError: The loader's value cannot be stored, or would come back as another type than the loader returned.
            InvalidArgument: An argument cannot be used.
            Exception: What the loader raises.
        """
        return await self._read_through.get_or_load(
            key, loader, as_, ttl, policy, consistency, timeout, near_cache=near_cache
        )

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
    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, Any]]],
        *,
        as_: Any = None,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> dict[Key, Any]:
        """Return the values of several keys, by key as given. One `await loader(keys)` loads those that the cache lacks.

        The loader gets a list of the keys that no call is loading yet, and returns a mapping. Keys that are not in it, or
        None, do not exist: that is remembered, and they are not in the result. Otherwise as `get_or_load`, for all of
        them: an error of one key is raised for the call. `as_` is the type of each value; if None, the loader's annotation
        says it, `dict[str, User]` for one.
        """
        return await self._bulk_read_through.get_or_load_many(
            keys, loader, as_, ttl, policy, consistency, timeout, near_cache=near_cache
        )

    def cached(
        self,
        *,
        key: CallKey | None = None,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
        stale_while_revalidate: Seconds | None = None,
    ) -> CachedDecorator:
        """Return a decorator that keeps the results of an async function here, by its arguments, as `get_or_load` does.

        Values come back as the type that the function is annotated to return.

        `key`: a template that names parameters, `"user:{user_id}"`, or a function that makes the key; None: all
        arguments, which must be plain. The function gets `key(...)`, `invalidate(...)` (with `stale_while_revalidate`: as
        `invalidate` does, otherwise as `delete`) and `uncached`. Raises `InvalidArgument` where calls could be taken for
        each other, and for a return type whose values cannot be read back. See `evcache.decorators.cached`.
        """
        return cached_by(
            self,
            key=key,
            ttl=ttl,
            policy=policy,
            timeout=timeout,
            near_cache=near_cache,
            stale_while_revalidate=stale_while_revalidate,
            check_type=self._decoding.new_decoder,
        )
