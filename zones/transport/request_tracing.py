"""Tracing of requests to nodes: their command, and their end.

A node without a tracer lends its connections unchanged, so tracing costs nothing where it is off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import EncodedStore, StoreMode
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.base import Transport
from evcache.zones.transport.in_flight import Waiter

_log = logging.getLogger("evcache.zones.transport")

Ended = Callable[[BaseException | None], None]
"""Function called once at the end of a request, with its error or None."""

Listener = Callable[[Endpoint, str, int], Ended | None]
"""Function called before a request is sent, in the context of its sender: node, command, number of requests."""


class RequestTracer:
    """Tracer of one client's requests, with at most one listener."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for each request from now on."""
        self.listener = listener

    def wrap(self, connection: Transport, endpoint: Endpoint) -> Transport:
        """Return the connection, or a wrapper that traces its requests if there is a listener."""
        return connection if self.listener is None else _TracedTransport(connection, endpoint, self.listener, self)

    def disable(self) -> None:
        """Log the current exception of the listener and remove it."""
        if self.listener is not None:
            self.listener = None
            _log.exception("request tracer failed: unexpected exception; requests are not traced any more")


class _TracedTransport:
    """Connection that traces one request, for which it is lent."""

    def __init__(self, connection: Transport, endpoint: Endpoint, listener: Listener, tracer: RequestTracer) -> None:
        self._tracer = tracer
        self._connection = connection
        self._endpoint = endpoint
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Trace `Transport.get`."""
        self._send("mg", waiter, lambda traced: self._connection.get(key, fields, traced, deadline, latest))

    def read(
        self, key: bytes, fields: Fields, deadline: float, latest: float | None = None, *_: object, **__: object
    ) -> Awaitable[AnyReply]:
        """Trace `Transport.read`. A known CAS has no effect, because the trace shows the reply."""
        answer: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self.get(key, fields, answer, deadline, latest)
        return answer

    def get_many(
        self,
        keys: Sequence[bytes],
        fields: Fields,
        waiter: Waiter,
        deadline: float,
        latest: float | None = None,
        *_: object,
        **__: object,
    ) -> None:
        """Trace `Transport.get_many`. A known CAS has no effect."""
        self._send(
            "mg",
            waiter,
            lambda traced: self._connection.get_many(keys, fields, traced, deadline, latest),
            requests=len(keys),
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
            lambda traced: self._connection.store(
                key, data, flags, exptime, traced, deadline, mode=mode, compare=compare, cas=cas
            ),
        )

    def send_store(self, store: EncodedStore, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.send_store`."""
        self._send("ms", waiter, lambda traced: self._connection.send_store(store, traced, deadline))

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.replace_older`."""
        self._send("ms", waiter, lambda traced: self._connection.replace_older(key, data, flags, cas, traced, deadline))

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Trace `Transport.delete`."""
        self._send("md", waiter, lambda traced: self._connection.delete(key, traced, deadline, compare))

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.touch`."""
        self._send("mg", waiter, lambda traced: self._connection.touch(key, exptime, traced, deadline))

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Trace `Transport.guarded_touch`."""
        self._send("md", waiter, lambda traced: self._connection.guarded_touch(key, exptime, cas, traced, deadline))

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
            lambda traced: self._connection.count(
                key, delta, traced, deadline, decrement=decrement, compare=compare, cas=cas
            ),
        )

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Trace `Transport.lease`."""
        self._send("mg", waiter, lambda traced: self._connection.lease(key, seconds, traced, deadline, cas))

    def _send(self, command: str, waiter: Waiter, send: Callable[[Waiter], None], *, requests: int = 1) -> None:
        traced = self._traced(command, requests, waiter)
        self._send_or_end(traced, lambda: send(traced))

    def _traced(self, command: str, requests: int, waiter: Waiter) -> Waiter:
        try:
            ended = self._listener(self._endpoint, command, requests)
        except Exception:
            self._tracer.disable()
            return waiter
        return waiter if ended is None else _TracedWaiter(waiter, ended, self._tracer)

    @staticmethod
    def _send_or_end(traced: Waiter, send: Callable[[], None]) -> None:
        try:
            send()
        except CacheError as error:  # nothing was sent
            if isinstance(traced, _TracedWaiter):
                traced.end(error)
            raise


class _TracedWaiter:
    """Waiter that reports the end of its request to the tracer."""

    __slots__ = ("_ended", "_tracer", "_waiter")

    def __init__(self, waiter: Waiter, ended: Ended, tracer: RequestTracer) -> None:
        self._tracer = tracer
        self._waiter = waiter
        self._ended: Ended | None = ended

    def done(self) -> bool:
        done = self._waiter.done()
        if done:  # the caller gave up; the connection asks when the reply arrives
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
        except Exception:  # raised in a connection that has read a reply, it would fail all its requests
            self._tracer.disable()
