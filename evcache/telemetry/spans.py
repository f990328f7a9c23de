"""What spans have in common: what they say of the call, of keys and of errors, and which one is noted to."""

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

Noted = Literal["one key", "many keys"]


Said = Mapping[str, str | bool]


Entered = tuple[Token[context.Context], Token[tuple[Span, Noted] | None]]


# The span that is noted to: the current one may be the service's, which is not ours to write to. In a variable of its own,
# since there is a look for every key that is read, and the API takes five calls to find what its context has.
_OURS: ContextVar[tuple[Span, Noted] | None] = ContextVar("evcache", default=None)


# The first words of refusals, as servers send them. What follows, and what this client says in their place, may hold a key.
_STATUS_CODES = frozenset({"ERROR", "CLIENT_ERROR", "SERVER_ERROR"})


_log = logging.getLogger("evcache.telemetry")


def enter(span: Span, noted: Noted) -> Entered:
    """Make it the current span, and the one that is noted to, until `leave`."""
    return context.attach(trace.set_span_in_context(span)), _OURS.set((span, noted))


def leave(entered: Entered) -> None:
    """Go back to the spans that were before. Raises nothing."""
    current, noted = entered
    with suppress(ValueError):  # a coroutine that has been dropped half way is closed in whatever context there is
        _OURS.reset(noted)
    context.detach(current)


def current_call_span() -> tuple[Span, Noted] | None:
    """The span of the call that is under way, if somebody will see it."""
    found = _OURS.get()
    return found if found is not None and found[0].is_recording() else None


_said = False


def log_sdk_failure() -> None:
    """A part of the SDK has raised, in the middle of a call that has nothing to do with it. Said once, then not again."""
    global _said  # noqa: PLW0603  # once for each process is what is wanted
    if not _said:
        _said = True
        _log.exception("OpenTelemetry failed: unexpected exception; calls continue, and further failures are not logged")


def common(name: str, subject: ObservedClient) -> dict[str, str]:
    """What all spans, and all durations, of an operation say."""
    return {"db.system.name": "memcached", "db.operation.name": name, "db.namespace": subject.namespace}


def shown(key: str | bytes, display: KeyDisplay) -> str:
    """A key, as far as it may be shown."""
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return hashlib.sha256(raw).hexdigest()[:32] if display == "hashed" else raw.decode("utf-8", "backslashreplace")


def type_of(error: BaseException) -> str:
    """The value of `error.type`."""
    return type(error).__qualname__


def failed(span: Span, error: BaseException, keys: KeyDisplay) -> None:
    """Say that it ended with this."""
    span.set_attribute("error.type", type_of(error))
    code = _status_code(error)
    if code is not None:
        span.set_attribute("db.response.status_code", code)
    span.set_status(Status(StatusCode.ERROR, _described(error, keys)))


def _described(error: BaseException, keys: KeyDisplay) -> str:
    """What went wrong, without the key unless that may be said: messages of loaders and codecs, and of servers, name it."""
    if isinstance(error, asyncio.CancelledError):
        return "the caller was cancelled"
    told = error.failures.values() if isinstance(error, CacheUnavailable | ConsistencyError) else (error,)
    return str(error) if keys == "clear" or all(map(_names_no_key, told)) else type_of(error)


def _status_code(error: BaseException) -> str | None:
    """Return the first word of an error reply; None for an error that is no reply."""
    code = error.problem.partition(" ")[0] if isinstance(error, NodeError) else ""
    return code if code in _STATUS_CODES else None


def _names_no_key(error: BaseException) -> bool:
    # Nor is the text of a server shown: that of a proxy with routes of its own may name the key.
    if isinstance(error, ServerError) or _status_code(error) is not None:
        return False
    return isinstance(error, NodeError | StaleReplica | FailoverDenied)
