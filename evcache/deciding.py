"""The operations that depend on what is there. Each checks its arguments, then has the key's coordinator decide."""

from __future__ import annotations

from typing import Any

from evcache.lifecycle import Lifecycle
from evcache.options import Level, Seconds
from evcache.results import Item, WriteResult
from evcache.writes.atomic import Add, Cas, ConditionalWrite, Replace
from evcache.writes.concat import Concat
from evcache.writes.increment import Increment


class Deciding(Lifecycle):
    """The operations that depend on what is there, about which one zone decides.

    The client first asks all readable zones which version they hold, and gives the deciding zone the newest one. It decides
    calls for one key one after another.
    """

    async def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store a value if the key is absent.

        Cancelling the call does not undo it: a write that was decided goes on to every zone.

        Args:
            key: The key.
            value: The value.
            ttl: Seconds or a timedelta; None: the client's default.
            consistency: How many zones must have it; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.

        Returns:
            True if enough zones have the value. False with `not_stored` if the key exists. False with `stored` for a zone if
            that zone stored it and too few others confirmed in time.

        Raises:
            CacheUnavailable: No zone could decide, or the one that was asked did not answer in time: it may have decided.
            EncodeError: The value can't be stored.
            ValueTooLarge: A server would not take the value.
        """
        return await self._decide("add", Add(self._draft(key, value, ttl)), consistency, timeout)

    async def replace(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: Seconds | None = None,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store a value if the key is present.

        Args and errors as for `add`.

        Returns:
            True if enough zones have the value. False with `not_stored` if the key is absent. False with `stored` for a zone
            if that zone stored it and too few others confirmed in time.
        """
        return await self._decide("replace", Replace(self._draft(key, value, ttl)), consistency, timeout)

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
        """Store a value if the key still holds what was read.

        Args:
            key: The key.
            value: The value.
            expected: A version, or the `Item` that `get_item` returned. `append` and `incr` change the version, `touch` does
                not. On servers without versions, an `Item` of `get_item(key, for_update=True)`.
            ttl: Seconds or a timedelta that the new item lives; None: the client's default, not what the old one has left.
            consistency: How many zones must have it; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.

        Returns:
            True if enough zones have the value. False with `exists` if the key holds something else, with `not_found` if it
            holds nothing, and with `stored` for a zone if that zone stored it and too few others confirmed in time.

        Raises:
            CacheUnavailable: As for `add`; so are `EncodeError` and `ValueTooLarge`.
            InvalidArgument: `expected` is neither, or was read in a zone that does not decide, on servers without versions.
            Unsupported: The server is run without CAS.
        """
        return await self._decide("cas", Cas(self._draft(key, value, ttl), expected), consistency, timeout)

    async def append(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Append to a str or bytes value. Its time to live stays.

        Args:
            key: The key.
            value: The str or bytes to append, of the same type as the value that is there.
            consistency: How many zones must have the result; None: the client's default.
            timeout: Seconds for the whole call; None: the client's default.

        Returns:
            True if enough zones have the result. False with `not_stored` if the key is absent, or the result would be too
            large. False with `stored` for a zone if the value was appended and too few others confirmed in time: do not
            repeat the call.

        Raises:
            InvalidArgument: One value is str and the other bytes.
            CacheUnavailable: As for `add`.
        """
        return await self._decide("append", self._concat(key, value, is_prepend=False), consistency, timeout)

    async def prepend(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        consistency: Level | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Prepend to a str or bytes value. Args, Returns and Raises as for `append`."""
        return await self._decide("prepend", self._concat(key, value, is_prepend=True), consistency, timeout)

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
        """Add to a counter, and return its new value.

        A counter is an int from 0 to 2^64-1, beyond which it starts again at 0. What `set` stored as an int can be counted.

        Args:
            key: The key.
            delta: The number to add, from 0 to 2^64-1.
            initial: The value that is stored if there is no counter; `delta` is not added to it. None: nothing is stored.
            ttl: Seconds or a timedelta that a counter lives which is made; None: the client's default. A counter that exists
                keeps its time.
            consistency: How many zones must have the new value before the call returns; None: the client's default. The call
                returns the value also when fewer have it in time.
            timeout: Seconds for the whole call; None: the client's default.

        Returns:
            The new value, or `initial` if the counter was made; None if there is no counter and no `initial`.

        Raises:
            ServerError: The key holds another value, a negative int included.
            CacheUnavailable: No zone could count, or the one that was asked did not answer in time: it may have counted.
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
        """Subtract from a counter, never below 0, and return its new value.

        Args, Returns and Raises as for `incr`: `initial` is stored as it is, and nothing is subtracted from it.
        """
        return await self._count("decr", key, delta, initial, ttl, consistency, timeout)

    async def _decide(
        self, operation: str, write: ConditionalWrite, consistency: Level | None, timeout: float | None
    ) -> WriteResult:
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._ready(options) or await self._open(options)
        return (await self._writes.coordinate(operation, view, write, options)).result

    def _concat(self, key: str | bytes, value: str | bytes, *, is_prepend: bool) -> Concat:
        ttl = self._writes.wire_ttl(self._defaults.ttl(None))
        return Concat(self._keys.qualify(key), value, self._codec, is_prepend=is_prepend, ttl=ttl)

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
        write = Increment(
            self._keys.qualify(key),
            delta,
            decrement=operation == "decr",
            initial=initial,
            ttl=self._writes.wire_ttl(self._defaults.ttl(ttl)),
        )
        options = self._defaults.write(consistency, timeout, None)
        view, options = self._ready(options) or await self._open(options)
        return (await self._writes.coordinate(operation, view, write, options)).value
