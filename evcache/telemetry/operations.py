"""The operations of a client, wrapped: a span around each call, and its duration."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sized
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, TraceFlags, Tracer

from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, WriteResult
from evcache.telemetry.counters import Counters
from evcache.telemetry.instruments import Instruments
from evcache.telemetry.settings import ObservedClient, Telemetry
from evcache.telemetry.spans import Noted, common, current_call_span, enter, failed, leave, log_sdk_failure, shown, type_of

OPERATIONS = (
    *("get", "get_item", "get_many", "get_and_touch", "set", "set_many", "add", "replace", "append", "prepend", "cas"),
    *("delete", "delete_many", "touch", "incr", "decr", "get_or_load", "get_or_load_many", "invalidate", "write_through"),
)

_MANY = frozenset({"get_many", "set_many", "delete_many", "get_or_load_many"})

# What the first argument is called, where that is not `key`.
_FIRST = {"get_many": "keys", "delete_many": "keys", "get_or_load_many": "keys", "set_many": "values"}

_DELETES = frozenset({"delete", "delete_many", "invalidate"})

# They are counted by a hook.
_READS = frozenset({"get", "get_item", "get_many", "get_and_touch", "get_or_load", "get_or_load_many"})

# With a loader or a writer, whose own spans hang under the call's.
_CALLS_BACK = frozenset({"get_or_load", "get_or_load_many", "write_through"})


def wrap(
    subject: ObservedClient, tracer: Tracer | None, instruments: Instruments | None, counts: Counters, settings: Telemetry
) -> None:
    """Have each operation of a client observed. May be done again, when the other half of the SDK is there, too."""
    for name in OPERATIONS:
        method = getattr(type(subject.operations), name).__get__(subject.operations)
        record = None if instruments is None else Durations(instruments.duration, name, subject, settings)
        call = Call(name, method, tracer, record, counts, subject, settings)
        setattr(subject.operations, name, functools.wraps(method)(call.bound()))


class Durations:
    """Records how long calls of one operation take, some of them when there are many."""

    def __init__(self, histogram: Histogram, name: str, subject: ObservedClient, settings: Telemetry) -> None:
        self._record = histogram.record
        self._attributes = common(name, subject)
        self._limit = settings.durations_per_second
        self._second_ends = 0.0
        self._calls = 0
        self._every = 1

    def __call__(self, began: float, error: BaseException | None) -> None:
        """A call that began then (`time.perf_counter`) has ended."""
        if self._limit is not None:
            if began >= self._second_ends:
                # As many as there were in the second before are to be expected.
                self._every = max(1, self._calls // self._limit) if began < self._second_ends + 1.0 else 1
                self._second_ends, self._calls = int(began) + 1.0, 0
            self._calls += 1
            if self._calls % self._every and error is None:
                return
        attributes = self._attributes if error is None else {**self._attributes, "error.type": type_of(error)}
        self._record(time.perf_counter() - began, attributes)


class Call:
    """The calls of one operation of one client."""

    def __init__(
        self,
        name: str,
        method: Callable[..., Awaitable[Any]],
        tracer: Tracer | None,
        record: Durations | None,
        counts: Counters,
        subject: ObservedClient,
        settings: Telemetry,
    ) -> None:
        self._name = name
        self._method = method
        self._tracer = tracer
        self._record = record
        self._counts = counts
        self._keys = settings.keys
        self._many = name in _MANY
        self._span_name = f"{name} {subject.namespace}"
        # All that spans begin with: an SDK takes two locks for each attribute that is set later.
        self._attributes: dict[str, str | int] = {**common(name, subject)}
        if name in subject.levels:
            self._attributes["evcache.consistency"] = subject.levels[name].lower()

    def bound(self) -> Callable[..., Awaitable[Any]]:
        """What takes the place of the operation."""
        method, record, ended = self._method, self._record, self._ended
        begin = self._begin if self._tracer is not None else None
        noted: Noted = "many keys" if self._many else "one key"
        says_more = self._name not in _READS  # at its end, though there be no span

        async def observed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            span = token = None
            if begin is not None:
                try:
                    span = begin(arguments, named)
                    if span is not None:
                        token = enter(span, noted)
                except Exception:
                    log_sdk_failure()
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
                    leave(token)
                try:
                    if says_more or span is not None:
                        ended(span, result, failure)
                except Exception:
                    log_sdk_failure()
                try:
                    if record is not None:
                        record(began, failure)
                except Exception:
                    log_sdk_failure()
                try:
                    if span is not None:
                        span.end()
                except Exception:
                    log_sdk_failure()

        return observed

    def _begin(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Span | None:
        """The span of a call; None when nobody would see it."""
        parent = trace.get_current_span().get_span_context()
        if not parent.trace_flags & TraceFlags.SAMPLED and parent.is_valid:
            # Nor would its own sampler take it, and a span that is not recorded costs as much as a look-up. But what is
            # noted of this call is not of the one around it: a loader may work under a span that is not its caller's.
            return None if current_call_span() is None else NonRecordingSpan(parent)
        attributes = self._attributes
        if self._many or self._keys != "none" or named.get("consistency"):
            attributes = {**attributes, **self._told_by(arguments, named)}
        assert self._tracer is not None
        span = self._tracer.start_span(self._span_name, kind=SpanKind.CLIENT, attributes=attributes)
        if span.is_recording() or parent.is_valid or self._name in _CALLS_BACK or current_call_span() is not None:
            return span  # also if nobody will see it: what a loader does is not to be sampled anew
        return None

    def _told_by(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, str | int]:
        told: dict[str, str | int] = {}
        level = named.get("consistency")
        if level:
            told["evcache.consistency"] = str(level).lower()
        subject = arguments[0] if arguments else named.get(_FIRST.get(self._name, "key"))
        if self._many:
            if isinstance(subject, Sized) and len(subject) > 1:  # one is no batch, as the conventions have it
                told["db.operation.batch.size"] = len(subject)
        elif self._keys != "none" and isinstance(subject, str | bytes):
            told["evcache.key"] = shown(subject, self._keys)
        return told

    def _ended(self, span: Span | None, result: Any, failure: BaseException | None) -> None:
        if failure is not None:
            if span is not None:
                failed(span, failure, self._keys)
        elif type(result) is WriteResult:
            self._counts.writes[self._name, result.met] += 1
            if span is not None:
                span.set_attributes({"evcache.zones.acked": self._acknowledged(result), "evcache.met": result.met})
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
