"""What many nodes cost a client: three zones of up to 1,000 nodes.

One server in memory of this process serves all nodes, and its cost is not counted. The last table, the cost of a
connection, is measured on a real server. Times are medians in CPU time of this thread, because other processes come and go.
`held` is the longest time for which the event loop ran nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.resources import longest_hold, median_seconds, memory_of, resident
from evcache import EVCache, NodeSettings
from evcache.zones import Endpoint, Mode, Topology, Zone
from evcache.zones.cluster import Cluster
from evcache.zones.errors import NodeError
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.routing.ketama import Ring, ring_position
from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.dialer import AnyProtocol
from evcache.zones.transport.limits import ConnectionLimits

ZONES = ("zone-a", "zone-b", "zone-c")
NODES = (10, 100, 1_000)
REPEATS = 5
CHANGES = 3
LOOKUPS = 20_000
KEYS = 1_000
PENDING = 32  # requests that wait on each of some connections
REAL_CONNECTIONS = (1_000, 4_000)
SERVER_LIMIT = 10_000  # memcached's default is 1,024
PORT = 22_122

Row = dict[str, Any]


class Changing:
    """A discovery whose topology is changed from here."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._changes: asyncio.Queue[Topology] = asyncio.Queue()

    async def load(self) -> Topology:
        return self._topology

    async def watch(self) -> AsyncIterator[Topology]:
        while True:
            yield await self._changes.get()

    def change(self, topology: Topology) -> None:
        self._changes.put_nowait(topology)


class Memory:
    """Servers in memory: one that all nodes are."""

    def __init__(self) -> None:
        self.server = FakeMemcached()
        self.packets = 0

    async def dial(self, endpoint: Endpoint, factory: Callable[[], AnyProtocol]) -> AnyProtocol:
        del endpoint
        transport, connection = await self.server.connect(factory)
        write = transport.write

        def counted(data: bytes) -> None:
            self.packets += 1
            write(data)

        transport.write = counted  # type: ignore[assignment, method-assign]
        return connection


def zone(name: str, numbers: range | list[int]) -> Zone:
    return Zone(name, tuple(Endpoint.parse(f"{name}-{number}.cache.example.com:11211") for number in numbers))


def topology(nodes: int) -> Topology:
    return Topology(tuple(zone(name, range(nodes)) for name in ZONES))


def ring(nodes: int) -> Row:
    """A zone's ring by itself."""
    turn = iter(range(REPEATS + 1))

    def labels() -> list[str]:  # of a zone that was never seen
        name = f"ring-{next(turn)}"
        return [f"{name}-{number}.cache.example.com:11211" for number in range(nodes)]

    fresh = [labels() for _ in range(REPEATS)]
    build = median_seconds(lambda: Ring(fresh.pop()), REPEATS)
    with memory_of() as taken:
        names = labels()
        before = taken()
        made = Ring(names)
        size = taken() - before
    keys = [b"namespace:key:%d" % number for number in range(LOOKUPS)]
    places = [ring_position(key) for key in keys]
    lookup = median_seconds(lambda: list(map(made.owner, places)), REPEATS)
    hashing = median_seconds(lambda: list(map(ring_position, keys)), REPEATS)
    return {
        "nodes in a zone": nodes,
        "ring built, ms": build * 1e3,
        "kB": size / 1e3,
        "bytes for a node": size / nodes,
        "hash of a key, ns": hashing / LOOKUPS * 1e9,
        "look-up, ns": lookup / LOOKUPS * 1e9,
    }


