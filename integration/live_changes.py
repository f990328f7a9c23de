"""Changes of the topology under traffic: every node of every zone is replaced, nodes and zones come and go.

One client in each zone reads and writes, with 32 callers together. Each value names its key and its number, so that a caller
recognises a wrong or an older value. Run it with `make live-changes`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from evcache import CacheError, ConnectionLimits, EVCache, NodeSettings, Topology, TopologyGuard
from evcache.testing import LocalZones
from evcache.zones import Endpoint, Mode, Zone
from integration.patience import PATIENT_CALLS
from integration.servers import ServerKind, find_servers

CALLERS = 32
KEYS = 3_000
ZONES = ("eu-1a", "eu-1b", "eu-1c")
NODES = 2  # in each zone
WRITES_OF_OWN_KEYS = 0.7
FILLED = 0.98  # share of reads that the local zones serve
LONGEST_FILL_SECONDS = 15.0

# Callers, servers and clients share few processors here. A pause of a process must not look like a dead server.
SETTINGS = NodeSettings(connect_timeout=2.0, limits=ConnectionLimits(patience=1.0))


class Source:
    """A source whose topology the program changes."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._changes: list[asyncio.Queue[Topology]] = []

    def change(self, topology: Topology) -> None:
        self.topology = topology
        for queue in self._changes:
            queue.put_nowait(topology)

    async def load(self) -> Topology:
        return self.topology

    async def watch(self) -> AsyncIterator[Topology]:
        queue: asyncio.Queue[Topology] = asyncio.Queue()
        self._changes.append(queue)
        while True:
            yield await queue.get()


@dataclass
class Traffic:
    """What the callers saw."""

    reads: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    misses: int = 0
    local: int = 0
    """Reads that the zone of their client served."""

    def since(self, earlier: Traffic) -> tuple[int, float, float]:
        """Return the reads since then, the hit ratio, and the share that the local zone served."""
        reads = max(1, self.reads - earlier.reads)
        return reads, 1 - (self.misses - earlier.misses) / reads, (self.local - earlier.local) / reads

    def snapshot(self) -> Traffic:
        return Traffic(reads=self.reads, misses=self.misses, local=self.local)


class Callers:
    """Callers of one client. Each key has one writer, so that its acknowledged number only grows."""

    def __init__(self, clients: dict[str, EVCache], traffic: Traffic, keys: int) -> None:
        self._clients = clients
        self._keys = keys
        self._traffic = traffic
        self._acknowledged = Counter[int]()
        self.running = True

    async def fill(self) -> None:
        cache = next(iter(self._clients.values()))
        done = await cache.set_many({f"key-{key}": [key, 0] for key in range(self._keys)}, consistency="all", timeout=30)
        assert all(done.values())

    async def call(self, number: int) -> None:
        """Read and write, as one of the callers."""
        chooser = random.Random(number)
        zone = ZONES[number % len(ZONES)]
        cache, traffic = self._clients[zone], self._traffic
        while self.running:
            key = chooser.randrange(self._keys)
            try:
                if key % CALLERS == number and chooser.random() < WRITES_OF_OWN_KEYS:
                    stored = await cache.set(f"key-{key}", [key, self._acknowledged[key] + 1])
                    self._acknowledged[key] += bool(stored)
                    continue
                least = self._acknowledged[key]
                item = await cache.get_item(f"key-{key}")
            except CacheError as error:
                traffic.failed.append(f"key-{key}: {error!r}")
                await asyncio.sleep(0)  # a call that fails at once gives the others no turn
                continue
            traffic.reads += 1
            if item is None:
                traffic.misses += 1
            elif item.value[0] != key or (key % CALLERS == number and item.value[1] < least):
                traffic.wrong.append(f"key-{key}: {item.value}, and {least} was acknowledged")
            else:
                traffic.local += item.zone == zone


@dataclass
class Report:
    """Result of a run."""

    traffic: Traffic
    lines: list[str]
    moved: list[tuple[str, float, float]]
    """Change, share of the keys that moved to another node, and the share that consistent hashing predicts."""


