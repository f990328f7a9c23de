"""Traces and metrics with OpenTelemetry: the only module that knows of it, and of its API alone. Nothing is exported unless
the service has installed an SDK.

A client whose service has none runs the very code that it would run without this module. When there is one, at the first
call or a moment after it has been installed, the operations of that client are wrapped: each call is a span of kind
client, the current one while it runs, so that what a loader does hangs under it. What the parts of the client tell
through hooks becomes its attributes and events. Work that outlives its call is a span of its own, with a link to the call
that caused it.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, NoOpMeter, Observation
from opentelemetry.trace import Link, NoOpTracer, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from evcache.counts import Counts, reason
from evcache.errors import CacheUnavailable, ConsistencyError, FailoverDenied, ZoneBehind
from evcache.hooks import HintEnd, Hooks, Listeners
from evcache.metrics import DURATION, DURATION_BUCKETS, METRICS, Client, Metric, read
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, Outcome, Source, WriteResult
from zones.checks import at_least_one
from zones.cluster import Cluster
from zones.errors import CacheError, InvalidArgument, NodeError, ServerError
from zones.node import Node
from zones.tap import Tap
from zones.topology import Endpoint

KeyDisplay = Literal["none", "hashed", "clear"]

# Calls whose duration is recorded in a second, about. Recording one takes an SDK as long as a read takes this client:
# above that, every n-th is recorded, which leaves the histogram its shape. The counters of reads and writes count all.
DURATIONS_PER_SECOND = 1_000

# Between looks whether an SDK has been installed since.
LOOK_SECONDS = 1.0

OPERATIONS = (
    *("get", "get_item", "get_many", "get_and_touch", "set", "set_many", "add", "replace", "append", "prepend", "cas"),
    *("delete", "delete_many", "touch", "incr", "decr", "get_or_load", "get_or_load_many", "invalidate", "write_through"),
)
_MANY = frozenset({"get_many", "set_many", "delete_many", "get_or_load_many"})
# What the first argument is called, where that is not `key`.
_FIRST = {"get_many": "keys", "delete_many": "keys", "get_or_load_many": "keys", "set_many": "values"}
_DELETES = frozenset({"delete", "delete_many", "invalidate"})
# With a loader or a writer, whose own spans hang under the call's.
_CALLS_BACK = frozenset({"get_or_load", "get_or_load_many", "write_through"})

_SCOPE = "evcache"

# Under which the context has what is noted of: the current span may be the service's, which is not ours to write to.
_OURS = context.create_key("evcache")

# The first words of refusals, as servers send them. What follows, and what this client says in their place, may hold a key.
_STATUS_CODES = frozenset({"ERROR", "CLIENT_ERROR", "SERVER_ERROR"})

_log = logging.getLogger(__name__)


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


class Subject(NamedTuple):
    """The client that is observed."""

    operations: object
    """Whose methods are wrapped: the client itself."""
    namespace: str
    hooks: Listeners
    cluster: Cluster
    client: Client
    """Whose numbers are read."""
    levels: Mapping[str, str]
    """The consistency of operations, where a call does not say."""
    tap: Tap | None
    """Where its requests to nodes can be listened to."""


class Watch:
    """Turns the telemetry of one client on when there is an SDK. For one event loop."""

    def __init__(self, settings: Telemetry, subject: Callable[[Counts], Subject]) -> None:
        """`subject`: makes the client's, with what has counted for it."""
        self._settings = settings
        self._traces = settings.traces  # whether they are still to be turned on
        self._metrics = settings.metrics
        self._counts = Counts()
        self._subject = subject
        self._tracer: Tracer | None = None
        self._instruments: _Instruments | None = None
        self._client: Client | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for an SDK now, and again every second until all that is wanted of it is there, or has raised."""
        tracer, instruments = None, None
        if self._traces:
            try:
                tracer = _tracer(self._settings)
            except Exception:
                _broke()
                self._traces = False
        if self._metrics:
            try:
                instruments = _instruments(self._settings)
            except Exception:
                _broke()
                self._metrics = False
        if tracer is not None or instruments is not None:
            self._turn_on(tracer, instruments)
        if self._traces or self._metrics:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.start)

    def _turn_on(self, tracer: Tracer | None, instruments: _Instruments | None) -> None:
        subject = self._subject(self._counts)
        if instruments is not None:
            self._instruments, self._metrics = instruments, False
            self._client = subject.client
            instruments.add(subject.client)
            subject.hooks.add(self._counts)
        if tracer is not None:
            self._tracer, self._traces = tracer, False
            subject.hooks.add(_Notes(tracer, subject))
            if self._settings.node_spans and subject.tap is not None:
                subject.tap.listener = _NodeSpans(tracer, subject).begin
            subject.hooks.cause = _current_context
            subject.hooks.background = functools.partial(_in_the_background, tracer, subject.namespace)
        _wrap(subject, self._tracer, self._instruments, self._counts, self._settings)

    def stop(self) -> None:
        """Leave no timer behind, and report nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._instruments is not None and self._client is not None:
            self._instruments.remove(self._client)