async def cluster(nodes: int) -> Row:
    """The nodes of all zones: before they are connected to, connected, and asked."""
    servers = Memory()
    patient = ConnectionLimits(silence=600)  # memory is looked at while requests wait, which takes its time
    settings = NodeSettings(dialer=servers.dial, connect_timeout=60, limits=patient)
    taken_to_apply = []
    for _ in range(REPEATS):
        known = topology(nodes)
        one = Cluster(settings, ZONES[0])
        began = time.thread_time()
        one.apply(known)
        taken_to_apply.append(time.thread_time() - began)
        await one.close(0.0)
        del one
        gc.collect()
    with memory_of() as taken:
        known = topology(nodes)
        described = taken()
        live = Cluster(settings, ZONES[0])
        live.apply(known)
        idle = taken() - described
        loop = asyncio.get_running_loop()
        everyone = list(live.nodes.values())
        for start in range(0, len(everyone), 100):
            await asyncio.gather(*(node.connected(loop.time() + 60) for node in everyone[start : start + 100]))
        connected = taken() - described - idle
        some = everyone[:100]
        servers.server.pause()
        waiting = []
        for number in range(PENDING):
            for node in some:
                answer: asyncio.Future[Any] = loop.create_future()
                connection = node.connection()
                assert connection is not None
                connection.get(b"namespace:key:%d" % number, READ_FIELDS, answer, loop.time() + 600)
                waiting.append(answer)
        await asyncio.sleep(0)
        pending = taken() - described - idle - connected
        servers.server.resume()
        await asyncio.gather(*waiting)
    count = len(everyone)
    await live.close(0.0)
    return {
        "nodes in each of 3 zones": nodes,
        "first topology: held, ms": statistics.median(taken_to_apply) * 1e3,
        "bytes for an endpoint": described / count,
        "for a node, idle (its part of the ring too)": idle / count,
        "more, connected": connected / count,
        "for a request that waits": pending / len(waiting),
    }


async def lazy(nodes: int) -> Row:
    """Which nodes are connected to, by a client that asks for few keys and for many."""
    servers = Memory()
    async with EVCache(
        "namespace",
        topology(nodes),
        local_zone=ZONES[0],
        nodes=NodeSettings(dialer=servers.dial, connect_timeout=60),
        read_timeout=60,
        write_timeout=60,
        telemetry=None,
    ) as cache:
        await cache.get("one", None)
        after_get = servers.server.connections
        await cache.set("one", b"v", consistency="all")
        after_set = servers.server.connections
        keys = [f"key:{number}" for number in range(KEYS)]
        await cache.set_many(dict.fromkeys(keys, b"v" * 100), consistency="all")
        after_many = servers.server.connections
        await cache.get_many(keys)
        servers.packets = 0
        await cache.get_many(keys)
        packets = servers.packets
        taken = []
        for _ in range(REPEATS):
            began = time.thread_time()
            found = await cache.get_many(keys)
            taken.append(time.thread_time() - began)
            assert len(found) == KEYS
        held = await longest_hold(lambda: cache.get_many(keys))
    return {
        "nodes in each of 3 zones": nodes,
        "connections after a miss": after_get,
        "after a set": after_set,
        f"after sets of {KEYS} keys": after_many,
        f"get_many of {KEYS}: packets": packets,
        "ms of CPU, servers' included": statistics.median(taken) * 1e3,
        "held, ms": held * 1e3,
    }


def changes(nodes: int) -> dict[str, Topology]:
    a, b, c = topology(nodes).zones
    others = {one.name: zone(one.name, [*range(1, nodes), nodes]) for one in (a, b, c)}
    return {
        "reported again": Topology((a, b, c)),
        "another mode": Topology((a, b, Zone(c.name, c.nodes, Mode.WRITE_ONLY))),
        "one node replaced": Topology((others[a.name], b, c)),
        "one in each zone": Topology(tuple(others.values())),
        "a zone is added": Topology((a, b, c, zone("zone-d", range(nodes)))),
        "a zone leaves": Topology((a, b)),
        "all nodes replaced": Topology(tuple(zone(name, range(nodes, 2 * nodes)) for name in ZONES)),
    }


