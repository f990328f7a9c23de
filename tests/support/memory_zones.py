"""Zones of fake servers in memory, clients on them, and a look at what each zone holds. Made for virtual time."""

from __future__ import annotations

import asyncio
import errno
import inspect
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from evcache import CircuitLimits, EVCache, Hooks, NodeSettings, Outcome, StandardCodec
from evcache.hooks import HintEnd
from evcache.replication.hlc import HybridLogicalClock
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones import Endpoint, Mode, Topology, Zone
from evcache.zones.discovery.polling import Look, PolledDiscovery
from evcache.zones.errors import CacheError
from evcache.zones.testing import FakeMemcached
from evcache.zones.testing.fake_memcached.store import Item as Stored
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.pipelined import PipelinedConnection
from tests.support.virtual_time import run

NAMESPACE = "t"
TICKS_APART = 0.35  # seconds between the ticks of one zone's servers and the next one's
WALL_START = 1_800_000_000.0  # unix time when a test begins

TOMBSTONE = "<tombstone>"

# Nodes are looked at about once a second while they are down, so that tests need not wait long.
QUICK = CircuitLimits(slow_start=0, longest_pause=1.0)
# Nodes that are never taken for down because of timeouts.
PATIENT = CircuitLimits(slow_start=0, timeouts_in_a_row=10**9, least_requests=10**9)

_codec = StandardCodec()


def full(key: str | bytes) -> bytes:
    """The key as servers know it."""
    return NAMESPACE.encode() + b":" + (key if isinstance(key, bytes) else key.encode())


class Held(NamedTuple):
    """What a zone holds under a key."""

    value: Any
    """Decoded; `TOMBSTONE` for a tombstone."""
    version: int | None
    ttl: int | None
    """Seconds left, None: does not expire."""
    raw: Stored


class Listener(Hooks):
    """Hooks that record their calls."""

    def __init__(self) -> None:
        self.wrote: list[tuple[str, Outcome, bool]] = []
        self.left: list[tuple[str, CacheError | None]] = []
        self.repairs: list[tuple[str, Outcome]] = []
        self.misses: list[CacheError] = []
        self.hints: list[str] = []
        self.ended: list[tuple[str, HintEnd]] = []
        self.behind: list[str] = []
        self.denied: list[str] = []
        self.hedges: list[tuple[str, bool]] = []
        self.gutter: list[bool] = []

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        self.wrote.append((zone, outcome, late))

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        self.left.append((zone, error))

    def repaired(self, zone: str, outcome: Outcome) -> None:
        self.repairs.append((zone, outcome))

    def error_as_miss(self, error: CacheError) -> None:
        self.misses.append(error)

    def hinted(self, zone: str) -> None:
        self.hints.append(zone)

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        self.ended.append((zone, end))

    def zone_behind(self, zone: str) -> None:
        self.behind.append(zone)

    def failover_denied(self, zone: str) -> None:
        self.denied.append(zone)

    def hedged(self, zone: str, *, won: bool) -> None:
        self.hedges.append((zone, won))

    def gutter_used(self, *, hit: bool) -> None:
        self.gutter.append(hit)


def keys_read(packet):
    """Return how many keys a packet to a server reads."""
    lines = packet.split(b"\r\n")
    return sum(len(line.split()) - 1 if line.startswith(b"gets ") else line.startswith(b"mg ") for line in lines)


