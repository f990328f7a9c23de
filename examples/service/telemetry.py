"""Setup of OpenTelemetry in a service: exporters, and a span for each request."""

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
    """Providers of the SDK, which the service passes on and shuts down at its end."""

    def __init__(self, traces_to: TracesTo = "none", *, service: str = "shop") -> None:
        resource = Resource.create({"service.name": service})
        self.traces = TracerProvider(resource=resource)  # OTEL_TRACES_SAMPLER sets its sampler; by default it samples all
        if traces_to != "none":
            self.traces.add_span_processor(BatchSpanProcessor(_exporter(traces_to)))
        # A separate registry, because two services in one test would share the global one.
        self._registry = CollectorRegistry()
        self.metrics = MeterProvider([PrometheusMetricReader(registry=self._registry)], resource=resource)

    def install(self) -> None:
        """Install the providers globally. All libraries then find them, `EVCache` too."""
        trace.set_tracer_provider(self.traces)
        metrics.set_meter_provider(self.metrics)

    def prometheus(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """Export pending spans and metrics. The call blocks."""
        self.traces.shutdown()
        self.metrics.shutdown()


def _exporter(traces_to: TracesTo) -> SpanExporter:
    if traces_to == "console":
        return ConsoleSpanExporter(formatter=_line)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # only for this exporter
    except ImportError:
        raise SystemExit("OTEL_TRACES_EXPORTER=otlp needs: pip install opentelemetry-exporter-otlp-proto-http") from None
    exporter: SpanExporter = OTLPSpanExporter()  # to OTEL_EXPORTER_OTLP_ENDPOINT
    return exporter


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"


class ServerSpans:
    """ASGI middleware that creates a span for each request, the parent of all spans of the request.

    opentelemetry-instrumentation-asgi is the complete form.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider, *, but: Collection[str] = ()) -> None:
        """Wrap an application. `but` lists paths without spans, such as those of health checks."""
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
            context=propagate.extract(Headers(scope=scope)),  # the span of the caller, if there is one
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]},
        ) as span:

            async def send_and_record(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._app(scope, receive, send_and_record)
            finally:
                if (route := getattr(scope.get("route"), "path", None)) is not None:  # known only after routing
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
