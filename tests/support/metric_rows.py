"""Tests of the metric table: a decorator that compares metrics with their rows, and clients whose metrics are collected."""

import functools

from opentelemetry.sdk.metrics.export import Gauge, Sum

from evcache.telemetry.metric_table import METRICS
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.telemetry import Bench

TABLE = {metric.name: metric for metric in METRICS}
PRODUCED = set()
"""Metrics that a test below produces."""


def produces(*names, **options):
    """Make a test of a coroutine function that produces these metrics, and compare them with the table."""
    PRODUCED.update(names)

    def decorate(test):
        @functools.wraps(test)
        async def scenario(zones, bench):
            await test(zones, bench)
            found = bench.metrics()
            for name in names:
                check_row(found[name])

        async def main(zones):
            await scenario(zones, Bench())

        main.__name__, main.__qualname__, main.__doc__ = test.__name__, test.__qualname__, test.__doc__
        main.__module__ = test.__module__
        return on_zones(**options)(main)

    return decorate


def check_row(found):
    """Compare a collected metric with its row of the table."""
    metric = TABLE[found.name]
    assert (found.unit, found.description) == (metric.unit, metric.description)
    assert type(found.data) is (Sum if metric.kind == "counter" else Gauge)
    if metric.kind == "counter":
        assert found.data.is_monotonic
    assert found.data.data_points
    for point in found.data.data_points:
        assert set(point.attributes) == {"db.namespace", *metric.attributes}
        assert point.attributes["db.namespace"] == "t"
        assert isinstance(point.value, int | float)


async def measured_client(zones, bench, /, **options):
    settings = bench.settings(traces=False, **options.pop("telemetry", {}))
    cache = await zones.ready(telemetry=settings, **options)
    if options.get("near_cache") is not None:
        follow_loop(cache)
        await pass_time(6)
    return cache
