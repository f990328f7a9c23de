"""Spans, durations and counts around the operations of a client."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sized
from typing import Any, Protocol, TypeVar

from opentelemetry import trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, TraceFlags, Tracer

from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, WriteResult
from evcache.telemetry.counters import Counters
from evcache.telemetry.instruments import MetricInstruments
from evcache.telemetry.settings import ObservedClient, Telemetry
from evcache.telemetry.spans import (
    KeyCount,
    common_attributes,
    current_call_span,
    display_key,
    enter,
    error_type,
    leave,
    log_sdk_failure,
    record_error,
)

T = TypeVar("T")

OPERATIONS = (
    *("get", "get_item", "get_many", "get_and_touch", "set", "set_many", "add", "replace", "append", "prepend", "cas"),
    *("delete", "delete_many", "touch", "incr", "decr", "get_or_load", "get_or_load_many", "invalidate", "write_through"),
)

_MANY = frozenset({"get_many", "set_many", "delete_many", "get_or_load_many"})

_DELETES = frozenset({"delete", "delete_many", "invalidate"})

# A hook counts these.
_READS = frozenset({"get", "get_item", "get_many", "get_and_touch", "get_or_load", "get_or_load_many"})

# Operations that call a loader or a writer of the service, whose spans are children of the span of the call.
_CALLS_BACK = frozenset({"get_or_load", "get_or_load_many", "write_through"})


class Instrument(Protocol):
    """Observer of a client's operations."""

    def call(
        self, name: str, work: Coroutine[Any, Any, T], subject: object, consistency: str | None = None
    ) -> Coroutine[Any, Any, T]:
        """Return a coroutine that awaits `work` and observes it.

        Args:
            name: Name of the operation, one of `OPERATIONS`.
            work: Coroutine of the operation, not started.
            subject: Key of the call, or its keys.
            consistency: Consistency level of the call. If None, the client's default.
        """
        ...


class CallInstrument:
    """Observer that creates spans, records durations and counts writes."""

    def __init__(
        self,
        client: ObservedClient,
        tracer: Tracer | None,
        instruments: MetricInstruments | None,
        counters: Counters,
        settings: Telemetry,
    ) -> None:
        """Prepare the operations of a client. Spans need `tracer`, durations need `instruments`."""
        self._observe: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {}
        for name in OPERATIONS:
            record = None if instruments is None else DurationRecorder(instruments.duration, name, client, settings)
            self._observe[name] = Operation(name, tracer, record, counters, client, settings).observer()

    def call(
        self, name: str, work: Coroutine[Any, Any, T], subject: object, consistency: str | None = None
    ) -> Coroutine[Any, Any, T]:
        """Return a coroutine that awaits `work` within a span, and records its duration and result."""
        return self._observe[name](_Work((work,)), subject, consistency)


class _Work(tuple[Coroutine[Any, Any, Any]]):
    """Holder of a coroutine, which closes it if it was never started.

    A task that is cancelled before its first step never runs the observing coroutine. Python would then warn of the inner
    coroutine, which was not awaited. A tuple is made without a call of Python code.
    """

    __slots__ = ()

    def __del__(self) -> None:
        self[0].close()


