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
MOST_ZONES_WITH_ADDRESSES = 256  # the third byte of an address is the zone, and the last one the node
MOST_NODES_WITH_ADDRESSES = 254
START_ATTEMPTS = 3  # each on another port, if the port is in use


class LocalZones:
    """Zones of memcached servers on this machine, which tests can kill, suspend and restart.

        async with LocalZones({"eu-1a": 2, "eu-1b": 2}) as zones:
            async with EVCache("sessions", zones=zones.zones, local_zone="eu-1a") as cache:
                await zones.kill("eu-1a")

    Servers listen on loopback addresses only. Their ports are reserved until `stop()`, also while a server is dead.
    Processes end with this program, even if it is killed. `stop()` removes containers. Otherwise the cleaner of
    testcontainers removes them; if that is disabled, the label evcache.testing finds them.

    Embedded servers run in the event loop that called `start()`, so all calls must be made in that loop. `running()` is for
    code that is not async or that runs several loops.
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
        own_addresses: bool = False,
    ) -> None:
        """Describe zones without starting them.

        Args:
            zones: Mapping of names to numbers of nodes, or names of zones with `nodes_per_zone` nodes each.
            nodes_per_zone: Number of nodes of each named zone. If None, one.
            backend: "memcached" (processes), "docker" (containers), "embedded" (FakeMemcached in this process), or "auto":
                processes if a binary is found, otherwise embedded.
            binary: Path of memcached. If None, the first in EVCACHE_MEMCACHED, otherwise the one on PATH.
            image: Image for docker. If None, EVCACHE_TEST_IMAGE, otherwise memcached:1.6.
            extra_args: Command line options for real servers, such as ["-I", "2m"].
            own_addresses: If True, node `n` of zone `z` listens on 127.1.z.n+1, counted from zero, and not on 127.0.0.1. The
                EVCache client for the JVM needs that, because it places keys by address and ignores the port. Only Linux
                has these addresses without configuration.

        Raises:
            ValueError: An argument cannot be used.
        """
        self._sizes = _sizes(zones, nodes_per_zone)
        if backend not in ("auto", "memcached", "docker", "embedded"):
            raise ValueError(f"invalid backend: {backend!r} is none of auto, memcached, docker, embedded")
        self._choice = backend
        self._binary = binary
        self._image = image
        self._extra_args = list(extra_args)
        self._own_addresses = own_addresses
        if own_addresses:
            _check_addresses(self._sizes)
        self._backend: Backend | None = None
        self._version: str | None = None
        self._nodes: dict[str, list[_Node]] = {}
        self._changing = asyncio.Lock()  # start() and stop() exclude each other

    @property
    def zones(self) -> dict[str, list[str]]:
        """Addresses of the nodes by zone, in the form that EVCache accepts. Raises RuntimeError before `start()`."""
        self._require_started()
        return {zone: [node.address for node in nodes] for zone, nodes in self._nodes.items()}

    @property
    def backend(self) -> str:
        """Kind of server in use: "memcached", "docker" or "embedded". Raises RuntimeError before `start()`."""
        self._require_started()
        assert self._backend is not None
        return self._backend.name

    @property
    def version(self) -> str:
        """Version that the servers report, such as "1.6.38". Raises RuntimeError before `start()`."""
        self._require_started()
        assert self._version is not None
        return self._version

    def is_up(self, zone: str, *, node: int | None = None) -> bool:
        """Return True if the zone, or one of its nodes, runs and is not paused.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        return all(each.is_up for each in self._select(zone, node))

    async def start(self) -> None:
        """Start all nodes and wait until they answer. No effect on started zones.

        A failed or cancelled start removes the servers that it started.

        Raises:
            BackendUnavailable: The servers cannot be started.
            TimeoutError: A server does not answer.
        """
        async with self._changing:
            if self._version is not None:
                return
            self._backend = self._choose_backend()
            try:
                for number, (zone, size) in enumerate(self._sizes.items()):
                    self._nodes[zone] = []
                    for index in range(size):
                        host = f"127.1.{number}.{index + 1}" if self._own_addresses else HOST
                        self._nodes[zone].append(_Node(self._backend, host))
                await _gather_all([node.start_first() for node in self._all_nodes()])
            except BaseException:
                await uninterrupted(self._remove_all())
                raise
            self._version = next(iter(self._nodes.values()))[0].version

    async def stop(self) -> None:
        """Remove all servers and release their ports. No effect on stopped zones.

        A cancelled stop removes all servers before it ends.
        """
        async with self._changing:
            await uninterrupted(self._remove_all())

    async def kill(self, zone: str, *, node: int | None = None) -> None:
        """Kill the zone, or one of its nodes. Connections are lost, and new ones are refused.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        await _gather_all([each.kill() for each in self._select(zone, node)])

    async def restart(self, zone: str, *, node: int | None = None) -> None:
        """Restart the zone, or one node, empty and on the same addresses, and wait until it answers.

        A node that runs or is paused is killed first.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.

        Raises:
            BackendUnavailable: A server cannot be started.
            TimeoutError: A server does not answer.
        """
        await _gather_all([each.restart() for each in self._select(zone, node)])

    async def pause(self, zone: str, *, node: int | None = None) -> None:
        """Suspend the zone, or one of its nodes. It accepts connections, keeps its data, and does not answer.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.

        Raises:
            RuntimeError: A node is dead.
        """
        await _gather_all([each.pause() for each in self._select(zone, node)])

    async def resume(self, zone: str, *, node: int | None = None) -> None:
        """Resume a paused zone, or one of its nodes. It first answers the requests that arrived during the pause.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        await _gather_all([each.resume() for each in self._select(zone, node)])

    @contextmanager
    def running(self) -> Iterator[RunningZones]:
        """Run the zones from another thread, for code that is not async or that runs several event loops.

            with LocalZones(["a", "b"]).running() as zones:
                asyncio.run(main(zones.zones))
                zones.kill("a")

        Yields:
            The zones with blocking operations.

        Raises:
            BackendUnavailable: The servers cannot be started.
            TimeoutError: A server does not answer.
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
                from evcache.testing.backends.docker import DockerBackend  # noqa: PLC0415 - needs the extra docker
            except ImportError as error:
                raise BackendUnavailable(f"missing extra for docker: run pip install 'evcache[docker]' ({error})") from error
            return DockerBackend(self._image, self._extra_args)
        if self._choice != "embedded":
            binary = find_binary(self._binary)
            if binary is not None:
                return ProcessBackend(binary, self._extra_args)
            if self._choice == "memcached":
                raise BackendUnavailable("no memcached on PATH: install it, or set binary= or EVCACHE_MEMCACHED")
        if self._extra_args:
            raise BackendUnavailable("extra_args cannot be used: only embedded servers are available")
        return EmbeddedBackend()

    async def _remove_all(self) -> None:
        try:
            await _gather_all([node.stop() for node in self._all_nodes()])
        finally:
            self._nodes = {}
            self._version = None
            self._backend = None

    def _all_nodes(self) -> list[_Node]:
        return [node for nodes in self._nodes.values() for node in nodes]

    def _select(self, zone: str, node: int | None) -> list[_Node]:
        self._require_started()
        if zone not in self._nodes:
            raise ValueError(f"unknown zone {zone!r}: the zones are {', '.join(self._nodes)}")
        nodes = self._nodes[zone]
        if node is None:
            return nodes
        if not 0 <= node < len(nodes):
            raise ValueError(f"unknown node {node}: zone {zone!r} has nodes 0 to {len(nodes) - 1}")
        return [nodes[node]]

    def _require_started(self) -> None:
        if self._version is None:
            raise RuntimeError("the zones are not running: use `async with LocalZones(...)`, or await start()")


class _Node:
    """Server and its port. A lock serializes its operations, such as a kill during a restart."""

    def __init__(self, backend: Backend, host: str) -> None:
        self._backend = backend
        self._host = host
        self._lock = asyncio.Lock()
        self._reserve()
        self.version = ""

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port.number}"

    @property
    def is_up(self) -> bool:
        return self._server.is_up

    async def start_first(self) -> None:
        """Start, on another port if another program has taken this one."""
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
        try:
            self._port = ReservedPort(self._host)
        except OSError as error:
            raise BackendUnavailable(f"address {self._host} cannot be used: {error}") from error
        self._server: ServerNode = self._backend.node(self._host, self._port.number)

    async def _start(self) -> None:
        self._port.lend()
        try:
            self.version = await self._server.start()
        except PortTaken:
            # The reservation itself may be the cause: a server that binds without SO_REUSEADDR cannot share the port.
            self._port.close()
            self.version = await self._server.start()


async def _gather_all(calls: list[Awaitable[None]]) -> None:
    """Await all calls concurrently. The first error is raised after all have ended, so that none runs on unobserved."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _sizes(zones: Mapping[str, int] | Sequence[str], nodes_per_zone: int | None) -> dict[str, int]:
    if isinstance(zones, str):
        raise ValueError(f"invalid zones: a list of names is required, not one string {zones!r}")  # noqa: TRY004 - as for the rest
    if isinstance(zones, Mapping):
        if nodes_per_zone is not None:
            raise ValueError("nodes_per_zone cannot be used: the mapping contains the number of nodes of each zone")
        sizes = dict(zones)
    else:
        sizes = dict.fromkeys(zones, 1 if nodes_per_zone is None else nodes_per_zone)
        if len(sizes) != len(zones):
            raise ValueError(f"duplicate zone name: {', '.join(zones)}")
    if not sizes or not all(sizes):
        raise ValueError("invalid zones: at least one zone is required, and each needs a name")
    for zone, size in sizes.items():
        if size < 1:
            raise ValueError(f"invalid zone {zone!r}: at least one node is required, not {size}")
    return sizes


def _check_addresses(sizes: Mapping[str, int]) -> None:
    if len(sizes) > MOST_ZONES_WITH_ADDRESSES or max(sizes.values()) > MOST_NODES_WITH_ADDRESSES:
        limits = f"{MOST_ZONES_WITH_ADDRESSES} zones of {MOST_NODES_WITH_ADDRESSES} nodes"
        raise ValueError(f"own_addresses cannot be used: it has addresses for at most {limits}")
