"""memcached containers, by testcontainers.

testcontainers is an extra (evcache[docker]) and takes a while to import, so this module is imported by those alone who ask
for containers.
"""

# ruff: noqa: D102 - Backend and ServerNode in base.py say what the methods do

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer, Reaper

from evcache.testing.backends.base import (
    HOST,
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
LABEL = "evcache.testing"  # finds what a killed program left: docker ps --filter label=evcache.testing

SERVER_PORT = "11211/tcp"
CONFLICT = 409

# testcontainers starts its cleaner (ryuk, a container that removes others when this program is gone) with the first
# container, and nodes are started in several threads at once.
CLEANER_LOCK = threading.Lock()


class DockerBackend:
    """Runs every node in a container of its own, published on a port of the loopback address.

    `image`: None takes EVCACHE_TEST_IMAGE from the environment, else memcached:1.6. Its entrypoint must take server
    options as arguments, as the official image's does.
    """

    name = "docker"

    def __init__(self, image: str | None = None, extra_args: Sequence[str] = ()) -> None:
        self._image = image or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE
        self._args = list(extra_args)

    def node(self, port: int) -> DockerNode:
        return DockerNode(self._image, self._args, port)


class DockerNode:
    """One container. It is created by the first start(); after kill() the same container is started again.

    The host port is fixed when the container is created, so the address survives restarts; memcached keeps nothing on
    disk, so it comes back empty. The engine's calls block and run in threads, each to its end (uninterrupted): a
    cancelled start would otherwise leave a container that nobody knows of.
    """

    def __init__(self, image: str, args: list[str], port: int) -> None:
        self._image = image
        self._args = args
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
        return await wait_until_ready(self._port, lambda: None)

    async def kill(self) -> None:
        # The engine also kills a paused container: the signal comes first, the thaw after it.
        if self._running:
            await self._engine(self._kill)

    async def pause(self) -> None:
        if not self._running:
            raise RuntimeError(f"the server on port {self._port} does not run")
        if not self._paused:
            await self._engine(self._pause)

    async def resume(self) -> None:
        if self._paused:
            await self._engine(self._resume)

    async def stop(self) -> None:
        if self._container is not None:
            await self._engine(self._container.stop)  # removes it, in whatever state it is, and closes the client
            self._container = None
        self._running = self._paused = False

    @property
    def _inner(self) -> Container:
        assert self._container is not None
        return self._container.get_wrapped_container()

    # These run in threads. Each notes what it did, so that the state is right also when the caller was cancelled meanwhile.

    def _start(self) -> None:
        _start_cleaner()
        if self._container is None:
            self._container = DockerContainer(self._image, labels={LABEL: str(os.getpid())})
            # with_bind_ports() knows ports alone, which would publish the server on every interface.
            ports: dict[str, Any] = self._container.ports
            ports[SERVER_PORT] = (HOST, self._port)
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
            if error.status_code != CONFLICT:  # the container ended by itself
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
            raise BackendUnavailable(f"docker, image {self._image}: {text}") from error
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
                f"the cleaner of testcontainers can't be started; TESTCONTAINERS_RYUK_DISABLED=true does without: {error}"
            ) from error
