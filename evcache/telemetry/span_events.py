"""Events during and after a call, recorded in spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer

from evcache.hooks import HintEnd, Hooks
from evcache.results import Outcome, Source
from evcache.telemetry.counters import fallback_reason
from evcache.telemetry.settings import ObservedClient
from evcache.telemetry.spans import (
    Attributes,
    common_attributes,
    current_call_span,
    enter,
    error_type,
    leave,
    log_sdk_failure,
    record_error,
)
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Endpoint


class SpanEvents(Hooks):
    """Hooks that add attributes and events to the span of the running call."""

    def __init__(self, tracer: Tracer, client: ObservedClient) -> None:
        self._tracer = tracer
        self._client = client

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        call = current_call_span()
        if call is None or call[1] != "one key":
            return
        attributes: dict[str, str | int] = {"evcache.hit": hit, "evcache.source": source}
        if zone:
            attributes["evcache.zone"] = zone
            node = None if source == "near" else self._node(zone, key)
            if node is not None:
                attributes |= _address(node.endpoint)
        call[0].set_attributes(attributes)

    def _read_many(self, keys: Sequence[bytes], zone: str, source: Source, *, hit: bool) -> None:
        """Do nothing: the span of a bulk call has no attributes of single keys."""

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        attributes: Attributes = {"evcache.fallback.reason": fallback_reason(error)}
        self._event("evcache.fallback", {"evcache.zone": zone, **attributes}, attributes)

    def zone_behind(self, zone: str) -> None:
        self._event("evcache.zone_behind", {"evcache.zone": zone})

    def failover_denied(self, zone: str) -> None:
        self._event("evcache.failover_denied", {"evcache.zone": zone})

    def hedged(self, zone: str, *, won: bool) -> None:
        self._event("evcache.hedge", {"evcache.zone": zone, "evcache.won": won})

    def gutter_used(self, *, hit: bool) -> None:
        self._event("evcache.gutter", {"evcache.hit": hit})

    def stale_served(self, error: BaseException | None) -> None:
        reason = "refresh" if error is None else "error"
        self._event("evcache.stale", {"evcache.stale.reason": reason}, {"evcache.stale": True})

    def error_as_miss(self, error: CacheError) -> None:
        self._event("evcache.error_as_miss", {"error.type": error_type(error)})

    def repaired(self, zone: str, outcome: Outcome) -> None:
        self._linked_span("repair", current_context(), {"evcache.zone": zone, "evcache.outcome": str(outcome)})

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        self._linked_span("replay", cause, {"evcache.zone": zone, "evcache.hint.end": end})

    def _event(self, name: str, attributes: Attributes, call_attributes: Attributes | None = None) -> None:
        call = current_call_span()
        if call is not None:
            call[0].add_event(name, attributes)
            if call_attributes is not None:
                call[0].set_attributes(call_attributes)

    def _linked_span(self, work: str, cause: object, attributes: Mapping[str, str]) -> None:
        """Record work after the return of its call, in a span with a link to that call."""
        if not isinstance(cause, SpanContext) or not cause.trace_flags.sampled:
            return
        self._tracer.start_span(
            f"{work} {self._client.namespace}",
            context=context.Context(),
            kind=SpanKind.CLIENT,
            attributes={**common_attributes(work, self._client), **attributes},
            links=[Link(cause)],
        ).end()

    def _node(self, zone: str, key: bytes) -> Node | None:
        view = self._client.cluster.view
        if view is None:
            return None
        for pool in view.writers:
            if pool.name == zone:
                return pool.node(view.ring_position(key))
        return None


class NodeSpans:
    """Spans of requests to nodes, as children of the span of their call."""

    def __init__(self, tracer: Tracer, client: ObservedClient) -> None:
        self._tracer = tracer
        self._client = client

    def begin(self, endpoint: Endpoint, command: str, requests: int) -> Callable[[BaseException | None], None] | None:
        """Start the span of a request. Return the function that ends it, or None if the span would not be recorded.

        `RequestTracer` calls this method.
        """
        parent = trace.get_current_span()
        if not parent.is_recording():
            return None
        attributes: dict[str, str | int] = {**common_attributes(command, self._client), **_address(endpoint)}
        if requests > 1:
            attributes["db.operation.batch.size"] = requests
        zone = next((zone for zone, known in self._client.cluster.nodes if known == endpoint), None)
        if zone is not None:
            attributes["evcache.zone"] = zone
        span = self._tracer.start_span(f"{command} {endpoint.label}", kind=SpanKind.CLIENT, attributes=attributes)

        def ended(error: BaseException | None) -> None:
            if error is not None:
                record_error(span, error, "none")
            span.end()

        return ended


def _address(endpoint: Endpoint) -> dict[str, str | int]:
    if endpoint.path:
        return {"server.address": endpoint.path}
    return {"server.address": endpoint.host, "server.port": endpoint.port}


def current_context() -> SpanContext | None:
    """Return the context of the current span, for a link to it."""
    try:
        found = trace.get_current_span().get_span_context()
    except Exception:
        log_sdk_failure()
        return None
    return found if found.is_valid else None


@contextmanager
def in_the_background(tracer: Tracer, namespace: str, work: str) -> Iterator[None]:
    """Run work that outlives its call within a separate span, which is the current one during the work."""
    span = token = None
    try:
        cause = current_context()
        if cause is None or cause.trace_flags.sampled:
            links = [] if cause is None else [Link(cause)]
            span = tracer.start_span(f"{work} {namespace}", context=context.Context(), links=links)
            token = enter(span, "many keys")
    except Exception:
        log_sdk_failure()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        if token is not None:
            leave(token)
        try:
            if span is not None:
                if failure is not None:
                    record_error(span, failure, "none")
                span.end()
        except Exception:
            log_sdk_failure()
