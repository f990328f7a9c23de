"""When telemetry is on, and that whatever becomes of it, no call notices."""

import asyncio
import inspect
import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from evcache import CacheUnavailable, Hooks, InvalidArgument, LoadPolicy, NearCache, Telemetry, WriteResult
from evcache.telemetry import LOOK_SECONDS, OPERATIONS, spans
from tests.support.memory_zones import MemoryZones, on_zones, pass_time
from tests.support.sources import Source
from tests.support.telemetry import Bench
from tests.support.virtual_time import settle

ROOT = Path(__file__).parents[3]


def is_observed(cache):
    """Whether any operation of this client is another one than its class has."""
    return any(name in vars(cache) for name in OPERATIONS)


async def use(cache):
    """Calls of every kind, some of them in vain; what came of each."""
    source, failing = Source("loaded"), Source(error=LookupError("no"))
    calls = [
        lambda: cache.set("k", 1),
        lambda: cache.get("k"),
        lambda: cache.get("nothing"),
        lambda: cache.get_many(["k", "nothing"]),
        lambda: cache.set_many({"l": 2, "m": 3}),
        lambda: cache.get_and_touch("l", 50),
        lambda: cache.add("k", 1),
        lambda: cache.incr("n", initial=1),
        lambda: cache.touch("k", 60),
        lambda: cache.get_or_load("x", source.load),
        lambda: cache.get_or_load("x", source.load),
        lambda: cache.get_or_load("y", failing.load),
        lambda: cache.get_or_load_many(["x", "z"], source.load_many),
        lambda: cache.write_through("w", 1, source.write),
        lambda: cache.invalidate("w", stale_while_revalidate=5),
        lambda: cache.delete("k"),
        lambda: cache.delete_many(["l", "m"]),
        lambda: cache.get("k", timeout=-1),
        lambda: cache.get("bad key"),
        lambda: cache.get_many("k"),
    ]
    results = []
    for make in calls:
        try:
            result = await make()
        except Exception as error:
            result = repr(error)
        results.append(without_version(result))
    return results


async def without_telemetry():
    zones = MemoryZones(2)
    results = await use(await zones.ready(telemetry=None))
    await zones.close_clients()
    return results


def without_version(result):
    if isinstance(result, dict):
        return {name: without_version(one) for name, one in result.items()}
    return (result.met, result.zones) if isinstance(result, WriteResult) else result


async def go_through(zones, cache):
    """The same, and through what goes on in the background: a refresh, a repair, a delivery, and no zone at all."""
    results = [await use(cache)]
    policy = LoadPolicy(jitter=0)
    source = Source("old")
    await cache.get_or_load("due", source.load, ttl=100, policy=policy)
    await pass_time(81)
    source.value = "new"
    results.append(await cache.get_or_load("due", source.load, ttl=100, policy=policy))
    await pass_time()
    results.append(await cache.get_or_load("due", source.load, ttl=100, policy=policy))
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "a")
    results.append(await cache.get("k"))
    await pass_time()
    results.append(zones.values("k"))
    await zones.kill("b")
    await cache.set("k", 2, consistency="one")
    zones.restart("b")
    await pass_time(20)
    results.append(zones.values("k"))
    await zones.kill("a", "b")
    results.append(await cache.get("k", "default", errors="miss"))
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    reading = asyncio.ensure_future(cache.get_or_load("slow", Source(seconds=60).load))
    await settle()
    reading.cancel()
    results.append(type((await asyncio.gather(reading, return_exceptions=True))[0]))
    return results


EXPECTED = ["old", "new", 1, {"a": 1, "b": 1}, {"a": 2, "b": 2}, "default", asyncio.CancelledError]


# On, and off.


@pytest.mark.parametrize(
    ("name", "value"),
    [("keys", "plain"), ("keys", True), ("traces", None), ("metrics", 1), ("node_spans", "yes")]
    + [("durations_per_second", 0), ("durations_per_second", -1), ("durations_per_second", 1.5)],
)
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InvalidArgument) as caught:
        Telemetry(**{name: value})
    assert caught.value.argument == name


