"""The instruments that metrics are reported by."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, NoOpMeter, Observation

from evcache.telemetry.metric_table import DURATION, DURATION_BUCKETS, METRICS, ClientMetricsSource, Metric, read
from evcache.telemetry.settings import SCOPE, Telemetry


def instruments_of(settings: Telemetry) -> Instruments | None:
    """None: there is no SDK, or it is disabled."""
    provider = settings.meter_provider or metrics.get_meter_provider()
    if type(provider).__module__.startswith(metrics.__name__):  # the API's own, which stand for one that is not there
        return None
    meter = provider.get_meter(SCOPE)
    if isinstance(meter, NoOpMeter):
        return None
    found = _by_provider.get(provider)
    if found is None:
        found = _by_provider[provider] = Instruments(meter)
    return found


class Instruments:
    """The instruments of one provider, for all clients: an SDK drops the callbacks of an instrument that is made again."""

    def __init__(self, meter: Meter) -> None:
        # A list is made of a dict's values in one step. Exporters look from threads of their own, and a walk through a set
        # that changes meanwhile can meet a client twice.
        self._clients: weakref.WeakValueDictionary[int, ClientMetricsSource] = weakref.WeakValueDictionary()
        self.duration = meter.create_histogram(
            DURATION, "s", "Duration of calls.", explicit_bucket_boundaries_advisory=DURATION_BUCKETS
        )
        for metric in METRICS:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(metric.name, [functools.partial(self._observe, metric)], metric.unit, metric.meaning)

    def add(self, client: ClientMetricsSource) -> None:
        """Report its numbers from now on."""
        self._clients[id(client)] = client

    def remove(self, client: ClientMetricsSource) -> None:
        """Report them no more."""
        self._clients.pop(id(client), None)

    def _observe(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        clients = [client for found in self._clients.valuerefs() if (client := found()) is not None]
        return [Observation(value, attributes) for value, attributes in read(metric, clients)]


_by_provider: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()