class MemoryZones:
    """Zones named a, b, c, ... with some nodes each. Make it inside the loop whose time it is to follow.

    versions: the release that the servers imitate, or one for each zone.
    write_only: zones that take writes and are never read.
    standby: zones of the second set.
    by_address: nodes are given by IP addresses, and not by host names.
    ticking: the servers' clocks tick once a second, as memcached's do, each zone's at another moment.
    The other options are those of `FakeMemcached`.
    """

    def __init__(
        self,
        zones: int = 3,
        nodes: int = 1,
        *,
        versions: str | Mapping[str, str] = "1.6.38",
        write_only: Iterable[str] = (),
        standby: Iterable[str] = (),
        by_address: bool = False,
        ticking: bool = False,
        **server: Any,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self.names = "abcdefgh"[:zones]
        self.sent: dict[str, list[bytes]] = {name: [] for name in self.names}
        """What was written to each zone, by packet."""
        self.servers: dict[str, list[FakeMemcached]] = {}
        self._by_address: dict[str, tuple[str, FakeMemcached]] = {}
        self.latency = 0.0
        """Seconds by which replies arrive later, in order, on connections that are made from now on."""
        self._clients: list[EVCache] = []
        made: list[Zone] = []
        for number, name in enumerate(self.names):
            clock = partial(self._ticks, number * TICKS_APART) if ticking else self._loop.time
            version = versions if isinstance(versions, str) else versions[name]
            hosts = [f"127.0.{number}.{node + 1}" if by_address else f"{name}{node}" for node in range(nodes)]
            endpoints = tuple(Endpoint.parse(f"{host}:11211") for host in hosts)
            self.servers[name] = [
                FakeMemcached(version=version, clock=clock, wall_clock=self.wall_clock, **server) for _ in endpoints
            ]
            for endpoint, fake in zip(endpoints, self.servers[name], strict=True):
                self._by_address[endpoint.address] = (name, fake)
            mode = Mode.WRITE_ONLY if name in write_only else Mode.STANDBY if name in standby else Mode.READ_WRITE
            made.append(Zone(name, endpoints, mode))
        self.topology = Topology(tuple(made))

    # Time and clients.

    def _ticks(self, phase: float) -> float:
        return math.floor(self._loop.time() + phase)

    def wall_clock(self) -> float:
        """Unix time, which goes with the loop's."""
        return WALL_START + self._loop.time() - self._started

    async def dial(self, endpoint: Endpoint, factory: Callable[[], PipelinedConnection]) -> PipelinedConnection:
        """Connect in memory: a `evcache.zones.transport.dialer.Dialer`."""
        if endpoint.path:  # of a zone that was not found; no server of these zones has one
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        zone, fake = self._by_address[endpoint.address]
        transport, connection = await fake.connect(partial(self._made_late, factory) if self.latency else factory)
        write = transport.write

        def record(data: bytes) -> None:
            self.sent[zone].append(bytes(data))
            write(data)

        transport.write = record  # type: ignore[method-assign]
        return connection

    def _made_late(self, factory: Callable[[], PipelinedConnection]) -> PipelinedConnection:
        connection, latency = factory(), self.latency
        receive: Callable[[bytes], None] = connection.data_received
        on_their_way: deque[bytes] = deque()

        def late(data: bytes) -> None:
            on_their_way.append(bytes(data))
            self._loop.call_later(latency, lambda: receive(on_their_way.popleft()))

        connection.data_received = late  # type: ignore[method-assign]
        return connection

    def client(self, **options: Any) -> EVCache:
        """A client in zone a, unless the options say otherwise.

        A node that has come back gets all of its reads at once, unless `circuit` says otherwise, and no read has all zones
        compared, unless `read_repair_chance` does: chance has no place here.
        """
        options = {"local_zone": "a", "wall_clock": self.wall_clock, "read_repair_chance": 0, **options}
        connections = options.pop("connections", 1)
        circuit = options.pop("circuit", CircuitLimits(slow_start=0))
        connect_timeout = options.pop("connect_timeout", NodeSettings().connect_timeout)
        limits = options.pop("limits", ConnectionLimits())
        client = options.pop("kind", EVCache)(
            options.pop("namespace", NAMESPACE),
            options.pop("zones", self.topology),
            nodes=NodeSettings(
                dialer=self.dial, connections=connections, circuit=circuit, connect_timeout=connect_timeout, limits=limits
            ),
            **options,
        )
        self._clients.append(client)
        return client

    async def ready(self, **options: Any) -> EVCache:
        """A client that is connected to every node that lives, with nothing counted so far."""
        client = self.client(**options)
        await self.connect(client)
        return client

    async def close_clients(self) -> None:
        """Close every client without waiting for what it is doing."""
        for client in self._clients:
            await client.close(0)

    async def connect(self, *clients: EVCache) -> None:
        """Have the clients connect to every node that lives, and forget what that took."""
        for client in clients:
            # Deletes, since they reach write-only zones too; of enough keys to have some on each node.
            keys = [f"connect:{number}" for number in range(64 if len(self.servers["a"]) > 1 else 1)]
            await client.delete_many(keys, errors="miss", timeout=1)
        await pass_time()
        for fakes in self.servers.values():
            for fake in fakes:
                for key in list(fake.store):
                    if key.startswith(full("connect:")):
                        fake.store.delete(key)
        self.forget()

    def forget(self) -> None:
        """Reset the counts of commands and packets."""
        for name, fakes in self.servers.items():
            self.sent[name].clear()
            for fake in fakes:
                fake.commands.clear()

    # Looking.

    def one(self, zone: str) -> FakeMemcached:
        """The only server of a zone."""
        (fake,) = self.servers[zone]
        return fake

    def commands(self, zone: str) -> dict[str, int]:
        """How often each command reached the zone since `forget`."""
        counts: dict[str, int] = {}
        for fake in self.servers[zone]:
            for name, times in fake.commands.items():
                counts[name] = counts.get(name, 0) + times
        return counts

    def all_commands(self) -> dict[str, dict[str, int]]:
        """`commands` of every zone."""
        return {zone: self.commands(zone) for zone in self.names}

    def wire(self, zone: str) -> bytes:
        """What was written to the zone since `forget`."""
        return b"".join(self.sent[zone])

    def connections_made(self) -> int:
        """Connections that were ever made."""
        return sum(fake.connections_total for fakes in self.servers.values() for fake in fakes)

    def held(self, key: str | bytes, zone: str) -> Held | None:
        """What a zone holds under a key."""
        for fake in self.servers[zone]:
            item = fake.store.get(full(key))
            if item is not None:
                tombstone = item.flags == FLAG_TOMBSTONE
                value = TOMBSTONE if tombstone else _codec.decode(item.value, item.flags)
                return Held(value, HybridLogicalClock.decode(item.cas), fake.store.ttl_left(item), item)
        return None

    def values(self, key: str | bytes) -> dict[str, Any]:
        """The value that each zone holds under a key, None for nothing."""
        held = {zone: self.held(key, zone) for zone in self.names}
        return {zone: None if item is None else item.value for zone, item in held.items()}

    def stored_versions(self, key: str | bytes) -> dict[str, int | None]:
        """The version that each zone holds under a key."""
        held = {zone: self.held(key, zone) for zone in self.names}
        return {zone: None if item is None else item.version for zone, item in held.items()}

    # Changing.

    def evict(self, key: str | bytes, *zones: str) -> None:
        """Take an item away as if memory had run out."""
        for zone in zones:
            evicted = [fake.store.evict(full(key)) for fake in self.servers[zone]]
            assert any(evicted), f"zone {zone} has no {key!r}"

    def write_as_another_client(self, key: str | bytes, data: bytes, flags: int, *zones: str) -> None:
        """A plain store, as clients without versions do it: the server chooses the CAS."""
        for zone in zones:
            line = b"set %b %d 0 %d\r\n%b\r\n" % (full(key), flags, len(data), data)
            assert self.one(zone).session().receive(line) == b"STORED\r\n"

    def put_back(self, key: str | bytes, held: Held, *zones: str) -> None:
        """These zones hold this again, as if what was written since had got lost on the way to them."""
        raw = held.raw
        line = b"ms %b %d T%d E%d F%d\r\n" % (full(key), len(raw.value), held.ttl or 0, raw.cas, raw.flags)
        for zone in zones:
            store = self.one(zone).store
            if store.get(full(key)) is not None:
                store.delete(full(key))
            assert self.one(zone).session().receive(line + raw.value + b"\r\n").startswith(b"HD")

    async def kill(self, *zones: str) -> None:
        """The servers of these zones die, with what they hold."""
        for zone in zones:
            for fake in self.servers[zone]:
                await fake.kill()

    async def replace(self, zone: str, number: int = 0, **server: Any) -> None:
        """Kill one server of a zone and start another one, empty, at its address. The options are those of `FakeMemcached`."""
        old = self.servers[zone][number]
        await old.kill()
        new = FakeMemcached(clock=self._loop.time, wall_clock=self.wall_clock, **server)
        self.servers[zone][number] = new
        self._by_address = {
            address: (name, new if fake is old else fake) for address, (name, fake) in self._by_address.items()
        }

    def restart(self, *zones: str) -> None:
        """The servers of these zones run again, empty."""
        for zone in zones:
            for fake in self.servers[zone]:
                fake.revive()

    def pause(self, *zones: str) -> None:
        """The servers of these zones stop to answer."""
        for zone in zones:
            for fake in self.servers[zone]:
                fake.pause()

    def resume(self, *zones: str) -> None:
        """The servers of these zones go on."""
        for zone in zones:
            for fake in self.servers[zone]:
                fake.resume()


class ChangingTopology:
    """A discovery whose topology a test changes."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._changes: asyncio.Queue[Topology] = asyncio.Queue()

    def change(self, topology: Topology) -> None:
        """Report another topology."""
        self._changes.put_nowait(topology)

    async def load(self) -> Topology:
        return self._topology

    async def watch(self) -> AsyncIterator[Topology]:
        while True:
            yield await self._changes.get()


class PolledZones(PolledDiscovery):
    """A source that is asked every ten seconds, and that a test changes or lets fail."""

    def __init__(self, topology: Topology) -> None:
        super().__init__("test", interval=10.0, timeout=1.0)
        self.topology = topology
        self.error: Exception | None = None
        self.seconds = 0.0  # that it takes to answer
        self.looks = 0

    async def look(self) -> Look:
        self.looks += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Look(self.topology)


def on_zones(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a test of a coroutine function: it runs under virtual time and gets new zones as its first argument.

    Its other arguments are parameters and fixtures. Its clients are closed when it ends.
    """

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        async def main(fixtures: dict[str, Any]) -> None:
            zones = MemoryZones(**options)
            try:
                await test(zones, **fixtures)
            finally:
                await zones.close_clients()

        def wrapper(**fixtures: Any) -> None:
            run(main(fixtures))

        signature = inspect.signature(test)
        wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(signature.parameters.values())[1:]
        )
        wrapper.__name__, wrapper.__qualname__ = test.__name__, test.__qualname__
        wrapper.__module__, wrapper.__doc__ = test.__module__, test.__doc__
        return wrapper

    return decorate


