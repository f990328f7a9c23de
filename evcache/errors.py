"""Errors of whole calls. Those of one node, and of arguments, are in `evcache.zones.errors`. `CacheError` is their root.

    CacheError
    |-- CacheUnavailable    no zone answered: continue without the cache, or repeat the call later
    |-- ConsistencyError    fewer zones answered than the call required
    |-- StaleReplica        cause: the reply of a zone is older than a version that this client wrote or read
    |-- FailoverDenied      cause: the failover budget did not allow a request to the zone
    |-- LoadTimeout         the load takes longer than the caller waits, and continues               (also a TimeoutError)
    |-- LoadAborted         the load was cut off: cancelled, the client closed, or too many loads wait
    |-- BufferFull          a write-behind buffer is full, because its source is slow or down (evcache.write_behind)
    `-- CodecError          a value and its bytes do not match
        |-- EncodeError     the value cannot be encoded; nothing was sent                            (also a ValueError)
        `-- DecodeError     the stored value cannot be decoded: another codec, another kind of client, damage

`StaleReplica` and `FailoverDenied` are never raised. They are causes in the `failures` of the first two. Errors of a loader
are passed on unchanged. A miss is not an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evcache.zones.errors import (
    CacheError,
    ConnectionLost,
    DiscoveryError,
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
    "DiscoveryError",
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
    """No zone answered.

    `failures` holds the cause by zone, `found` the values that a bulk read got.
    """

    def __init__(self, operation: str, failures: Mapping[str, CacheError], found: Mapping[Any, Any] | None = None) -> None:
        super().__init__(operation, failures, found)
        self.operation = operation
        """Name of the operation, such as "get"."""
        self.failures = failures
        """Cause by zone. `discovery` is the name for the source of the topology."""
        self.found: Mapping[Any, Any] = {} if found is None else found
        """Values that a bulk read got, by key. Empty for other calls."""

    def __str__(self) -> str:
        return f"{self.operation}: no zone could answer ({_reasons(self.failures)})"


class ConsistencyError(CacheError):
    """Fewer zones answered (`answered`) than the call required (`required`).

    `failures` holds the cause by zone, `found` the values that a bulk read got from enough zones.
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
        """Name of the operation, such as "get"."""
        self.answered = answered
        """Number of zones that answered until the level was out of reach. Zones that reply later are not counted."""
        self.required = required
        """Number of zones that the consistency level of the call requires."""
        self.failures = failures
        """Cause by zone."""
        self.found: Mapping[Any, Any] = {} if found is None else found
        """Values that a bulk read got from enough zones, by key. Empty for other calls."""

    def __str__(self) -> str:
        return f"{self.operation}: {self.answered} of {self.required} zones that must answer did ({_reasons(self.failures)})"


class StaleReplica(CacheError):
    """The reply of a zone had version `held`, and this client has written or read the newer version `known`."""

    def __init__(self, held: int, known: int) -> None:
        super().__init__(held, known)
        self.held = held
        """Version that the zone holds."""
        self.known = known
        """Latest version of the key that this client has written or read."""

    def __str__(self) -> str:
        return f"its version {self.held} is older than {self.known}, which this client wrote or read"


class FailoverDenied(CacheError):
    """The zone was not asked, because too many requests have gone to other zones than the preferred one."""

    def __str__(self) -> str:
        return "failover budget used up"


class LoadTimeout(CacheError, TimeoutError):
    """The load of `key` (as servers store it) takes longer than `seconds`, for which the caller waits.

    The load continues, and the client stores its value.
    """

    def __init__(self, key: bytes, seconds: float) -> None:
        super().__init__(key, seconds)
        self.key = key
        """Key as servers store it."""
        self.seconds = seconds
        """Seconds that the caller waited."""

    def __str__(self) -> str:
        return f"loading {self.key!r} takes longer than {self.seconds:g} s"


class LoadAborted(CacheError):
    """The load was cut off. The key may have a value."""


class CodecError(CacheError):
    """A value and its bytes do not match."""


class EncodeError(CodecError, ValueError):
    """The codec cannot encode the value. The client raises it before it sends anything."""


class DecodeError(CodecError):
    """The codec cannot decode the stored value, or it does not fit the type that the caller named.

    `key`, `zone` and `flags` locate the value, in a bulk read the first one. There, `found` holds the values that could be
    decoded, and `unreadable` the keys of the others, both by key as given.
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
        """Reason for which the value cannot be decoded."""
        self.key = key
        """Key as servers store it. In a bulk read, that of the first such value."""
        self.zone = zone
        """Zone that returned the value."""
        self.flags = flags
        """Client flags of the value, which name its form."""
        self.found: Mapping[Any, Any] = {} if found is None else found
        """Values of a bulk read that could be decoded, by key as given."""
        self.unreadable = unreadable
        """Keys of a bulk read whose values could not be decoded, as given."""

    def located(self, key: bytes, zone: str, flags: int) -> DecodeError:
        """Return this error with the place of the value.

        Args:
            key: Key as servers store it.
            zone: Zone that returned the value.
            flags: Client flags of the value.
        """
        return DecodeError(self.problem, key=key, zone=zone, flags=flags)

    def __str__(self) -> str:
        more = f" (and of {len(self.unreadable) - 1} more keys)" if len(self.unreadable) > 1 else ""
        return f"key {self.key!r} in zone {self.zone}, flags {self.flags}: {self.problem}{more}"


def _reasons(failures: Mapping[str, CacheError]) -> str:
    return "; ".join(f"{zone}: {error}" for zone, error in failures.items()) or "none was asked"
