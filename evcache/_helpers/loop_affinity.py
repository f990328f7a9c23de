"""The event loop and process that a client is open in."""

from __future__ import annotations

import asyncio
import os

from evcache.zones.errors import UsageError


class LoopAffinity:
    """The loop and process of one opening. No other loop or process can use the sockets and timers of that opening."""

    __slots__ = ("_closed", "_if_closed", "_loop", "_pid", "open_in")

    def __init__(self, if_closed: str = "the client is closed: open it again with `async with`") -> None:
        """Make it for one client. `if_closed` is the error of a call after `close`."""
        self._if_closed = if_closed
        self.open_in: asyncio.AbstractEventLoop | None = None
        """The loop whose calls are accepted. None before the first call and after `close`. Calls compare only this:
        another thread or a forked child runs another loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """True between `close` and `reopen`."""
        return self._closed

    @property
    def is_lost(self) -> bool:
        """True if the loop of the opening was closed before the opening ended. No `await` can end it any more."""
        return self._loop is not None and self._loop.is_closed()

    def enter(self) -> bool:
        """Accept a call of the running loop. Return True if an opening begins with this call.

        Raises:
            UsageError: The client is closed, or belongs to a loop that is not closed, or to another process.
        """
        if self._closed:
            raise UsageError(self._if_closed)
        if self._loop is not None and not self.is_lost:
            self._check(self._loop)
            return False
        self._loop = self.open_in = asyncio.get_running_loop()
        self._pid = os.getpid()
        return True

    def close(self) -> bool:
        """Refuse further calls. Return False if there is no opening to end.

        Raises:
            UsageError: The client belongs to another loop or process, whose sockets this caller cannot close.
        """
        if self._loop is not None and not self.is_lost:
            self._check(self._loop)
        self._closed = True
        self.open_in = None
        return self._loop is not None

    def leave(self) -> None:
        """End the opening without closing the client: the next call opens it, on any loop."""
        self._loop = self.open_in = None

    def reopen(self) -> None:
        """Accept calls again after `close`, on any loop."""
        self._closed = False
        self.leave()

    def _check(self, owner: asyncio.AbstractEventLoop) -> None:
        if self._pid != os.getpid():
            raise UsageError(
                "the client was opened before this process was forked: close it before the fork, or make one in each process"
            )
        if owner is not asyncio.get_running_loop():
            raise UsageError("the client belongs to another event loop: close it there first, or make one for each loop")
