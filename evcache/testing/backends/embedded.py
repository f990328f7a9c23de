"""FakeMemcached servers in this process, which need no installation and start in a millisecond."""

# ruff: noqa: D102 - Backend and ServerNode in base.py document the methods

from __future__ import annotations

import errno

from evcache.testing.backends.base import PortTaken, uninterrupted, wait_until_ready
from evcache.zones.testing import FakeMemcached


class EmbeddedBackend:
    """Backend that runs each node in the event loop that starts it."""

    name = "embedded"

    def node(self, host: str, port: int) -> EmbeddedNode:
        return EmbeddedNode(host, port)


class EmbeddedNode:
    """One FakeMemcached."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._server = FakeMemcached()
        self._running = False
        self._paused = False

    @property
    def is_up(self) -> bool:
        return self._running and not self._paused

    async def start(self) -> str:
        try:
            # A cancellation between the opening of the socket and the return would leave a listening socket.
            await uninterrupted(self._server.start(self._host, self._port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {self._port}: {error}") from error
            raise
        self._running = True
        return await wait_until_ready(self._host, self._port, lambda: None)

    async def kill(self) -> None:
        if self._running:
            await self._server.kill()
            self._running = self._paused = False

    async def pause(self) -> None:
        if not self._running:
            raise RuntimeError(f"pause failed: the server on port {self._port} does not run")
        self._server.pause()
        self._paused = True

    async def resume(self) -> None:
        if self._paused:
            self._server.resume()
            self._paused = False

    async def stop(self) -> None:
        await self._server.stop()
        self._running = self._paused = False
