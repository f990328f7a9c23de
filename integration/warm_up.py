"""Warm-up of a zone under traffic: many keys, one interruption by SIGKILL, and clients that write all the time.

The program prints keys per second, peak memory and the share of keys that the new zone has. It prints the latency of the
traffic before and during the copy. A copy must overwrite no newer value. Run it with `make warm-up`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evcache import CacheError, ConnectionLimits, EVCache, NodeSettings, Topology
from evcache.zones import Mode, Zone
from integration.patience import PATIENT_CALLS, PATIENT_SECONDS
from integration.servers import ServerKind, find_servers

SOURCE, TARGET = "eu-1a", "eu-1b"
NODES = 2  # in each zone
NAMESPACE = "warm"
VALUE_BYTES = 50
TTL_SECONDS = 24 * 60 * 60
MEMORY_MEGABYTES = "1024"
FILL_BATCH = 1_000

CALLERS = 8
CALLER_PAUSE_SECONDS = 0.01
HOT_KEYS = 2_000
"""Keys that the callers read and write, spread over all keys."""
BASELINE_SECONDS = 10.0
KILL_SHARE = 0.4
"""Share of the copy after which the first run is killed."""

# Servers, the command and the callers share few processors here.
SETTINGS = NodeSettings(connect_timeout=2.0, limits=ConnectionLimits(patience=1.0))


@dataclass
class Traffic:
    """Observations of the callers."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Highest number that a write of each key has acknowledged. Each key has one writer."""

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies of reads, in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


