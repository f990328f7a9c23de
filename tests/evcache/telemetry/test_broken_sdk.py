"""Exceptions of an SDK, an exporter or a hook do not affect calls."""

import logging

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from evcache import Hooks, NearCache, Telemetry
from evcache.telemetry import spans
from tests.support.memory_zones import on_zones
from tests.support.sources import Source
from tests.support.telemetry import Bench
from tests.support.telemetry_calls import EXPECTED, go_through, without_telemetry


class SdkError(Exception):
    """Exception of the broken SDKs below."""


def fail(*_, **__):
    raise SdkError


class BrokenSpan(trace.Span):
    """A recording span whose other methods raise."""

    end = get_span_context = set_attributes = set_attribute = add_event = update_name = set_status = record_exception = fail

    def is_recording(self):
        return True


class UselessSpan(BrokenSpan):
    """A span whose methods all raise."""

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
    "spans that raise always": lambda: GivesTracer(lambda: BrokenTracer(UselessSpan)),
    "a sampler": lambda: TracerProvider(BrokenSampler(), shutdown_on_exit=False),
    "a processor, at the start": lambda: with_processor(BrokenProcessor("on_start")),
    "a processor, at the end": lambda: with_processor(BrokenProcessor("on_end", "_on_ending")),
    "an exporter": lambda: with_processor(SimpleSpanProcessor(BrokenExporter())),
}


@pytest.mark.parametrize("node_spans", [False, True])
@pytest.mark.parametrize("broken", TRACERS)
@on_zones(zones=2)
async def test_tracer_that_raises_affects_no_call(zones, broken, node_spans, monkeypatch, caplog):
    """Background work is not affected either. This package logs the failure once."""
    monkeypatch.setattr(spans, "_failure_logged", False)
    plain = await without_telemetry()
    settings = Telemetry(tracer_provider=TRACERS[broken](), metrics=False, node_spans=node_spans)
    cache = await zones.ready(telemetry=settings)
    assert await go_through(zones, cache) == [plain, *EXPECTED]
    logged = [record for record in caplog.records if record.name == "evcache.telemetry"]
    assert len(logged) == (broken != "an exporter")
    assert len([record for record in caplog.records if record.name == "evcache.zones.transport"]) <= 1
    assert "OpenTelemetry" in caplog.text or broken == "an exporter"


class BrokenMeter(metrics.NoOpMeter):
    """A meter that raises, or whose instruments raise."""

    def __init__(self, *, makes):
        super().__init__("broken")
        self._makes = makes

    def create_histogram(self, *args, **options):
        if not self._makes:
            raise SdkError
        histogram = metrics.NoOpHistogram("broken")
        histogram.record = fail
        return histogram


class GivesMeter:
    def __init__(self, get_meter):
        self.get_meter = get_meter


class Unhashable(GivesMeter):
    __hash__ = None


def wrapping(meter):
    """Wrap a meter, so that it is not taken for a placeholder of the API."""

    class Meter:
        def __getattr__(self, name):
            return getattr(meter, name)

    return Meter()


METERS = {
    "a provider": lambda: GivesMeter(fail),
    "a meter": lambda: GivesMeter(lambda *_: wrapping(BrokenMeter(makes=False))),
    "instruments": lambda: GivesMeter(lambda *_: wrapping(BrokenMeter(makes=True))),
    "a provider that is not hashable": lambda: Unhashable(lambda *_: wrapping(BrokenMeter(makes=True))),
}


@pytest.mark.parametrize("broken", METERS)
@on_zones(zones=2)
async def test_meter_that_raises_affects_no_call(zones, broken, monkeypatch, caplog):
    monkeypatch.setattr(spans, "_failure_logged", False)
    plain = await without_telemetry()
    bench = Bench()
    cache = await zones.ready(telemetry=Telemetry(tracer_provider=bench.tracer_provider, meter_provider=METERS[broken]()))
    assert await go_through(zones, cache) == [plain, *EXPECTED]
    assert len([record for record in caplog.records if record.name == "evcache.telemetry"]) == 1
    assert bench.take(), "traces are active"


class TextlessError(Exception):
    def __str__(self):
        raise SdkError


@pytest.mark.parametrize("keys", ["none", "clear"])
@on_zones(zones=2)
async def test_error_without_a_text_reaches_its_caller(zones, keys, monkeypatch):
    """Its span ends too."""
    monkeypatch.setattr(spans, "_failure_logged", False)
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings(keys=keys))
    bench.take()
    with pytest.raises(TextlessError):
        await cache.get_or_load("k", Source(error=TextlessError()).load)
    assert bench.one().attributes["error.type"] == "TextlessError"


class BrokenHooks(Hooks):
    def __init__(self):
        self.received = []

    def read(self, key, zone, source, *, hit):
        self.received.append("read")
        raise SdkError

    def zone_wrote(self, zone, outcome, *, late):
        self.received.append("zone_wrote")
        raise SdkError


@on_zones(zones=2)
async def test_hook_that_raises_does_not_affect_telemetry(zones, caplog):
    """It is logged once and not called again. Spans and metrics of the call are complete."""
    caplog.set_level(logging.ERROR, "evcache")
    bench, hooks = Bench(ALWAYS_ON), BrokenHooks()
    cache = await zones.ready(telemetry=bench.settings(), hooks=hooks, near_cache=NearCache())
    caplog.clear()
    hooks.received.clear()
    cache._runtime.hooks.add(hooks)
    bench.take()
    await cache.set("k", 1)
    for _ in range(3):
        await cache.get("nothing")
    assert hooks.received == ["zone_wrote"]
    (record,) = caplog.records
    assert record.name == "evcache.hooks"
    assert [seen.name for seen in bench.take()] == ["set t", "get t", "get t", "get t"]
    assert bench.points("evcache.reads")["miss", "none", ""] == 3
