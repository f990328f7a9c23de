"""Whatever happens in whatever order: a node tells the truth about itself, comes back, and leaves nothing."""

import asyncio
import random

import pytest

from evcache.zones.errors import NodeError
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.protocol.replies import Reply
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.node_bench import LONGEST_PAUSE, TIMEOUT, answered, bench_of, call
from tests.support.virtual_time import in_virtual_time, now, settle

STEPS = 250
CALLERS = 12  # upper bound of concurrent callers


class Play:
    """Random events around a node, and what must hold after each."""

    def __init__(self, bench, rng):
        self.bench = bench
        self.rng = rng
        self.callers = []
        self.events = [self.ask, self.ask, self.ask, self.wait, self.wait, self.wait_long]
        self.events += [self.pause, self.resume, self.resume, self.hang_up, self.reset, self.refuse, self.accept]
        self.events += [self.accept, self.cancel, self.stall, self.read]

    async def ask(self):
        self.callers += [asyncio.create_task(call(self.bench)) for _ in range(self.rng.randint(1, CALLERS))]

    async def wait(self):
        await asyncio.sleep(self.rng.random() * 2 * TIMEOUT)

    async def wait_long(self):
        await asyncio.sleep(self.rng.random() * 5)

    async def pause(self):
        self.bench.server.pause()

    async def resume(self):
        self.bench.server.resume()

    async def hang_up(self):
        await self.bench.hang_up()

    async def reset(self):
        self.bench.reset()

    async def refuse(self):
        self.bench.refuse()

    async def accept(self):
        self.bench.accept()

    async def cancel(self):
        for caller in self.rng.sample(self.callers, len(self.callers) // 2):
            caller.cancel()

    async def stall(self):
        self.bench.loop.advance(self.rng.random())

    async def read(self):
        for _ in range(self.rng.randrange(60)):
            self.bench.node.record_read(hit=self.rng.random() < 0.9)

    def check(self):
        node, changes = self.bench.node, self.bench.changes
        assert node.is_down is (node.connection() is None and node.failure is not None)
        assert (node.circuit == "closed") is (node.failure is None)
        assert self.bench.health.unhealthy == (node.failure is not None or node.is_warming)
        # One change after another, and none that is not so.
        assert [down for _, down, _ in changes] == [number % 2 == 0 for number in range(len(changes))]
        assert bool(len(changes) % 2) is (node.failure is not None)
        assert len(node.outages) == min(len(changes) // 2, 8)

    async def run(self):
        for _ in range(STEPS):
            await self.rng.choice(self.events)()
            await settle(self.rng.randrange(8))
            self.check()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("classic_only", "connections"), [(False, 1), (False, 3), (True, 1)])
@in_virtual_time
async def test_whatever_happens_it_comes_back_and_leaves_nothing(classic_only, connections, seed):
    """`Bench` and `run` look at the end for tasks, connections, and a health that are left."""
    circuit = CircuitLimits(probe_timeout=TIMEOUT, slow_start=20.0, jitter=0.0, longest_pause=4.0)
    limits = ConnectionLimits(silence=5.0)
    async with bench_of(classic_only, circuit=circuit, limits=limits, connections=connections) as bench:
        play = Play(bench, random.Random(seed))
        await play.run()
        assert len(bench.changes) >= 4, "too little happened"
        bench.server.resume()
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE + 5)
        assert not bench.node.is_down
        assert await answered(bench)
        await asyncio.sleep(circuit.slow_start + LONGEST_PAUSE)
        assert await answered(bench)
        play.check()
        assert bench.health.unhealthy == 0
        assert bench.node.pending == 0
        if not classic_only:
            assert bench.server.connections == connections
        for result in await asyncio.gather(*play.callers, return_exceptions=True):
            assert isinstance(result, Reply | NodeError | asyncio.CancelledError), result


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("classic_only", "connections"), [(False, 1), (False, 3), (True, 1)])
@in_virtual_time
async def test_whenever_it_is_closed_nothing_is_left(classic_only, connections, seed):
    """In the middle of anything, and nothing happens from then on."""
    rng = random.Random(seed)
    circuit = CircuitLimits(probe_timeout=TIMEOUT, slow_start=20.0, jitter=0.0, longest_pause=4.0)
    async with bench_of(classic_only, circuit=circuit, connections=connections) as bench:
        play = Play(bench, rng)
        running = asyncio.create_task(play.run())
        await asyncio.sleep(rng.random() * 60)
        running.cancel()
        await asyncio.wait([running])
        await settle(rng.randrange(10))
        began = now()
        await bench.node.close(rng.choice([0.0, 1.0]))
        assert now() - began <= 1.0
        assert (bench.node.state, bench.node.is_warming, bench.health.unhealthy) == ("closed", False, 0)
        changes = len(bench.changes)
        bench.accept()
        attempts = bench.attempts
        await asyncio.sleep(10 * LONGEST_PAUSE)
        assert (len(bench.changes), bench.attempts) == (changes, attempts)
        await asyncio.gather(*play.callers, return_exceptions=True)
