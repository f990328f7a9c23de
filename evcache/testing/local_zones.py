"""Zones of memcached servers on this machine, for tests, examples and the demo."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, Self

from evcache.testing.backends.base import (
    HOST,
    Backend,
    BackendUnavailable,
    PortTaken,
    ReservedPort,
    ServerNode,
    uninterrupted,
)
from evcache.testing.backends.embedded import EmbeddedBackend
from evcache.testing.backends.process import ProcessBackend, find_binary
from evcache.testing.blocking import LoopThread, RunningZones

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from types import TracebackType

BackendName = Literal["auto", "memcached", "docker", "embedded"]

DEFAULT_ZONES: Final = ("local-a", "local-b", "local-c")
START_ATTEMPTS = 3  # on a port that turns out to be taken


class LocalZones:
    """Starts memcached zones on this machine, and lets them die, hang and come back.

        async with LocalZones({"eu-1a": 2, "eu-1b": 2}) as zones:
            async with EVCache("sessions", zones=zones.zones, local_zone="eu-1a") as cache:
                await zones.kill("eu-1a")

    `zones`: a mapping of names to numbers of nodes, or a sequence of names that get `nodes_per_zone` each.
    `backend`: "memcached" (processes), "docker" (containers), "embedded" (FakeMemcached, inside this process), or
    "auto": processes when a binary is found, else embedded.
    `binary`: the memcached to run; None takes the first in EVCACHE_MEMCACHED, else the one on PATH.
    `image`: for docker; None takes EVCACHE_TEST_IMAGE, else memcached:1.6.
    `extra_args`: more command line options for real servers, such as ["-I", "2m"].

    The constructor starts nothing; ValueError says what is wrong with the arguments. Servers listen on 127.0.0.1 only.
    Their ports are reserved until stop(), also while a server is dead. Processes end with this program, even when it
    is killed; containers are removed by stop(), and otherwise by the cleaner of testcontainers, unless that is disabled
    (then the label evcache.testing finds them).

    Embedded servers live in the event loop that called start(), and all calls belong into that loop. For code that
    isn't async, or runs several loops, there is running().
    """

    def __init__(
        self,
        zones: Mapping[str, int] | Sequence[str] = DEFAULT_ZONES,
        *,
        nodes_per_zone: int | None = None,
        backend: BackendName = "auto",
        binary: str | None = None,
        image: str | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        self._sizes = _sizes(zones, nodes_per_zone)
        if backend not in ("auto", "memcached", "docker", "embedded"):
            raise ValueError(f"backend {backend!r} is none of auto, memcached, docker, embedded")
        self._choice = backend
        self._binary = binary
        self._image = image
        self._extra_args = list(extra_args)
        self._backend: Backend | None = None
        self._version: str | None = None
        self._nodes: dict[str, list[_Node]] = {}
        self._changing = asyncio.Lock()  # start() and stop() exclude each other

    @property
    def zones(self) -> dict[str, list[str]]:
        """Zones and their nodes' addresses, as EVCache takes them. RuntimeError before start()."""
        self._require_started()
        return {zone: [f"{HOST}:{node.port}" for node in nodes] for zone, nodes in self._nodes.items()}

    @property
    def backend(self) -> str:
        """The kind of server in use: "memcached", "docker" or "embedded". RuntimeError before start()."""
        self._require_started()
        assert self._backend is not None
        return self._backend.name

    @property
    def version(self) -> str:
        """What the servers say of themselves, such as "1.6.38". RuntimeError before start()."""
        self._require_started()
        assert self._version is not None
        return self._version

    def is_up(self, zone: str, *, node: int | None = None) -> bool:
        """Whether the zone's node with that index, or every node when None, runs and is not paused."""
        return all(each.is_up for each in self._select(zone, node))

    async def start(self) -> None:
        """Start every node; returns when all answer. No effect when started.

        Raises BackendUnavailable when the servers can't be started, TimeoutError when one does not answer. A start that
        fails or is cancelled leaves nothing behind.
        """
        async with self._changing:
            if self._version is not None:
                return
            self._backend = self._choose_backend()
            try:
                for zone, size in self._sizes.items():
                    self._nodes[zone] = []
                    for _ in range(size):
                        self._nodes[zone].append(_Node(self._backend))
                await _together([node.start_first() for node in self._all_nodes()])
            except BaseException:
                await uninterrupted(self._remove_all())
                raise
            self._version = next(iter(self._nodes.values()))[0].version

    async def stop(self) -> None:
        """Remove every server, in whatever state, and give the ports back. No effect when stopped.

        A cancelled stop still removes everything before it ends.
        """
        async with self._changing:
            await uninterrupted(self._remove_all())

    async def kill(self, zone: str, *, node: int | None = None) -> None:
        """Let the zone die at once, or only its node with that index: connections are lost, connecting is refused."""
        await _together([each.kill() for each in self._select(zone, node)])

    async def restart(self, zone: str, *, node: int | None = None) -> None:
        """Bring the zone (or one node) back, empty, on the same addresses; returns when it answers.

        What still runs, or is paused, is killed first. Raises what start() raises.
        """
        await _together([each.restart() for each in self._select(zone, node)])

    async def pause(self, zone: str, *, node: int | None = None) -> None:
        """Freeze the zone (or one node): connections stay and can be made, nothing answers, nothing is lost.

        RuntimeError when a node is dead.
        """
        await _together([each.pause() for each in self._select(zone, node)])

    async def resume(self, zone: str, *, node: int | None = None) -> None:
        """Let a paused zone (or one node) go on, beginning with what it was sent meanwhile."""
        await _together([each.resume() for each in self._select(zone, node)])

    @contextmanager
    def running(self) -> Iterator[RunningZones]:
        """Run the zones from a thread of their own, for code that isn't async or that runs several event loops.

            with LocalZones(["a", "b"]).running() as zones:
                asyncio.run(main(zones.zones))
                zones.kill("a")

        Yields the same operations as plain calls that block. Raises what start() raises.
        """
        with LoopThread() as thread:
            try:
                thread.call(self.start())
                yield RunningZones(self, thread)
            finally:
                thread.call(self.stop())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _choose_backend(self) -> Backend:
        if self._choice == "docker":
            try:
                from evcache.testing.backends.docker import DockerBackend  # noqa: PLC0415 - an extra, see there
            except ImportError as error:
                raise BackendUnavailable(f"docker needs an extra: pip install 'evcache[docker]' ({error})") from error
            return DockerBackend(self._image, self._extra_args)
        if self._choice != "embedded":
            binary = find_binary(self._binary)
            if binary is not None:
                return ProcessBackend(binary, self._extra_args)
            if self._choice == "memcached":
                raise BackendUnavailable("no memcached on PATH; install it, or name one by binary= or EVCACHE_MEMCACHED")
        if self._extra_args:
            raise BackendUnavailable("extra_args are for real servers, and here only embedded ones can be started")
        return EmbeddedBackend()

    async def _remove_all(self) -> None:
        try:
            await _together([node.stop() for node in self._all_nodes()])
        finally:
            self._nodes = {}
            self._version = None
            self._backend = None

    def _all_nodes(self) -> list[_Node]:
        return [node for nodes in self._nodes.values() for node in nodes]

    def _select(self, zone: str, node: int | None) -> list[_Node]:
        self._require_started()
        if zone not in self._nodes:
            raise ValueError(f"no zone {zone!r}; there are {', '.join(self._nodes)}")
        nodes = self._nodes[zone]
        if node is None:
            return nodes
        if not 0 <= node < len(nodes):
            raise ValueError(f"zone {zone!r} has nodes 0 to {len(nodes) - 1}, not {node}")
        return [nodes[node]]

    def _require_started(self) -> None:
        if self._version is None:
            raise RuntimeError("the zones are not running: use `async with LocalZones(...)`, or await start()")


