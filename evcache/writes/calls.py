"""Write operations of a client: arguments, encoding, and the result that the caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from evcache._cluster_access import ClusterAccess, Ready
from evcache._helpers.steps import Steps
from evcache.errors import CacheUnavailable
from evcache.options import Defaults, Errors, Key, Level, Options, Ordering, Seconds, check_keys
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.results import Item, WriteResult
from evcache.values.codec import Codec
from evcache.values.keys import Keys
from evcache.writes.conditional.atomic import Add, Cas, ConditionalWrite, Replace
from evcache.writes.conditional.concat import Concat
from evcache.writes.conditional.increment import Increment
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size, check_sizes
from evcache.writes.writer import Writer
from evcache.zones.errors import InvalidArgument
from evcache.zones.nodes.capabilities import FITS_ANYWHERE_BYTES


class WriteCalls:
    """The write operations of one client. `EVCache` describes their arguments."""

    def __init__(self, keys: Keys, codec: Codec, defaults: Defaults, access: ClusterAccess, writer: Writer) -> None:
        """Make it for one client.

        Args:
            keys: Full names of keys.
            codec: Encoder of values.
            defaults: Options of calls that pass none.
            access: The client's zones.
            writer: Writes to the zones.
        """
        self._keys = keys
        self._codec = codec
        self._defaults = defaults
        self._access = access
        self._cluster = access.cluster
        self._affinity = access.affinity
        self._writer = writer

    def draft(self, key: str | bytes, value: Any, ttl: Seconds | None) -> Draft:
        """Return the encoded value.

        Raises:
            EncodeError: The value cannot be encoded.
            InvalidArgument: The key or the TTL cannot be used.
        """
        return self._writer.draft(self._keys.qualify(key), self._codec.encode(value), self._defaults.ttl(ttl))

    # Unconditional writes.

    async def set(
        self,
        key: str | bytes,
        value: Any,
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
        ordering: Ordering | None,
        errors: Errors | None,
    ) -> WriteResult:
        """Do what `EVCache.set` describes."""
        draft = self.draft(key, value, ttl)
        if consistency is None and timeout is None and errors is None:
            options = self._defaults.writes
        else:
            options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.orders_by_version if ordering is None else self._defaults.newest_wins(ordering)
        view = self._cluster.view
        if view is None or self._affinity.open_in is not asyncio.get_running_loop():
            ready = await self._open(self._access.open(options), options)
            if ready is None:
                return _not_sent()
            view, options = ready
        if len(draft.data) > FITS_ANYWHERE_BYTES:
            options = await check_size(view, draft, options)
        store = self._writer.store(draft, newest_wins=newest_wins)
        del draft  # not to be kept while the zones answer
        return await self._writer.write("set", view, store.key, store, options)

    async def set_many(
        self,
        values: Mapping[Key, Any],
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
        ordering: Ordering | None,
        errors: Errors | None,
    ) -> dict[Key, WriteResult]:
        """Do what `EVCache.set_many` describes."""
        if not isinstance(values, Mapping):
            raise InvalidArgument("values", f"a mapping of keys to values is required, not {type(values).__name__}")
        options = self._defaults.write(consistency, timeout, errors)
        newest_wins = self._defaults.newest_wins(ordering)
        deadline = asyncio.get_running_loop().time() + options.timeout
        drafts: dict[Key, Draft] = {}
        steps = Steps()
        for key, value in list(values.items()):  # a copy: the caller may change the mapping while this call waits
            draft = drafts[key] = self.draft(key, value, ttl)
            if steps.count(len(draft.data)):
                await asyncio.sleep(0)
        ready = await self._open(self._access.ready_by(options, deadline), options)
        if ready is None:
            return {key: _not_sent() for key in drafts}
        view, options = ready
        await check_sizes(view, drafts.values(), deadline)

        def store(draft: Draft) -> tuple[bytes, StoreCommand]:
            return draft.key, self._writer.store(draft, newest_wins=newest_wins)

        return await self._writer.write_many("set_many", view, drafts, store, options, deadline)

    async def delete(
        self, key: str | bytes, consistency: Level | None, timeout: float | None, errors: Errors | None
    ) -> WriteResult:
        """Do what `EVCache.delete` describes."""
        full = self._keys.qualify(key)
        if consistency is None and timeout is None and errors is None:
            options = self._defaults.writes
        else:
            options = self._defaults.write(consistency, timeout, errors)
        view = self._cluster.view
        if view is None or self._affinity.open_in is not asyncio.get_running_loop():
            ready = await self._open(self._access.open(options), options)
            if ready is None:
                return _not_sent()
            view, options = ready
        return await self._writer.write("delete", view, full, self._writer.delete(full), options)

    async def delete_many(
        self, keys: Iterable[Key], consistency: Level | None, timeout: float | None, errors: Errors | None
    ) -> dict[Key, WriteResult]:
        """Do what `EVCache.delete_many` describes."""
        options = self._defaults.write(consistency, timeout, errors)
        deadline = asyncio.get_running_loop().time() + options.timeout
        names: dict[Key, bytes] = {}
        steps = Steps()
        for key in list(check_keys(keys)):
            names[key] = self._keys.qualify(key)
            if steps.count(0):
                await asyncio.sleep(0)
        ready = await self._open(self._access.ready_by(options, deadline), options)
        if ready is None:
            return {key: _not_sent() for key in names}
        view, options = ready

        def delete(full: bytes) -> tuple[bytes, StoreCommand]:
            return full, self._writer.delete(full)

        return await self._writer.write_many("delete_many", view, names, delete, options, deadline)

    async def touch(
        self,
        key: str | bytes,
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
        errors: Errors | None,
    ) -> WriteResult:
        """Do what `EVCache.touch` describes."""
        full = self._keys.qualify(key)
        seconds = self._defaults.ttl(ttl)
        options = self._defaults.write(consistency, timeout, errors)
        ready = self._access.ready(options) or await self._open(self._access.open(options), options)
        if ready is None:
            return _not_sent()
        return await self._writer.touch(ready[0], full, seconds, ready[1])

    async def _open(self, opening: Awaitable[Ready], options: Options) -> Ready | None:
        """Return the zones. None if they are unknown, and the call returns a false result in place of the error."""
        try:
            return await opening
        except CacheUnavailable:
            if options.errors == "raise":
                raise
            return None

    # Conditional writes.

    async def add(
        self, key: str | bytes, value: Any, ttl: Seconds | None, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        """Do what `EVCache.add` describes."""
        return await self._coordinate("add", Add(self.draft(key, value, ttl)), consistency, timeout)

    async def replace(
        self, key: str | bytes, value: Any, ttl: Seconds | None, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        """Do what `EVCache.replace` describes."""
        return await self._coordinate("replace", Replace(self.draft(key, value, ttl)), consistency, timeout)

    async def cas(
        self,
        key: str | bytes,
        value: Any,
        expected: int | Item,
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
    ) -> WriteResult:
        """Do what `EVCache.cas` describes."""
        return await self._coordinate("cas", Cas(self.draft(key, value, ttl), expected), consistency, timeout)

    async def concat(
        self,
        key: str | bytes,
        value: str | bytes,
        consistency: Level | None,
        timeout: float | None,
        *,
        is_prepend: bool,
    ) -> WriteResult:
        """Do what `EVCache.append` and `EVCache.prepend` describe."""
        ttl = self._writer.wire_ttl(self._defaults.ttl(None))
        write = Concat(self._keys.qualify(key), value, self._codec, is_prepend=is_prepend, ttl=ttl)
        return await self._coordinate("prepend" if is_prepend else "append", write, consistency, timeout)

    async def increment(
        self,
        key: str | bytes,
        delta: int,
        initial: int | None,
        ttl: Seconds | None,
        consistency: Level | None,
        timeout: float | None,
        *,
        decrement: bool,
    ) -> int | None:
        """Do what `EVCache.incr` and `EVCache.decr` describe."""
        wire_ttl = self._writer.wire_ttl(self._defaults.ttl(ttl))
        write = Increment(self._keys.qualify(key), delta, decrement=decrement, initial=initial, ttl=wire_ttl)
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._access.ready(options) or await self._access.open(options)
        return (await self._writer.coordinate("decr" if decrement else "incr", view, write, options)).value

    async def _coordinate(
        self, operation: str, write: ConditionalWrite, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._access.ready(options) or await self._access.open(options)
        return (await self._writer.coordinate(operation, view, write, options)).result


def _not_sent() -> WriteResult:
    return WriteResult(met=False, version=None, zones={})
