"""Who may use a client: the event loop of its first call, in the same process, until it is closed."""

from __future__ import annotations

import asyncio
import os

from zones.errors import UsageError


class Owner:
    """Remembers the loop and process of the first call. A client's sockets and timers can't be used from any other."""

    __slots__ = ("_closed", "_loop", "_pid", "open_in")

    def __init__(self) -> None:
        self.open_in: asyncio.AbstractEventLoop | None = None
        """The loop whose calls are welcome; None before the first call and after `close`. It is all that calls compare:
        another thread or a forked child runs another loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._closed = False

    def enter(self) -> None:
        """Become the owner with the first call. Raises `UsageError`, with the reason, for a call from elsewhere."""
        if self._closed:
            raise UsageError("the client is closed")
        if self._loop is None:
            self._loop = self.open_in = asyncio.get_running_loop()
            self._pid = os.getpid()
        else:
            self._check(self._loop)

    def close(self) -> bool:
        """Refuse further calls. Return False if no call was ever made, so that there is nothing to close.

        Raises `UsageError` when the client belongs to another loop or process, whose sockets can't be closed from here.
        """
        if self._loop is not None:
            self._check(self._loop)
        self._closed = True
        self.open_in = None
        return self._loop is not None

    def _check(self, owner: asyncio.AbstractEventLoop) -> None:
        if self._pid != os.getpid():
            raise UsageError("the client was made before this process was forked: make one in each process")
        if owner is not asyncio.get_running_loop():
            raise UsageError("the client belongs to another event loop: make one for each loop, or thread")
