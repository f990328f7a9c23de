"""Several processes load, write and delete at random, and the test compares the results of callers with the source.

The source counts its changes. Guarantees with the default policy, clocks that agree, and zones that answer:

- No client invents a value: the source has had each value.
- No client is served a value for longer than `ttl` plus the time of its load. The `ttl` counts from the end of the load,
  and the value is as old as its begin. One second is added because servers count in seconds. After
  `invalidate(stale_while_revalidate=...)` a value is served for that time longer.
- A client that deleted a key, or wrote it through, never gets an older value, whatever loads are under way.
- After that call has returned, other clients do not get an older value either. There are two exceptions. Without an
  invalidation channel, a process may have an older load of the key under way, which its later callers join. A process with
  a near cache may serve its entry until the entry expires.

There is no guarantee that values only get newer. A process whose wait for a lease ends loads without one and stores nothing.
Its callers may see that value, and then the older one of the zones.
"""

import asyncio
import math
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache import NearCache
from evcache.load_policy import LoadPolicy
from tests.support.examples import examples
from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import assert_nothing_left, no_stubs, seen
from tests.support.virtual_time import now, run

TTL = 6.0
STALE_FOR = 3.0
NEAR_TTL = 2.0
LOADS = (0.0, 0.02, 0.3, 1.5, 4.0)
GRANULARITY = 1.0
LONGEST_LOAD = max(LOADS) + 0.5  # and what storing it may take

ZONES = "aabb"  # of the clients; the first has a near cache
KEY = "k"

NUMBERS = range(len(ZONES))
clients = st.sampled_from(NUMBERS)
steps = st.one_of(
    st.tuples(st.just("load"), clients, st.sampled_from(LOADS)),
    st.tuples(st.just("load many"), clients, st.sampled_from(LOADS)),
    st.tuples(st.just("change"), st.just(0), st.just(0.0)),
    st.tuples(st.sampled_from(["delete", "set", "write through", "invalidate"]), clients, st.just(0.0)),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0.0)),
    st.tuples(st.just("pass"), st.just(0), st.sampled_from([0.005, 0.05, 0.5, 2.0, 5.0])),
)


class Floor(NamedTuple):
    """From some moment on, nothing older than this is to be seen."""

    number: int
    since: float
    """When the write had returned."""
    begun: float
    by: int


class Model:
    """The source, what was promised, and who is loading."""

    def __init__(self, zones, caches, policy):
        self.zones = zones
        self.caches = caches
        self.policy = policy
        self.number = 0
        self.replaced = {}
        """When each number was replaced by the next."""
        self.floors = []
        self.calls = {}
        """The calls under way: by their tasks, whose they are and when they began."""
        self.loading = {number: [] for number in NUMBERS}
        """The loads under way of each process: when they began."""

    def change(self):
        self.replaced[self.number] = now()
        self.number += 1

    def loader(self, client, seconds):
        async def load(*keys):
            began, number = now(), self.number
            self.loading[client].append(began)
            try:
                await asyncio.sleep(seconds)
            finally:
                # Until its value has been stored.
                asyncio.get_running_loop().call_later(0.6, self.loading[client].remove, began)
            return {KEY: number} if keys else number

        return load

    def call(self, client, seconds, many):
        task = asyncio.create_task(self._call(client, seconds, many))
        self.calls[task] = client
        task.add_done_callback(self.calls.pop)

    async def _call(self, client, seconds, many):
        began = now()
        oldest_load = min([began, *self.loading[client]])
        cache, loader = self.caches[client], self.loader(client, seconds)
        if many:
            got = (await cache.get_or_load_many([KEY], loader, ttl=TTL, policy=self.policy))[KEY]
        else:
            got = await cache.get_or_load(KEY, loader, ttl=TTL, policy=self.policy)
        self.check(client, got, began, oldest_load)

    def check(self, client, got, began, oldest_load):
        assert got in range(self.number + 1), "it was invented"
        allowed = began - TTL - LONGEST_LOAD - STALE_FOR - GRANULARITY
        assert self.replaced.get(got, math.inf) > allowed, f"{got} was replaced at {self.replaced[got]}, asked at {began}"
        for floor in self.floors:
            if got >= floor.number or began < floor.since:
                continue
            assert client != floor.by, f"{client} gets {got} at {began} after {floor}"
            may_join = oldest_load < floor.since
            is_near = client == 0 and began < floor.since + NEAR_TTL
            assert may_join or is_near, f"{client} gets {got} at {began} after {floor}"

    async def write(self, what, client):
        cache, begun = self.caches[client], now()
        if what == "write through":

            async def writer(_):
                await asyncio.sleep(0.05)
                self.change()

            number = self.number + 1
            done = await cache.write_through(KEY, number, writer, ttl=TTL, consistency="all")
        else:
            self.change()
            number = self.number
            if what == "delete":
                done = await cache.delete(KEY, consistency="all")
            elif what == "set":
                done = await cache.set(KEY, number, ttl=TTL, consistency="all")
            else:
                done = await cache.invalidate(KEY, stale_while_revalidate=STALE_FOR, consistency="all")
        assert done
        since = now() + (STALE_FOR if what == "invalidate" else 0)
        by = -1 if what == "invalidate" else client
        self.floors.append(Floor(number, since, begun, by))

    async def step(self, what, which, seconds):
        # No two writes, and no load and write, in one millisecond: their versions would be drawn by lot.
        await pass_time(0.002)
        if what.startswith("load"):
            self.call(which, seconds, many=what == "load many")
        elif what == "change":
            self.change()
        elif what == "cancel":
            for task in list(self.calls)[which : which + 1]:
                task.cancel()
        elif what == "pass":
            await pass_time(seconds)
        else:
            await self.write(what, which)


async def play(script, policy):
    zones = MemoryZones(2)
    caches = [
        await zones.ready(local_zone=zone, near_cache=NearCache(ttl=NEAR_TTL) if number == 0 else None)
        for number, zone in enumerate(ZONES)
    ]
    follow_loop(caches[0])
    model = Model(zones, caches, policy)
    tasks = []
    for step in script:
        await model.step(*step)
        tasks += [task for task in model.calls if task not in tasks]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    try:
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        await pass_time(15)  # background loads have ended, and hinted handoff has delivered their writes
        await assert_nothing_left(*caches)
        assert no_stubs(zones)
        assert len(set(seen(zones, KEY).values())) == 1
    finally:
        await zones.close_clients()


POLICIES = {
    "default": LoadPolicy(lease_seconds=3),
    "impatient": LoadPolicy(lease_seconds=3, lease_wait=0.1, refresh_after=0.3),
    "alone": LoadPolicy(lease=False, xfetch_beta=0),
}


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(0.3))
@given(script=st.lists(steps, min_size=5, max_size=40))
def test_what_is_promised_holds(policy, script):
    run(play(script, POLICIES[policy]))