def pause_before_decisions(zones: MemoryZones, cache: EVCache, *names: str) -> None:
    """Have zones hang once they have been looked at for a conditional write: the next request is the one that decides."""
    look = cache._runtime.coordinator.look

    async def looks_and_hangs(*arguments: Any, **options: Any) -> Any:
        seen = await look(*arguments, **options)
        zones.pause(*names)
        return seen

    cache._runtime.coordinator.look = looks_and_hangs  # type: ignore[method-assign]


async def cut_off(zones: MemoryZones, cache: EVCache, *names: str) -> None:
    """Have these zones hang, and the client know it: what it writes from now on is not even sent to them."""
    down = cache.stats().nodes_down + sum(len(zones.servers[name]) for name in names)
    zones.pause(*names)
    for _ in range(3):  # of all calls to every zone, only a touch leaves no hint
        await cache.touch("nothing", 1, timeout=0.1, errors="miss")
        await pass_time(0.2)
    assert cache.stats().nodes_down == down


async def pass_time(seconds: float = 1.0) -> None:
    """Let the background work: repairs, reconnects, and writes whose callers have returned."""
    await asyncio.sleep(seconds)


class Stopwatch:
    """Virtual seconds since it was made."""

    def __init__(self) -> None:
        self._start = asyncio.get_running_loop().time()

    @property
    def seconds(self) -> float:
        """Rounded to a microsecond, which is far below every timeout."""
        return round(asyncio.get_running_loop().time() - self._start, 6)