@pytest.mark.parametrize("value", [True, "on", Telemetry])
@on_zones(zones=1)
async def test_the_argument_is_settings_or_none(zones, value):
    with pytest.raises(InvalidArgument) as caught:
        zones.client(telemetry=value)
    assert caught.value.argument == "telemetry"


@pytest.mark.parametrize(
    "settings", [None, Telemetry(), Telemetry(traces=False, metrics=False)], ids=["none", "no SDK", "nothing wanted"]
)
@on_zones(zones=2)
async def test_without_an_sdk_the_operations_are_the_very_same(zones, settings):
    cache = await zones.ready(telemetry=settings)
    await pass_time(10)
    assert not is_observed(cache)
    assert not cache._runtime.hooks.of_reads
    assert cache._runtime.hooks.cause is None


@on_zones(zones=2)
async def test_an_sdk_that_is_disabled_is_none(zones, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    await pass_time(10)
    assert not is_observed(cache)
    assert (await use(cache))[1] == 1
    assert bench.take() == []


@on_zones(zones=2)
async def test_operations_look_as_they_did(zones):
    """To whoever reads their signatures, names and docs, or awaits what they return."""
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    assert is_observed(cache)
    for name in OPERATIONS:
        observed, plain = getattr(cache, name), getattr(type(cache), name)
        assert inspect.iscoroutinefunction(observed)
        assert (observed.__name__, observed.__doc__) == (plain.__name__, plain.__doc__)
        assert inspect.signature(observed) == inspect.signature(plain.__get__(cache))
    assert await cache.get(key="k", default=5) == 5


def test_all_that_awaits_a_server_is_observed():
    """A new operation is not forgotten."""
    from evcache import EVCache  # noqa: PLC0415

    public = {
        name
        for name, method in inspect.getmembers(EVCache, asyncio.iscoroutinefunction)
        if not name.startswith("_") and name != "close"
    }
    assert public == set(OPERATIONS)


@pytest.mark.parametrize("late", ["both", "traces", "metrics"])
@on_zones(zones=2)
async def test_an_sdk_that_is_installed_later_is_found(zones, late, monkeypatch):
    """By clients that have been made, and used, before: within seconds. What is not there yet keeps nobody waiting."""
    bench = Bench()
    if late in ("both", "traces"):
        there = [trace.ProxyTracerProvider()]
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: there[0])
    else:
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: bench.tracer_provider)
    meters = [metrics.get_meter_provider() if late in ("both", "metrics") else bench.meter_provider]
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters[0])
    cache = await zones.ready(telemetry=Telemetry())
    await cache.get("k")
    assert bool(bench.take()) == (late == "metrics")
    assert ("evcache.reads" in bench.metrics()) == (late == "traces")
    await pass_time(100)
    if late in ("both", "traces"):
        there[0] = bench.tracer_provider
    meters[0] = bench.meter_provider
    await pass_time(2 * LOOK_SECONDS)
    await cache.get("k")
    assert [seen.name for seen in bench.take()] == ["get t"]
    assert ("miss", "none") in bench.points("evcache.reads")
    assert (
        cache._runtime.activation._timer is None
        or cache._runtime.activation._timer.when() < asyncio.get_running_loop().time()
    )


@on_zones(zones=2)
async def test_a_client_that_is_closed_does_not_look_any_more(zones, monkeypatch):
    looks = []
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: looks.append(1) or trace.ProxyTracerProvider())
    cache = await zones.ready(telemetry=Telemetry())
    await pass_time(10)
    assert 5 < len(looks) < 20
    await cache.close()
    before = len(looks)
    await pass_time(10)
    assert len(looks) == before


# In processes of their own: what an interpreter has installed can't be taken back.