async def change(nodes: int) -> list[Row]:
    """Every node is connected when the source reports another topology; then it reports the first again."""
    servers = Memory()
    source = Changing(topology(nodes))
    live = Cluster(NodeSettings(dialer=servers.dial, connect_timeout=60), ZONES[0])
    began: list[float] = [await longest_hold(lambda: live.start(source))]
    rows: list[Row] = [{"change": "the first topology", "held, ms": began[0] * 1e3, "added": len(live.nodes)}]
    loop = asyncio.get_running_loop()

    async def report(wanted: Topology) -> None:
        before = live.view
        source.change(wanted)
        while live.view is before:
            await asyncio.sleep(0)
        for _ in range(20):  # connections end in the next turns
            await asyncio.sleep(0)

    for what, wanted in changes(nodes).items():
        held = []
        row: Row = {}
        for _ in range(CHANGES):
            before = dict(live.nodes)
            for node in before.values():
                await node.connected(loop.time() + 60)
            gc.collect()
            held.append(await longest_hold(lambda wanted=wanted: report(wanted)))  # type: ignore[misc]
            kept = [node for place, node in before.items() if live.nodes.get(place) is node]
            row = {
                "change": what,
                "held, ms": statistics.median(held) * 1e3,
                "added": len(live.nodes) - len(kept),
                "closed": len(before) - len(kept),
                "kept": len(kept),
                "kept connected": sum(node.state == "ready" for node in kept),
                "connections": servers.server.connections,
            }
            await report(topology(nodes))
        rows.append(row)
    await live.close(0.0)
    return [dict.fromkeys(rows[-1], "") | one for one in rows]


async def real_connections(count: int) -> Row | None:
    """Connections to a real memcached, each of which has been asked for something: what both sides take for them.

    What the kernel keeps for each socket is in neither. None: there is no memcached here.
    """
    binary = shutil.which("memcached")
    if binary is None:
        return None
    as_root = ["-u", "root"] if os.geteuid() == 0 else []
    command = [binary, "-l", "127.0.0.1", "-p", str(PORT), "-c", str(SERVER_LIMIT), *as_root]
    server = subprocess.Popen(command)
    live = Cluster(NodeSettings(connections=count, connect_timeout=10), None)
    try:
        live.apply(Topology((Zone("zone", (Endpoint.parse(f"127.0.0.1:{PORT}"),)),)))
        (node,) = live.nodes.values()
        loop = asyncio.get_running_loop()
        with memory_of() as taken:
            while not node._connections.ready:
                with suppress(NodeError):  # it does not listen yet
                    await node.connected(loop.time() + 10)
                await asyncio.sleep(0.1)
            before_here, before_there = taken(), resident(server.pid)
            while len(node._connections.ready) < count:
                await asyncio.sleep(0.1)
            here, there = taken() - before_here, resident(server.pid) - before_there
    finally:
        await live.close(0.0)
        server.terminate()
        server.wait(10)
    return {
        "connections to a memcached": count,
        "bytes here for each": here / (count - 1),
        "bytes of its RSS for each": there / (count - 1),
    }


def show(rows: list[Row]) -> None:
    print()
    names = list(rows[0])
    cells = [[f"{one[name]:,.1f}" if isinstance(one[name], float) else str(one[name]) for name in names] for one in rows]
    widths = [max(len(name), *(len(line[column]) for line in cells)) for column, name in enumerate(names)]
    for line in (names, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES), help="in each zone")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    options = parser.parse_args()
    logging.getLogger("evcache.zones").setLevel(logging.ERROR)
    most = max(options.nodes)
    tables: list[list[Row]] = []

    def measured(rows: list[Row]) -> None:
        tables.append(rows)
        show(rows)

    measured([ring(nodes) for nodes in options.nodes])
    measured([asyncio.run(cluster(nodes)) for nodes in options.nodes])
    measured([asyncio.run(lazy(nodes)) for nodes in options.nodes])
    print(f"\n{most} nodes in each of 3 zones, all connected, and a source that reports another topology:")
    measured(asyncio.run(change(most)))
    real = [row for count in REAL_CONNECTIONS if (row := asyncio.run(real_connections(count))) is not None]
    if real:
        measured(real)
    if options.json is not None:
        options.json.write_text(json.dumps(tables, indent=2))


if __name__ == "__main__":
    main()
