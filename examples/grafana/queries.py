"""The queries of the dashboard: a few shapes that all of them have.

Names are those that Prometheus has from opentelemetry-exporter-prometheus. A collector that gives others (without `_total`,
or without units) needs them changed.
"""

from __future__ import annotations

from typing import NamedTuple

CHOSEN = 'db_namespace=~"$db_namespace"'
MEMCACHED = 'db_system_name="memcached"'  # other clients of databases give their durations the same name
READS = 'db_operation_name=~"get|get_item|get_many|get_and_touch|get_or_load|get_or_load_many"'
HIT = 'evcache_result="hit"'
NODE = "evcache_zone, server_address, server_port"
NODE_LEGEND = "{{evcache_zone}} {{server_address}}:{{server_port}}"


class Query(NamedTuple):
    promql: str
    legend: str


def of(metric: str, *conditions: str) -> str:
    """A metric, of the namespaces that were chosen."""
    return f"{metric}{{{', '.join((CHOSEN, *conditions))}}}"


def rate(metric: str, *conditions: str) -> str:
    """How much a counter grows in a second."""
    return f"rate({of(metric, *conditions)}[$__rate_interval])"


def by(labels: str, metric: str, *conditions: str, legend: str = "") -> Query:
    """How much a counter grows in a second, for each value of the labels."""
    return Query(f"sum by ({labels}) ({rate(metric, *conditions)})", legend or _values_of(labels))


def total(metric: str, *conditions: str, legend: str) -> Query:
    """How much a counter grows in a second, in all."""
    return Query(f"sum({rate(metric, *conditions)})", legend)


def gauge(how: str, labels: str, metric: str, *conditions: str, legend: str = "") -> Query:
    """A gauge of several processes as one, for each value of the labels; `how`: sum, min, max."""
    return Query(f"{how} by ({labels}) ({of(metric, *conditions)})", legend or _values_of(labels))


def share(part: str, whole: str, *, labels: str = "", legend: str = "") -> Query:
    """A part of the whole, in all or for each value of the labels."""
    how = f"sum by ({labels}) " if labels else "sum"
    return Query(f"{how}({part}) / {how}({whole})", legend or _values_of(labels))


def quantile(q: float, *conditions: str, labels: str = "", legend: str = "") -> Query:
    """Of the durations of calls, in all or for each value of the labels."""
    buckets = rate("db_client_operation_duration_seconds_bucket", MEMCACHED, *conditions)
    kept = f"le, {labels}" if labels else "le"
    return Query(f"histogram_quantile({q}, sum by ({kept}) ({buckets}))", legend or _values_of(labels))


def _values_of(labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels.split(", "))


HIT_RATIO = share(rate("evcache_reads_total", HIT), rate("evcache_reads_total"), legend="hits")
