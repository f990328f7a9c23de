"""Connections of one node, by their use. The node decides when a connection moves to another use.

ready       takes requests
suspended   open, and not used while the circuit is open
retiring    takes no more requests, and still delivers outstanding replies
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from evcache.zones.transport.base import Transport


class ConnectionSet:
    """The connections of one node."""

    __slots__ = (
        "_all_retired",
        "_loop",
        "_requests_before",
        "_silent",
        "may_be_sole",
        "ready",
        "retiring",
        "sole",
        "suspended",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready: list[Transport] = []
        self.sole: Transport | None = None
        """The ready connection, if there is one alone and `may_be_sole`. Most requests take it, without a call."""
        self.may_be_sole = False
        """True if the node needs one connection, and sends requests on it as it is."""
        self.suspended: list[Transport] = []
        self.retiring: set[Transport] = set()
        self._loop = loop
        self._silent: set[Transport] = set()
        self._requests_before = 0  # on connections that have ended, without the handshakes of all
        self._all_retired: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """Number of requests without a reply."""
        return sum(connection.pending for connection in (*self.ready, *self.suspended, *self.retiring))

    @property
    def requests(self) -> int:
        """Number of requests ever sent."""
        live = (*self.ready, *self.suspended, *self.retiring)
        return self._requests_before + sum(connection.requests for connection in live)

    @property
    def is_silent(self) -> bool:
        """True if no byte arrives on any ready connection while reads wait on it."""
        return bool(self.ready) and self._silent.issuperset(self.ready)

    def in_use(self) -> list[Transport]:
        """Return the connections that are open and not retired."""
        return [*self.ready, *self.suspended]

    def add(self, connection: Transport) -> None:
        """Use an open connection, if it is not in use yet."""
        if connection not in self.ready and connection.is_open:
            self.ready.append(connection)
        self._find_sole()

    def count_without_handshake(self, opened: Transport) -> None:
        """Leave the requests of the handshake out of `requests`, because no caller made them."""
        self._requests_before -= opened.requests

    def suspend(self) -> None:
        """Suspend all ready connections. A stalled server answers on them when it continues."""
        self.suspended += self.ready
        self.ready.clear()
        self._silent.clear()
        self._find_sole()

    def resume(self) -> None:
        """Use the suspended connections again, and restart the count of their timeouts."""
        for connection in self.suspended:
            connection.forgive()
        self.ready += (connection for connection in self.suspended if connection.is_open)
        self.suspended.clear()
        self._find_sole()

    def retire(self, connections: Collection[Transport]) -> None:
        """Take these connections out of use, and let them deliver their outstanding replies."""
        for connection in [known for known in self.in_use() if known in connections]:
            self.leave(connection)
            connection.retire()

    def leave(self, connection: Transport) -> bool:
        """Note that a connection takes no more requests. Return True if it was ready."""
        was_ready = connection in self.ready
        for among in (self.ready, self.suspended):
            if connection in among:
                among.remove(connection)
                self.retiring.add(connection)
        self._silent.discard(connection)
        self._find_sole()
        return was_ready

    def forget(self, connection: Transport) -> bool:
        """Forget a connection that has ended. Return True if it was ready."""
        was_ready = self.leave(connection)
        if connection in self.retiring:  # false for a connection whose handshake failed
            self.retiring.discard(connection)
            self._requests_before += connection.requests
        if not self.retiring and self._all_retired is not None and not self._all_retired.done():
            self._all_retired.set_result(None)
        return was_ready

    def _find_sole(self) -> None:
        self.sole = self.ready[0] if len(self.ready) == 1 and self.may_be_sole else None

    def silence(self, connection: Transport) -> None:
        """Note that reads wait on a connection, and no byte arrives."""
        self._silent.add(connection)

    def hear(self, connection: Transport) -> None:
        """Note that a byte arrived."""
        self._silent.discard(connection)

    async def drained(self, seconds: float) -> bool:
        """Wait until no retiring connection is left. Return False if that takes longer."""
        if not self.retiring:
            return True
        if self._all_retired is None:
            self._all_retired = self._loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._all_retired)
        except TimeoutError:
            return False
        return True
