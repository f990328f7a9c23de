"""Settings of telemetry, and the parts of a client that telemetry observes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from evcache.hooks import HookDispatcher
from evcache.telemetry.metric_source import ClientMetricsSource
from evcache.zones.cluster import Cluster
from evcache.zones.errors import InvalidArgument
from evcache.zones.transport.request_tracing import RequestTracer
from evcache.zones.validation import at_least_one, methods

SCOPE = "evcache"
"""Instrumentation scope of all spans and metrics. Its version is that of the package."""

KeyDisplay = Literal["none", "hashed", "clear"]


# Recording a duration takes an SDK as long as a read takes this client. Above this rate every n-th call is recorded, which
# keeps the shape of the histogram. The counters of reads and writes count all calls.
DURATIONS_PER_SECOND = 1_000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Settings of traces and metrics. Raises `InvalidArgument` for a value that cannot be used."""

    traces: bool = True
    """True to create a span for each call."""
    metrics: bool = True
    """True to report metrics."""
    keys: KeyDisplay = "none"
    """Form of `evcache.key` in spans: no key, half of its SHA-256 in hex, or the key itself."""
    node_spans: bool = False
    """True to create a span for each request to a node, as a child of the span of its call."""
    durations_per_second: int | None = DURATIONS_PER_SECOND
    """Approximate number of durations recorded in a second for each operation. If None, all are recorded, and each takes as
    long as a read."""
    tracer_provider: TracerProvider | None = None
    """Provider of the tracer. If None, the one that the service has installed."""
    meter_provider: MeterProvider | None = None
    """Provider of the meter. If None, the one that the service has installed."""

    def __post_init__(self) -> None:
        for name in ("traces", "metrics", "node_spans"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(name, f"True or False is required, not {getattr(self, name)!r}")
        if self.keys not in get_args(KeyDisplay):
            raise InvalidArgument("keys", f"{self.keys!r} is none of {', '.join(map(repr, get_args(KeyDisplay)))}")
        if self.durations_per_second is not None:
            at_least_one(self.durations_per_second, "durations_per_second")
        methods(self.tracer_provider, ("get_tracer",), "tracer_provider")
        methods(self.meter_provider, ("get_meter",), "meter_provider")


class ObservedClient(NamedTuple):
    """Parts of one client that telemetry reads."""

    namespace: str
    hooks: HookDispatcher
    cluster: Cluster
    source: ClientMetricsSource
    """Source of the numbers for metrics."""
    levels: Mapping[str, str]
    """Default consistency level of each operation."""
    request_tracer: RequestTracer | None
    """Tracer of requests to nodes. None without `node_spans`."""
