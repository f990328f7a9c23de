"""OpenTelemetry as a service sets it up: where spans and metrics go, and a span for each request."""

from __future__ import annotations

from collections.abc import Collection

from opentelemetry import metrics, propagate, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.service.settings import TracesTo


class Observing:
    """The SDK's providers, for the service to hand on, and to shut down at its end."""

    def __init__(self, traces_to: TracesTo = "none", *, service: str = "shop") -> None:
        resource = Resource.create({"service.name": service})
        self.traces = TracerProvider(resource=resource)  # its sampler: OTEL_TRACES_SAMPLER, or else it takes all
        if traces_to != "none":
            self.traces.add_span_processor(BatchSpanProcessor(_exporter(traces_to)))
        # Not the process's own registry, in which two services of one test would meet.
        self._registry = CollectorRegistry()
        self.metrics = MeterProvider([PrometheusMetricReader(registry=self._registry)], resource=resource)

    def install(self) -> None:
        """Have every library that speaks OpenTelemetry find them; `EVCache` would, too, without being told."""
        trace.set_tracer_provider(self.traces)
        metrics.set_meter_provider(self.metrics)

    def prometheus(self) -> bytes:
        """All metrics as they are now, in Prometheus's text format."""
        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """Send what waits to be sent. Blocks."""
        self.traces.shutdown()
        self.metrics.shutdown()


def _exporter(traces_to: TracesTo) -> SpanExporter:
    if traces_to == "console":
        return ConsoleSpanExporter(formatter=_line)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # not needed otherwise
    except ImportError:
        raise SystemExit("OTEL_TRACES_EXPORTER=otlp needs: pip install opentelemetry-exporter-otlp-proto-http") from None
    exporter: SpanExporter = OTLPSpanExporter()  # to OTEL_EXPORTER_OTLP_ENDPOINT
    return exporter


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"


class ServerSpans:
    """ASGI middleware: a span for each request, under which falls all that is done for it.

    opentelemetry-instrumentation-asgi does the same, and much more.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider, *, but: Collection[str] = ()) -> None:
        """`but`: paths without spans, those that machines ask for every few seconds."""
        self._app = app
        self._tracer = provider.get_tracer("examples.service")
        self._but = frozenset(but)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._but:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(Headers(scope=scope)),  # the caller's span, if the caller has one
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]},
        ) as span:

            async def send_and_tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._app(scope, receive, send_and_tell)
            finally:
                if (route := getattr(scope.get("route"), "path", None)) is not None:  # known only now
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
