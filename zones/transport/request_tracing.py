"""A tap on the way to the nodes: whoever measures sees every request, its command and how it ended.

Off the path of calls: a node that has no tap lends its connections as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import GuardedStore, StoreMode
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport
from evcache.zones.transport.in_flight import Waiter

_log = logging.getLogger("evcache.zones.transport")

Ended = Callable[[BaseException | None], None]
"""To be called once, when the request has ended: with an error, or None."""

Listener = Callable[[Endpoint, str, int], Ended | None]
"""Told of each request as it is sent, in the context of who sends it: the node, the command, and how many of them."""


class RequestTracer:
    """Where one client's requests can be listened to."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def over(self, connection: Transport, endpoint: Endpoint) -> Transport:
        """The connection, with its requests seen."""
        return connection if self.listener is None else _Tapped(connection, endpoint, self.listener, self)

    def broke(self) -> None:
        """The listener has raised: say so once, and do without it."""
        if self.listener is not None:
            self.listener = None
            _log.exception("whoever listens to requests has raised, and is told nothing more")


class _Tapped:
    """A connection whose requests are seen. Lent for one request."""

    def __init__(self, connection: Transport, endpoint: Endpoint, listener: Listener, tap: RequestTracer) -> None:
        self._tap = tap
        self._connection = connection
        self._endpoint = endpoint
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Trace `Transport.get`."""
        self._send("mg", waiter, lambda seen: self._connection.get(key, fields, seen, deadline, latest))

    def get_many(
        self, keys: Sequence[bytes], fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None
    ) -> None:
        """Trace `Transport.get_many`."""
        self._send(
            "mg", waiter, lambda seen: self._connection.get_many(keys, fields, seen, deadline, latest), requests=len(keys)
        )

    def store(
        self,
        key: bytes,
        data: bytes,
        flags: int,
        exptime: int,
        waiter: Waiter,
        deadline: float,
        *,
        mode: StoreMode = "set",
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Trace `Transport.store`."""
        self._send(
            "ms",
            waiter,
            lambda seen: self._connection.store(
                key, data, flags, exptime, seen, deadline, mode=mode, compare=compare, cas=cas
            ),
        )

    def guarded_store(self, store: GuardedStore, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.guarded_store`."""
        self._send("ms", waiter, lambda seen: self._connection.guarded_store(store, seen, deadline))

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.replace_older`."""
        self._send("ms", waiter, lambda seen: self._connection.replace_older(key, data, flags, cas, seen, deadline))

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Trace `Transport.delete`."""
        self._send("md", waiter, lambda seen: self._connection.delete(key, seen, deadline, compare))

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.touch`."""
        self._send("mg", waiter, lambda seen: self._connection.touch(key, exptime, seen, deadline))

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.guarded_touch`."""
        self._send("md", waiter, lambda seen: self._connection.guarded_touch(key, exptime, cas, seen, deadline))

    def count(
        self,
        key: bytes,
        delta: int,
        waiter: Waiter,
        deadline: float,
        *,
        decrement: bool,
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Trace `Transport.count`."""
        self._send(
            "ma",
            waiter,
            lambda seen: self._connection.count(key, delta, seen, deadline, decrement=decrement, compare=compare, cas=cas),
        )

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Trace `Transport.lease`."""
        self._send("mg", waiter, lambda seen: self._connection.lease(key, seconds, seen, deadline, cas))

    def _send(self, command: str, waiter: Waiter, send: Callable[[Waiter], None], *, requests: int = 1) -> None:
        seen = self._seen(command, requests, waiter)
        self._sent(seen, lambda: send(seen))

    def _seen(self, command: str, requests: int, waiter: Waiter) -> Waiter:
        try:
            ended = self._listener(self._endpoint, command, requests)
        except Exception:
            self._tap.broke()
            return waiter
        return waiter if ended is None else _SeenWaiter(waiter, ended, self._tap)

    @staticmethod
    def _sent(seen: Waiter, send: Callable[[], None]) -> None:
        try:
            send()
        except CacheError as error:  # nothing was sent
            if isinstance(seen, _SeenWaiter):
                seen.end(error)
            raise


class _SeenWaiter:
    """Who waits for an answer, and who wants to know when it came."""

    __slots__ = ("_ended", "_tap", "_waiter")

    def __init__(self, waiter: Waiter, ended: Ended, tap: RequestTracer) -> None:
        self._tap = tap
        self._waiter = waiter
        self._ended: Ended | None = ended

    def done(self) -> bool:
        done = self._waiter.done()
        if done:  # given up: the connection asks when the answer has come, and there is nobody to take it
            self.end(None)
        return done

    def set_result(self, answer: Any) -> None:
        self.end(None)
        self._waiter.set_result(answer)

    def set_exception(self, error: Any) -> None:
        self.end(error)
        self._waiter.set_exception(error)

    def end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        try:
            ended(error)
        except Exception:  # out of a connection that has just read a reply: it would end for all
            self._tap.broke()
