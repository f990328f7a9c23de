"""What telemetry costs: calls per second of clients that differ in nothing but what they tell OpenTelemetry.

All take turns in one process, round after round, each time in another order, and each is compared with the client without
telemetry of the same round: the machine's mood changes more from round to round than most of what is measured. That client
takes part twice; how far its second row is from 1 is how far the others can be trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import json
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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
# Until a client knows how many calls it has to expect, and records the duration of some: in the first second of all.
LEAD_SECONDS = 2.0
NEAR_HITS = 100  # between two moments in which other callers get their turn: a near hit itself waits for nothing
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
    """What a service's own span looks like to the calls below it."""
    return trace.NonRecordingSpan(
        trace.SpanContext(0x5EED << 64, 0x5EED, is_remote=False, trace_flags=trace.TraceFlags(flags))
    )


@dataclass(frozen=True)
class Setting:
    name: str
    telemetry: Callable[[], Telemetry | None]
    parent: int | None = None
    """Trace flags of the span in which calls are made; None: there is none, and the client's own sampler decides."""


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


@asynccontextmanager
async def contenders(ports: list[int], names: list[str]) -> AsyncIterator[list[Contender]]:
    zones = {f"zone-{number}": [f"127.0.0.1:{port}"] for number, port in enumerate(ports)}
    async with AsyncExitStack() as stack:

        async def opened(setting: Setting, *, near: bool) -> EVCache:
            cache = await stack.enter_async_context(
                EVCache(
                    "benchmark",
                    zones,
                    local_zone="zone-0",
                    read_timeout=10,  # a benchmark that fails on a busy machine tells nothing
                    write_timeout=10,
                    near_cache=NearCache(ttl=3600) if near else None,
                    telemetry=setting.telemetry(),
                )
            )
            await cache.set_many(dict.fromkeys(KEYS, VALUE), ttl=3600, consistency="all")
            await cache.get(KEYS[0])
            return cache

        yield [
            Contender(one, await opened(one, near=False), await opened(one, near=True))
            for one in SETTINGS
            if one.name in (BASE, *names)
        ]


async def near_hits(cache: EVCache) -> None:
    for _ in range(NEAR_HITS):
        await cache.get(KEYS[0])
    await asyncio.sleep(0)


@dataclass(frozen=True)
class Work:
    call: Callable[[Contender], Awaitable[object]]
    operations: int = 1
    """In each call."""


WORK = {
    "get": Work(lambda one: one.cache.get(KEYS[0])),
    "set to 3 zones": Work(lambda one: one.cache.set(KEYS[0], VALUE, consistency="all")),
    "near hit": Work(lambda one: near_hits(one.near), NEAR_HITS),
    "get_many of 100": Work(lambda one: one.cache.get_many(KEYS)),
}


@dataclass(frozen=True)
class Rate:
    per_second: float
    cpu: float
    """Seconds of this process for each: what is exported by threads is in it."""


async def rate(work: Work, contender: Contender, seconds: float, lead: float) -> Rate:
    done, running = 0, True

    async def caller() -> None:
        nonlocal done
        while running:
            await work.call(contender)
            done += work.operations

    around = contextvars.copy_context()
    if contender.setting.parent is not None:
        around.run(context.attach, trace.set_span_in_context(parent(contender.setting.parent)))
    tasks = [around.run(asyncio.create_task, caller()) for _ in range(CALLERS)]
    await asyncio.sleep(lead)
    done, cpu, began = 0, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    running = False
    await asyncio.gather(*tasks)
    return Rate(done / (time.perf_counter() - began), (time.process_time() - cpu) / done)


@dataclass(frozen=True)
class Row:
    work: str
    setting: str
    per_second: float
    cpu: float
    ratio: float
    """Calls per second, as a part of those without telemetry."""
    cpu_ratio: float
    """The same, of calls per second of CPU."""
    quartiles: tuple[float, float]
    """Of `cpu_ratio`, from round to round."""


async def measure(clients: list[Contender], works: list[str], seconds: float, rounds: int, lead: float) -> list[Row]:
    rows = []
    for name in works:
        taken: dict[str, list[Rate]] = {one.setting.name: [] for one in clients}
        for number in range(rounds):
            turn = number % len(clients)
            for one in clients[turn:] + clients[:turn]:
                taken[one.setting.name].append(await rate(WORK[name], one, seconds, lead))
        rows += [row(name, setting, rates, taken[BASE]) for setting, rates in taken.items()]
        print(table(rows[-len(clients) :]), flush=True)
    return rows


def row(work: str, setting: str, rates: list[Rate], base: list[Rate]) -> Row:
    cpu = sorted(without.cpu / one.cpu for one, without in zip(rates, base, strict=True))
    return Row(
        work,
        setting,
        statistics.median(one.per_second for one in rates),
        statistics.median(one.cpu for one in rates),
        statistics.median(one.per_second / without.per_second for one, without in zip(rates, base, strict=True)),
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


async def run(works: list[str], names: list[str], seconds: float, rounds: int, lead: float) -> list[Row]:
    with memcached_nodes(ZONES) as (ports, servers):
        print(f"{ZONES} zones of one node: {servers}; {CALLERS} callers, values of {len(VALUE)} bytes, {rounds} rounds")
        async with contenders(ports, names) as clients:
            return await measure(clients, works, seconds, rounds, lead)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.telemetry", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round of one client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--lead", type=float, default=LEAD_SECONDS, help="seconds before each round; 0: bursts after a pause"
    )
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument(
        "--settings", nargs="+", choices=[one.name for one in SETTINGS], default=[one.name for one in SETTINGS]
    )
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    options = parser.parse_args()
    # Spans come faster than any exporter takes them: the SDK drops some, as it would in a service, and says so each time.
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
    rows = asyncio.run(run(options.work, options.settings, options.seconds, options.rounds, options.lead))
    if options.json is not None:
        options.json.write_text(json.dumps([vars(one) for one in rows], indent=2))
    os._exit(0)  # exporters' threads would first be waited for


if __name__ == "__main__":
    main()