class Run:
    """A run on two sets of servers: each node of the first set is replaced by one of the second."""

    def __init__(self, seconds: float, keys: int = KEYS) -> None:
        self._seconds = seconds
        self._keys = keys
        self._traffic = Traffic()
        self._lines: list[str] = []
        self._moved: list[tuple[str, float, float]] = []

    async def run(self, kind: ServerKind) -> Report:
        """Run all changes. `seconds` is the time of one measurement after each."""
        async with AsyncExitStack() as stack:
            old = await stack.enter_async_context(kind.local_zones(dict.fromkeys(ZONES, NODES)))
            new = await stack.enter_async_context(kind.local_zones({**dict.fromkeys(ZONES, NODES + 1), "eu-1d": NODES}))
            self.source = source = Source(topology_of(old.zones))
            self._clients = clients = {
                zone: await stack.enter_async_context(
                    EVCache(
                        "live",
                        source,
                        local_zone=zone,
                        nodes=SETTINGS,
                        read_repair_chance=0.02,
                        # As often as this run changes a node. A service replaces one in half a minute.
                        topology_guard=TopologyGuard(hold=self._seconds / 2),
                        **PATIENT_CALLS,
                    )
                )
                for zone in ZONES
            }
            callers = Callers(clients, self._traffic, self._keys)
            await callers.fill()
            tasks = [asyncio.create_task(callers.call(number)) for number in range(CALLERS)]
            try:
                await self._change("no change", source.topology)
                await self._replace(old, new)
                await self._resize(new)
                await self._add_and_remove_a_zone(new)
            finally:
                callers.running = False
                await asyncio.gather(*tasks)
        return Report(self._traffic, self._lines, self._moved)

    async def _replace(self, old: LocalZones, new: LocalZones) -> None:
        """Replace every node of every zone, under its label."""
        for zone in ZONES:
            for number in range(NODES):
                nodes = list(self.source.topology.zone(zone).nodes)
                nodes[number] = Endpoint.parse(f"{zone}-{number}@{new.zones[zone][number]}")
                await self._change(
                    f"{zone}: node {number} is replaced",
                    with_zone(self.source.topology, Zone(zone, tuple(nodes))),
                    lambda zone=zone, number=number: old.kill(zone, node=number),
                )

    async def _resize(self, new: LocalZones) -> None:
        """Add a node to a zone, and remove it."""
        before = self.source.topology.zone("eu-1a")
        added = Endpoint.parse(f"eu-1a-{NODES}@{new.zones['eu-1a'][NODES]}")
        await self._change("eu-1a: a node is added", with_zone(self.source.topology, Zone("eu-1a", (*before.nodes, added))))
        await self._change("eu-1a: it is removed", with_zone(self.source.topology, before))

    async def _add_and_remove_a_zone(self, new: LocalZones) -> None:
        """Add a zone, fill it, read it, and remove it."""
        nodes = tuple(Endpoint.parse(f"eu-1d-{number}@{address}") for number, address in enumerate(new.zones["eu-1d"]))
        steps = [
            ("is added, write-only", Mode.WRITE_ONLY),
            ("is promoted", Mode.READ_WRITE),
            ("is drained", Mode.WRITE_ONLY),
        ]
        for name, mode in steps:
            await self._change(f"eu-1d {name}", with_zone(self.source.topology, Zone("eu-1d", nodes, mode)))
            if name.startswith("is added"):
                await self._warm()
        rest = Topology(tuple(zone for zone in self.source.topology.zones if zone.name != "eu-1d"))
        await self._change("eu-1d is removed", rest, lambda: new.kill("eu-1d"))

    async def _warm(self) -> None:
        """Compare every key in all zones, which copies it to the new zone."""
        async with EVCache("live", self.source, local_zone=ZONES[0], nodes=SETTINGS, read_repair_chance=1.0) as cache:
            for key in range(self._keys):
                await cache.get(f"key-{key}", timeout=2.0)
                if key % 50 == 0:
                    await asyncio.sleep(0.05)  # repair has a limit of copies in a second

    async def _change(self, name: str, topology: Topology, then: Callable[[], Awaitable[None]] | None = None) -> None:
        cache = self._clients[ZONES[0]]
        before = cache._runtime.cluster.view
        earlier = self._traffic.snapshot()
        self.source.change(topology)
        while any(client.topology != topology for client in self._clients.values()):
            await asyncio.sleep(0.01)
        if then is not None:
            await then()
        self._count_moved(name, before, cache._runtime.cluster.view)
        began, shares = asyncio.get_running_loop().time(), []
        while True:
            slot = self._traffic.snapshot()
            await asyncio.sleep(self._seconds)
            _, hits, local = self._traffic.since(slot)
            shares.append(f"{local:.0%}")
            took = asyncio.get_running_loop().time() - began
            # The next change waits until reads have filled the node, as an operator does.
            if local > FILLED or took > LONGEST_FILL_SECONDS:
                break
        _, hits, local = self._traffic.since(earlier)
        self._lines.append(f"{name:32} hits {hits:8.3%}, local {local:7.2%}: {' '.join(shares)} in {took:.1f} s")

    def _count_moved(self, name: str, before, after) -> None:
        old = {pool.name: pool for pool in before.writers}
        for pool in after.writers:
            was = old.get(pool.name)
            if was is None or len(was.nodes) == len(pool.nodes):
                continue
            places = [after.ring_position(b"live:key-%d" % key) for key in range(20_000)]
            moved = sum(was.node(place).label != pool.node(place).label for place in places) / len(places)
            self._moved.append((name, moved, 1 / max(len(was.nodes), len(pool.nodes))))


def topology_of(zones: dict[str, list[str]]) -> Topology:
    return Topology(
        tuple(
            Zone(name, tuple(Endpoint.parse(f"{name}-{number}@{address}") for number, address in enumerate(nodes)))
            for name, nodes in zones.items()
        )
    )


def with_zone(topology: Topology, zone: Zone) -> Topology:
    """Return the topology with this zone, in place of the one of its name."""
    if topology.zone(zone.name) is None:
        return Topology((*topology.zones, zone))
    return Topology(tuple(zone if known.name == zone.name else known for known in topology.zones))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement after each change")
    arguments = parser.parse_args()
    report = asyncio.run(Run(arguments.seconds).run(find_servers().best))
    print("\n".join(report.lines))
    for name, moved, predicted in report.moved:
        print(f"{name}: {moved:.1%} of the keys moved, {predicted:.1%} are predicted")
    traffic = report.traffic
    print(
        f"{traffic.reads:,} reads: {len(traffic.failed)} failed, {len(traffic.wrong)} wrong values, {traffic.misses} misses"
    )


if __name__ == "__main__":
    main()
