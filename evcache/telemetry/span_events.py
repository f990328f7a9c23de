"""What happens during a call, and after it, written to spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer

from evcache.hooks import HintEnd, Hooks
from evcache.results import Outcome, Source
from evcache.telemetry.counters import reason
from evcache.telemetry.settings import ObservedClient
from evcache.telemetry.spans import Said, common, current_call_span, enter, failed, leave, log_sdk_failure, type_of
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Endpoint


class SpanEvents(Hooks):
    """Writes what happens to the span of the call that it happens to."""

    def __init__(self, tracer: Tracer, subject: ObservedClient) -> None:
        self._tracer = tracer
        self._subject = subject

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        noted = current_call_span()
        if noted is None or noted[1] != "one key":
            return
        said: dict[str, str | int] = {"evcache.hit": hit, "evcache.source": source}
        if zone:
            said["evcache.zone"] = zone
            node = None if source == "near" else self._node(zone, key)
            if node is not None:
                said |= _address(node.endpoint)
        noted[0].set_attributes(said)

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        said: Said = {"evcache.fallback.reason": reason(error)}
        self._event("evcache.fallback", {"evcache.zone": zone, **said}, said)

    def zone_behind(self, zone: str) -> None:
        self._event("evcache.zone_behind", {"evcache.zone": zone})

    def failover_denied(self, zone: str) -> None:
        self._event("evcache.failover_denied", {"evcache.zone": zone})

    def hedged(self, zone: str, *, won: bool) -> None:
        self._event("evcache.hedge", {"evcache.zone": zone, "evcache.won": won})

    def gutter_used(self, *, hit: bool) -> None:
        self._event("evcache.gutter", {"evcache.hit": hit})

    def stale_served(self, error: BaseException | None) -> None:
        why = "refresh" if error is None else "error"
        self._event("evcache.stale", {"evcache.stale.reason": why}, {"evcache.stale": True})

    def error_as_miss(self, error: CacheError) -> None:
        self._event("evcache.error_as_miss", {"error.type": type_of(error)})

    def repaired(self, zone: str, outcome: Outcome) -> None:
        self._afterwards("repair", current_context(), {"evcache.zone": zone, "evcache.outcome": str(outcome)})

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        self._afterwards("replay", cause, {"evcache.zone": zone, "evcache.hint.end": end})

    def _event(self, name: str, attributes: Said, of_the_call: Said | None = None) -> None:
        noted = current_call_span()
        if noted is not None:
            noted[0].add_event(name, attributes)
            if of_the_call is not None:
                noted[0].set_attributes(of_the_call)

    def _afterwards(self, what: str, cause: object, attributes: Mapping[str, str]) -> None:
        """A span for what has been done since the call that caused it returned."""
        if not isinstance(cause, SpanContext) or not cause.trace_flags.sampled:
            return
        self._tracer.start_span(
            f"{what} {self._subject.namespace}",
            context=context.Context(),
            kind=SpanKind.CLIENT,
            attributes={**common(what, self._subject), **attributes},
            links=[Link(cause)],
        ).end()

    def _node(self, zone: str, key: bytes) -> Node | None:
        view = self._subject.cluster.view
        if view is None:
            return None
        for pool in view.writers:
            if pool.name == zone:
                return pool.node(view.ring_position(key))
        return None


class NodeSpans:
    """A span for each request to a node, under that of the call that sends it."""

    def __init__(self, tracer: Tracer, subject: ObservedClient) -> None:
        self._tracer = tracer
        self._subject = subject

    def begin(self, endpoint: Endpoint, command: str, requests: int) -> Callable[[BaseException | None], None] | None:
        """A listener of the tap. None when nobody would see the span."""
        parent = trace.get_current_span()
        if not parent.is_recording():
            return None
        attributes: dict[str, str | int] = {**common(command, self._subject), **_address(endpoint)}
        if requests > 1:
            attributes["db.operation.batch.size"] = requests
        zone = next((zone for zone, known in self._subject.cluster.nodes if known == endpoint), None)
        if zone is not None:
            attributes["evcache.zone"] = zone
        span = self._tracer.start_span(f"{command} {endpoint.label}", kind=SpanKind.CLIENT, attributes=attributes)

        def ended(error: BaseException | None) -> None:
            if error is not None:
                failed(span, error, "none")
            span.end()

        return ended


def _address(endpoint: Endpoint) -> dict[str, str | int]:
    if endpoint.path:
        return {"server.address": endpoint.path}
    return {"server.address": endpoint.host, "server.port": endpoint.port}


def current_context() -> SpanContext | None:
    """The span that something is done for, for a link to it."""
    try:
        found = trace.get_current_span().get_span_context()
    except Exception:
        log_sdk_failure()
        return None
    return found if found.is_valid else None


@contextmanager
def in_the_background(tracer: Tracer, namespace: str, what: str) -> Iterator[None]:
    """Around work that outlives the call it belongs to: a span of its own, the current one meanwhile."""
    span = token = None
    try:
        cause = current_context()
        if cause is None or cause.trace_flags.sampled:
            links = [] if cause is None else [Link(cause)]
            span = tracer.start_span(f"{what} {namespace}", context=context.Context(), links=links)
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
                    failed(span, failure, "none")
                span.end()
        except Exception:
            log_sdk_failure()