# What the service has installed.


def _tracer(settings: Telemetry) -> Tracer | None:
    """None: there is no SDK, or it is disabled."""
    provider = settings.tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    tracer = provider.get_tracer(_SCOPE)
    return None if isinstance(tracer, NoOpTracer) else tracer


def _instruments(settings: Telemetry) -> _Instruments | None:
    """None: there is no SDK, or it is disabled."""
    provider = settings.meter_provider or metrics.get_meter_provider()
    if type(provider).__module__.startswith(metrics.__name__):  # the API's own, which stand for one that is not there
        return None
    meter = provider.get_meter(_SCOPE)
    if isinstance(meter, NoOpMeter):
        return None
    found = _by_provider.get(provider)
    if found is None:
        found = _by_provider[provider] = _Instruments(meter)
    return found


class _Instruments:
    """The instruments of one provider, for all clients: an SDK drops the callbacks of an instrument that is made again."""

    def __init__(self, meter: Meter) -> None:
        # A list is made of a dict's values in one step. Exporters look from threads of their own, and a walk through a set
        # that changes meanwhile can meet a client twice.
        self._clients: weakref.WeakValueDictionary[int, Client] = weakref.WeakValueDictionary()
        self.duration = meter.create_histogram(
            DURATION, "s", "Duration of calls.", explicit_bucket_boundaries_advisory=DURATION_BUCKETS
        )
        for metric in METRICS:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(metric.name, [functools.partial(self._observe, metric)], metric.unit, metric.meaning)

    def add(self, client: Client) -> None:
        """Report its numbers from now on."""
        self._clients[id(client)] = client

    def remove(self, client: Client) -> None:
        """Report them no more."""
        self._clients.pop(id(client), None)

    def _observe(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        clients = [client for found in self._clients.valuerefs() if (client := found()) is not None]
        return [Observation(value, attributes) for value, attributes in read(metric, clients)]


_by_provider: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()


# Calls.


def _wrap(
    subject: Subject, tracer: Tracer | None, instruments: _Instruments | None, counts: Counts, settings: Telemetry
) -> None:
    for name in OPERATIONS:
        method = getattr(type(subject.operations), name).__get__(subject.operations)
        record = None if instruments is None else _Durations(instruments.duration, name, subject, settings)
        call = _Call(name, method, tracer, record, counts, subject, settings)
        setattr(subject.operations, name, functools.wraps(method)(call.bound()))


class _Durations:
    """Records how long calls of one operation take, some of them when there are many."""

    def __init__(self, histogram: Histogram, name: str, subject: Subject, settings: Telemetry) -> None:
        self._record = histogram.record
        self._attributes = _common(name, subject)
        self._limit = settings.durations_per_second
        self._second = 0
        self._calls = 0
        self._every = 1

    def __call__(self, began: float, error: BaseException | None) -> None:
        now = time.perf_counter()
        if self._limit is not None:
            if int(now) != self._second:
                # As many as there were in the second before are to be expected.
                self._every = max(1, self._calls // self._limit) if int(now) == self._second + 1 else 1
                self._second, self._calls = int(now), 0
            self._calls += 1
            if self._calls % self._every and error is None:
                return
        attributes = self._attributes if error is None else {**self._attributes, "error.type": _type_of(error)}
        self._record(now - began, attributes)


class _Call:
    """The calls of one operation of one client."""

    def __init__(
        self,
        name: str,
        method: Callable[..., Awaitable[Any]],
        tracer: Tracer | None,
        record: _Durations | None,
        counts: Counts,
        subject: Subject,
        settings: Telemetry,
    ) -> None:
        self._name = name
        self._method = method
        self._tracer = tracer
        self._record = record
        self._counts = counts
        self._keys = settings.keys
        self._attributes = _common(name, subject)
        self._span_name = f"{name} {subject.namespace}"
        self._level = subject.levels.get(name)

    def bound(self) -> Callable[..., Awaitable[Any]]:
        """What takes the place of the operation."""
        method, record, ended = self._method, self._record, self._ended
        begin = self._begin if self._tracer is not None else None
        noted: Noted = "one key" if self._name not in _MANY else "many keys"

        async def observed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            span = token = None
            if begin is not None:
                try:
                    span = begin(arguments, named)
                    if span is not None:
                        token = _enter(span, noted)
                except Exception:
                    _broke()
            failure: BaseException | None = None
            result = None
            try:
                result = await method(*arguments, **named)
                return result
            except BaseException as error:
                failure = error
                raise
            finally:
                if token is not None:
                    context.detach(token)
                try:
                    ended(span, result, failure)
                except Exception:
                    _broke()
                try:
                    if record is not None:
                        record(began, failure)
                except Exception:
                    _broke()
                try:
                    if span is not None:
                        span.end()
                except Exception:
                    _broke()

        return observed

    def _begin(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Span | None:
        """The span of a call; None when nobody would see it."""
        parent = trace.get_current_span().get_span_context()
        if parent.is_valid and not parent.trace_flags.sampled:
            return None  # nor would its own sampler take it, and a span that is not recorded costs as much as a look-up
        assert self._tracer is not None
        span = self._tracer.start_span(self._span_name, kind=SpanKind.CLIENT, attributes=self._attributes)
        if not span.is_recording():
            # What a loader does is not to be sampled anew; and what is noted of this call is not of the one around it.
            return span if parent.is_valid or self._name in _CALLS_BACK else None
        level = named.get("consistency") or self._level
        if level is not None:
            span.set_attribute("evcache.consistency", str(level).lower())
        subject = arguments[0] if arguments else named.get(_FIRST.get(self._name, "key"))
        if self._name in _MANY:
            if isinstance(subject, Sized) and len(subject) > 1:  # one is no batch, as the conventions have it
                span.set_attribute("db.operation.batch.size", len(subject))
        elif self._keys != "none" and isinstance(subject, str | bytes):
            span.set_attribute("evcache.key", _shown(subject, self._keys))
        return span

    def _ended(self, span: Span | None, result: Any, failure: BaseException | None) -> None:
        if failure is not None:
            if span is not None:
                _failed(span, failure, self._keys)
        elif type(result) is WriteResult:
            self._counts.writes[self._name, result.met] += 1
            if span is not None:
                span.set_attribute("evcache.zones.acked", self._acknowledged(result))
                span.set_attribute("evcache.met", result.met)
        elif self._name in ("set_many", "delete_many"):
            for one in result.values():
                self._counts.writes[self._name, one.met] += 1
            if span is not None and result:
                span.set_attribute("evcache.zones.acked", min(map(self._acknowledged, result.values())))
                span.set_attribute("evcache.met", all(one.met for one in result.values()))
        elif span is not None and self._name in ("get_many", "get_or_load_many"):
            span.set_attribute("evcache.hits", len(result))

    def _acknowledged(self, result: WriteResult) -> int:
        counts = ACKNOWLEDGED_DELETE if self._name in _DELETES else ACKNOWLEDGED
        return sum(outcome in counts for outcome in result.zones.values())


Noted = Literal["one key", "many keys"]
Said = Mapping[str, str | bool]


def _enter(span: Span, noted: Noted) -> Any:
    """Make it the current span, and the one that is noted to. Returns what `context.detach` wants."""
    return context.attach(context.set_value(_OURS, (span, noted), trace.set_span_in_context(span)))


def _ours() -> tuple[Span, Noted] | None:
    """The span of the call that is under way, if somebody will see it."""
    found: Any = context.get_value(_OURS)
    return found if found is not None and found[0].is_recording() else None


def _broke() -> None:
    """A part of the SDK has raised, in the middle of a call that has nothing to do with it. Said once, then not again."""
    global _said  # noqa: PLW0603  # once for each process is what is wanted
    if not _said:
        _said = True
        _log.exception("OpenTelemetry raised; calls go on without it, and this is not said again")


_said = False


def _common(name: str, subject: Subject) -> dict[str, str]:
    return {"db.system.name": "memcached", "db.operation.name": name, "db.namespace": subject.namespace}


def _shown(key: str | bytes, display: KeyDisplay) -> str:
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return hashlib.sha256(raw).hexdigest()[:32] if display == "hashed" else raw.decode("utf-8", "backslashreplace")


def _type_of(error: BaseException) -> str:
    return type(error).__qualname__


def _failed(span: Span, error: BaseException, keys: KeyDisplay) -> None:
    span.set_attribute("error.type", _type_of(error))
    code = error.problem.partition(" ")[0] if isinstance(error, ServerError) else ""
    if code in _STATUS_CODES:
        span.set_attribute("db.response.status_code", code)
    span.set_status(Status(StatusCode.ERROR, _described(error, keys)))


def _described(error: BaseException, keys: KeyDisplay) -> str:
    """What went wrong, without the key unless that may be said: messages of loaders and codecs, and of servers, name it."""
    if isinstance(error, asyncio.CancelledError):
        return "the caller was cancelled"
    told = error.failures.values() if isinstance(error, CacheUnavailable | ConsistencyError) else (error,)
    return str(error) if keys == "clear" or all(map(_names_no_key, told)) else _type_of(error)


def _names_no_key(error: BaseException) -> bool:
    return isinstance(error, NodeError | ZoneBehind | FailoverDenied) and not isinstance(error, ServerError)


# What happens during a call, and after it.


class _Notes(Hooks):
    """Writes what happens to the span of the call that it happens to."""

    def __init__(self, tracer: Tracer, subject: Subject) -> None:
        self._tracer = tracer
        self._subject = subject

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        ours = _ours()
        if ours is None or ours[1] != "one key":
            return
        span = ours[0]
        span.set_attributes({"evcache.hit": hit, "evcache.source": source})
        if zone:
            span.set_attribute("evcache.zone", zone)
            node = None if source == "near" else self._node(zone, key)
            if node is not None:
                span.set_attributes(_address(node.endpoint))

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
        self._event("evcache.error_as_miss", {"error.type": _type_of(error)})

    def repaired(self, zone: str, outcome: Outcome) -> None:
        self._afterwards("repair", _current_context(), {"evcache.zone": zone, "evcache.outcome": str(outcome)})

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        self._afterwards("replay", cause, {"evcache.zone": zone, "evcache.hint.end": end})

    def _event(self, name: str, attributes: Said, of_the_call: Said | None = None) -> None:
        ours = _ours()
        if ours is not None:
            ours[0].add_event(name, attributes)
            if of_the_call is not None:
                ours[0].set_attributes(of_the_call)

    def _afterwards(self, what: str, cause: object, attributes: Mapping[str, str]) -> None:
        """A span for what has been done since the call that caused it returned."""
        if not isinstance(cause, SpanContext) or not cause.trace_flags.sampled:
            return
        self._tracer.start_span(
            f"{what} {self._subject.namespace}",
            context=context.Context(),
            kind=SpanKind.CLIENT,
            attributes={**_common(what, self._subject), **attributes},
            links=[Link(cause)],
        ).end()

    def _node(self, zone: str, key: bytes) -> Node | None:
        view = self._subject.cluster.view
        if view is None:
            return None
        pool = next((pool for pool in view.writers if pool.name == zone), None)
        return None if pool is None else pool.node(view.place(key))


class _NodeSpans:
    """A span for each request to a node, under that of the call that sends it."""

    def __init__(self, tracer: Tracer, subject: Subject) -> None:
        self._tracer = tracer
        self._subject = subject

    def begin(self, endpoint: Endpoint, command: str, requests: int) -> Callable[[BaseException | None], None] | None:
        """A listener of the tap. None when nobody would see the span."""
        parent = trace.get_current_span()
        if not parent.is_recording():
            return None
        attributes: dict[str, str | int] = {**_common(command, self._subject), **_address(endpoint)}
        if requests > 1:
            attributes["db.operation.batch.size"] = requests
        zone = next((zone for zone, known in self._subject.cluster.nodes if known == endpoint), None)
        if zone is not None:
            attributes["evcache.zone"] = zone
        span = self._tracer.start_span(f"{command} {endpoint.label}", kind=SpanKind.CLIENT, attributes=attributes)

        def ended(error: BaseException | None) -> None:
            if error is not None:
                _failed(span, error, "none")
            span.end()

        return ended


def _address(endpoint: Endpoint) -> dict[str, str | int]:
    if endpoint.path:
        return {"server.address": endpoint.path}
    return {"server.address": endpoint.host, "server.port": endpoint.port}


def _current_context() -> SpanContext | None:
    """The span that something is done for, for a link to it."""
    try:
        found = trace.get_current_span().get_span_context()
    except Exception:
        _broke()
        return None
    return found if found.is_valid else None


@contextmanager
def _in_the_background(tracer: Tracer, namespace: str, what: str) -> Iterator[None]:
    """Around work that outlives the call it belongs to: a span of its own, the current one meanwhile."""
    span = token = None
    try:
        cause = _current_context()
        if cause is None or cause.trace_flags.sampled:
            links = [] if cause is None else [Link(cause)]
            span = tracer.start_span(f"{what} {namespace}", context=context.Context(), links=links)
            token = _enter(span, "many keys")
    except Exception:
        _broke()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        if token is not None:
            context.detach(token)
        try:
            if span is not None:
                if failure is not None:
                    _failed(span, failure, "none")
                span.end()
        except Exception:
            _broke()
