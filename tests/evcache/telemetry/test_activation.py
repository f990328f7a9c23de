"""Search for an SDK, and the seam through which calls are observed."""

import asyncio
import gc
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import pytest
from opentelemetry import metrics, trace

import evcache
from evcache import EVCache, InvalidArgument, Telemetry
from evcache.telemetry import LOOK_SECONDS, OPERATIONS
from evcache.telemetry.operations import CallInstrument
from tests.support.memory_zones import on_zones, pass_time
from tests.support.sources import Source
from tests.support.telemetry import Bench
from tests.support.telemetry_calls import use
from tests.support.virtual_time import settle

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "value"),
    [("keys", "plain"), ("keys", True), ("traces", None), ("metrics", 1), ("node_spans", "yes")]
    + [("durations_per_second", 0), ("durations_per_second", -1), ("durations_per_second", 1.5)],
)
def test_unusable_settings_are_refused(name, value):
    with pytest.raises(InvalidArgument) as caught:
        Telemetry(**{name: value})
    assert caught.value.argument == name


@pytest.mark.parametrize("value", [True, "on", Telemetry])
@on_zones(zones=1)
async def test_argument_telemetry_must_be_settings_or_none(zones, value):
    with pytest.raises(InvalidArgument) as caught:
        zones.client(telemetry=value)
    assert caught.value.argument == "telemetry"


@pytest.mark.parametrize(
    "settings", [None, Telemetry(), Telemetry(traces=False, metrics=False)], ids=["none", "no SDK", "nothing wanted"]
)
@on_zones(zones=2)
async def test_without_an_sdk_the_client_has_no_instrument(zones, settings):
    cache = await zones.ready(telemetry=settings)
    await cache.get("k")
    assert cache._instrument is None
    await pass_time(10)
    await cache.get("k")  # searches for an SDK again
    assert cache._instrument is None
    assert not cache._runtime.hooks.of_reads
    assert cache._runtime.hooks.cause is None


@on_zones(zones=2)
async def test_disabled_sdk_counts_as_none(zones, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    await pass_time(10)
    assert (await use(cache))[1] == 1
    assert cache._instrument is None
    assert bench.take() == []


@on_zones(zones=2)
async def test_operations_are_those_of_the_class(zones):
    """An SDK replaces no method, so signatures and documentation are those of the class."""
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    assert isinstance(cache._instrument, CallInstrument)
    assert not set(OPERATIONS) & set(vars(cache))
    for name in OPERATIONS:
        assert asyncio.iscoroutinefunction(getattr(cache, name))
    assert await cache.get(key="k", default=5) == 5


def test_each_operation_is_observed():
    public = {
        name
        for name, method in inspect.getmembers(EVCache, asyncio.iscoroutinefunction)
        if not name.startswith("_") and name not in ("check", "close")
    }
    assert public == set(OPERATIONS)


@on_zones(zones=2)
async def test_each_operation_makes_one_span_of_its_name(zones):
    """Operations that use others internally, such as `invalidate`, are one span and one write."""
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    source = Source("loaded")
    bench.take()
    item = None
    calls = {
        "set": lambda: cache.set("k", 1),
        "get": lambda: cache.get("k"),
        "get_item": lambda: cache.get_item("k"),
        "cas": lambda: cache.cas("k", 2, item),
        "get_and_touch": lambda: cache.get_and_touch("k", 50),
        "get_many": lambda: cache.get_many(["k"]),
        "touch": lambda: cache.touch("k", 60),
        "replace": lambda: cache.replace("k", b"1"),
        "append": lambda: cache.append("k", b"2"),
        "prepend": lambda: cache.prepend("k", b"0"),
        "invalidate": lambda: cache.invalidate("k"),
        "add": lambda: cache.add("k", 1),
        "delete": lambda: cache.delete("k"),
        "set_many": lambda: cache.set_many({"l": 1}),
        "delete_many": lambda: cache.delete_many(["l"]),
        "incr": lambda: cache.incr("n", initial=1),
        "decr": lambda: cache.decr("n"),
        "get_or_load": lambda: cache.get_or_load("x", source.load),
        "get_or_load_many": lambda: cache.get_or_load_many(["x"], source.load_many),
        "write_through": lambda: cache.write_through("w", 1, source.write),
    }
    assert calls.keys() == set(OPERATIONS)
    before = bench.points("evcache.writes")
    for name, make in calls.items():
        result = await make()
        item = result if name == "get_item" else item
        await settle()
        assert [seen.name for seen in bench.take()] == [f"{name} t"]
    after = bench.points("evcache.writes")
    counted = {operation: number - before.get((operation, met), 0) for (operation, met), number in after.items()}
    reads = {"get", "get_item", "get_and_touch", "get_many", "get_or_load", "get_or_load_many", "incr", "decr"}
    assert {name: number for name, number in counted.items() if number} == dict.fromkeys(set(OPERATIONS) - reads, 1)


@on_zones(zones=2)
async def test_patched_operation_of_the_class_takes_effect(zones):
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    with mock.patch.object(EVCache, "get", return_value="patched"):
        assert await cache.get("k") == "patched"


@on_zones(zones=2)
async def test_subclass_that_calls_super_makes_one_span(zones):
    class Subclass(EVCache):
        async def get(self, key, default=None, **options):
            return await super().get(f"{key}-of-subclass", default, **options)

    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings(keys="clear"), kind=Subclass)
    bench.take()
    assert await cache.get("k", fallback_on_miss=False) is None
    assert [(seen.name, seen.attributes["evcache.key"]) for seen in bench.take()] == [("get t", "k-of-subclass")]


