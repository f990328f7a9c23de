"""What docs/failure-modes.md says happens when zones die, stall and come back, on real servers."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evcache import ConnectionLimits, EVCache, Failover, Gutter, Hedging, Hints, Hooks, NodeSettings
from evcache.replication.hlc import MAX_CAS
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from integration.raw import item, stats

KEYS = [f"key-{number}" for number in range(60)]
BACK_SECONDS = 20.0  # probes double from one second, and deliveries follow
PATIENT = 10.0  # for calls that are no part of what is looked at: a busy machine takes its time
WRITER = Path(__file__).with_name("crashing_writer.py")


@pytest.fixture
def versioned_zones(servers):
    """Three zones of one node whose servers keep versions, for this test alone to break."""
    with servers.best.local_zones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}).running() as zones:
        if tuple(map(int, zones.version.split("."))) < (1, 6, 27):
            pytest.skip(f"memcached {zones.version} keeps no versions: 1.6.27 and newer do")
        yield zones


def held(zones, zone, namespace, key):
    """What a zone holds: (value, version), None for nothing, and for the mark of a delete."""
    found = item(zones.zones[zone][0], f"{namespace}:{key}")
    if found is None or found[1] == FLAG_TOMBSTONE:
        return None
    return found[0], MAX_CAS - found[2]


async def until(condition, what, seconds=BACK_SECONDS):
    """Wait for something that is to come true; seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not in {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


class Notes(Hooks):
    """Hooks that record the events of nodes, zones and hints."""

    def __init__(self):
        self.nodes = []
        self.zones = []
        self.ended = []

    def node_changed(self, zone, node, *, down, why):
        self.nodes.append((zone, down))

    def zone_changed(self, zone, *, out):
        self.zones.append((zone, out))

    def hint_ended(self, zone, end):
        self.ended.append((zone, end))


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_zone_gets_what_it_missed(versioned_zones, namespace, fault):
    """Sets and deletes of the outage arrive when it is over, without any further call; nothing deleted comes back."""
    zones = versioned_zones

    async def main():
        notes = Notes()
        async with EVCache(namespace, zones.zones, local_zone="eu-1a", write_timeout=1.0, hooks=notes) as cache:
            assert all((await cache.set_many(dict.fromkeys(KEYS, "old"), consistency="all", timeout=PATIENT)).values())
            await asyncio.to_thread(getattr(zones, fault), "eu-1c")
            kept, deleted = KEYS[:30], KEYS[30:]
            for key in kept:
                assert await cache.set(key, "new")
            for key in deleted:
                assert await cache.delete(key)
            # A stalled process may execute requests when it resumes, so not every write needs a hint.
            await until(lambda: cache.stats().hints > 0, "something is kept for the zone")
            await until(lambda: ("eu-1c", True) in notes.nodes, "its node is down, after three timeouts")
            await asyncio.to_thread(zones.restart if fault == "kill" else zones.resume, "eu-1c")
            await until(lambda: cache.stats().hints == 0, "everything was delivered")
            for key in kept:
                assert held(zones, "eu-1c", namespace, key)[0] == b"new"
                assert held(zones, "eu-1c", namespace, key) == held(zones, "eu-1a", namespace, key)
            assert [held(zones, "eu-1c", namespace, key) for key in deleted] == [None] * len(deleted)
            assert notes.zones == [("eu-1c", True), ("eu-1c", False)]
            assert {end for _, end in notes.ended} <= {"delivered", "superseded"}

    asyncio.run(main())


def test_a_client_reads_its_own_delete_although_its_zone_missed_it(versioned_zones, namespace):
    """The zone still has the value when it is back, until the delete is delivered: this client does not believe it."""
    zones = versioned_zones

    async def main():
        async with (
            FaultProxy(zones.zones["eu-1a"][0]) as way,
            EVCache(namespace, zones.zones | {"eu-1a": [way.address]}, local_zone="eu-1a", read_timeout=PATIENT) as cache,
        ):
            assert await cache.set("key", "value", consistency="all", timeout=PATIENT)
            way.refuse = True
            await way.drop_connections()
            assert await cache.delete("key", timeout=PATIENT)
            await until(lambda: cache.stats().hints == 1, "the delete is kept for it")
            assert held(zones, "eu-1a", namespace, "key") is not None, "it missed the delete"
            way.refuse = False
            while cache.stats().hints:
                assert await cache.get("key") is None
                await asyncio.sleep(0)
            assert held(zones, "eu-1a", namespace, "key") is None
            assert await cache.get("key") is None

    asyncio.run(main())


def test_hints_in_a_file_outlive_a_process_that_is_killed(versioned_zones, namespace, tmp_path):
    """SIGKILL right after its writes returned; the next process delivers them."""
    zones = versioned_zones
    path = str(tmp_path / "hints.sqlite")
    nodes = ";".join(f"{zone}={','.join(addresses)}" for zone, addresses in zones.zones.items())
    zones.kill("eu-1c")
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), namespace, nodes, path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(WRITER.parents[1])},
    )
    assert writer.stdout.readline() == "written\n"
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    zones.restart("eu-1c")

    async def main():
        async with EVCache(namespace, zones.zones, local_zone="eu-1a", hints=Hints(path=path)) as cache:
            assert cache.stats().hints > 0
            await until(lambda: cache.stats().hints == 0, "everything was delivered")
        for number in range(20):
            assert held(zones, "eu-1c", namespace, f"key-{number}") == held(zones, "eu-1a", namespace, f"key-{number}")
        assert held(zones, "eu-1c", namespace, "gone") is None

    asyncio.run(main())