class _Node:
    """A server and its port; a lock keeps operations on it apart, such as a kill during a restart."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._reserve()
        self.version = ""

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def is_up(self) -> bool:
        return self._server.is_up

    async def start_first(self) -> None:
        """Start, on another port when somebody else was quicker to take this one."""
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                await self._start()
            except PortTaken as error:
                if attempt == START_ATTEMPTS:
                    raise BackendUnavailable(f"no free port after {attempt} attempts: {error}") from error
                await self.stop()
                self._reserve()
            else:
                return

    async def restart(self) -> None:
        async with self._lock:
            await self._server.kill()
            await self._start()

    async def kill(self) -> None:
        async with self._lock:
            await self._server.kill()
            self._port.reclaim()

    async def pause(self) -> None:
        async with self._lock:
            await self._server.pause()

    async def resume(self) -> None:
        async with self._lock:
            await self._server.resume()

    async def stop(self) -> None:
        async with self._lock:
            try:
                await self._server.stop()
            finally:
                self._port.close()

    def _reserve(self) -> None:
        self._port = ReservedPort()
        self._server: ServerNode = self._backend.node(self._port.number)

    async def _start(self) -> None:
        self._port.lend()
        try:
            self.version = await self._server.start()
        except PortTaken:
            # Perhaps by ourselves: a server that binds without SO_REUSEADDR can't share the port.
            self._port.close()
            self.version = await self._server.start()


async def _together(calls: list[Awaitable[None]]) -> None:
    """Await all calls at once; the first error is raised when all have ended, so that none goes on unseen."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _sizes(zones: Mapping[str, int] | Sequence[str], nodes_per_zone: int | None) -> dict[str, int]:
    if isinstance(zones, str):
        raise ValueError(f"zones is one string, {zones!r}; a list of names is meant")  # noqa: TRY004 - as for the rest
    if isinstance(zones, Mapping):
        if nodes_per_zone is not None:
            raise ValueError("nodes_per_zone goes with a list of names; a mapping says how many nodes each zone has")
        sizes = dict(zones)
    else:
        sizes = dict.fromkeys(zones, 1 if nodes_per_zone is None else nodes_per_zone)
        if len(sizes) != len(zones):
            raise ValueError(f"a zone is named twice: {', '.join(zones)}")
    if not sizes or not all(sizes):
        raise ValueError("at least one zone is needed, and every zone needs a name")
    for zone, size in sizes.items():
        if size < 1:
            raise ValueError(f"zone {zone!r} needs at least one node, not {size}")
    return sizes
