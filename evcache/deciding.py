"""The operations that depend on what is there. Each checks its arguments, then has the key's coordinator decide."""

from __future__ import annotations

from typing import Any

from evcache.commands import Seen
from evcache.coordinator import MAX_COUNTER, Decision, Draft
from evcache.lifecycle import Lifecycle
from evcache.options import Level, Seconds
from evcache.results import Item, Outcome, WriteResult
from evcache.versions import MAX_CAS
from evcache.write_path import Decide
from zones.errors import InvalidArgument
from zones.node import Node


class Deciding(Lifecycle):
    """The operations that depend on what is there, about which one zone decides.

    All raise `CacheUnavailable` when no zone could decide, and when the one that was asked did not answer in time: then it
    may have decided, and nobody can say so.
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
        """Store a value if the key is absent. False, with `not_stored`, when it is not."""
        draft = self._draft(key, value, ttl)

        async def decide(_: str, node: Node, seen: Seen | None, deadline: float) -> Decision | Outcome:
            return await self._atomic.add(node, draft, seen, deadline)

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

        async def decide(_: str, node: Node, seen: Seen | None, deadline: float) -> Decision | Outcome:
            return await self._atomic.replace(node, draft, seen, deadline)

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

        async def decide(zone: str, node: Node, seen: Seen | None, deadline: float) -> Decision | Outcome:
            return await self._atomic.cas(zone, node, draft, expected, seen, deadline)

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

        A counter is an int from 0 to 2^64-1, beyond which it starts again at 0: what `set` has stored as an int can be
        counted, and `get` returns an int. Raises `ServerError` for any other value, a negative int included.
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

        async def decide(zone: str, node: Node, seen: Seen | None, deadline: float) -> Decision | Outcome:
            before = operation == "prepend"
            return await self._atomic.join(zone, node, full, value, seen, deadline, before=before, ttl=copies)

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

        async def decide(_: str, node: Node, seen: Seen | None, deadline: float) -> Decision | Outcome:
            return await self._atomic.count(
                node, full, delta, seen, deadline, decrement=operation == "decr", initial=initial, ttl=life
            )

        return await self._writes.count(operation, view, full, decide, options)


def _check_counter(number: int, argument: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_COUNTER:
        raise InvalidArgument(argument, f"a number from 0 to 2^64-1 is needed, not {number!r}")