def test_one_node_of_a_zone_takes_only_its_own_keys_along(zones, namespace):
    """The zone goes on serving the others."""

    async def main():
        notes = Notes()
        async with EVCache(namespace, zones.zones, local_zone="eu-1a", read_timeout=PATIENT, hooks=notes) as cache:
            assert all((await cache.set_many(dict.fromkeys(KEYS, 1), consistency="all", timeout=PATIENT)).values())
            places = {key: (await cache.get_item(key)).zone for key in KEYS}
            assert set(places.values()) == {"eu-1a"}
            await asyncio.to_thread(zones.kill, "eu-1a", node=0)
            after = [await cache.get_item(key) for key in KEYS]
            served = [found.zone for found in after]
            assert {"eu-1a"} < set(served) <= {"eu-1a", "eu-1b", "eu-1c"}
            assert notes.zones == [], "one node of two is not the zone"
            assert cache.stats().nodes_down == 1

    asyncio.run(main())


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_a_dead_zone_sends_no_more_to_the_others_than_the_budget_says(zones, namespace, ratio):
    """Counted by the servers. With the default each read is served; with less, the rest fails, and says why."""
    reads, burst = 4_000, 100

    async def main():
        async with EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            read_timeout=PATIENT,
            failover=Failover(ratio=ratio, burst=burst),
            read_repair_chance=0,
            # A read that leaves a silent node asks a further zone: a pause of this machine must not be counted.
            nodes=NodeSettings(limits=ConnectionLimits(patience=PATIENT)),
        ) as cache:
            # With time to connect, however busy the machine is: the first calls are not what is looked at.
            assert all((await cache.set_many(dict.fromkeys(KEYS, 1), consistency="all", timeout=PATIENT)).values())
            await asyncio.to_thread(zones.kill, "eu-1a")
            while cache.stats().nodes_down < 2:  # these calls take no tokens
                await cache.get_many(KEYS, consistency="all", timeout=PATIENT, errors="miss")
            # They end before all servers have answered. A server acknowledges a write after the reads that it got before.
            assert all((await cache.set_many(dict.fromkeys(KEYS, 1), consistency="quorum", timeout=PATIENT)).values())
            others = [address for zone in ("eu-1b", "eu-1c") for address in zones.zones[zone]]
            before = {address: int(stats(address)["cmd_get"]) for address in others}
            failed = 0
            for start in range(0, reads, 50):
                calls = (cache.get(KEYS[number % len(KEYS)]) for number in range(start, start + 50))
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    if isinstance(outcome, BaseException):
                        assert "failover budget" in str(outcome)
                        failed += 1
            asked = sum(int(stats(address)["cmd_get"]) - before[address] for address in others)
            assert asked <= ratio * reads + burst
            assert failed == reads - asked == cache.stats().failovers_denied

    asyncio.run(main())


