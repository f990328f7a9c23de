"""Lookup of host names in threads of the client, so that a slow lookup delays no other work.

asyncio looks names up in the loop's default executor. A hanging lookup keeps its thread for up to half a minute
(`resolv.conf`: 5 s for each server, twice). A dozen nodes would fill the executor. `asyncio.to_thread` of the service would
wait for them, and so would the end of `asyncio.run`. The threads here are daemons, and the end of the process does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

# Concurrent lookups on one event loop. A hanging lookup holds a thread. Further names wait for a thread.
MAX_LOOKUPS = 32

# Seconds for which a result without a caller is kept. Without it, a lookup that takes longer than the connect timeout would
# never lead to a connection. It is longer than the longest pause between two attempts to connect (45 s).
KEEP_UNUSED_SECONDS = 60.0

Address = tuple[int, tuple[Any, ...]]
"""Family of a socket, and its destination."""


def is_name(host: str) -> bool:
    """Return True if the host is a name that needs a lookup, and not an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host)
    return False


class Resolver:
    """Resolver of host names, with one lookup of each name at a time."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[Resolver], tuple[()]]:
        """Copy and pickle as a new resolver, because lookups belong to an event loop."""
        return Resolver, ()

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Look up a host. An address needs no lookup.

        Cancellation does not stop a lookup that is under way. The next caller joins it, or gets its result.

        Args:
            host: a host name, or an IPv4 or IPv6 address.
            port: the port of the addresses.

        Returns:
            The addresses in the order of the system's preference, at least one.

        Raises:
            OSError: the name is unknown, or the lookup failed.
        """
        if not is_name(host):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        lookups = self._by_loop.get(loop)
        if lookups is None:
            for closed in [known for known in self._by_loop if known.is_closed()]:
                del self._by_loop[closed]  # its futures keep it alive
            lookups = self._by_loop[loop] = _Lookups()
        return await lookups.get(loop, host, port)


@dataclass(slots=True)
class _Lookup:
    """Lookup of one name, from its start until a caller has its result."""

    result: asyncio.Future[list[Address]]
    callers: int = 0
    ended: float | None = None
    """Time on the loop's clock at which it ended without a caller. None if it runs or has callers."""


@dataclass(slots=True, weakref_slot=True)
class _Lookups:
    """Lookups of one event loop."""

    known: dict[tuple[str, int], _Lookup] = field(default_factory=dict)
    waiting: deque[tuple[str, int]] = field(default_factory=deque)
    threads: int = 0

    async def get(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Address]:
        place = (host, port)
        lookup = self.known.get(place)
        if lookup is not None and lookup.ended is not None and loop.time() - lookup.ended > KEEP_UNUSED_SECONDS:
            lookup = None
        if lookup is None:
            lookup = self.known[place] = _Lookup(loop.create_future())
            self.waiting.append(place)
            self._start(loop)
        lookup.callers += 1
        try:
            # The shield: a caller that gives up must not cancel the result of all.
            return await asyncio.shield(lookup.result)
        finally:
            lookup.callers -= 1
            if lookup.result.done() and self.known.get(place) is lookup:
                del self.known[place]

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self.waiting and self.threads < MAX_LOOKUPS:
            host, port = self.waiting.popleft()
            self.threads += 1
            tell = partial(self._ended, loop, (host, port))
            thread = threading.Thread(target=_run, args=(loop, tell, host, port), name=f"evcache-lookup-{host}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the process has no more threads, or ends
                loop.call_soon(tell, None, OSError(f"{host!r} cannot be looked up: {error}"))

    def _ended(
        self, loop: asyncio.AbstractEventLoop, place: tuple[str, int], found: list[Address] | None, error: Exception | None
    ) -> None:
        self.threads -= 1
        self._start(loop)
        lookup = self.known[place]
        if lookup.callers:
            if found is None:
                assert error is not None
                lookup.result.set_exception(error)
            else:
                lookup.result.set_result(found)
        elif found is None:
            del self.known[place]  # an error that no caller waits for is no answer to the next one
        else:
            lookup.result.set_result(found)
            lookup.ended = loop.time()


def _run(
    loop: asyncio.AbstractEventLoop, tell: Callable[[list[Address] | None, Exception | None], None], host: str, port: int
) -> None:
    """Look up a name, in a thread."""
    found, error = None, None
    try:
        found = _look_up(host, port, 0)
    except Exception as problem:  # e.g. UnicodeError for a label that is too long
        error = problem if isinstance(problem, OSError) else OSError(f"{host!r} cannot be looked up: {problem}")
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(tell, found, error)


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    addresses = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
    if not addresses:
        raise OSError(f"{host!r} has no address")
    return addresses
