"""Containers of memcached, by testcontainers.

The extra `docker` installs testcontainers, which is slow to import. This module is therefore imported only for
containers.
"""

# ruff: noqa: D102 - Backend and ServerNode in base.py document the methods

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer, Reaper

from evcache.testing.backends.base import (
    BackendUnavailable,
    PortTaken,
    uninterrupted,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docker.models.containers import Container

IMAGE_VARIABLE = "EVCACHE_TEST_IMAGE"
DEFAULT_IMAGE = "memcached:1.6"
LABEL = "evcache.testing"  # finds containers of a killed program: docker ps --filter label=evcache.testing

SERVER_PORT = "11211/tcp"
CONFLICT = 409

# testcontainers starts its cleaner with the first container, and nodes are started in several threads at once. The cleaner
# (ryuk) is a container that removes the others after this program has ended.
CLEANER_LOCK = threading.Lock()


class DockerBackend:
    """Backend that runs each node in a container, published on a port of a loopback address.

    If `image` is None, EVCACHE_TEST_IMAGE or memcached:1.6 is used. The entrypoint of the image must accept server options
    as arguments, as that of the official image does.
    """

    name = "docker"

    def __init__(self, image: str | None = None, extra_args: Sequence[str] = ()) -> None:
        self._image = image or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE
        self._args = list(extra_args)

    def node(self, host: str, port: int) -> DockerNode:
        return DockerNode(self._image, self._args, host, port)


class DockerNode:
    """One container. The first `start()` creates it, and later ones start the same container again.

    The host port is fixed when the container is created, so the address survives restarts. memcached stores nothing on
    disk, so it restarts empty. Calls of the engine block and run in threads, each to its end (uninterrupted). Otherwise a
    cancelled start would leave an unknown container.
    """

    def __init__(self, image: str, args: list[str], host: str, port: int) -> None:
        self._image = image
        self._args = args
        self._host = host
        self._port = port
        self._container: DockerContainer | None = None
        self._running = False
        self._paused = False

    @property
    def is_up(self) -> bool:
        return self._running and not self._paused

    async def start(self) -> str:
        await self.kill()
        await self._engine(self._start)
        return await wait_until_ready(self._host, self._port, lambda: None)

    async def kill(self) -> None:
        # The engine kills a paused container too: it sends the signal first, and resumes the container afterwards.
        if self._running:
            await self._engine(self._kill)

    async def pause(self) -> None:
        if not self._running:
            raise RuntimeError(f"pause failed: the server on port {self._port} does not run")
        if not self._paused:
            await self._engine(self._pause)

    async def resume(self) -> None:
        if self._paused:
            await self._engine(self._resume)

    async def stop(self) -> None:
        if self._container is not None:
            await self._engine(self._container.stop)  # removes it in any state, and closes the API client
            self._container = None
        self._running = self._paused = False

    @property
    def _inner(self) -> Container:
        assert self._container is not None
        return self._container.get_wrapped_container()

    # These run in threads. Each records its effect, so that the state is right if the caller was cancelled during the call.

    def _start(self) -> None:
        _start_cleaner()
        if self._container is None:
            self._container = DockerContainer(self._image, labels={LABEL: str(os.getpid())})
            # with_bind_ports() accepts only port numbers, which would publish the server on all interfaces.
            ports: dict[str, Any] = self._container.ports
            ports[SERVER_PORT] = (self._host, self._port)
            if self._args:
                self._container.with_command(self._args)
            self._container.start()
        else:
            self._inner.start()
        self._running = True

    def _kill(self) -> None:
        try:
            self._inner.kill()
        except APIError as error:
            if error.status_code != CONFLICT:  # the container has ended already
                raise
        self._running = self._paused = False

    def _pause(self) -> None:
        self._inner.pause()
        self._paused = True

    def _resume(self) -> None:
        self._inner.unpause()
        self._paused = False

    async def _engine(self, call: Callable[[], object]) -> None:
        try:
            await uninterrupted(asyncio.to_thread(call))
        except APIError as error:
            text = str(error)
            if "address already in use" in text or "port is already allocated" in text:
                raise PortTaken(f"port {self._port}: {text}") from error
            raise BackendUnavailable(f"docker failed for image {self._image}: {text}") from error
        except DockerException as error:
            raise BackendUnavailable(f"no docker engine answers: {error}") from error


def _start_cleaner() -> None:
    with CLEANER_LOCK:
        if testcontainers_config.ryuk_disabled:
            return
        try:
            Reaper.get_instance()
        except APIError as error:
            raise BackendUnavailable(
                f"cleaner of testcontainers failed to start: {error}; TESTCONTAINERS_RYUK_DISABLED=true disables it"
            ) from error