@dataclass
class Result:
    """Figures of one run of the program."""

    keys: int
    seconds: float = 0.0
    """Seconds of both runs of the command together."""
    peak_megabytes: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)
    before: Traffic = field(default_factory=Traffic)
    during: Traffic = field(default_factory=Traffic)
    in_place: int = 0
    overwritten: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the keys that the target has at the end."""
        return self.in_place / self.keys


class Run:
    """One run of the program."""

    def __init__(self, kind: ServerKind, keys: int, rate: float, baseline: float = BASELINE_SECONDS) -> None:
        self._zones = kind.local_zones({SOURCE: NODES, TARGET: NODES}, ["-m", MEMORY_MEGABYTES])
        self._names = [f"key-{number:07d}" for number in range(keys)]
        self._rate = rate
        self._baseline = baseline
        self.result = Result(keys)

    async def run(self) -> Result:
        """Fill the source, copy under traffic, and check the target."""
        async with self._zones:
            nodes = self._zones.zones
            async with EVCache(NAMESPACE, {SOURCE: nodes[SOURCE]}, nodes=SETTINGS) as cache:
                for begin in range(0, len(self._names), FILL_BATCH):
                    some = self._names[begin : begin + FILL_BATCH]
                    await cache.set_many(
                        {name: value_of(name, 0) for name in some}, ttl=TTL_SECONDS, timeout=2 * PATIENT_SECONDS
                    )
            topology = Topology(
                tuple(
                    Zone(zone.name, zone.nodes, Mode.WRITE_ONLY if zone.name == TARGET else zone.mode)
                    for zone in Topology.from_mapping(nodes).zones
                )
            )
            async with EVCache(NAMESPACE, topology, nodes=SETTINGS, **PATIENT_CALLS) as cache:
                await self._with_traffic(cache, self.result.before, asyncio.sleep(self._baseline))
                await self._with_traffic(cache, self.result.during, self._copy_twice(nodes))
            await self._check(nodes)
        return self.result

    async def _with_traffic(self, cache: EVCache, traffic: Traffic, work: Any) -> None:
        traffic.acknowledged = self.result.before.acknowledged
        step = max(1, len(self._names) // HOT_KEYS)
        hot = self._names[::step]
        callers = [
            asyncio.create_task(call(cache, hot[place::CALLERS], traffic, random.Random(place))) for place in range(CALLERS)
        ]
        try:
            await work
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def _copy_twice(self, nodes: dict[str, list[str]]) -> None:
        began = time.monotonic()
        first = await self._start(nodes)
        async with EVCache(NAMESPACE, {TARGET: nodes[TARGET]}, nodes=SETTINGS) as target:
            probe = self._names[1 :: max(2, len(self._names) // 500)]  # none of the hot keys
            while first.returncode is None:
                await asyncio.sleep(0.2)
                if len(await target.get_many(probe, timeout=PATIENT_SECONDS)) > KILL_SHARE * len(probe):
                    break
        if first.returncode is not None:
            raise RuntimeError(f"the command ended before it could be killed: status {first.returncode}")
        first.kill()
        await first.communicate()
        second = await self._start(nodes)
        output, problems = await second.communicate()
        self.result.seconds = time.monotonic() - began
        if second.returncode != 0:
            raise RuntimeError(f"evcache warm failed with status {second.returncode}: {output.decode()}{problems.decode()}")
        report = json.loads(output)
        self.result.peak_megabytes = float(problems.decode().rpartition("peak ")[2])
        self.result.reports.append(report)

    async def _start(self, nodes: dict[str, list[str]]) -> asyncio.subprocess.Process:
        node_list = ";".join(f"{zone}={','.join(of_zone)}" for zone, of_zone in nodes.items())
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "warm", "--from", SOURCE, "--to", TARGET, "--json"),
            *("--rate", str(self._rate), "--timeout", "10"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "EVCACHE_NODES": node_list},
        )

    async def _check(self, nodes: dict[str, list[str]]) -> None:
        """Count the keys of the target, and look for values that are older than an acknowledged write."""
        acknowledged = self.result.before.acknowledged
        async with EVCache(NAMESPACE, {TARGET: nodes[TARGET]}, nodes=SETTINGS) as target:
            for begin in range(0, len(self._names), FILL_BATCH):
                some = self._names[begin : begin + FILL_BATCH]
                found = await target.get_many(some, timeout=10.0)
                self.result.in_place += len(found)
                for name, value in found.items():
                    if int(value.split()[1]) < acknowledged.get(name, 0):
                        self.result.overwritten.append(f"{name}: {value.split()[1]} < {acknowledged[name]}")


PROGRAM = """
import atexit, resource, sys
from evcache.cli import main
atexit.register(lambda: sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}"))
main()
"""


def value_of(name: str, number: int) -> str:
    """Return the value of a write of a key."""
    return f"{name} {number} ".ljust(VALUE_BYTES, ".")


async def call(cache: EVCache, names: Sequence[str], traffic: Traffic, choose: random.Random) -> None:
    """Read keys, and write every fourth time, until cancelled. No other caller has these keys."""
    loop = asyncio.get_running_loop()
    number = max((traffic.acknowledged.get(name, 0) for name in names), default=0)
    while True:
        await asyncio.sleep(choose.random() * 2 * CALLER_PAUSE_SECONDS)
        name = choose.choice(names)
        try:
            if choose.random() < 0.25:  # noqa: PLR2004  # every fourth
                number += 1
                if await cache.set(name, value_of(name, number), ttl=TTL_SECONDS):
                    traffic.acknowledged[name] = number
            else:
                began = loop.time()
                await cache.get(name)
                traffic.latencies.append(loop.time() - began)
        except CacheError:
            traffic.failed += 1


def lines(result: Result) -> list[str]:
    """Return the lines of a report."""
    last = result.reports[-1]
    speed = last["keys"] / last["seconds"]
    return [
        f"{result.keys:,} keys of {VALUE_BYTES} bytes, copied in two runs, the first killed: {result.seconds:.1f} s",
        f"second run: {last['keys']:,} keys in {last['seconds']:.1f} s, {speed:,.0f} keys/s, {last['copied']:,} copied",
        f"peak memory of the command: {result.peak_megabytes:.0f} MB",
        f"in place at the end: {result.in_place:,} ({result.share:.4%}); newer values overwritten: {len(result.overwritten)}",
        *(
            f"reads {when} the copy: {len(traffic.latencies):,}, p50 {traffic.percentile(0.5):.2f} ms, "
            f"p99 {traffic.percentile(0.99):.2f} ms, {traffic.failed} failed"
            for when, traffic in (("before", result.before), ("during", result.during))
        ),
    ]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1e9, help="keys per second")
    chosen = parser.parse_args()
    # As the fixtures of the integration tests have it: see integration/conftest.py.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    result = asyncio.run(Run(find_servers().best, chosen.keys, chosen.rate).run())
    print("\n".join(lines(result)))
    if result.overwritten:
        raise SystemExit("newer values were overwritten: " + ", ".join(result.overwritten[:10]))


if __name__ == "__main__":
    main()
