"""The example of a service, in this process: it answers, its calls of the cache are traced and measured, and zones may die."""

import asyncio
import functools
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client.parser import text_string_to_metric_families

from evcache import EVCache
from evcache.testing import LocalZones
from examples.service.app import make_app
from examples.service.products import Database
from examples.service.settings import Settings
from examples.service.telemetry import Observing

ROOT = Path(__file__).parents[1]
TEAPOT = {"name": "Teapot", "price": 2900}
POT = {"name": "Pot", "price": 100}

# So that a busy machine is never taken for a zone that hangs.
PATIENT = {"read_timeout": 20.0, "write_timeout": 20.0}


class Service(NamedTuple):
    http: httpx.AsyncClient
    database: Database
    cache: EVCache
    zones: LocalZones
    exporter: InMemorySpanExporter

    def spans(self):
        """What has ended since it was asked last, by name."""
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        by_name = {span.name: span for span in spans}
        assert len(by_name) == len(spans), [span.name for span in spans]
        return by_name

    async def metrics(self):
        """Samples of /metrics by name: labels, and value."""
        text = (await self.http.get("/metrics")).text
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found


def on_service(test=None, **settings):
    """Make a test of a coroutine function: it gets the service, started on embedded zones."""
    if test is None:
        return functools.partial(on_service, **settings)

    @functools.wraps(test)
    def wrapper():
        async def main():
            async with started(**settings) as service:
                await test(service)

        asyncio.run(main())

    del wrapper.__wrapped__  # pytest would look for a fixture of the parameter's name
    return wrapper


@asynccontextmanager
async def started(**settings):
    exporter = InMemorySpanExporter()
    observing = Observing()
    observing.traces.add_span_processor(SimpleSpanProcessor(exporter))
    database = Database(observing.traces, seconds=0)
    app = make_app(Settings(backend="embedded", **PATIENT, **settings), observing, database)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http,
    ):
        yield Service(http, database, app.state.cache, app.state.local_zones, exporter)


def under(span, parent):
    """Whether a span is a child of the other."""
    return span.parent is not None and span.parent.span_id == parent.context.span_id


@on_service
async def test_requests_are_answered(service):
    """Products are found, changed, written through, and liked. Invalid requests get an error."""
    http = service.http

    async def says(method, path, **options: Any):
        response = await http.request(method, path, **options)
        return response.status_code, response.json() if response.headers["content-type"] == "application/json" else None

    assert await says("GET", "/products/1") == (200, TEAPOT)
    assert await says("GET", "/products/9") == (404, None)
    assert await says("GET", "/products", params={"ids": "1,9,3"}) == (
        200,
        {"1": TEAPOT, "3": {"name": "Kettle", "price": 4500}},
    )
    assert await says("GET", "/products") == (200, {})
    status, result = await says("PUT", "/products/9", json=POT)
    assert (status, result["cached"], result["zones"].keys()) == (200, True, service.zones.zones.keys())
    assert await says("GET", "/products/9") == (200, POT)
    assert await says("PUT", "/products/9/price", json={"price": 50}) == (200, POT | {"price": 50})
    assert await says("PUT", "/products/8/price", json={"price": 50}) == (404, None)
    assert await says("POST", "/products/9/likes") == (200, {"likes": 1})
    assert await says("POST", "/products/9/likes") == (200, {"likes": 2})
    for nonsense in ({"json": {"name": "Pot"}}, {"json": {"name": "Pot", "price": "1"}}, {"json": [1]}, {"content": "{"}):
        assert await says("PUT", "/products/9", **nonsense) == (422, None)
    assert await says("GET", "/health") == (200, {"zones_out": [], "nodes_down": 0, "writes_kept": 0})


@on_service
async def test_a_product_is_read_from_the_database_once(service):
    """The second request finds it in the cache; another process would, too."""
    assert (await service.http.get("/products/1")).json() == TEAPOT
    service.database.is_down = True
    assert (await service.http.get("/products/1")).json() == TEAPOT
    item = await service.cache.get_item("product:1", near_cache=False)
    assert (item.value, item.source) == (TEAPOT, "local")
    assert (await service.http.get("/products/2")).status_code == 503


@on_service
async def test_a_changed_price_is_seen(service):
    """The second request at the latest gets the new price. The first one may get the old price during the refresh."""
    await service.http.get("/products/1")
    await service.http.put("/products/1/price", json={"price": 1})
    assert (await service.http.get("/products/1")).json()["price"] in (1, 2900)
    async with asyncio.timeout(20):
        while (await service.http.get("/products/1")).json()["price"] != 1:
            await asyncio.sleep(0)


