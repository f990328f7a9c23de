"""The zones, the clients, and the network between them: every client reaches every node through a proxy of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from evcache import EVCache, Hooks
from evcache.testing import RunningZones
from evcache.zones.routing.ketama import Ring, ring_position
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from integration.chaos.history import WRITE_TIMEOUT_SECONDS
from integration.chaos.troubles import Circumstances, Span, Trouble, View

NAMESPACE = "chaos"
READ_TIMEOUT_SECONDS = 0.5
# Longer than any run, so that only what is given a short one expires.
TTL_SECONDS = 3600
# The shortest there is: a server forgets it within a second.
FORGOTTEN_DELETE_SECONDS = 1

TICKS_APART_SECONDS = 0.33
"""Seconds between the ticks of two zones' servers. A server counts seconds from its own start."""

# For all clients to see a new topology. It takes a turn of the loop, or so.
TOPOLOGY_SECONDS = 5.0


class Arrangement:
    """Source of topologies for one client, which the test changes."""

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
        """Yield each topology that the test sets; of several in a row perhaps only the last."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield self.topology


class Views(Hooks):
    """Records when one client begins to see a node as down, and when as up again."""

    def __init__(self, client: str, now: Callable[[], float], views: list[View]) -> None:
        self._client = client
        self._now = now
        self._views = views

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """Record the change."""
        del why
        self._views.append(View(self._now(), self._client, zone, int(node.rpartition("-")[2]), down))


@dataclass
class Client:
    """A client and its ways to the nodes."""

    number: int
    name: str
    """As histories call it."""
    proxies: dict[str, list[FaultProxy]]
    """By zone, in the order of its nodes."""
    arrangement: Arrangement
    cache: EVCache
    skew: float = 0.0
    """Seconds by which its clock is ahead."""
    active: list[Span] = field(default_factory=list)
    """Intervals in which it makes calls."""


@dataclass
class System:
    """All that there is. Faults change it, one at a time in each zone."""

    running: RunningZones
    clients: list[Client]
    now: Callable[[], float]
    """Seconds since the history began."""
    stack: AsyncExitStack
    """Closes the clients and their proxies."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of each `EVCache`."""
    emptied: dict[tuple[str, int], float] = field(default_factory=dict)
    """By zone and node: when it was last started empty."""
    starts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By zone and node: how often it has begun to be started empty, or that has ended."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every fault is to end."""
    troubles: list[Trouble] = field(default_factory=list)
    """Faults that have ended."""
    fault_ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a fault has ended."""
    starts_at: list[tuple[str, int, float]] = field(default_factory=list)
    """Zone, node and time of each start of an empty server."""
    views: list[View] = field(default_factory=list)
    rearranged: list[tuple[str, Span]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.zones = list(self.running.zones)
        self._rings: dict[str, Ring] = {}
        self._nodes_of: dict[tuple[str, str], int] = {}
        self.locks = {zone: asyncio.Lock() for zone in self.zones}
        """The holder of a zone's lock may break that zone."""
        self._shape = {zone: (Mode.READ_WRITE, len(nodes)) for zone, nodes in self.running.zones.items()}

    async def add_client(self, number: int, name: str, skew: float = 0.0) -> Client:
        """Make a client and its proxies, which sees the zones as they are arranged now. Not while a fault is in effect."""
        proxies = {
            zone: [await self.stack.enter_async_context(FaultProxy(node)) for node in nodes]
            for zone, nodes in self.running.zones.items()
        }
        arrangement = Arrangement(_topology(proxies, self._shape))
        cache = EVCache(
            NAMESPACE,
            arrangement,
            local_zone=self.zones[number % len(self.zones)],
            read_timeout=READ_TIMEOUT_SECONDS,
            write_timeout=WRITE_TIMEOUT_SECONDS,
            ttl=TTL_SECONDS,
            topology_guard=None,  # nodes and zones leave for seconds
            hooks=Views(name, self.now, self.views),
            wall_clock=lambda: time.time() + skew,
            **self.options,
        )
        client = Client(number, name, proxies, arrangement, await self.stack.enter_async_context(cache), skew)
        self.clients.append(client)
        return client

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

    @asynccontextmanager
    async def lock_all(self) -> AsyncIterator[None]:
        """Wait until no fault is in effect, and let none begin."""
        async with AsyncExitStack() as stack:
            for zone in self.zones:
                await stack.enter_async_context(self.locks[zone])
            yield

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, or until every fault is to end."""
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
        self.starts_at.extend((*place, self.now()) for place in places)

    @property
    def circumstances(self) -> Circumstances:
        """Troubles so far, for the checks."""
        return Circumstances(
            self.zones,
            self.node_of,
            self.troubles,
            self.starts_at,
            self.views,
            self.rearranged,
            {client.name: client.active for client in self.clients},
        )

    async def rearrange(self, zone: str, mode: Mode | None = Mode.READ_WRITE, nodes: int | None = None) -> None:
        """Have every client see a zone in another mode (None: not at all) or with fewer nodes. Returns when all do."""
        if mode is None:
            self._shape.pop(zone)
        else:
            self._shape[zone] = mode, len(self.running.zones[zone]) if nodes is None else nodes
        began = self.now()
        for client in self.clients:
            client.arrangement.change(_topology(client.proxies, self._shape))
        async with asyncio.timeout(TOPOLOGY_SECONDS):
            while any(client.cache.topology != client.arrangement.topology for client in self.clients):
                await asyncio.sleep(0.01)
        self.rearranged.append((zone, Span(began, self.now())))

    def node_of(self, zone: str, key: str) -> int:
        """Which of a zone's nodes holds a key."""
        ring = self._rings.get(zone)
        if ring is None:
            ring = self._rings[zone] = Ring([label_of(zone, number) for number in range(len(self.running.zones[zone]))])
        node = self._nodes_of.get((zone, key))
        if node is None:
            node = self._nodes_of[zone, key] = ring.owner(ring_position(f"{NAMESPACE}:{key}".encode()))
        return node


def label_of(zone: str, node: int) -> str:
    """The label that places a node on the ring, the same for every client, though each has another address for it."""
    return f"{zone}-{node}"


@asynccontextmanager
async def open_system(
    running: RunningZones,
    clients: int,
    now: Callable[[], float],
    options: Mapping[str, Any],
    skews: Sequence[float] = (),
) -> AsyncIterator[System]:
    """Make clients with these options, their local zones in turn, and close them and their proxies in the end.

    `skews`: by how many seconds the clocks of the first clients are ahead.
    """
    async with AsyncExitStack() as stack:
        system = System(running, [], now, stack, options)
        for number in range(clients):
            client = await system.add_client(number, f"client-{number}", skews[number] if number < len(skews) else 0.0)
            client.active.append(Span(0.0, math.inf))
        yield system


async def start_apart(running: RunningZones) -> dict[str, float]:
    """Start every zone again, so that their clocks tick `TICKS_APART_SECONDS` apart. Return when each one began to."""
    began = asyncio.get_running_loop().time()
    starts: dict[str, float] = {}
    for number, zone in enumerate(running.zones):
        at = began + number * TICKS_APART_SECONDS
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        starts[zone] = asyncio.get_running_loop().time() - began
        await asyncio.to_thread(running.restart, zone)
    return starts


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
