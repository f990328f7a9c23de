"""Reads are offered at a fixed rate, 10,000 a second, while zones are gone: what do the client and the others make of it?

    1 dead             the local zone is killed; two are left
    1 dead, 1 paused   and the next one accepts, and never answers; one is left
    all dead           none is left: a read should fail at once, and cost little

500 keys of 100 bytes; the client's settings are the defaults. First all zones are up for some seconds.
If reads fail then, or the processor is full, the rate is halved until it can be offered; `rate` is the result. Then the
fault comes. `failed while the fault came` counts from the order of the fault until it is in effect. Peaks and stalls count
from the order on. All other figures count from the time at which the fault is in effect:

    rate                      reads offered each second; `really offered` is what the load got around to
    not offered               reads that the load gave up on, as the event loop was more than 0.1 s late
    shed                      reads not made, because 20,000 were in flight
    failed, missing, wrong    reads that raised; that returned None though a zone has the key; another value. `failed as`
                              counts both kinds of failures, by error
    p50, p99                  of how long a read took, failed ones too; `healthy` before the fault
    requests at eu-1b/s       as its servers count them: reads, and copies for repairs
    requests / reads made     at all zones that are up: 1.0 is no more than was asked for
    sent to eu-1b in vain     requests that the paused zone found when it went on (or more: some are lost with connections)
    connections to ...        attempts of the client, by zone
    CPU share                 of one processor, used by this process: client and load together
    RSS                       memory of this process. The load keeps 17 bytes of each read, and what earlier
                              variants and rounds have used is not given back
    in flight, tasks          reads that wait for an answer; tasks of asyncio, with one for each of these reads
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.outage.common import FAILED, LOCAL, MISSING, NAMESPACE, OTHERS, WRONG, fill, fresh_zones, percentile
from benchmarks.outage.load import Load, load
from benchmarks.outage.watch import Counters, CountingDialer, Watch, rss_mib, watching
from evcache import EVCache, NodeSettings
from evcache.testing import RunningZones
from integration.servers import ServerKind

KEYS = 500
HEALTHY_SECONDS, FAULT_SECONDS = 3.0, 10.0
BUSY_SHARE = 0.9  # of a processor: more than that, and what is measured is the load
LEAST_RATE = 100
CONNECT_SECONDS = 0.5  # of load that does not count
CATCH_UP_SECONDS = 1.0  # for a paused zone to work off what it was sent


@dataclass(frozen=True)
class Variant:
    """Which zones die, and which are paused."""

    killed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()

    @property
    def up(self) -> tuple[str, ...]:
        return tuple(zone for zone in OTHERS if zone not in self.killed + self.paused)


VARIANTS = {
    "1 dead": Variant(killed=(LOCAL,)),
    "1 dead, 1 paused": Variant(killed=(LOCAL,), paused=(OTHERS[0],)),
    "all dead": Variant(killed=(LOCAL, *OTHERS)),
}


@dataclass(frozen=True)
class Scene:
    """What the parts of the measurement share."""

    zones: RunningZones
    variant: Variant
    watch: Watch
    counters: Counters
    dialer: CountingDialer

    def attempts(self) -> dict[str, int]:
        """Attempts to connect so far, by zone."""
        return {zone: self.dialer.attempts(addresses) for zone, addresses in self.zones.zones.items()}

    async def requests(self, zones: tuple[str, ...]) -> dict[str, int]:
        """Requests to read so far, by zone."""
        return {zone: counted.gets for zone, counted in (await self.counters.look(zones)).items()}


class Moment:
    """Totals up to now."""

    def __init__(self, load: Load) -> None:
        self.at = time.perf_counter()
        self.cpu = time.process_time()
        self.offered, self.shed, self.not_offered = load.offered, load.shed, load.not_offered


def run(kind: ServerKind, variant: str, rate: int, seconds: float | None) -> dict[str, object]:
    """One variant, on servers of its own; the figures."""
    with fresh_zones(kind) as zones:
        return asyncio.run(measure(zones, VARIANTS[variant], rate, seconds))


async def measure(zones: RunningZones, variant: Variant, rate: int, seconds: float | None) -> dict[str, object]:
    """Find the rate, break the zones, look what comes of it."""
    async with AsyncExitStack() as stack:
        dialer = CountingDialer()
        cache = await stack.enter_async_context(
            EVCache(NAMESPACE, zones.zones, local_zone=LOCAL, nodes=NodeSettings(dialer=dialer))
        )
        await fill(cache, KEYS)
        watch = await stack.enter_async_context(watching())
        scene = Scene(zones, variant, watch, Counters(zones.zones), dialer)
        while True:
            async with load(cache, KEYS, rate) as offering:
                healthy = await healthy_figures(offering, seconds or HEALTHY_SECONDS)
                if healthy is not None:
                    figures = await outage(scene, offering, seconds or FAULT_SECONDS)
                    break
            rate //= 2
            if rate < LEAST_RATE:
                raise SystemExit(
                    f"this machine is too slow, or too busy: reads fail with all zones up, at {rate * 2} a second"
                )
        # Only now, without load: it must not answer any.
        return {"rate": rate} | healthy | figures | await in_vain(scene)


async def healthy_figures(offering: Load, seconds: float) -> dict[str, object] | None:
    """What this rate takes while all zones are up; None when that is too much."""
    await asyncio.sleep(CONNECT_SECONDS)
    begin = Moment(offering)
    await asyncio.sleep(seconds)
    end = Moment(offering)
    share = (end.cpu - begin.cpu) / (end.at - begin.at)
    failed = offering.reads.counts(begin.at, end.at)[FAILED]
    if failed or offering.shed or share > BUSY_SHARE:
        return None
    took = [read.took for read in offering.reads.ended(begin.at, end.at)]
    return {"CPU share, healthy": share, "p99, healthy, ms": percentile(took, 99) * 1e3}


async def outage(scene: Scene, offering: Load, seconds: float) -> dict[str, object]:
    """The fault, under load, and what it comes to."""
    zones, variant, watch = scene.zones, scene.variant, scene.watch
    rss_before = rss_mib()
    watch.reset()
    offering.in_flight_peak = 0
    ordered = time.perf_counter()
    changes = [(zones.kill, zone) for zone in variant.killed] + [(zones.pause, zone) for zone in variant.paused]
    await asyncio.gather(*(asyncio.to_thread(change, zone) for change, zone in changes))
    attempts, requests, begin = scene.attempts(), await scene.requests(variant.up), Moment(offering)
    await asyncio.sleep(seconds)
    attempts_then, requests_then, end = scene.attempts(), await scene.requests(variant.up), Moment(offering)
    length = end.at - begin.at
    made = end.offered - end.shed - begin.offered + begin.shed
    came = offering.reads.counts(begin.at, end.at)
    took = [read.took for read in offering.reads.ended(begin.at, end.at)]
    received = {zone: requests_then[zone] - requests[zone] for zone in variant.up}
    return {
        "fault ordered to done, ms": (begin.at - ordered) * 1e3,
        "really offered, reads/s": (end.offered - begin.offered) / length,
        "not offered": end.not_offered - begin.not_offered,
        "shed": end.shed - begin.shed,
        "failed while the fault came": offering.reads.counts(ordered, begin.at)[FAILED],
        "failed reads": came[FAILED],
        "missing reads": came[MISSING],
        "wrong values": came[WRONG],
        "failed as": ", ".join(f"{name} {count:,}" for name, count in offering.reads.errors.items()) or None,
        "p50, ms": percentile(took, 50) * 1e3,
        "p99, ms": percentile(took, 99) * 1e3,
        **{f"requests at {zone}/s": received[zone] / length if zone in received else None for zone in OTHERS},
        "requests / reads made": sum(received.values()) / made if received else None,
        **{f"connections to {zone}": attempts_then[zone] - attempts[zone] for zone in (LOCAL, *OTHERS)},
        "CPU share": (end.cpu - begin.cpu) / length,
        "longest stall of the loop, ms": watch.longest_stall(ordered, end.at) * 1e3,
        "RSS before, MiB": rss_before,
        "RSS peak / before": watch.rss_peak / rss_before,
        "in flight, peak": offering.in_flight_peak,
        "tasks, peak": watch.tasks_peak,
    }


async def in_vain(scene: Scene) -> dict[str, object]:
    """What was sent to zones that were paused. They had no requests before, as reads were local."""
    figures: dict[str, object] = {}
    for zone in scene.variant.paused:
        await asyncio.to_thread(scene.zones.resume, zone)
        await asyncio.sleep(CATCH_UP_SECONDS)
        figures[f"sent to {zone} in vain"] = (await scene.requests((zone,)))[zone]
    return figures
