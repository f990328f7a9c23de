"""Errors of whole calls, beside those of `evcache.zones.errors`. There is one root, `CacheError`.

    CacheError
    |-- CacheUnavailable    no zone could answer: do without the cache, or try again later
    |-- ConsistencyError    some zones answered, fewer than the call asked for
    |-- ZoneBehind          why a zone's answer was not used: it is older than what this client wrote or saw
    |-- FailoverDenied      why a zone was not asked: the failover budget is used up
    |-- LoadTimeout         a loader takes longer than the caller waits; it goes on, ask again        (also a TimeoutError)
    |-- LoadAborted         a load was cut off: by the loader itself, by close(), or too many wait for it
    |-- BufferFull          a write-behind buffer has no room: its source is slow, or down (evcache.write_behind)
    `-- CodecError          a value and its bytes don't fit
        |-- EncodeError     this value can't be stored; nothing was sent       (also a ValueError)
        `-- DecodeError     what is stored can't be read: another codec, another client, damage

`StaleReplica` and `FailoverDenied` are never raised: they are reasons among the `failures` of the two above them. What a
loader raises is passed on as it is.

A miss is not an error: it is the value `default`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evcache.zones.errors import (
    CacheError,
    ConnectionLost,
    InvalidArgument,
    InvalidKey,
    InvalidTopology,
    NodeError,
    NodeSilent,
    NodeTimeout,
    NodeUnavailable,
    ProtocolError,
    QueueFull,
    ServerError,
    Unsupported,
    UsageError,
    ValueTooLarge,
)

__all__ = [
    "CacheError",
    "CacheUnavailable",
    "CodecError",
    "ConnectionLost",
    "ConsistencyError",
    "DecodeError",
    "EncodeError",
    "FailoverDenied",
    "InvalidArgument",
    "InvalidKey",
    "InvalidTopology",
    "LoadAborted",
    "LoadTimeout",
    "NodeError",
    "NodeSilent",
    "NodeTimeout",
    "NodeUnavailable",
    "ProtocolError",
    "QueueFull",
    "ServerError",
    "StaleReplica",
    "Unsupported",
    "UsageError",
    "ValueTooLarge",
]


class CacheUnavailable(CacheError):
    """No zone could answer. `failures` says why, by zone; `found` holds what a call for many keys did get."""

    def __init__(self, operation: str, failures: Mapping[str, CacheError], found: Mapping[Any, Any] | None = None) -> None:
        super().__init__(operation, failures, found)
        self.operation = operation
        self.failures = failures
        self.found = {} if found is None else found

    def __str__(self) -> str:
        return f"{self.operation}: no zone could answer ({_reasons(self.failures)})"


class ConsistencyError(CacheError):
    """`answered` zones did what was asked, `required` were wanted. `failures` says why the others did not, by zone.

    `found` holds what a call for many keys did get from enough zones.
    """

    def __init__(
        self,
        operation: str,
        answered: int,
        required: int,
        failures: Mapping[str, CacheError],
        found: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__(operation, answered, required, failures, found)
        self.operation = operation
        self.answered = answered
        self.required = required
        self.failures = failures
        self.found = {} if found is None else found

    def __str__(self) -> str:
        return f"{self.operation}: {self.answered} of {self.required} zones that must answer did ({_reasons(self.failures)})"


class StaleReplica(CacheError):
    """A zone answered with version `held`, and this client has written or seen version `known`, which is newer."""

    def __init__(self, held: int, known: int) -> None:
        super().__init__(held, known)
        self.held = held
        self.known = known

    def __str__(self) -> str:
        return f"it holds version {self.held}, older than {self.known}, which this client knows of"


class FailoverDenied(CacheError):
    """The zone was not asked: too many requests have gone to other zones than this client's own."""

    def __str__(self) -> str:
        return "not asked, the failover budget is used up"


class LoadTimeout(CacheError, TimeoutError):
    """Loading `key` (as servers know it) takes longer than the caller would wait. The load goes on, and what it finds is
    cached.
    """

    def __init__(self, key: bytes, seconds: float) -> None:
        super().__init__(key, seconds)
        self.key = key
        self.seconds = seconds

    def __str__(self) -> str:
        return f"loading {self.key!r} takes longer than {self.seconds:g} s"


class LoadAborted(CacheError):
    """A load was cut off, and says nothing about the value."""


class CodecError(CacheError):
    """A value and its bytes don't fit."""


class EncodeError(CodecError, ValueError):
    """The codec can't make bytes of this value. Raised before anything is sent."""


class DecodeError(CodecError):
    """The codec can't read what is stored, or it does not fit the type that the caller named.

    `key`, `zone` and `flags` say what and where. From a call for many keys, they belong to the first value that cannot be
    read; `found` holds the values of the keys that can be read, and `unreadable` the keys that cannot, both as given.
    """

    def __init__(
        self,
        problem: str,
        key: bytes = b"",
        zone: str = "",
        flags: int = 0,
        found: Mapping[Any, Any] | None = None,
        unreadable: Sequence[Any] = (),
    ) -> None:
        super().__init__(problem, key, zone, flags, found, unreadable)
        self.problem = problem
        self.key = key
        self.zone = zone
        self.flags = flags
        self.found = {} if found is None else found
        self.unreadable = unreadable

    def located(self, key: bytes, zone: str, flags: int) -> DecodeError:
        """Return this error with the place of the value: its key, zone and flags."""
        return DecodeError(self.problem, key=key, zone=zone, flags=flags)

    def __str__(self) -> str:
        more = f" (and of {len(self.unreadable) - 1} more keys)" if len(self.unreadable) > 1 else ""
        return f"key {self.key!r} in zone {self.zone}, flags {self.flags}: {self.problem}{more}"


def _reasons(failures: Mapping[str, CacheError]) -> str:
    return "; ".join(f"{zone}: {error}" for zone, error in failures.items()) or "none was asked"