def test_the_gutter_serves_while_every_zone_is_dead(versioned_zones, servers, namespace):
    """Values written during the outage can be read during the outage. The gutter never copies them to a zone."""
    zones = versioned_zones

    async def main(spare):
        gutter = Gutter(spare.zones["spare"], ttl=10)
        async with EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            read_timeout=PATIENT,
            write_timeout=PATIENT,
            gutter=gutter,
            hints=None,
        ) as cache:
            assert await cache.set("before", 1, consistency="all")
            await asyncio.to_thread(lambda: [zones.kill(zone) for zone in zones.zones])
            assert await cache.get("before") is None, "a miss, since the gutter answered"
            result = await cache.set("key", "value")
            assert not result
            assert result.zones["gutter"] == "stored"
            found = await cache.get_item("key")
            assert (found.value, found.zone, found.source) == ("value", "gutter", "fallback")
            assert found.ttl <= 10
            await cache.delete("key")
            assert await cache.get("key") is None
            await cache.set("key", "value")
            await asyncio.to_thread(lambda: [zones.restart(zone) for zone in zones.zones])
            await until(lambda: cache.stats().nodes_down == 0, "the zones are back")
            assert await cache.get("key") is None
            assert [held(zones, zone, namespace, "key") for zone in zones.zones] == [None] * 3

    with servers.best.local_zones({"spare": 1}).running() as spare:
        asyncio.run(main(spare))


def test_a_hedged_read_does_not_wait_for_a_slow_zone(versioned_zones, namespace):
    """Now and then the local zone takes 0.2 s; the other zone answers in its place."""
    zones = versioned_zones

    async def main():
        async with (
            FaultProxy(zones.zones["eu-1a"][0]) as way,
            EVCache(
                namespace,
                zones.zones | {"eu-1a": [way.address]},
                local_zone="eu-1a",
                read_timeout=2.0,
                hedging=Hedging(share=0.5),
            ) as cache,
        ):
            assert await cache.set("key", "value", consistency="all", timeout=PATIENT)
            for _ in range(600):
                assert await cache.get("key") == "value"
            before = cache.stats().hedges
            way.delay = 0.2
            served = [await cache.get_item("key") for _ in range(20)]
            assert {found.value for found in served} == {"value"}
            assert sum(found.zone != "eu-1a" for found in served) > 0
            assert cache.stats().hedges > before

    asyncio.run(main())


def test_closing_in_an_outage_ends_in_time_and_says_what_is_lost(versioned_zones, namespace, caplog):
    """No task is left, and the writes that a zone has not got are reported."""
    zones = versioned_zones
    caplog.set_level(logging.WARNING, "evcache")

    async def main():
        notes = Notes()
        cache = EVCache(namespace, zones.zones, local_zone="eu-1a", write_timeout=0.3, hooks=notes)
        await cache.set_many(dict.fromkeys(KEYS, 1), consistency="all", timeout=PATIENT)
        await asyncio.to_thread(zones.pause, "eu-1c")
        await cache.set_many(dict.fromkeys(KEYS, 2))
        await until(lambda: cache.stats().hints > 0, "the zone has missed something")
        left = cache.stats().hints
        began = time.monotonic()
        await cache.close(drain=1.0)
        took = time.monotonic() - began
        assert took < 3.0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert notes.ended.count(("eu-1c", "closed")) == left
        assert f"closed with {left} undelivered hints for zone eu-1c: dropped" in caplog.messages
        await asyncio.to_thread(zones.resume, "eu-1c")

    asyncio.run(main())
