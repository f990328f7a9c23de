"""Looks whether the service has installed an SDK, and turns a client's telemetry on when it has."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, Tracer

from evcache.telemetry.counters import Counters
from evcache.telemetry.instruments import Instruments, instruments_of
from evcache.telemetry.metric_table import ClientMetricsSource
from evcache.telemetry.operations import wrap
from evcache.telemetry.settings import SCOPE, ObservedClient, Telemetry
from evcache.telemetry.span_events import NodeSpans, SpanEvents, current_context, in_the_background
from evcache.telemetry.spans import log_sdk_failure

# Between looks whether an SDK has been installed since.
LOOK_SECONDS = 1.0


class Activation:
    """Turns the telemetry of one client on when there is an SDK. For one event loop."""

    def __init__(self, settings: Telemetry, subject: Callable[[Counters], ObservedClient]) -> None:
        """`subject`: makes the client's, with what has counted for it."""
        self._settings = settings
        self._traces = settings.traces  # whether they are still to be turned on
        self._metrics = settings.metrics
        self._counts = Counters()
        self._subject = subject
        self._tracer: Tracer | None = None
        self._instruments: Instruments | None = None
        self._client: ClientMetricsSource | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for an SDK now, and again every second until all that is wanted of it is there, or has raised.

        May be called again after `stop`, on any loop. What was turned on before is not turned on twice.
        """
        if self._instruments is not None and self._client is not None:
            self._instruments.add(self._client)
        tracer, instruments = None, None
        if self._traces:
            try:
                tracer = tracer_of(self._settings)
            except Exception:
                log_sdk_failure()
                self._traces = False
        if self._metrics:
            try:
                instruments = instruments_of(self._settings)
            except Exception:
                log_sdk_failure()
                self._metrics = False
        if tracer is not None or instruments is not None:
            self._turn_on(tracer, instruments)
        if self._traces or self._metrics:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.start)

    def _turn_on(self, tracer: Tracer | None, instruments: Instruments | None) -> None:
        subject = self._subject(self._counts)
        if instruments is not None:
            self._instruments, self._metrics = instruments, False
            self._client = subject.client
            instruments.add(subject.client)
            subject.hooks.add(self._counts)
        if tracer is not None:
            self._tracer, self._traces = tracer, False
            subject.hooks.add(SpanEvents(tracer, subject))
            if self._settings.node_spans and subject.tap is not None:
                subject.tap.subscribe(NodeSpans(tracer, subject).begin)
            subject.hooks.trace_with(current_context, functools.partial(in_the_background, tracer, subject.namespace))
        wrap(subject, self._tracer, self._instruments, self._counts, self._settings)

    def stop(self) -> None:
        """Leave no timer behind, and report nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._instruments is not None and self._client is not None:
            self._instruments.remove(self._client)


def tracer_of(settings: Telemetry) -> Tracer | None:
    """None: there is no SDK, or it is disabled."""
    provider = settings.tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    tracer = provider.get_tracer(SCOPE)
    return None if isinstance(tracer, NoOpTracer) else tracer
