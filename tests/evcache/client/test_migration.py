"""Migration between two sets of zones while clients read and write: no acknowledged write is lost, in either direction."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from evcache.errors import CacheError
from tests.support.examples import examples
from tests.support.memory_zones import QUICK, MemoryZones, on_zones, pass_time
from tests.support.standby import NEW, OLD, MigratingClient
from tests.support.virtual_time import run

CLIENTS = 3
KEYS = 4  # of each client
PAUSES = [0, 0.005, 0.05]  # seconds between two calls of a client
TIMEOUT = 0.1
CHANGE_SECONDS = 0.3  # until the next client changes its modes

# Modes of the zones in each step: read-write, standby, write-only.
FORWARD = [(OLD, "", ""), (OLD, "", NEW), (OLD, NEW, ""), (NEW, OLD, ""), (NEW, "", OLD), (NEW, "", "")]
DIRECTIONS = {"forward": FORWARD, "back": [*FORWARD[:4], *reversed(FORWARD[:3])]}


@dataclass
class Key:
    """Writes of one key, by one client, one after another."""

    name: str
    written: list = field(default_factory=list)
    """Value of each write, None for a delete."""
    acknowledged: int = -1
    """Index of the last acknowledged write."""

    def allowed(self, acknowledged):
        """Return what a read may find that began when the write with this index was the last acknowledged one."""
        return [*self.written[max(0, acknowledged) :], *([None] if acknowledged < 0 else [])]


@dataclass
class Counter:
    """Steps of one counter, by one client."""

    name: str
    least: int = 0
    most: int = 0


class Traffic:
    """Calls of several clients, and the check of their results."""

    def __init__(self, zones, seed):
        self.zones = zones
        self.random = random.Random(seed)
        self.clients = []
        self.keys = [[Key(f"{client}.{number}") for number in range(KEYS)] for client in range(CLIENTS)]
        self.counters = [Counter(f"{client}.counter") for client in range(CLIENTS)]
        self.acknowledged = 0
        self.is_over = False

    async def open(self, modes):
        for number in range(CLIENTS):
            client = MigratingClient(
                self.zones,
                local_zone=None,
                read_consistency="quorum",
                write_consistency="quorum",
                circuit=QUICK,
                read_timeout=TIMEOUT,
                write_timeout=TIMEOUT,
                read_repair_chance=0.2,
                wall_clock=lambda number=number: self.zones.wall_clock() + (number - 1) * 0.02,
            )
            self.clients.append(client)
            await client.cache.get("opens", errors="miss")
            await client.use(*modes)

    async def work(self, number):
        """Make calls of one client until the step of the migration is over."""
        cache = self.clients[number].cache
        while not self.is_over:
            key = self.random.choice(self.keys[number])
            action = self.random.choice(["set", "set", "delete", "read", "read", "read many", "count", "set_many"])
            with contextlib.suppress(CacheError):  # what was not acknowledged may have happened
                await self.call(cache, number, key, action)
            await asyncio.sleep(self.random.choice(PAUSES))

    async def call(self, cache, number, key, action):
        if action in ("set", "set_many", "delete"):
            value = None if action == "delete" else f"{key.name}={len(key.written)}"
            index = len(key.written)
            key.written.append(value)
            if action == "set":
                result = await cache.set(key.name, value)
            elif action == "delete":
                result = await cache.delete(key.name)
            else:
                result = (await cache.set_many({key.name: value}))[key.name]
            if result:
                key.acknowledged = index
                self.acknowledged += 1
        elif action == "count":
            counter = self.counters[number]
            counter.most += 1
            value = await cache.incr(counter.name, initial=1)
            counter.least += 1
            assert counter.least <= value <= counter.most
            counter.least = value
        else:
            keys = [self.random.choice(self.random.choice(self.keys)) for _ in range(1 if action == "read" else 3)]
            began = {key.name: key.acknowledged for key in keys}
            if action == "read":
                found = {keys[0].name: await cache.get(keys[0].name)}
            else:
                found = await cache.get_many(list(began))
            for key in keys:
                self.check(key, found.get(key.name), began[key.name])

    def check(self, key, found, acknowledged):
        assert found in key.allowed(acknowledged), (key, found, acknowledged)

    async def settle(self):
        """Wait until every client has delivered what zones missed."""
        for _ in range(60):
            await pass_time(1)
            if not any(client.cache.stats().hints for client in self.clients):
                return
        raise AssertionError("hints are left")

    async def check_all(self):
        for client in self.clients:
            for keys in self.keys:
                for key in keys:
                    self.check(key, await client.cache.get(key.name), key.acknowledged)
            for counter in self.counters:
                if counter.least:
                    assert counter.least <= await client.cache.get(counter.name) <= counter.most


async def fail(zones, traffic, plan):
    """Cut zones off, from all clients or from one, while the traffic goes on."""
    for seconds, number, names in plan:
        ways = [] if number is None else [traffic.clients[number].wires.requests[name] for name in names]
        for way in ways:
            way.hold()
        if number is None:
            zones.pause(*names)
        await asyncio.sleep(seconds)
        zones.resume(*names)
        for way in ways:
            way.release()


async def migrate(steps, plans, seed, order):
    zones = MemoryZones(6)
    try:
        traffic = Traffic(zones, seed)
        await traffic.open(steps[0])
        for number, modes in enumerate(steps):
            traffic.is_over = False
            calls = [asyncio.ensure_future(traffic.work(client)) for client in range(CLIENTS)]
            failing = asyncio.ensure_future(fail(zones, traffic, plans[number % len(plans)]))
            for client in order:  # the clients change one after another
                await asyncio.sleep(CHANGE_SECONDS)
                await traffic.clients[client].use(*modes)
            await failing
            await asyncio.sleep(CHANGE_SECONDS)
            traffic.is_over = True
            await asyncio.gather(*calls)
            # An operator waits for this before the next step: a zone may have missed what did not count there.
            await traffic.settle()
            await traffic.check_all()
        assert traffic.acknowledged
        return traffic
    finally:
        zones.resume(*OLD, *NEW)
        await zones.close_clients()


faults = st.tuples(
    st.sampled_from([0.02, 0.2, 0.6]),
    st.none() | st.integers(0, CLIENTS - 1),
    st.sampled_from([*OLD, *NEW, "ad", "be", "ab", "ef", OLD, NEW]),
)
plans = st.lists(st.lists(faults, max_size=3), min_size=1, max_size=len(FORWARD))


@pytest.mark.parametrize("direction", DIRECTIONS)
# Without shrinking, which takes minutes and leaves other calls in each run.
@settings(max_examples=examples(0.03), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(plans=plans, seed=st.integers(0, 2**32), order=st.permutations(range(CLIENTS)))
# One client is cut off from the other set while the next one begins to read there.
@example(plans=[[(0.6, 0, NEW)], [(0.6, 0, OLD)]] * 3, seed=1, order=[1, 2, 0])
@example(plans=[[(0.6, 0, OLD)], [(0.6, 0, NEW)]] * 3, seed=2, order=[1, 2, 0])
def test_a_migration_under_traffic_and_faults_loses_no_acknowledged_write(direction, plans, seed, order):
    run(migrate(DIRECTIONS[direction], plans, seed, order))


@on_zones(zones=6)
async def test_a_cold_set_is_filled_by_writes_reads_and_comparisons(zones):
    """The keys that were written before the new set was there come to it after the swap, at their first read."""
    client = MigratingClient(zones)
    cache = client.cache
    await cache.get("opens")
    await client.use(OLD)
    await cache.set_many({f"k{number}": number for number in range(10)}, consistency="all")
    for modes in FORWARD[1:4]:
        await client.use(*modes)
    await cache.set("k0", "new", consistency="all")
    for number in range(1, 10):
        assert await cache.get(f"k{number}") == number
    await pass_time()
    for modes in FORWARD[4:]:
        await client.use(*modes)
    await zones.kill(*OLD)
    assert await cache.get_many([f"k{number}" for number in range(10)]) == {
        "k0": "new",
        **{f"k{number}": number for number in range(1, 10)},
    }


@on_zones(zones=6)
async def test_clients_of_both_modes_see_the_acknowledged_writes_of_each_other(zones):
    clients = [MigratingClient(zones, read_consistency="quorum", write_consistency="quorum") for _ in range(2)]
    for client, modes in zip(clients, [(OLD, NEW), (NEW, OLD)], strict=True):
        await client.cache.get("opens")
        await client.use(*modes)
    for number in range(10):
        writer, reader = clients[number % 2].cache, clients[(number + 1) % 2].cache
        zones.pause("abc"[number % 3], "def"[number % 3])
        assert await writer.set("k", number)
        assert await reader.get("k") == number
        assert await writer.delete("k")
        assert await reader.get("k") is None
        zones.resume(*OLD, *NEW)
        await pass_time(3)
