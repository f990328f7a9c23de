"""The operations that load a value if the cache has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeVar, Unpack, overload

from evcache._steps import STEP_KEYS, Steps
from evcache.decorators.cached import CachedDecorator
from evcache.decorators.cached import cached as cached_by
from evcache.decorators.call_keys import CallKey
from evcache.errors import DecodeError
from evcache.invalidating import Invalidating, awaitable
from evcache.load_policy import Loaded, LoadPolicy
from evcache.near_cache.entry import UNDECODED, NearEntry
from evcache.options import Key, Level, LoadOptions, Seconds, several
from evcache.read_through.request import LoadRequest
from evcache.reads.decoding import Decoder
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.values.type_forms import TypeForm
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import positive_seconds

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
        full = self._keys.qualify(key)
        if not callable(loader):
            raise InvalidArgument("loader", f"an async function is needed, not {loader!r}")

        decoder: Decoder
        if as_ is not None:
            decoder = self._decoding.typed(as_)
        elif type(loader) is FunctionType and "return" not in loader.__annotations__:  # as a lambda
            decoder = self._codec
        else:
            decoder = self._decoding.of_loader(loader)

        async def load(keys: Sequence[bytes]) -> Mapping[bytes, Any]:
            return {keys[0]: await awaitable(loader())}

        asked = self._asked(
            load, loader, ttl, policy, consistency, timeout, near_cache=near_cache, decoder=decoder, same_type=as_ is None
        )
        view = self._cluster.view
        if view is None or self._owner.open_in is not asyncio.get_running_loop():
            view = await self._view_or_none()
        if (kept := self._near_kept(full, asked)) is not None:
            if kept.is_value:
                if self._loads.serve(view, full, kept.flags, kept.life, asked):
                    if self._hooks.of_reads:
                        self._hooks.read(full, kept.zone, "near", hit=True)
                    if kept.value is not UNDECODED and decoder is self._codec:
                        return kept.value
                    try:
                        return self._value_kept(full, kept, None, decoder)
                    except DecodeError:
                        return await self._load_over(view, full, asked)
            elif kept.flags != FLAG_TOMBSTONE:
                if self._hooks.of_reads:
                    self._hooks.read(full, kept.zone, "near", hit=False)
                return None
        content = await self._loads.get(view, full, asked)
        if content is None:
            return None
        try:
            return self._decoding.value(full, content, decoder)
        except DecodeError:
            return await self._load_over(view, full, asked)

    async def _load_over(self, view: ClusterSnapshot | None, full: bytes, asked: LoadRequest) -> Any:
        content = await self._loads.get_over(view, full, asked)
        return None if content is None else self._decoding.value(full, content, asked.decoder)

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
        given: dict[bytes, list[Key]] = {}
        for number, key in enumerate(list(several(keys)), 1):
            given.setdefault(self._keys.qualify(key), []).append(key)
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
        if not callable(loader):
            raise InvalidArgument("loader", f"an async function is needed, not {loader!r}")

        decoder = self._decoding.of_loader(loader, many=True) if as_ is None else self._decoding.typed(as_)

        async def load(missing: Sequence[bytes]) -> Mapping[bytes, Any]:
            values = await awaitable(loader([given[full][0] for full in missing]))
            if not isinstance(values, Mapping):
                raise InvalidArgument("loader", f"it has to return a mapping of keys to values, not {type(values).__name__}")
            return {full: values.get(given[full][0]) for full in missing}

        asked = self._asked(
            load, loader, ttl, policy, consistency, timeout, near_cache=near_cache, decoder=decoder, same_type=as_ is None
        )
        if not given:
            return {}
        view = await self._view_or_none()
        kept = {full: item for full in given if (item := self._near_kept(full, asked)) is not None}
        absent = {full for full, item in kept.items() if not item.is_value and item.flags != FLAG_TOMBSTONE}
        lives = {full: item.life for full, item in kept.items() if item.is_value}
        wanted = [full for full in given if full not in absent]
        contents = await self._loads.get_many(view, wanted, lives, asked) if wanted else {}
        values: dict[Key, Any] = {}
        unread: list[bytes] = []
        steps = Steps()
        for full in wanted:
            content = contents.get(full)
            if steps.is_over(0 if content is None else len(content.data)):
                await asyncio.sleep(0)
            if content is None and full in contents:
                continue
            if content is None and self._hooks.of_reads:
                self._hooks.read(full, kept[full].zone, "near", hit=True)
            try:
                for name in given[full]:  # each gets an object of its own
                    values[name] = (
                        self._value_kept(full, kept[full], None, decoder)
                        if content is None
                        else self._decoding.value(full, content, decoder)
                    )
            except DecodeError:
                unread.append(full)
        if unread:
            for full, content in (await self._loads.get_many_over(view, unread, asked)).items():
                for name in given[full] if content is not None else ():
                    assert content is not None
                    values[name] = self._decoding.value(full, content, decoder)
            values = {name: values[name] for full in given for name in given[full] if name in values}
        return values

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

    def _asked(
        self,
        loader: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Any]]],
        source: object,
        ttl: Seconds | None,
        policy: LoadPolicy | None,
        consistency: Level | None,
        timeout: float | None,
        *,
        near_cache: bool,
        decoder: Decoder,
        same_type: bool,
    ) -> LoadRequest:
        chosen = self._policy if policy is None else policy
        if not isinstance(chosen, LoadPolicy):
            raise InvalidArgument("policy", f"LoadPolicy(...) or None is needed, not {policy!r}")
        if not self._versions and chosen.max_staleness:
            raise InvalidArgument(
                "policy", "other kinds of clients read this namespace (interop): nothing is kept for longer than its ttl"
            )
        return LoadRequest(
            loader=loader,
            ttl=self._defaults.ttl(ttl),
            policy=chosen,
            reads=self._defaults.read(consistency, None, None, None, near_cache=near_cache),
            writes=self._load_writes,
            timeout=None if timeout is None else positive_seconds(timeout, "timeout"),
            decoder=decoder,
            same_type=same_type and decoder is self._codec,
            source=source,
        )

    def _near_kept(self, full: bytes, asked: LoadRequest) -> NearEntry | None:
        if self._near is None or not asked.reads.near_cache or not asked.reads.one_answer:
            return None
        return self._reads.kept(full)
