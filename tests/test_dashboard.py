"""The dashboard asks for nothing that there is not: names, labels and values are those of a client that has been through a lot,
as opentelemetry-exporter-prometheus tells them. A metric that gets another name breaks it here, and not in an outage.
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
from tests.support.memory_zones import PATIENT, MemoryZones, pass_time
from tests.support.near_clients import follow_loop
from tests.support.promql import NotUnderstood, selectors
from tests.support.virtual_time import run

# Metrics that no panel shows, and why. None so far.
UNUSED: dict[str, str] = {}

# Labels that Prometheus itself puts on all that it fetches.
OF_PROMETHEUS = frozenset({"instance", "job"})
GRID_WIDTH = 24

PANELS = dashboard()["panels"]
TARGETS = [(panel, target) for panel in PANELS for target in panel.get("targets", [])]
QUERIES = [target["expr"] for _, target in TARGETS]


# What there is.


class Exported(NamedTuple):
    """A metric as Prometheus knows it."""

    counts: bool
    """It only grows: a counter, or a part of a histogram."""
    values: dict[str, set[str]]
    """Of its labels."""


@pytest.fixture(scope="module")
def exported():
    """By name."""
    return run(_everything_happens())


async def _everything_happens():
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    options = {"telemetry": Telemetry(traces=False, meter_provider=provider, durations_per_second=None)}
    stories = [_ordinary_days, _loads, _an_outage, _no_failover, _a_slow_zone, _a_gutter]
    zones_of = []
    try:
        for story in stories:
            zones = MemoryZones()
            zones_of.append(zones)
            await story(zones, options)
        return _told(registry)
    finally:
        for zones in zones_of:
            await zones.close_clients()
        provider.shutdown()


def _told(registry):
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
    """Two processes that hear of each other; hits and misses; a value of another type; a caller that is cancelled."""
    channel = LocalChannel()
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
    """Leases are won and lost, loaders fail, and what is out of date is served because of that, or while it is loaded anew."""
    one, two = [await zones.ready(**options) for _ in range(2)]

    async def load():
        await asyncio.sleep(0.5)
        return "v"

    async def fail():
        await asyncio.sleep(0.5)
        raise LookupError("down")

    await asyncio.gather(*(client.get_or_load("k", load) for client in (one, two)))
    with suppress(LookupError):
        await one.get_or_load("nothing", fail)
    for key, policy in (("stale", LoadPolicy(stale_while_revalidate=60)), ("safe", LoadPolicy(stale_if_error=60))):
        await one.get_or_load(key, load, ttl=10, policy=policy)
        await pass_time(11)
        assert await one.get_or_load(key, fail, ttl=10, policy=policy) == "v"
    await pass_time(1)


async def _an_outage(zones, options):
    """A zone dies and comes back empty: other zones serve, keep its writes for it, and repair it. Then all of them die."""
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
    """The second zone is asked too, and is the quicker one; then it is not."""
    cache = await zones.ready(hedging=Hedging(share=1.0), circuit=PATIENT, read_timeout=0.9, **options)
    await cache.set("k", "v", consistency="all")
    for _ in range(SAMPLES):
        await cache.get("k")
    zones.pause("a")
    assert await cache.get("k") == "v"
    zones.resume("a")


async def _a_gutter(zones, options):
    """Every zone is dead, and what is written meanwhile is read from the gutter."""
    fake = FakeMemcached(clock=zones._loop.time, wall_clock=zones.wall_clock)
    zones.servers["gutter"], zones.sent["gutter"] = [fake], []
    zones._by_label["gutter:11211"] = ("gutter", fake)
    cache: EVCache = await zones.ready(gutter=Gutter([Endpoint.parse("gutter:11211")]), **options)
    await zones.kill(*zones.names)
    await cache.set("k", "v")
    assert await cache.get("k") == "v"
    await cache.get("nothing")


# What the dashboard asks for.


def problems(query, exported):
    """What is wrong with a query, in words."""
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
def test_every_query_asks_for_what_there_is(exported, query):
    """Metrics, their kind, their labels, and the values that are compared with."""
    assert problems(query, exported) == []


CHOSEN = 'db_namespace=~"$db_namespace"'


@pytest.mark.parametrize(
    ("query", "told"),
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
def test_a_query_for_what_there_is_not_is_noticed(exported, query, told):
    assert problems(query, exported) == told


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
def test_what_is_no_query_is_noticed(query):
    with pytest.raises(NotUnderstood):
        selectors(query)


def prometheus_name(metric, kind, unit):
    """What the exporter makes of a name."""
    unit = {"By": "_bytes", "s": "_seconds"}.get(unit, "")
    return metric.replace(".", "_") + unit + {"counter": "_total", "histogram": "_bucket"}.get(kind, "")


NAMES = {metric.name: prometheus_name(metric.name, metric.kind, metric.unit) for metric in METRICS} | {
    DURATION: prometheus_name(DURATION, "histogram", "s")
}


def test_every_metric_was_there_to_be_asked_for(exported):
    """Each with all of its attributes."""
    assert NAMES.items() >= {(DURATION, "db_client_operation_duration_seconds_bucket")}
    assert set(NAMES.values()) - exported.keys() == set()
    for metric in METRICS:
        labels = {attribute.replace(".", "_") for attribute in ("db.namespace", *metric.attributes)}
        assert labels <= exported[NAMES[metric.name]].values.keys(), metric.name


def test_every_metric_is_shown_or_is_not_for_a_reason():
    shown = {selector.metric for query in QUERIES for selector in selectors(query)}
    missing = {metric for metric, name in NAMES.items() if name not in shown}
    assert missing == UNUSED.keys()


@pytest.mark.parametrize(("panel", "target"), TARGETS, ids=[target["expr"] for _, target in TARGETS])
def test_a_legend_names_labels_that_are_left(panel, target):
    """And all that tell lines apart; a number on its own needs none."""
    left = {label for selector in selectors(target["expr"]) for label in selector.groups[0]} - {"le"}
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == left
    assert target["legendFormat"]


def test_namespaces_are_found(exported):
    """The variable that all queries use asks for a label of a metric that every client has."""
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables.keys() == {"datasource", "db_namespace"}
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["db_namespace"]["query"]["query"]).groups()
    assert label in exported[metric].values


# The file.


def test_the_file_is_what_the_table_makes():
    """`python -m examples.grafana.dashboard` has been run."""
    assert FILE.read_text("utf-8") == text()
    assert json.loads(text()) == dashboard()


def test_everything_asks_the_chosen_data_source():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [panel for panel in PANELS if panel["type"] != "row"] + [target for _, target in TARGETS]
    assert len(asking) > len(METRICS)
    assert all(one["datasource"] == chosen for one in asking)


def test_every_panel_has_a_place_of_its_own():
    """On the grid, beneath each other, with an id and a name that no other has in its row."""
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


def test_queries_of_a_panel_have_names_of_their_own():
    for panel in PANELS:
        names = [target["refId"] for target in panel.get("targets", [])]
        assert sorted(set(names)) == names