def in_a_process(body, **environment):
    """Run it under virtual time, with `zones`, in a fresh interpreter; what it printed."""
    code = """
import asyncio, sys
{before}
from tests.support.memory_zones import on_zones, pass_time
from evcache import EVCache

@on_zones(zones=2)
async def main(zones):
{body}
main()
"""
    before, _, rest = body.rpartition("---\n")
    code = code.format(before=textwrap.dedent(before), body=textwrap.indent(textwrap.dedent(rest), "    "))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_sdk_is_needed():
    """Nor looked for: it is imported by nobody but the service."""
    said = in_a_process("""
        class Forbidden:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.semconv")):
                    raise ImportError(name)

        sys.meta_path.insert(0, Forbidden())
        ---
        cache = await zones.ready()
        await cache.set("k", 1)
        await pass_time(5)
        print(await cache.get("k"), "get" in vars(cache))
    """)
    assert said == ["1", "False"]


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"])
def test_an_sdk_that_is_named_and_not_there_disturbs_nobody(variable):
    """The API raises each time that it is asked for it."""
    said = in_a_process(
        """
        cache = await zones.ready()
        await cache.set("k", 1)
        await pass_time(5)
        print(await cache.get("k"))
        """,
        **{variable: "there_is_no_such_provider"},
    )
    assert said == ["1"]


def test_the_providers_of_the_process_are_found():
    """Also when they are installed while the client is used."""
    said = in_a_process("""
        cache = await zones.ready()
        await cache.set("k", 1)
        from opentelemetry import metrics, trace
        from tests.support.telemetry import Bench
        bench = Bench()
        trace.set_tracer_provider(bench.tracer_provider)
        metrics.set_meter_provider(bench.meter_provider)
        await cache.get("k")
        print(len(bench.take()))
        await pass_time(2)
        await cache.get("k")
        print(*[seen.name for seen in bench.take()], *bench.points("evcache.reads").values())
    """)
    assert said == ["0", "get", "t", "1"]


# What raises.


class Raises(Exception):
    """What the SDK of this page does."""


def fail(*_, **__):
    raise Raises


class BrokenSpan(trace.Span):
    """A span of which nothing works but that it records."""

    end = get_span_context = set_attributes = set_attribute = add_event = update_name = set_status = record_exception = fail

    def is_recording(self):
        return True


class DeafSpan(BrokenSpan):
    """The same, of which not even that works."""

    is_recording = fail


class BrokenTracer(trace.Tracer):
    def __init__(self, start_span):
        self._start_span = start_span

    def start_span(self, *_, **__):
        return self._start_span()

    start_as_current_span = fail


class GivesTracer(trace.TracerProvider):
    def __init__(self, get_tracer):
        self._get_tracer = get_tracer

    def get_tracer(self, *_, **__):
        return self._get_tracer()


class BrokenProcessor(SpanProcessor):
    def __init__(self, *methods):
        for name in methods:
            setattr(self, name, fail)


class BrokenExporter(SpanExporter):
    export = fail


class BrokenSampler(Sampler):
    should_sample = fail

    def get_description(self):
        return "broken"


def with_processor(processor):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


TRACERS = {
    "a provider": lambda: GivesTracer(fail),
    "a tracer": lambda: GivesTracer(lambda: BrokenTracer(fail)),
    "no span": lambda: GivesTracer(lambda: BrokenTracer(lambda: None)),
    "spans": lambda: GivesTracer(lambda: BrokenTracer(BrokenSpan)),
    "deaf spans": lambda: GivesTracer(lambda: BrokenTracer(DeafSpan)),
    "a sampler": lambda: TracerProvider(BrokenSampler(), shutdown_on_exit=False),
    "a processor, at the start": lambda: with_processor(BrokenProcessor("on_start")),
    "a processor, at the end": lambda: with_processor(BrokenProcessor("on_end", "_on_ending")),
    "an exporter": lambda: with_processor(SimpleSpanProcessor(BrokenExporter())),
}


