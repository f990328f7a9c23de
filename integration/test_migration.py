"""A cache moves between two sets of zones under load, and back. Processes write throughout, and one of them is killed.

Each process reports its writes through a pipe: before it sends one, and after the client has acknowledged it. After each
switch every acknowledged write must be there, or a later one of its key.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from evcache import EVCache
from evcache.zones import Endpoint, Mode, Topology, Zone
from integration.conftest import LEAST_VERSION
from integration.patience import PATIENT, PATIENT_SECONDS

WRITER = Path(__file__).with_name("migrating_writer.py")
OLD, NEW = ("old-a", "old-b", "old-c"), ("new-a", "new-b", "new-c")
PROCESSES = 3
EARLY_KEYS = 60  # written before the new set is there, and not after that
LOAD_SECONDS = 0.3
WAIT_SECONDS = 2 * PATIENT_SECONDS  # a step of the operator follows calls of the writers


class Ledger:
    """Writes of all processes, as they reported them."""

    def __init__(self):
        self.attempts = defaultdict(list)
        self.acknowledged = {}
        self.wrong = []

    def enter(self, number, line):
        kind, *words = line.split()
        if kind in ("try", "ack"):
            key, value = words[0], None if words[1] == "-" else int(words[1])
            if kind == "try":
                self.attempts[key].append(value)
            else:  # a key has one writer, which waits for each result
                self.acknowledged[key] = len(self.attempts[key]) - 1
        elif kind == "count":
            key, count = f"{number}-counter", int(words[0])
            expected = self.attempts.get(key, [count])
            if count not in expected:
                self.wrong.append(line)
            # The next step may be stored without a report, if the process is killed.
            self.attempts[key], self.acknowledged[key] = [count, count + 1], 0
        elif kind == "wrong":
            self.wrong.append(line)

    def lost(self, found):
        """Return the keys whose value is older than the last acknowledged write."""
        return {
            key: (found.get(key), self.attempts[key][index:])
            for key, index in self.acknowledged.items()
            if found.get(key) not in self.attempts[key][index:]
        }


class Process:
    """One writing process, with a topology of its own."""

    def __init__(self, namespace, number, folder, ledger):
        self.number = number
        self.status = ("", 0)
        self._file = folder / f"{number}.toml"
        self._namespace = namespace
        self._ledger = ledger

    def start(self):
        self._process = subprocess.Popen(
            [sys.executable, str(WRITER), self._namespace, str(self.number), str(self._file)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(WRITER.parents[1])},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            if line.startswith("status"):
                _, modes, hints = line.split()
                self.status = (modes, int(hints))
            elif line.endswith("\n"):
                self._ledger.enter(self.number, line)

    def use(self, topology):
        """Give the process another topology."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(
            "\n".join(
                f'[zones.{zone.name}]\nmode = "{zone.mode}"\nnodes = {[str(node) for node in zone.nodes]}'
                for zone in topology.zones
            )
        )
        temporary.replace(self._file)

    def end(self, number=signal.SIGTERM):
        """End the process, and read what it had reported."""
        self._process.send_signal(number)
        returned = self._process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        self._process.stdout.close()
        return returned


def until(condition, what):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WAIT_SECONDS, what
        time.sleep(0.01)


def topology(zones, active, standby=(), write_only=()):
    sets = ((Mode.READ_WRITE, active), (Mode.STANDBY, standby), (Mode.WRITE_ONLY, write_only))
    return Topology(
        tuple(Zone(name, tuple(map(Endpoint.parse, zones.zones[name])), mode) for mode, names in sets for name in names)
    )


def modes_of(topology):
    return ",".join(f"{zone.name}:{zone.mode}" for zone in topology.zones)