@on_service
async def test_calls_of_the_cache_hang_under_the_request(service):
    """And the database's work for them under these. The request's own span has the route, and is part of its caller's trace."""
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await service.http.get("/products/1", headers={"traceparent": caller})
    spans = service.spans()
    assert spans.keys() == {"GET /products/{id}", "get_or_load shop", "SELECT products"}
    request, call, work = (spans[name] for name in ("GET /products/{id}", "get_or_load shop", "SELECT products"))
    assert format(request.context.trace_id, "032x") == caller[3:35]
    assert format(request.parent.span_id, "016x") == caller[36:52]
    assert under(call, request)
    assert under(work, call)
    assert [span.kind for span in (request, call, work)] == [SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CLIENT]
    assert dict(request.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/products/{id}",
        "url.path": "/products/1",
        "url.scheme": "http",
    }
    assert call.attributes["db.system.name"] == "memcached"
    assert "product:1" not in call.attributes.values()  # keys are hashed


@on_service
async def test_a_write_is_traced(service):
    await service.http.put("/products/9", json=POT)
    spans = service.spans()
    assert under(spans["UPSERT products"], spans["write_through shop"])
    assert under(spans["write_through shop"], spans["PUT /products/{id}"])
    assert spans["write_through shop"].attributes["evcache.met"] is True


@on_service
async def test_a_request_that_fails_shows_in_its_trace(service):
    """From the database, through the call of the cache, to the answer."""
    service.database.is_down = True
    response = await service.http.get("/products/1")
    assert (response.status_code, response.json(), response.headers["retry-after"]) == (
        503,
        {"error": "the database is down"},
        "1",
    )
    spans = service.spans()
    assert {name: span.status.is_ok for name, span in spans.items()} == dict.fromkeys(
        ("GET /products/{id}", "get_or_load shop", "SELECT products"), False
    )
    assert spans["get_or_load shop"].attributes["error.type"] == "ConnectionError"


@on_service
async def test_nobody_looks_at_spans_of_health_and_metrics(service):
    await service.http.get("/health")
    await service.http.get("/ready")
    await service.http.get("/metrics")
    await service.http.get("/nowhere")
    assert service.spans().keys() == {"GET"}  # no route, and so no name that would differ for each path


@on_service
async def test_a_dead_zone_is_not_noticed(service):
    """Its own zone: requests are answered by the others, from the cache."""
    await service.http.get("/products/1")
    response = await service.http.post("/zones/local-a/kill")
    assert response.json() == {"local-a": "down", "local-b": "up", "local-c": "up"}
    service.database.is_down = True
    service.spans()
    assert await service.cache.get("product:1", near_cache=False) == TEAPOT
    (read,) = service.spans().values()
    assert read.attributes["evcache.source"] == "fallback"
    assert (await service.http.get("/products/1")).json() == TEAPOT
    service.database.is_down = False
    assert (await service.http.put("/products/9", json=POT)).json()["cached"] is True
    assert (await service.http.post("/products/9/likes")).json() == {"likes": 1}
    assert (await service.http.get("/health")).json()["zones_out"] == ["local-a"]
    metrics = await service.metrics()
    assert [labels["evcache_zone"] for labels, value in metrics["evcache_zone_out"] if value] == ["local-a"]


@on_service
async def test_with_every_zone_dead_it_still_answers(service):
    """Only data that has no source is missing. When the zones return, prices that changed during the outage are not shown stale."""
    await service.http.get("/products/1")
    for zone in service.zones.zones:
        await service.zones.kill(zone)
    assert (await service.http.get("/products/2")).json() == {"name": "Cup", "price": 700}
    assert (await service.http.get("/products", params={"ids": "1,2"})).json().keys() == {"1", "2"}
    assert (await service.http.put("/products/9", json=POT)).json()["cached"] is False
    assert (await service.http.get("/products/9")).json() == POT
    assert (await service.http.put("/products/1/price", json={"price": 1})).json()["price"] == 1
    assert (await service.http.get("/products/1")).json()["price"] == 1
    likes = await service.http.post("/products/1/likes")
    assert (likes.status_code, likes.headers["retry-after"]) == (503, "1")
    assert (await service.http.get("/health")).status_code == 200


async def readiness(service):
    response = await service.http.get("/ready")
    found = response.json()
    assert len(found["problems"]) == list(found["zones"].values()).count(False)
    return response.status_code, found["cache"], "".join(zone[-1] for zone, is_usable in found["zones"].items() if is_usable)


