"""Common parts of spans: the span of the running call, attributes of keys and errors, and logging of SDK failures."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Literal

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode

from evcache.errors import CacheUnavailable, ConsistencyError, FailoverDenied, StaleReplica
from evcache.telemetry.settings import KeyDisplay, ObservedClient
from evcache.zones.errors import NodeError, ServerError

KeyCount = Literal["one key", "many keys"]
"""Number of keys of a call. The origin of a value is an attribute of calls for one key only."""

Attributes = Mapping[str, str | bool]

Entered = tuple[Token[context.Context], Token[tuple[Span, KeyCount] | None]]

# The span of the running call. It is not always the current span of the API, which may belong to the service. A separate
# variable also makes it cheap to read for each key: the API takes five calls to find its current span.
_CALL_SPAN: ContextVar[tuple[Span, KeyCount] | None] = ContextVar("evcache", default=None)

# First words of error replies of servers. The text after them may contain a key.
_STATUS_CODES = frozenset({"ERROR", "CLIENT_ERROR", "SERVER_ERROR"})

_log = logging.getLogger("evcache.telemetry")

_failure_logged = False


def enter(span: Span, keys: KeyCount) -> Entered:
    """Make a span the current one and the span of the running call, until `leave`."""
    return context.attach(trace.set_span_in_context(span)), _CALL_SPAN.set((span, keys))


def leave(entered: Entered) -> None:
    """Restore the spans before `enter`. Raises no error."""
    current, call_span = entered
    # A dropped coroutine can be closed in another context, in which the token is invalid.
    with suppress(ValueError):
        _CALL_SPAN.reset(call_span)
    context.detach(current)


def current_call_span() -> tuple[Span, KeyCount] | None:
    """Return the span of the running call, or None if it is not recorded."""
    found = _CALL_SPAN.get()
    return found if found is not None and found[0].is_recording() else None


def log_sdk_failure() -> None:
    """Log the current exception of the SDK, once for each process. The call that met it continues."""
    global _failure_logged  # noqa: PLW0603  # the state belongs to the process
    if not _failure_logged:
        _failure_logged = True
        _log.exception("OpenTelemetry failed: unexpected exception; calls continue, and further failures are not logged")


def common_attributes(operation: str, client: ObservedClient) -> dict[str, str]:
    """Return the attributes of all spans and durations of an operation."""
    return {"db.system.name": "memcached", "db.operation.name": operation, "db.namespace": client.namespace}


def display_key(key: str | bytes, display: KeyDisplay) -> str:
    """Return the form of a key in spans."""
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return hashlib.sha256(raw).hexdigest()[:32] if display == "hashed" else raw.decode("utf-8", "backslashreplace")


def error_type(error: BaseException) -> str:
    """Return the value of the attribute `error.type`."""
    return type(error).__qualname__


def record_error(span: Span, error: BaseException, keys: KeyDisplay) -> None:
    """Set the error attributes and the status of a span."""
    span.set_attribute("error.type", error_type(error))
    code = _status_code(error)
    if code is not None:
        span.set_attribute("db.response.status_code", code)
    span.set_status(Status(StatusCode.ERROR, _description(error, keys)))


def _description(error: BaseException, keys: KeyDisplay) -> str:
    """Return the text of an error, or only its class if the text may contain a key that must not be shown."""
    if isinstance(error, asyncio.CancelledError):
        return "the caller was cancelled"
    causes = error.failures.values() if isinstance(error, CacheUnavailable | ConsistencyError) else (error,)
    return str(error) if keys == "clear" or all(map(_contains_no_key, causes)) else error_type(error)


def _status_code(error: BaseException) -> str | None:
    """Return the first word of an error reply, or None for an error that is no reply."""
    code = error.problem.partition(" ")[0] if isinstance(error, NodeError) else ""
    return code if code in _STATUS_CODES else None


def _contains_no_key(error: BaseException) -> bool:
    # The text of a server is not shown either: a routing proxy may quote the key.
    if isinstance(error, ServerError) or _status_code(error) is not None:
        return False
    return isinstance(error, NodeError | StaleReplica | FailoverDenied)
