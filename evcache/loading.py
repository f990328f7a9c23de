"""The operations that have a value loaded when the cache does not have it, and those that go with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from evcache.answers import Found
from evcache.cached import Cached
from evcache.cached import cached as cached_by
from evcache.call_keys import CallKey
from evcache.codec import FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.commands import Store
from evcache.consistency import Consistency
from evcache.coordinator import Draft
from evcache.envelope import Envelope, wrap
from evcache.errands import Asked
from evcache.errors import CacheUnavailable, DecodeError, UsageError, ValueTooLarge
from evcache.load_policy import LoadPolicy
from evcache.near_path import UNDECODED, Kept
from evcache.options import Key, Level, Seconds, several
from evcache.reading import Reading
from evcache.results import WriteResult
from evcache.ttl import seconds_to_live
from evcache.writing import Writing
from zones.checks import seconds
from zones.cluster import View
from zones.errors import InvalidArgument
from zones.protocol.requests import COPY_FLAGS

P = ParamSpec("P")
R = TypeVar("R")


class Loading(Reading, Writing):
    """The operations with a loader, or a writer, behind them."""

    async def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[], Awaitable[Any]],
        *,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> Any:
        """The value; when the cache has none, what `await loader()` returns, which is then kept for `ttl` seconds.

        One loader runs for a key in this process, however many callers ask, and by default one in each zone. What it
        returns is encoded once, and each caller gets its own copy, as from `get`. None from it means that there is
        nothing: that is remembered for `policy.negative_ttl`, and returned. `Loaded(value, ttl=...)` says how long this
        value lives. `policy` says what is done shortly before, and after, a value is out of date; None: the client's.

        `timeout`: seconds that the caller waits for a load; None: `policy.hard_timeout`. A cache that
        can't be reached costs as much time as reads have, thrice at the most where it hangs; the loader is called each time
        then, never more than the client's `max_loads` at once. A value that can't be read as one is an error, but what its
        times can't be read of is loaded anew.

        Raises what the loader raises; `LoadTimeout` when it takes longer than the caller waits, and goes on; `LoadAborted`;
        `EncodeError`. A caller that is cancelled leaves alone; the load ends when nobody waits for it any more.
        """
        full = self._keys.full(key)
        if not callable(loader):
            raise InvalidArgument("loader", f"an async function is needed, not {loader!r}")

        async def load(keys: Sequence[bytes]) -> Mapping[bytes, Any]:
            return {keys[0]: await _awaitable(loader())}

        asked = self._asked(load, ttl, policy, consistency, timeout, near_cache=near_cache)
        view = self._cluster.view
        if view is None or self._owner.open_in is not asyncio.get_running_loop():
            view = await self._view_or_none()
        if (kept := self._near_kept(full, asked)) is not None:
            if kept.is_value:
                if self._loads.serve(view, full, kept.flags, kept.life, asked):
                    if self._hooks.of_reads:
                        self._hooks.read(full, kept.zone, "near", hit=True)
                    return kept.value if kept.value is not UNDECODED else self._value_kept(full, kept, None)
            elif kept.flags != FLAG_TOMBSTONE:
                if self._hooks.of_reads:
                    self._hooks.read(full, kept.zone, "near", hit=False)
                return None
        content = await self._loads.get(view, full, asked)
        return None if content is None else self._decode(full, content.data, content.flags, content.zone)

    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Key]], Awaitable[Mapping[Key, Any]]],
        *,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> dict[Key, Any]:
        """The values of several keys, by key as it was given; those that the cache does not have come from one
        `await loader(keys)`.

        The loader gets a list of the keys that nobody is loading yet, and returns a mapping. Keys that are not in it, or
        None, do not exist: that is remembered, and they are not in the result. Otherwise as `get_or_load`, for all of
        them: what goes wrong for one is raised for the call.
        """
        given: dict[bytes, list[Key]] = {}
        for key in several(keys):
            given.setdefault(self._keys.full(key), []).append(key)
        if not callable(loader):
            raise InvalidArgument("loader", f"an async function is needed, not {loader!r}")

        async def load(missing: Sequence[bytes]) -> Mapping[bytes, Any]:
            values = await _awaitable(loader([given[full][0] for full in missing]))
            if not isinstance(values, Mapping):
                raise InvalidArgument("loader", f"it has to return a mapping of keys to values, not {type(values).__name__}")
            return {full: values.get(given[full][0]) for full in missing}

        asked = self._asked(load, ttl, policy, consistency, timeout, near_cache=near_cache)
        if not given:
            return {}
        view = await self._view_or_none()
        kept = {full: item for full in given if (item := self._near_kept(full, asked)) is not None}
        absent = {full for full, item in kept.items() if not item.is_value and item.flags != FLAG_TOMBSTONE}
        lives = {full: item.life for full, item in kept.items() if item.is_value}
        wanted = [full for full in given if full not in absent]
        contents = await self._loads.get_many(view, wanted, lives, asked) if wanted else {}
        values: dict[Key, Any] = {}
        for full in wanted:
            content = contents.get(full)
            if content is None and full in contents:
                continue
            if content is None and self._hooks.of_reads:
                self._hooks.read(full, kept[full].zone, "near", hit=True)
            for name in given[full]:
                values[name] = (
                    self._value_kept(full, kept[full], None)
                    if content is None
                    else self._decode(full, content.data, content.flags, content.zone)
                )
        return values

    def cached(
        self,
        *,
        key: CallKey | None = None,
        ttl: Seconds | None = None,
        policy: LoadPolicy | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
        stale_for: Seconds | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Cached[P, R]]:
        """A decorator: the results of an async function are kept here, by its arguments, as `get_or_load` keeps them.

        `key`: a template that names parameters, `"user:{user_id}"`, or a function that makes the key; None: all
        arguments, which must be plain. The function gets `key(...)`, `invalidate(...)` (with `stale_for`: as `invalidate`
        does, otherwise as `delete`) and `uncached`. Raises `InvalidArgument` where calls could be taken for each other.
        See `evcache.cached`.
        """
        return cached_by(self, key=key, ttl=ttl, policy=policy, timeout=timeout, near_cache=near_cache, stale_for=stale_for)

    async def invalidate(
        self,
        key: str | bytes,
        *,
        stale_for: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Say that the value is out of date. Plain reads miss from now on; `get_or_load` loads it anew.

        `stale_for`: for so many seconds, callers of `get_or_load` are given the old value while one of them loads the new
        one; None: nobody is, as after `delete`. A value that is out of date already is served no longer than it was to be.
        Raises as `delete` does.
        """
        full = self._keys.full(key)
        options = self._defaults.write(consistency, timeout, None)
        if stale_for is None or not self._versions:
            if stale_for is not None:
                raise InvalidArgument(
                    "stale_for", "other kinds of clients read this namespace (interop), and would take it for fresh"
                )
            # Not `self.delete`, which telemetry may have wrapped: one call is one write, and one span.
            return await Writing.delete(self, key, consistency=consistency, timeout=timeout)
        life = seconds_to_live(stale_for, "stale_for")
        view, options = self._ready(options) or await self._open(options)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        try:
            found = await self._reads.get(
                view,
                full,
                self._defaults.read(Consistency.ONE, options.timeout / 2, None),
                fallback_on_miss=True,
                flags=COPY_FLAGS,
                near=False,
            )
        except CacheUnavailable:
            found = None
        options = options._replace(timeout=max(0.0, deadline - loop.time()))
        store: Store = self._writes.delete(full)
        draft = None if found is None or not found.is_value else self._outdated(full, found, life)
        if draft is not None:
            with suppress(ValueTooLarge):
                options = await self._writes.check_size(view, draft, options)
                store = self._writes.store(draft, newest_wins=True)
        return await self._writes.write("invalidate", view, full, store, options)

    def _outdated(self, full: bytes, found: Found, stale_for: float) -> Draft | None:
        """What was found, as out of date; None when it can't be served at all."""
        try:
            content = self._any_content(full, found)
        except DecodeError:
            return None
        now, life = self._wall_clock(), content.life
        until = now + stale_for
        if life.expires_at <= now:  # it is out of date already, and saying so again does not make it last
            until = min(until, life.stale_until)
        if until <= now:
            return None
        envelope = Envelope(
            content.data, content.flags, life.made_at or now, min(now, life.expires_at), until, life.load_seconds
        )
        # Kept for as long as a delete is remembered: while it is there, nothing older can be stored by a load that is slow.
        return Draft(full, wrap(envelope), FLAG_ENVELOPE, self._writes.wire_ttl(max(until - now, self._tombstone_ttl)))

    async def write_through(
        self,
        key: str | bytes,
        value: Any,
        writer: Callable[[Any], Awaitable[object]],
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Write a value to its source by `await writer(value)`, and then to every zone.

        The source comes first: when the writer raises, or is cancelled, nobody can say what the source holds, so the key
        is deleted from the cache, and the error is raised. When the source has it and the cache can't be reached, the
        result is false and nothing is raised. Calls of this process for one key take turns, so that the last value to
        reach the source is the one that the cache holds; two processes that write one key at once can leave the other's
        value in the cache until its `ttl`.

        Raises what the writer raises; before that `EncodeError`, `ValueTooLarge` for a value that the cache could not hold.
        `timeout`: seconds for the cache's part.
        """
        if not callable(writer):
            raise InvalidArgument("writer", f"an async function is needed, not {writer!r}")
        draft = self._draft(key, value, ttl)
        options = self._defaults.write(consistency, timeout, "miss")
        view = await self._view_or_none()
        if view is not None:
            await self._writes.check_size(view, draft, options)
        async with self._turns.of(draft.key):
            try:
                await _awaitable(writer(value), "writer")
            except BaseException as error:
                await self._doubt(draft.key, isinstance(error, Exception))
                raise
            view = self._cluster.view  # as it is now: a writer may take longer than a topology lasts
            if view is None:
                return WriteResult(met=False, version=None, zones={})
            store = self._writes.store(draft, newest_wins=self._defaults.newest_wins(None))
            return await self._writes.write("write_through", view, draft.key, store, options)

    async def _doubt(self, full: bytes, wait: bool) -> None:  # noqa: FBT001  # private
        """Delete what may be wrong, by a task that the caller's cancellation does not reach."""
        view = self._cluster.view
        if view is None:
            return
        options = self._defaults.write(None, None, "miss")
        task = self._background.spawn(self._writes.write("delete", view, full, self._writes.delete(full), options))
        if task is not None and wait:
            await asyncio.wait([task])

    def _asked(
        self,
        loader: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Any]]],
        ttl: Seconds | None,
        policy: LoadPolicy | None,
        consistency: Level | None,
        timeout: float | None,
        *,
        near_cache: bool,
    ) -> Asked:
        chosen = self._policy if policy is None else policy
        if not isinstance(chosen, LoadPolicy):
            raise InvalidArgument("policy", f"LoadPolicy(...) or None is needed, not {policy!r}")
        if not self._versions and chosen.kept_for:
            raise InvalidArgument(
                "policy", "other kinds of clients read this namespace (interop): nothing is kept for longer than its ttl"
            )
        return Asked(
            loader=loader,
            ttl=self._defaults.ttl(ttl),
            policy=chosen,
            reads=self._defaults.read(consistency, None, None),
            writes=self._load_writes,
            timeout=None if timeout is None else seconds(timeout, "timeout"),
            fallback_on_miss=self._fallback_on_miss,
            near=near_cache,
        )

    async def _view_or_none(self) -> View | None:
        """The zones; None when they are not known in time, which is no reason not to load."""
        view = self._cluster.view
        if view is not None and self._owner.open_in is asyncio.get_running_loop():
            return view
        try:
            return (await self._open(self._defaults.read(None, None, None)))[0]
        except (InvalidArgument, UsageError):
            raise
        except Exception as error:  # whatever somebody's discovery raises while its source is down
            unknown = error if isinstance(error, CacheUnavailable) else CacheUnavailable("finding the zones", {})
            self._hooks.error_as_miss(unknown)
            return None

    def _near_kept(self, full: bytes, asked: Asked) -> Kept | None:
        if self._near is None or not asked.near or not asked.reads.one_answer:
            return None
        return self._reads.kept(full)


async def _awaitable(result: Any, argument: str = "loader") -> Any:
    if not hasattr(result, "__await__"):
        raise InvalidArgument(
            argument, f"an async function is needed: it returned {type(result).__name__}, which can't be awaited"
        )
    return await result
