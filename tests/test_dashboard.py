"""Queries of the dashboard use metrics, labels and values that clients export to Prometheus.

Clients produce them in scenarios of outages, loads and hedges. A renamed metric fails here, and not during an outage.
"""

import asyncio
import json
import re
from contextlib import suppress
from typing import NamedTuple

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from evcache import CacheError, DecodeError, EVCache, Failover, Gutter, Hedging, LoadPolicy, NearCache, Telemetry
from evcache.channels import LocalChannel
from evcache.reads.hedging import SAMPLES
from evcache.telemetry.metric_table import DURATION, METRICS
from evcache.zones import Endpoint
from evcache.zones.testing import FakeMemcached
from examples.grafana.dashboard import FILE, dashboard, text
from tests.support.memory_zones import PATIENT, MemoryZones, PolledZones, pass_time
from tests.support.near import follow_loop
from tests.support.promql import NotUnderstood, selectors
from tests.support.virtual_time import run

# Metrics that no panel shows, with the reason.
UNUSED: dict[str, str] = {}

# Labels that Prometheus adds.
OF_PROMETHEUS = frozenset({"instance", "job"})
GRID_WIDTH = 24

PANELS = dashboard()["panels"]
TARGETS = [(panel, target) for panel in PANELS for target in panel.get("targets", [])]
QUERIES = [target["expr"] for _, target in TARGETS]


# Exported metrics.


class Exported(NamedTuple):
    """A metric in Prometheus."""

    counts: bool
    """True for a counter, or a part of a histogram."""
    values: dict[str, set[str]]
    """Values of its labels."""


@pytest.fixture(scope="module")
def exported():
    """Return the exported metrics by name."""
    return run(_run_scenarios())


async def _run_scenarios():
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    options = {"telemetry": Telemetry(traces=False, meter_provider=provider, durations_per_second=None)}
    scenarios = [_ordinary_days, _loads, _an_outage, _no_failover, _a_slow_zone, _a_gutter]
    zones_of = []
    try:
        for scenario in scenarios:
            zones = MemoryZones()
            zones_of.append(zones)
            await scenario(zones, options)
        return _collect(registry)
    finally:
        for zones in zones_of:
            await zones.close_clients()
        provider.shutdown()


def _collect(registry):
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            metric = found.setdefault(sample.name, Exported(family.type in ("counter", "histogram"), {}))
            for label, value in sample.labels.items():
                metric.values.setdefault(label, set()).add(value)
    return found


async def _near_client(zones, channel, options):
    client = zones.client(near_cache=NearCache(grace=0.1), invalidation=channel, **options)
    follow_loop(client)
    await zones.connect(client)
    return client


async def _ordinary_days(zones, options):
    """Two processes with a channel: hits, misses, a value of another type, and a cancelled caller."""
    channel = LocalChannel()
    options = {"zones": PolledZones(zones.topology), **options}
    one, two = [await _near_client(zones, channel, options) for _ in range(2)]
    await pass_time(5)
    assert await one.set("k", "v")
    assert await two.set_many({"a": 1, "b": 2})
    await pass_time(1)
    for client in (one, two):
        for _ in range(2):
            await client.get("k")
            await client.get_many(["k", "a", "nothing"])
            await client.get_item("k", near_cache=False)
    with suppress(DecodeError):
        await one.get("k", as_=int)
    await one.get_and_touch("k", 10)
    await one.delete("k")
    zones.pause("a")
    reading = asyncio.create_task(two.get("a", near_cache=False))
    await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    zones.resume("a")


async def _loads(zones, options):
    """Leases are won and lost, loaders fail, and stale values are served after a failure and during a refresh."""
    one, two = [await zones.ready(**options) for _ in range(2)]

    async def load():
        await asyncio.sleep(0.5)
        return "v"

    async def fail():
        await asyncio.sleep(0.5)
        raise LookupError("down")

    await asyncio.gather(*(client.get_or_load("k", load) for client in (one, two)))
    assert await one.get_or_load_many(["k"], fail) == {"k": "v"}
    with suppress(LookupError):
        await one.get_or_load("nothing", fail)
    for key, policy in (("stale", LoadPolicy(stale_while_revalidate=60)), ("safe", LoadPolicy(stale_if_error=60))):
        await one.get_or_load(key, load, ttl=10, policy=policy)
        await pass_time(11)
        assert await one.get_or_load(key, fail, ttl=10, policy=policy) == "v"
    await pass_time(1)