class DurationRecorder:
    """Recorder of the durations of one operation. At high rates it records a part of them."""

    def __init__(self, histogram: Histogram, name: str, client: ObservedClient, settings: Telemetry) -> None:
        self._record = histogram.record
        self._attributes = common_attributes(name, client)
        self._limit = settings.durations_per_second
        self._second_ends = 0.0
        self._calls = 0
        self._every = 1

    def __call__(self, began: float, error: BaseException | None) -> None:
        """Record the end of a call that began at this time (`time.perf_counter`)."""
        if self._limit is not None:
            if began >= self._second_ends:
                # The number of calls in the previous second is the estimate for this one.
                self._every = max(1, self._calls // self._limit) if began < self._second_ends + 1.0 else 1
                self._second_ends, self._calls = int(began) + 1.0, 0
            self._calls += 1
            if self._calls % self._every and error is None:
                return
        attributes = self._attributes if error is None else {**self._attributes, "error.type": error_type(error)}
        self._record(time.perf_counter() - began, attributes)


class Operation:
    """One operation of a client: its span, its duration and its counts."""

    def __init__(
        self,
        name: str,
        tracer: Tracer | None,
        record: DurationRecorder | None,
        counters: Counters,
        client: ObservedClient,
        settings: Telemetry,
    ) -> None:
        self._name = name
        self._tracer = tracer
        self._record = record
        self._counters = counters
        self._keys = settings.keys
        self._is_many = name in _MANY
        self._span_name = f"{name} {client.namespace}"
        # A span gets its first attributes at its start, because an SDK takes two locks for each attribute that is set later.
        self._attributes: dict[str, str | int] = {**common_attributes(name, client)}
        if name in client.levels:
            self._attributes["evcache.consistency"] = client.levels[name].lower()

    def observer(self) -> Callable[[_Work, object, str | None], Coroutine[Any, Any, Any]]:
        """Return the coroutine function that observes calls of this operation."""
        record, finish = self._record, self._finish
        begin = self._begin if self._tracer is not None else None
        keys: KeyCount = "many keys" if self._is_many else "one key"
        has_result = self._name not in _READS  # results of writes are counted, also without a span

        async def observed(work: _Work, subject: object, consistency: str | None) -> Any:
            began = time.perf_counter()
            span = token = None
            if begin is not None:
                try:
                    span = begin(subject, consistency)
                    if span is not None:
                        token = enter(span, keys)
                except Exception:
                    log_sdk_failure()
            failure: BaseException | None = None
            result = None
            try:
                result = await work[0]
                return result
            except BaseException as error:
                failure = error
                raise
            finally:
                if token is not None:
                    leave(token)
                try:
                    if has_result or span is not None:
                        finish(span, result, failure)
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

    def _begin(self, subject: object, consistency: str | None) -> Span | None:
        """Return the span of a call, or None if it would not be recorded."""
        parent = trace.get_current_span().get_span_context()
        if not parent.trace_flags & TraceFlags.SAMPLED and parent.is_valid:
            # The parent is not sampled, and a span that is not recorded takes as long as a read. Inside another call of a
            # client, a non-recording span keeps events of this call away from the outer span. A loader can run inside a
            # span that is not that of its caller.
            return None if current_call_span() is None else NonRecordingSpan(parent)
        attributes = self._attributes
        if self._is_many or self._keys != "none" or consistency:
            attributes = {**attributes, **self._call_attributes(subject, consistency)}
        assert self._tracer is not None
        span = self._tracer.start_span(self._span_name, kind=SpanKind.CLIENT, attributes=attributes)
        if span.is_recording() or parent.is_valid or self._name in _CALLS_BACK or current_call_span() is not None:
            return span  # a span that is not recorded still carries the sampling decision to the spans of a loader
        return None

    def _call_attributes(self, subject: object, consistency: str | None) -> dict[str, str | int]:
        attributes: dict[str, str | int] = {}
        if consistency:
            attributes["evcache.consistency"] = str(consistency).lower()
        if self._is_many:
            if isinstance(subject, Sized) and len(subject) > 1:  # by the conventions, one key is no batch
                attributes["db.operation.batch.size"] = len(subject)
        elif self._keys != "none" and isinstance(subject, str | bytes):
            attributes["evcache.key"] = display_key(subject, self._keys)
        return attributes

    def _finish(self, span: Span | None, result: Any, failure: BaseException | None) -> None:
        if failure is not None:
            if span is not None:
                record_error(span, failure, self._keys)
        elif type(result) is WriteResult:
            self._counters.writes[self._name, result.met] += 1
            if span is not None:
                span.set_attributes({"evcache.zones.acked": self._acknowledged(result), "evcache.met": result.met})
        elif self._name in ("set_many", "delete_many"):
            for one in result.values():
                self._counters.writes[self._name, one.met] += 1
            if span is not None and result:
                span.set_attribute("evcache.zones.acked", min(map(self._acknowledged, result.values())))
                span.set_attribute("evcache.met", all(one.met for one in result.values()))
        elif span is not None and self._name in ("get_many", "get_or_load_many"):
            span.set_attribute("evcache.hits", len(result))

    def _acknowledged(self, result: WriteResult) -> int:
        outcomes = ACKNOWLEDGED_DELETE if self._name in _DELETES else ACKNOWLEDGED
        return sum(outcome in outcomes for outcome in result.zones.values())