@pytest.mark.parametrize("node_spans", [False, True])
@pytest.mark.parametrize("broken", TRACERS)
@on_zones(zones=2)
async def test_a_tracer_that_raises_disturbs_no_call(zones, broken, node_spans, monkeypatch, caplog):
    """Nor what goes on in the background. It is said once by this package, whatever the SDK says."""
    monkeypatch.setattr(spans, "_said", False)
    plain = await without_telemetry()
    settings = Telemetry(tracer_provider=TRACERS[broken](), metrics=False, node_spans=node_spans)
    cache = await zones.ready(telemetry=settings)
    assert await go_through(zones, cache) == [plain, *EXPECTED]
    said = [record for record in caplog.records if record.name == "evcache.telemetry"]
    assert len(said) == (broken != "an exporter")
    assert len([record for record in caplog.records if record.name == "evcache.zones.transport"]) <= 1
    assert "OpenTelemetry" in caplog.text or broken == "an exporter"


class BrokenMeter(metrics.NoOpMeter):
    """Gives instruments that raise, or does itself."""

    def __init__(self, *, makes):
        super().__init__("broken")
        self._makes = makes

    def create_histogram(self, *args, **options):
        if not self._makes:
            raise Raises
        histogram = metrics.NoOpHistogram("broken")
        histogram.record = fail
        return histogram


class GivesMeter:
    def __init__(self, get_meter):
        self.get_meter = get_meter


class Unhashable(GivesMeter):
    __hash__ = None


def wrapping(meter):
    """Not taken for the API's own."""

    class Meter:
        def __getattr__(self, name):
            return getattr(meter, name)

    return Meter()


METERS = {
    "a provider": lambda: GivesMeter(fail),
    "a meter": lambda: GivesMeter(lambda *_: wrapping(BrokenMeter(makes=False))),
    "instruments": lambda: GivesMeter(lambda *_: wrapping(BrokenMeter(makes=True))),
    "a provider that can't be a key": lambda: Unhashable(lambda *_: wrapping(BrokenMeter(makes=True))),
}


@pytest.mark.parametrize("broken", METERS)
@on_zones(zones=2)
async def test_a_meter_that_raises_disturbs_no_call(zones, broken, monkeypatch, caplog):
    monkeypatch.setattr(spans, "_said", False)
    plain = await without_telemetry()
    bench = Bench()
    cache = await zones.ready(telemetry=Telemetry(tracer_provider=bench.tracer_provider, meter_provider=METERS[broken]()))
    assert await go_through(zones, cache) == [plain, *EXPECTED]
    assert len([record for record in caplog.records if record.name == "evcache.telemetry"]) == 1
    assert bench.take(), "the traces are there all the same"


class Unspeakable(Exception):
    def __str__(self):
        raise Raises


@pytest.mark.parametrize("keys", ["none", "clear"])
@on_zones(zones=2)
async def test_an_error_that_can_not_be_shown_reaches_its_caller(zones, keys, monkeypatch):
    """And its span ends."""
    monkeypatch.setattr(spans, "_said", False)
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings(keys=keys))
    bench.take()
    with pytest.raises(Unspeakable):
        await cache.get_or_load("k", Source(error=Unspeakable()).load)
    assert bench.one().attributes["error.type"] == "Unspeakable"


class BrokenHooks(Hooks):
    def __init__(self):
        self.heard = []

    def read(self, key, zone, source, *, hit):
        self.heard.append("read")
        raise Raises

    def zone_wrote(self, zone, outcome, *, late):
        self.heard.append("zone_wrote")
        raise Raises


@on_zones(zones=2)
async def test_a_hook_that_raises_takes_nobody_with_it(zones, caplog):
    """It is logged once and told nothing more; the spans and numbers of the same call are there."""
    caplog.set_level(logging.ERROR, "evcache")
    bench, hooks = Bench(ALWAYS_ON), BrokenHooks()
    cache = await zones.ready(telemetry=bench.settings(), hooks=hooks, near_cache=NearCache())
    caplog.clear()
    hooks.heard.clear()
    cache._runtime.hooks.add(hooks)
    bench.take()
    await cache.set("k", 1)
    for _ in range(3):
        await cache.get("nothing")
    assert hooks.heard == ["zone_wrote"]
    (record,) = caplog.records
    assert record.name == "evcache.hooks"
    assert [seen.name for seen in bench.take()] == ["set t", "get t", "get t", "get t"]
    assert bench.points("evcache.reads")["miss", "none"] == 3