async def _an_outage(zones, options):
    """A zone dies and restarts empty. Hints and repairs fill it. Then all zones die."""
    cache = await zones.ready(**options)
    await cache.set("k", "v", consistency="all")
    await zones.kill("a")
    assert await cache.get("k") == "v"
    assert not await cache.set("other", "w", consistency="all")
    zones.restart("a")
    await pass_time(10)
    await cache.get("k")
    await pass_time(1)
    await zones.kill(*zones.names)
    with suppress(CacheError):
        await cache.get("k")
    await cache.get("k", errors="miss")


async def _no_failover(zones, options):
    cache = await zones.ready(failover=Failover(ratio=0, burst=0), **options)
    await cache.get("nothing")


async def _a_slow_zone(zones, options):
    """Hedged reads are won by the second zone, and lost."""
    cache = await zones.ready(hedging=Hedging(share=1.0), circuit=PATIENT, read_timeout=0.9, **options)
    await cache.set("k", "v", consistency="all")
    for _ in range(SAMPLES):
        await cache.get("k")
    zones.pause("a")
    assert await cache.get("k") == "v"
    zones.resume("a")


async def _a_gutter(zones, options):
    """All zones are dead, and the gutter serves a value that was written during the outage."""
    fake = FakeMemcached(clock=zones._loop.time, wall_clock=zones.wall_clock)
    zones.servers["gutter"], zones.sent["gutter"] = [fake], []
    zones._by_address["gutter:11211"] = ("gutter", fake)
    cache: EVCache = await zones.ready(gutter=Gutter([Endpoint.parse("gutter:11211")]), **options)
    await zones.kill(*zones.names)
    await cache.set("k", "v")
    assert await cache.get("k") == "v"
    await cache.get("nothing")


# Queries.


def problems(query, exported):
    """Return the faults of a query as texts."""
    found = []
    for selector in selectors(query):
        metric = exported.get(selector.metric)
        if metric is None:
            found.append(f"there is no {selector.metric}")
            continue
        if metric.counts != (selector.function in ("rate", "increase")):
            found.append(f"{selector.metric} {'only grows' if metric.counts else 'goes up and down'}")
        labels = {matcher.label for matcher in selector.matchers}.union(*selector.groups)
        found += [f"{selector.metric} has no {label}" for label in labels - metric.values.keys() - OF_PROMETHEUS]
        if ("db_namespace", "=~", "$db_namespace") not in selector.matchers:
            found.append(f"{selector.metric} is of all namespaces")
        for matcher in selector.matchers:
            literals = matcher.value.split("|") if matcher.how in ("=~", "!~") else [matcher.value]
            found += [
                f"{matcher.label} of {selector.metric} is never {literal}"
                for literal in literals
                if not literal.startswith("$") and literal not in metric.values.get(matcher.label, {literal})
            ]
    return sorted(found)


@pytest.mark.parametrize("query", QUERIES)
def test_query_uses_exported_metrics(exported, query):
    """Metrics exist, with their kind, their labels and the compared values."""
    assert problems(query, exported) == []


