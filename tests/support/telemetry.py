"""OpenTelemetry SDK in memory, which returns trees of spans and numbers of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind

from evcache import Telemetry

Attributes = dict[str, Any]


@dataclass
class Seen:
    """A span that has ended. Equality covers all that a reader of traces sees."""

    name: str
    attributes: Attributes
    events: list[tuple[str, Attributes]] = field(default_factory=list)
    error: str | None = None
    """Description of the status of a failed span."""
    children: list[Seen] = field(default_factory=list)
    """Child spans in the order of their starts."""
    kind: SpanKind = SpanKind.CLIENT
    span: ReadableSpan | None = field(default=None, compare=False, repr=False)

    @property
    def links(self) -> list[int]:
        """Ids of linked spans."""
        assert self.span is not None
        return [link.context.span_id for link in self.span.links]

    @property
    def id(self) -> int:
        """Id of the span."""
        assert self.span is not None
        return self.span.get_span_context().span_id

    @property
    def trace(self) -> int:
        """Id of the trace."""
        assert self.span is not None
        return self.span.get_span_context().trace_id

    def everything(self) -> Iterator[object]:
        """Yield all texts of the span and of its children."""
        yield from (self.name, self.error, *self.attributes.items())
        for name, attributes in self.events:
            yield from (name, *attributes.items())
        for child in self.children:
            yield from child.everything()


def call(
    operation: str,
    attributes: Attributes | None = None,
    *,
    namespace: str = "t",
    events: list[tuple[str, Attributes]] | None = None,
    error: str | None = None,
    children: list[Seen] | None = None,
) -> Seen:
    """Return the expected span of a call, with the common attributes and the given ones."""
    common = {"db.system.name": "memcached", "db.operation.name": operation, "db.namespace": namespace}
    return Seen(f"{operation} {namespace}", {**common, **(attributes or {})}, events or [], error, children or [])


class Bench:
    """Providers of one SDK, which no other test uses."""

    def __init__(self, sampler: Sampler | None = None, *processors: SpanProcessor) -> None:
        """Make the providers. `processors` are added to the one that stores ended spans."""
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        for processor in processors:
            self.tracer_provider.add_span_processor(processor)
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("the service")

    def settings(self, **options: Any) -> Telemetry:
        """Return settings of a client that reports to this SDK."""
        return Telemetry(**{"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider, **options})

    # Spans.

    def take(self) -> list[Seen]:
        """Return the root spans that ended since the last call, in the order of their starts."""
        ended = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        self._exporter.clear()
        seen = {span.get_span_context().span_id: _seen(span) for span in ended}
        roots = []
        for span in ended:
            above = None if span.parent is None else seen.get(span.parent.span_id)
            (roots if above is None else above.children).append(seen[span.get_span_context().span_id])
        return roots

    def one(self) -> Seen:
        """Return the only root span since the last call."""
        (seen,) = self.take()
        return seen

    # Metrics.

    def metrics(self) -> dict[str, Metric]:
        """Collect the metrics and return them by name. Each occurs once."""
        found: dict[str, Metric] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    assert metric.name not in found
                    found[metric.name] = metric
        return found

    def points(self, name: str, namespace: str = "t") -> dict[tuple[Any, ...], Any]:
        """Return the numbers of a metric for a namespace, by the values of its other attributes.

        The values are in the order of the attribute names. The number of a histogram is its count.
        """
        metric = self.metrics().get(name)
        found = {}
        for point in () if metric is None else metric.data.data_points:
            attributes = dict(point.attributes or {})
            if attributes.pop("db.namespace") == namespace:
                found[values(attributes)] = point.count if hasattr(point, "count") else point.value
        return found


def values(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of attributes in the order of their names."""
    return tuple(value for _, value in sorted(attributes.items()))


def _seen(span: ReadableSpan) -> Seen:
    return Seen(
        span.name,
        dict(span.attributes or {}),
        [(event.name, dict(event.attributes or {})) for event in span.events],
        None if span.status.is_ok or span.status.is_unset else (span.status.description or ""),
        kind=span.kind,
        span=span,
    )