@on_service(cache_patience=3600)
async def test_service_is_ready_from_the_first_readable_zone_on(service):
    """It waits for the cache once. Later it stays ready without any zone, as do all other processes of the service."""
    await service.zones.kill("local-a")
    await service.zones.kill("local-b")
    await service.zones.kill("local-c")
    assert await readiness(service) == (503, False, "")
    await service.zones.restart("local-b")
    async with asyncio.timeout(20):
        while (found := await readiness(service))[0] == 503:
            await asyncio.sleep(0)
    assert found == (200, True, "b")
    await service.zones.kill("local-b")
    async with asyncio.timeout(20):
        while (found := await readiness(service))[1]:
            await asyncio.sleep(0)
    assert found == (200, False, "")


@on_service(cache_patience=0)
async def test_service_that_has_waited_long_enough_is_ready_without_a_zone(service):
    for zone in service.zones.zones:
        await service.zones.kill(zone)
    assert await readiness(service) == (200, False, "")


@on_service
async def test_service_is_ready_while_its_own_zone_is_dead(service):
    await service.zones.kill("local-a")
    assert await readiness(service) == (200, True, "bc")


@on_service
async def test_its_zones_can_be_played_with(service):
    for path in ("/zones/nowhere/kill", "/zones/local-a/eat", "/zones/local-a/start"):
        assert (await service.http.post(path)).status_code == 404
    await service.http.post("/zones/local-b/kill")
    assert (await service.http.post("/zones/local-b/restart")).json() == dict.fromkeys(service.zones.zones, "up")


@on_service
async def test_metrics_are_there_for_prometheus(service):
    """In its text format, of the client's namespace, and as many as there were requests."""
    for _ in range(3):
        await service.http.get("/products/1")
    await service.http.put("/products/9", json=POT)
    metrics = await service.metrics()
    ours = {name: samples for name, samples in metrics.items() if name.startswith("evcache_")}
    assert {labels["db_namespace"] for samples in ours.values() for labels, _ in samples} == {"shop"}
    assert {
        (labels["db_operation_name"], value) for labels, value in metrics["db_client_operation_duration_seconds_count"]
    } == {
        ("get_or_load", 3.0),
        ("write_through", 1.0),
    }
    assert [value for _, value in ours["evcache_loads_total"]] == [1.0]
    assert [
        (labels["evcache_zone"], value)
        for labels, value in sorted(ours["evcache_node_up"], key=lambda one: one[0]["evcache_zone"])
    ] == [
        ("local-a", 1.0),
        ("local-b", 1.0),
        ("local-c", 1.0),
    ]
    assert [value for labels, value in ours["evcache_writes_total"] if labels["evcache_result"] == "met"] == [1.0]


@pytest.mark.parametrize(
    ("environment", "settings"),
    [
        ({}, Settings()),
        ({"EVCACHE_ZONES": "a=h:1;b=h:2", "PORT": "1"}, Settings(zones="a=h:1;b=h:2", port=1)),
        ({"EVCACHE_ZONES": "", "OTEL_TRACES_EXPORTER": "", "HOST": "", "PORT": ""}, Settings()),
        ({"OTEL_TRACES_EXPORTER": "none", "HOST": "::"}, Settings(traces_to="none", host="::")),
        ({"EVCACHE_REDIS": "redis://h"}, Settings(redis="redis://h")),
    ],
)
def test_the_environment_says_how_it_runs(environment, settings):
    assert Settings.from_environment(environment) == settings


def test_an_exporter_that_there_is_not_is_refused():
    with pytest.raises(SystemExit, match="console, otlp, none"):
        Settings.from_environment({"OTEL_TRACES_EXPORTER": "jaeger"})


def test_it_runs_as_a_program():
    """The program starts its own zones and writes each span as a line to stdout. It ends on a signal, after the last span."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVCACHE_ZONE"))}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.service"],
        cwd=ROOT,
        env=environment | {"PORT": "0", "HOST": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = ""
            while (found := re.search(r"running on (http://\S+)", said)) is None:
                line = process.stderr.readline()
                assert line, said
                said += line
            assert httpx.get(f"{found[1]}/products/1", timeout=30).json() == TEAPOT
        finally:
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM), said  # uvicorn ends by the signal, once it has shut down
    assert "Traceback" not in said
    assert len(out.splitlines()) == 3
    assert '"name": "GET /products/{id}"' in out


def test_its_readme_leads_somewhere_and_knows_its_variables():
    page = ROOT / "examples" / "service" / "README.md"
    text = page.read_text("utf-8")
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not (page.parent / link).exists()] == []
    source = (page.parent / "settings.py").read_text("utf-8")
    for variable in re.findall(r'environment.get\("(\w+)"\)', source):
        assert f"`{variable}`" in text
