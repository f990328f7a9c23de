"""OpenTelemetry instruments of the metric table."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, NoOpMeter, Observation

from evcache._helpers.version import VERSION
from evcache.telemetry.metric_source import ClientMetricsSource
from evcache.telemetry.metric_table import DURATION, DURATION_BUCKETS, METRICS, Metric, measure
from evcache.telemetry.settings import SCOPE, Telemetry


def find_instruments(settings: Telemetry) -> MetricInstruments | None:
    """Return the instruments of the SDK, or None if there is no SDK, or if it is disabled."""
    provider = settings.meter_provider or metrics.get_meter_provider()
    if type(provider).__module__.startswith(metrics.__name__):  # a placeholder of the API
        return None
    meter = provider.get_meter(SCOPE, VERSION)
    if isinstance(meter, NoOpMeter):
        return None
    found = _by_provider.get(provider)
    if found is None:
        found = _by_provider[provider] = MetricInstruments(meter)
    return found


class MetricInstruments:
    """Instruments of one provider, shared by all clients. An SDK drops the callbacks of an instrument made twice."""

    def __init__(self, meter: Meter) -> None:
        # A dict, because a list of its values is made in one step. Exporters read from other threads, and iteration over a
        # set that changes could return a client twice.
        self._sources: weakref.WeakValueDictionary[int, ClientMetricsSource] = weakref.WeakValueDictionary()
        self.duration = meter.create_histogram(
            DURATION, "s", "Duration of calls.", explicit_bucket_boundaries_advisory=DURATION_BUCKETS
        )
        for metric in METRICS:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(metric.name, [functools.partial(self._observe, metric)], metric.unit, metric.description)

    def add(self, source: ClientMetricsSource) -> None:
        """Report the numbers of a client from now on."""
        self._sources[id(source)] = source

    def remove(self, source: ClientMetricsSource) -> None:
        """Stop reporting the numbers of a client."""
        self._sources.pop(id(source), None)

    def _observe(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        sources = [source for found in self._sources.valuerefs() if (source := found()) is not None]
        return [Observation(value, attributes) for value, attributes in measure(metric, sources)]


_by_provider: weakref.WeakKeyDictionary[MeterProvider, MetricInstruments] = weakref.WeakKeyDictionary()
