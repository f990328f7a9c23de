"""The zones, the clients, and the network between them: every client reaches every node through a proxy of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from evcache import EVCache
from evcache.testing import RunningZones
from zones.ring import Ring, position
from zones.testing.fault_proxy import FaultProxy
from zones.topology import Endpoint, Mode, Topology, Zone

NAMESPACE = "chaos"
READ_TIMEOUT_SECONDS = 0.5
WRITE_TIMEOUT_SECONDS = 1.0
# Longer than any run, so that nothing expires by itself.
TTL_SECONDS = 3600
# The shortest there is: a server forgets it within a second.
FORGOTTEN_DELETE_SECONDS = 1

# For all clients to see a new topology. It takes a turn of the loop, or so.
TOPOLOGY_SECONDS = 5.0


class Arrangement:
    """A source of topologies for one client, which changes when it is told to."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._changed = asyncio.Event()

    def change(self, topology: Topology) -> None:
        """Have the client see another topology."""
        self.topology = topology
        self._changed.set()

    async def load(self) -> Topology:
        """The topology now."""
        return self.topology

    async def watch(self) -> AsyncIterator[Topology]:
        """Each topology that it is told; of several in a row perhaps only the last."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield self.topology


@dataclass
class Client:
    """A client and its ways to the nodes."""

    number: int
    proxies: dict[str, list[FaultProxy]]
    """By zone, in the order of its nodes."""
    arrangement: Arrangement
    cache: EVCache

    @property
    def name(self) -> str:
        """As histories call it."""
        return f"client-{self.number}"


@dataclass
class System:
    """All that there is. Faults change it, one at a time in each zone."""

    running: RunningZones
    clients: list[Client]
    now: Callable[[], float]
    """Seconds since the history began."""
    emptied: dict[tuple[str, int], float] = field(default_factory=dict)
    """By zone and node: when it was last started empty."""
    starts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By zone and node: how often it has begun to be started empty, or that has ended."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every fault is to end."""

    def __post_init__(self) -> None:
        self.zones = list(self.running.zones)
        self.locks = {zone: asyncio.Lock() for zone in self.zones}
        """Whoever holds a zone's lock may break it."""
        self._shape = {zone: (Mode.READ_WRITE, len(nodes)) for zone, nodes in self.running.zones.items()}

    def proxies(self, zone: str | None = None, client: int | None = None) -> list[FaultProxy]:
        """The ways of one client or all, to one zone or all."""
        clients = self.clients if client is None else [self.clients[client]]
        return [
            proxy
            for each in clients
            for name, proxies in each.proxies.items()
            if zone is None or name == zone
            for proxy in proxies
        ]

    async def sleep(self, seconds: float) -> None:
        """Wait for so long, or until every fault is to end."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            pass

    async def restart_empty(self, zone: str, node: int | None = None) -> None:
        """Start a zone or one of its nodes, empty; whatever runs there is killed."""
        places = [(zone, number) for number in (range(len(self.running.zones[zone])) if node is None else (node,))]
        self.starts.update(places)
        await asyncio.to_thread(self.running.restart, zone, node=node)
        self.starts.update(places)
        self.emptied.update(dict.fromkeys(places, self.now()))

    async def rearrange(self, zone: str, mode: Mode | None = Mode.READ_WRITE, nodes: int | None = None) -> None:
        """Have every client see a zone in another mode (None: not at all) or with fewer nodes. Returns when all do."""
        if mode is None:
            self._shape.pop(zone)
        else:
            self._shape[zone] = mode, len(self.running.zones[zone]) if nodes is None else nodes
        for client in self.clients:
            client.arrangement.change(_topology(client.proxies, self._shape))
        async with asyncio.timeout(TOPOLOGY_SECONDS):
            while any(client.cache.topology != client.arrangement.topology for client in self.clients):
                await asyncio.sleep(0.01)

    def node_of(self, zone: str, key: str) -> int:
        """Which of a zone's nodes holds a key."""
        labels = [label_of(zone, number) for number in range(len(self.running.zones[zone]))]
        return Ring(labels).owner(position(f"{NAMESPACE}:{key}".encode()))


def label_of(zone: str, node: int) -> str:
    """The label that places a node on the ring, the same for every client, though each has another address for it."""
    return f"{zone}-{node}"


@asynccontextmanager
async def open_system(
    running: RunningZones, clients: int, now: Callable[[], float], options: Mapping[str, Any]
) -> AsyncIterator[System]:
    """Make clients with these options, their local zones in turn, and close them and their proxies in the end."""
    whole = {zone: (Mode.READ_WRITE, len(nodes)) for zone, nodes in running.zones.items()}
    async with AsyncExitStack() as stack:
        made: list[Client] = []
        for number in range(clients):
            proxies = {
                zone: [await stack.enter_async_context(FaultProxy(node)) for node in nodes]
                for zone, nodes in running.zones.items()
            }
            arrangement = Arrangement(_topology(proxies, whole))
            cache = EVCache(
                NAMESPACE,
                arrangement,
                local_zone=list(whole)[number % len(whole)],
                read_timeout=READ_TIMEOUT_SECONDS,
                write_timeout=WRITE_TIMEOUT_SECONDS,
                ttl=TTL_SECONDS,
                **options,
            )
            made.append(Client(number, proxies, arrangement, await stack.enter_async_context(cache)))
        yield System(running, made, now)


def _topology(proxies: dict[str, list[FaultProxy]], shape: dict[str, tuple[Mode, int]]) -> Topology:
    return Topology(
        tuple(
            Zone(
                zone,
                tuple(
                    Endpoint.parse(proxy.address, label_of(zone, node)) for node, proxy in enumerate(proxies[zone][:count])
                ),
                mode,
            )
            for zone, (mode, count) in sorted(shape.items())
        )
    )