@on_zones(zones=2)
async def test_call_that_is_cancelled_before_its_first_step_leaves_no_warning(zones, recwarn):
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    bench.take()
    call = asyncio.ensure_future(cache.get("k"))
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    del call
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    assert bench.take() == []


@pytest.mark.parametrize("late", ["both", "traces", "metrics"])
@on_zones(zones=2)
async def test_sdk_that_is_installed_later_is_found_by_a_call(zones, late, monkeypatch):
    """The call that finds it is observed. The part of the SDK that exists earlier is used at once."""
    bench = Bench()
    if late in ("both", "traces"):
        providers = [trace.ProxyTracerProvider()]
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: providers[0])
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
        providers[0] = bench.tracer_provider
    meters[0] = bench.meter_provider
    await cache.get("k")
    assert [seen.name for seen in bench.take()] == ["get t"]
    assert ("miss", "none", "") in bench.points("evcache.reads")
    assert cache._runtime.activation._timer is None


@on_zones(zones=2)
async def test_idle_client_does_not_look_for_an_sdk(zones, monkeypatch):
    """Calls look at most once a second. Without calls there is neither a look nor a timer."""
    looks = []
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: looks.append(1) or trace.ProxyTracerProvider())
    cache = await zones.ready(telemetry=Telemetry())
    await pass_time(2 * LOOK_SECONDS)
    looks.clear()
    await pass_time(3600)
    assert looks == []
    assert cache._runtime.activation._timer is None
    for _ in range(100):
        await cache.get("k")
    assert len(looks) == 1
    for _ in range(10):
        await pass_time(LOOK_SECONDS / 2)
        await cache.get("k")
    assert 4 <= len(looks) <= 7
    await cache.close()
    assert cache._runtime.activation._timer is None


@on_zones(zones=2)
async def test_reopened_client_reports_to_the_sdk_that_it_found(zones):
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    await cache.close()
    async with cache:
        bench.take()
        await cache.get("k")
        assert [seen.name for seen in bench.take()] == ["get t"]
        assert ("miss", "none", "") in bench.points("evcache.reads")


# In other processes, because the global providers of an interpreter cannot be removed.


def in_a_process(body, **environment):
    """Run the body in a new interpreter, under virtual time and with `zones`. Return the printed words."""
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
    """The client does not import it either. Only the service does."""
    printed = in_a_process("""
        class Forbidden:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.semconv")):
                    raise ImportError(name)

        sys.meta_path.insert(0, Forbidden())
        ---
        cache = await zones.ready()
        await cache.set("k", 1)
        await pass_time(5)
        print(await cache.get("k"), cache._instrument)
    """)
    assert printed == ["1", "None"]


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"])
def test_missing_sdk_that_a_variable_names_affects_no_call(variable):
    """The API raises each time that its provider is requested."""
    printed = in_a_process(
        """
        cache = await zones.ready()
        await cache.set("k", 1)
        await pass_time(5)
        print(await cache.get("k"))
        """,
        **{variable: "there_is_no_such_provider"},
    )
    assert printed == ["1"]


def test_global_providers_are_found():
    """They may be installed while the client is in use."""
    printed = in_a_process("""
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
    assert printed == ["0", "get", "t", "1"]


@on_zones(zones=2)
async def test_scope_of_spans_and_metrics_has_the_version_of_the_package(zones):
    bench = Bench()
    cache = await zones.ready(telemetry=bench.settings())
    await cache.get("k")
    (span,) = bench._exporter.get_finished_spans()
    (scope,) = [found.scope for found in bench._reader.get_metrics_data().resource_metrics[0].scope_metrics]
    for found in (span.instrumentation_scope, scope):
        assert (found.name, found.version) == ("evcache", evcache.__version__)