CHOSEN = 'db_namespace=~"$db_namespace"'


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        (f"sum(rate(evcache_reads_total{{{CHOSEN}}}[5m]))", []),
        (f"sum(rate(evcache_read_total{{{CHOSEN}}}[5m]))", ["there is no evcache_read_total"]),
        (f"sum(rate(evcache_reads{{{CHOSEN}}}[5m]))", ["there is no evcache_reads"]),
        (f"sum by (zone) (rate(evcache_reads_total{{{CHOSEN}}}[5m]))", ["evcache_reads_total has no zone"]),
        (f'sum(rate(evcache_reads_total{{{CHOSEN}, hit="x"}}[5m]))', ["evcache_reads_total has no hit"]),
        (
            f'sum(rate(evcache_reads_total{{{CHOSEN}, evcache_result="hits"}}[5m]))',
            ["evcache_result of evcache_reads_total is never hits"],
        ),
        (
            f'sum(rate(evcache_reads_total{{{CHOSEN}, evcache_source=~"near|remote"}}[5m]))',
            ["evcache_source of evcache_reads_total is never remote"],
        ),
        ("sum(rate(evcache_reads_total[5m]))", ["evcache_reads_total is of all namespaces"]),
        (f"sum(rate(evcache_near_entries{{{CHOSEN}}}[5m]))", ["evcache_near_entries goes up and down"]),
        (f"max(evcache_loads_total{{{CHOSEN}}})", ["evcache_loads_total only grows"]),
        (
            f"1 - evcache_node_up{{{CHOSEN}}} / max by (job) (evcache_node_down{{{CHOSEN}}})",
            ["there is no evcache_node_down"],
        ),
    ],
)
def test_query_with_a_fault_is_recognized(exported, query, faults):
    assert problems(query, exported) == faults


@pytest.mark.parametrize(
    "query",
    [
        "",
        "sum(a",
        "sum(a))",
        "sum by a (b)",
        "rates(a[5m])",
        "rate(a)",
        "sum(a[5m])",
        "a{b}",
        'a{b=="c"}',
        'a{b="c}',
        'a{b="c" d="e"}',
        "a b",
        "a +",
        "a & b",
    ],
)
def test_invalid_query_is_recognized(query):
    with pytest.raises(NotUnderstood):
        selectors(query)


def prometheus_name(metric, kind, unit):
    """Return the name that the exporter gives to a metric."""
    unit = {"By": "_bytes", "s": "_seconds"}.get(unit, "")
    return metric.replace(".", "_") + unit + {"counter": "_total", "histogram": "_bucket"}.get(kind, "")


NAMES = {metric.name: prometheus_name(metric.name, metric.kind, metric.unit) for metric in METRICS} | {
    DURATION: prometheus_name(DURATION, "histogram", "s")
}


def test_scenarios_export_all_metrics(exported):
    """Each metric has all of its attributes."""
    assert NAMES.items() >= {(DURATION, "db_client_operation_duration_seconds_bucket")}
    assert set(NAMES.values()) - exported.keys() == set()
    for metric in METRICS:
        labels = {attribute.replace(".", "_") for attribute in ("db.namespace", *metric.attributes)}
        assert labels <= exported[NAMES[metric.name]].values.keys(), metric.name


def test_metric_is_shown_or_listed_as_unused():
    shown = {selector.metric for query in QUERIES for selector in selectors(query)}
    missing = {metric for metric, name in NAMES.items() if name not in shown}
    assert missing == UNUSED.keys()


@pytest.mark.parametrize(("panel", "target"), TARGETS, ids=[target["expr"] for _, target in TARGETS])
def test_legend_names_the_remaining_labels(panel, target):
    """A legend names all labels that distinguish lines."""
    left = {label for selector in selectors(target["expr"]) for label in selector.groups[0]} - {"le"}
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == left
    assert target["legendFormat"]


def test_namespace_variable_uses_an_exported_label(exported):
    """The variable of all queries reads a label of a metric that all clients export."""
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables.keys() == {"datasource", "db_namespace"}
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["db_namespace"]["query"]["query"]).groups()
    assert label in exported[metric].values


# The file.


def test_file_is_generated_from_the_table():
    """`python -m examples.grafana.dashboard` writes the file."""
    assert FILE.read_text("utf-8") == text()
    assert json.loads(text()) == dashboard()


def test_panels_use_the_selected_data_source():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [panel for panel in PANELS if panel["type"] != "row"] + [target for _, target in TARGETS]
    assert len(asking) > len(METRICS)
    assert all(one["datasource"] == chosen for one in asking)


def test_panels_do_not_overlap():
    """Panels are within the grid, with unique ids and titles."""
    taken = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert all(0 <= x < GRID_WIDTH for x, _ in cells)
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"].endswith(".") for panel in PANELS if panel["type"] != "row")


def test_queries_of_a_panel_have_unique_names():
    for panel in PANELS:
        names = [target["refId"] for target in panel.get("targets", [])]
        assert sorted(set(names)) == names