class Migration:
    """The steps of an operator."""

    def __init__(self, zones, namespace, processes, ledger):
        self.zones = zones
        self.namespace = namespace
        self.processes = processes
        self.ledger = ledger

    def use(self, modes, *, killed=None):
        """Change the modes of one process after another. Kill one of them after the first has changed."""
        expected = modes_of(modes)
        for number, process in enumerate(list(self.processes)):
            if process is killed:
                continue
            process.use(modes)
            until(lambda process=process: process.status[0] == expected, f"process {process.number} uses {expected}")
            time.sleep(LOAD_SECONDS)
            if number == 0 and killed is not None:
                assert killed.end(signal.SIGKILL) == -signal.SIGKILL
                self.processes.remove(killed)

    def wait_for_hints(self):
        until(lambda: all(process.status[1] == 0 for process in self.processes), "every hint is delivered")

    def migrate(self, old, new, *, killed=None):
        for zone in new:
            self.zones.kill(zone)  # what these servers may hold is older than what follows
        self.use(topology(self.zones, old, write_only=new))
        for zone in new:
            self.zones.restart(zone)
        self.wait_for_hints()
        self.use(topology(self.zones, old, new))
        self.wait_for_hints()
        self.use(topology(self.zones, new, old), killed=killed)
        asyncio.run(self._fill(new, old))
        self.use(topology(self.zones, new, write_only=old))

    async def _fill(self, new, old):
        """Read all keys, which copies those that the new set lacks, until it has those that no process writes any more."""
        writing = tuple(f"{process.number}-" for process in self.processes)
        keys = list(self.ledger.attempts)
        began = time.monotonic()
        async with (
            EVCache(self.namespace, topology(self.zones, new, old), read_consistency="quorum", **PATIENT) as cache,
            EVCache(self.namespace, topology(self.zones, new), read_consistency="quorum", **PATIENT) as alone,
        ):
            while True:
                await cache.get_many(keys)
                lost = self.ledger.lost(await alone.get_many(keys))
                left = {key: why for key, why in lost.items() if not key.startswith(writing)}
                if not left:
                    return
                assert time.monotonic() - began < WAIT_SECONDS, left
                await asyncio.sleep(0.1)

    async def check(self, active):
        """Compare what a new client reads from one set with what was acknowledged."""
        async with EVCache(self.namespace, topology(self.zones, active), read_consistency="quorum", **PATIENT) as cache:
            found = await cache.get_many(list(self.ledger.attempts))
        assert self.ledger.lost(found) == {}


@pytest.fixture
def two_sets(servers):
    with servers.best.local_zones(dict.fromkeys((*OLD, *NEW), 1)).running() as zones:
        if tuple(map(int, zones.version.split("."))) < LEAST_VERSION:
            pytest.skip(f"memcached {zones.version} keeps no versions")
        yield zones


def test_a_cache_moves_to_other_zones_and_back_without_the_loss_of_an_acknowledged_write(two_sets, namespace, tmp_path):
    ledger = Ledger()
    processes = [Process(namespace, number, tmp_path, ledger) for number in range(PROCESSES)]
    migration = Migration(two_sets, namespace, processes, ledger)

    async def write_early():
        async with EVCache(namespace, topology(two_sets, OLD), write_consistency="quorum", **PATIENT) as cache:
            for number in range(EARLY_KEYS):
                ledger.enter("early", f"try early-{number} {number}")
                assert await cache.set(f"early-{number}", number)
                ledger.enter("early", f"ack early-{number} {number}")

    asyncio.run(write_early())
    with ExitStack() as stack:
        for process in processes:
            process.use(topology(two_sets, OLD))
            process.start()
        for process in list(processes):
            stack.callback(lambda process=process: process in processes and process.end(signal.SIGKILL))
        until(lambda: all(process.status[0] for process in processes), "the processes have begun")
        migration.migrate(OLD, NEW, killed=processes[-1])
        migration.migrate(NEW, OLD)
        for process in list(processes):
            processes.remove(process)
            assert process.end() == 0
    assert ledger.wrong == []
    assert len(ledger.acknowledged) > EARLY_KEYS + PROCESSES * 20
    asyncio.run(migration.check(OLD))
