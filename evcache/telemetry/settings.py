"""What a client tells OpenTelemetry, and the client that it is told of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from evcache.hooks import HookDispatcher
from evcache.telemetry.metric_table import ClientMetricsSource
from evcache.zones.cluster import Cluster
from evcache.zones.errors import InvalidArgument
from evcache.zones.transport.request_tracing import RequestTracer
from evcache.zones.validation import at_least_one, methods

SCOPE = "evcache"
"""Whose spans and instruments they are."""

KeyDisplay = Literal["none", "hashed", "clear"]


# Calls whose duration is recorded in a second, about. Recording one takes an SDK as long as a read takes this client:
# above that, every n-th is recorded, which leaves the histogram its shape. The counters of reads and writes count all.
DURATIONS_PER_SECOND = 1_000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a client tells OpenTelemetry. Raises `InvalidArgument` for what can't be meant."""

    traces: bool = True
    metrics: bool = True
    keys: KeyDisplay = "none"
    """What spans say of keys, as `evcache.key`: nothing, half of their SHA-256 in hex, or the keys themselves."""
    node_spans: bool = False
    """Whether each request to a node is a span, too, under that of its call."""
    durations_per_second: int | None = DURATIONS_PER_SECOND
    """Calls of each operation whose duration is recorded in a second, about; None: all, and each costs as much as a read."""
    tracer_provider: TracerProvider | None = None
    """None: the one that the service has installed, once it has."""
    meter_provider: MeterProvider | None = None

    def __post_init__(self) -> None:
        for name in ("traces", "metrics", "node_spans"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(name, f"True or False is needed, not {getattr(self, name)!r}")
        if self.keys not in get_args(KeyDisplay):
            raise InvalidArgument("keys", f"{self.keys!r} is none of {', '.join(map(repr, get_args(KeyDisplay)))}")
        if self.durations_per_second is not None:
            at_least_one(self.durations_per_second, "durations_per_second")
        methods(self.tracer_provider, ("get_tracer",), "tracer_provider")
        methods(self.meter_provider, ("get_meter",), "meter_provider")


class ObservedClient(NamedTuple):
    """The client that is observed."""

    operations: object
    """Whose methods are wrapped: the client itself."""
    namespace: str
    hooks: HookDispatcher
    cluster: Cluster
    client: ClientMetricsSource
    """Whose numbers are read."""
    levels: Mapping[str, str]
    """The consistency of operations, where a call does not say."""
    tap: RequestTracer | None
    """Where its requests to nodes can be listened to."""
