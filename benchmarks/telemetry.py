"""Cost of telemetry: calls per second of clients that differ only in their telemetry.

All clients take turns in one process, 0.01 s each, hundreds of times, each time in another order. Each turn is compared with
the turn of the client without telemetry in the same round. The report gives the median, because the speed of the machine
changes within a second by more than most costs. The client without telemetry takes part twice: the distance of its second
row from 1 is the error of the other rows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import gc
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from benchmarks.servers import memcached_nodes
from evcache import EVCache, NearCache, Telemetry

ZONES = 3
CALLERS = 32
VALUE = b"v" * 100
KEYS = [f"key-{number}" for number in range(100)]
TURN_SECONDS = 0.01
TRIAL_CALLS = 2  # of each caller, to estimate the calls of a turn
LEAD_SECONDS = 3.0  # until the clients have estimated their rate, and record a part of the durations
NEAR_HITS = 10  # between two turns of other callers, because a near hit does not suspend
SEED = 1
BASE, AGAIN = "None", "None, again"


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # the SDK's signature
        return SpanExportResult.SUCCESS


def unsampled() -> TracerProvider:
    return TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)


def sampled() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider


def meters() -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def parent(flags: int) -> trace.Span:
    """Return a span like that of a service, as the parent of calls."""
    return trace.NonRecordingSpan(
        trace.SpanContext(0x5EED << 64, 0x5EED, is_remote=False, trace_flags=trace.TraceFlags(flags))
    )


@dataclass(frozen=True)
class Setting:
    name: str
    telemetry: Callable[[], Telemetry | None]
    parent: int | None = None
    """Trace flags of the parent span. If None, calls have no parent, and the sampler decides."""


SETTINGS = (
    Setting(BASE, lambda: None),
    Setting(AGAIN, lambda: None),
    Setting("no SDK", Telemetry),
    Setting("metrics alone", lambda: Telemetry(traces=False, meter_provider=meters())),
    Setting("unsampled parent", lambda: Telemetry(tracer_provider=sampled(), meter_provider=meters()), 0),
    Setting("sampler takes nothing", lambda: Telemetry(tracer_provider=unsampled(), meter_provider=meters())),
    Setting(
        "every duration",
        lambda: Telemetry(tracer_provider=sampled(), meter_provider=meters(), durations_per_second=None),
        0,
    ),
    Setting("everything sampled", lambda: Telemetry(tracer_provider=sampled(), meter_provider=meters()), 1),
)


@dataclass
class Contender:
    setting: Setting
    cache: EVCache
    near: EVCache


def shared(telemetry: Telemetry | None, clients: int) -> Telemetry | None:
    """Return settings with a share of the recorded durations, so that each client records as many as one that runs alone."""
    if telemetry is None or telemetry.durations_per_second is None:
        return telemetry
    return replace(telemetry, durations_per_second=max(1, telemetry.durations_per_second // clients))


@asynccontextmanager
async def contenders(ports: list[int], names: list[str]) -> AsyncIterator[list[Contender]]:
    settings = [one for one in SETTINGS if one.name in (BASE, *names)]
    zones = {f"zone-{number}": [f"127.0.0.1:{port}"] for number, port in enumerate(ports)}
    async with AsyncExitStack() as stack:

        async def opened(setting: Setting, *, near: bool) -> EVCache:
            cache = await stack.enter_async_context(
                EVCache(
                    "benchmark",
                    zones,
                    local_zone="zone-0",
                    read_timeout=10,  # a busy machine must not fail the benchmark
                    write_timeout=10,
                    near_cache=NearCache(ttl=3600) if near else None,
                    telemetry=shared(setting.telemetry(), len(settings)),
                )
            )
            await cache.set_many(dict.fromkeys(KEYS, VALUE), ttl=3600, consistency="all")
            await cache.get(KEYS[0])
            return cache

        yield [Contender(one, await opened(one, near=False), await opened(one, near=True)) for one in settings]


async def near_hits(cache: EVCache) -> None:
    for _ in range(NEAR_HITS):
        await cache.get(KEYS[0])
    await asyncio.sleep(0)


@dataclass(frozen=True)
class Work:
    call: Callable[[Contender], Awaitable[object]]
    operations: int = 1
    """Operations of each call."""


WORK = {
    "get": Work(lambda one: one.cache.get(KEYS[0])),
    "set to 3 zones": Work(lambda one: one.cache.set(KEYS[0], VALUE, consistency="all")),
    "near hit": Work(lambda one: near_hits(one.near), NEAR_HITS),
    "get_many of 100": Work(lambda one: one.cache.get_many(KEYS)),
}


@dataclass(frozen=True)
class Turn:
    """Time of each operation in seconds."""

    clock: float
    cpu: float
    """CPU time of the thread of the event loop, without those of exporters."""


async def turn(work: Work, contender: Contender, calls: int) -> Turn:
    """Make `calls` calls from each caller, one after the other."""

    async def caller() -> None:
        for _ in range(calls):
            await work.call(contender)

    around = contextvars.copy_context()
    if contender.setting.parent is not None:
        around.run(context.attach, trace.set_span_in_context(parent(contender.setting.parent)))
    cpu, began = time.thread_time(), time.perf_counter()
    await asyncio.gather(*(around.run(asyncio.create_task, caller()) for _ in range(CALLERS)))
    done = calls * CALLERS * work.operations
    return Turn((time.perf_counter() - began) / done, (time.thread_time() - cpu) / done)


@dataclass(frozen=True)
class Row:
    work: str
    setting: str
    per_second: float
    cpu: float
    ratio: float
    """Calls per second, relative to the client without telemetry."""
    cpu_ratio: float
    """Calls per second of CPU time, relative to the client without telemetry."""
    quartiles: tuple[float, float]
    """Quartiles of `cpu_ratio` over the rounds."""


async def calls_of_a_turn(work: Work, contender: Contender) -> int:
    trials = [await turn(work, contender, TRIAL_CALLS) for _ in range(3)]
    return max(1, round(TURN_SECONDS / (trials[-1].clock * CALLERS * work.operations)))


async def measure(clients: list[Contender], works: list[str], seconds: float) -> list[Row]:
    rows: list[Row] = []
    chance = random.Random(SEED)
    gc.collect()
    gc.freeze()
    for name in works:
        work = WORK[name]
        calls = {one.setting.name: await calls_of_a_turn(work, one) for one in clients}
        taken: dict[str, list[Turn]] = {one.setting.name: [] for one in clients}
        began = time.perf_counter()
        while (now := time.perf_counter() - began) < LEAD_SECONDS + seconds:
            for one in chance.sample(clients, len(clients)):  # an expensive client leaves cold caches
                found = await turn(work, one, calls[one.setting.name])
                if now > LEAD_SECONDS:
                    taken[one.setting.name].append(found)
        rows += [row(name, setting, turns, taken[BASE]) for setting, turns in taken.items()]
        print(table(rows[-len(clients) :]), flush=True)
    return rows


def row(work: str, setting: str, turns: list[Turn], base: list[Turn]) -> Row:
    cpu = sorted(without.cpu / one.cpu for one, without in zip(turns, base, strict=True))
    return Row(
        work,
        setting,
        1 / statistics.median(one.clock for one in turns),
        statistics.median(one.cpu for one in turns),
        statistics.median(without.clock / one.clock for one, without in zip(turns, base, strict=True)),
        statistics.median(cpu),
        (cpu[len(cpu) // 4], cpu[-1 - len(cpu) // 4]),
    )


def table(rows: list[Row]) -> str:
    lines = [f"\n{rows[0].work:<26}{'a second':>10}{'us of CPU':>11}{'ratio':>8}{'of CPU':>8}   quartiles"]
    lines += [
        f"    {one.setting:<22}{one.per_second:10,.0f}{one.cpu * 1e6:11.2f}{one.ratio:8.2f}{one.cpu_ratio:8.2f}"
        f"   {one.quartiles[0]:.2f} to {one.quartiles[1]:.2f}"
        for one in rows
    ]
    return "\n".join(lines)


async def run(works: list[str], names: list[str], seconds: float) -> list[Row]:
    with memcached_nodes(ZONES) as (ports, servers):
        print(f"{ZONES} zones of one node: {servers}; {CALLERS} callers, values of {len(VALUE)} bytes")
        async with contenders(ports, names) as clients:
            return await measure(clients, works, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.telemetry", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    names = [one.name for one in SETTINGS]
    parser.add_argument("--seconds", type=float, default=40.0, help="seconds for each kind of work, for all clients")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--settings", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, help="file for the rows, as JSON")
    options = parser.parse_args()
    # The SDK drops spans that arrive faster than exporters accept them, and logs each time.
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
    rows = asyncio.run(run(options.work, options.settings, options.seconds))
    if options.json is not None:
        options.json.write_text(json.dumps([vars(one) for one in rows], indent=2))
    sys.stdout.flush()
    os._exit(0)  # a normal exit would wait for the threads of exporters


if __name__ == "__main__":
    main()
