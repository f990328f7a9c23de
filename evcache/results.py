"""Results of calls."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

from evcache.zones.topology.model import Mode

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V_co = TypeVar("V_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    V_co = TypeVar("V_co", covariant=True)


class Outcome(enum.StrEnum):
    """Outcome of a write in one zone."""

    STORED = "stored"
    """The zone has the write."""
    SUPERSEDED = "superseded"
    """The zone holds a newer write, which would have replaced this one. It counts as stored."""
    NOT_STORED = "not_stored"
    """The server refused the value: `add` on a key that exists, no memory, or too large."""
    EXISTS = "exists"
    """The item is not the one that a `cas` names."""
    NOT_FOUND = "not_found"
    """The zone holds no value."""
    TIMEOUT = "timeout"
    """No reply arrived before the deadline. The server may have executed the command."""
    UNAVAILABLE = "unavailable"
    """The zone could not be asked."""
    PENDING = "pending"
    """The write was under way when the call returned."""


ACKNOWLEDGED = frozenset({Outcome.STORED, Outcome.SUPERSEDED})
# After a delete the key is gone, whether or not it was there.
ACKNOWLEDGED_DELETE = ACKNOWLEDGED | {Outcome.NOT_FOUND}

Source = Literal["near", "local", "preferred", "fallback", "none"]
"""Origin of a read.

`near` is the near cache, and `local` is the local zone. `preferred` is the zone that the client reads first if it has no
local zone that can be read. `fallback` is any other zone or the gutter. `none` is a key that no zone holds.
"""


def source_of(zone: str, local: str | None, preferred: str) -> Source:
    """Return the source of an item that a zone returned.

    Args:
        zone: The zone that returned it.
        local: The client's own zone, or None if the client has none that can be read.
        preferred: The zone that the client reads first while it is healthy.
    """
    if zone != preferred:
        return "fallback"
    return "preferred" if local is None else "local"


@dataclass(frozen=True, slots=True)
class Item(Generic[V_co]):
    """Value of a key with its version and origin."""

    value: V_co
    """The decoded value."""
    version: int | None
    """Version of the write. None for an item of another kind of client, and on servers without versions."""
    ttl: int | None
    """Whole seconds left. None if the item does not expire, and on servers that do not report it (docs/capabilities.md)."""
    zone: str
    """Zone that returned the item."""
    source: Source
    """Origin of the value."""
    stale: bool
    """True if a server marked the item as out of date."""
    cas_token: int
    """CAS of the item in `zone`, for `cas` on servers without versions."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Result of a write. It is true if as many zones hold the write as the consistency level requires."""

    met: bool
    """True if enough zones acknowledged the write. It is the truth value of the result."""
    version: int | None
    """Version of the write. None on servers without versions."""
    zones: Mapping[str, Outcome]
    """Outcome by zone. A zone that was still under way when the call returned is `pending`, and continues."""
    fell_short: tuple[Mode, ...] = ()
    """Sets of zones in which too few acknowledged: read-write, standby, or both. Empty if there are no standby zones."""

    def __bool__(self) -> bool:
        return self.met


class RemovalCause(enum.StrEnum):
    """Reason for the removal of an entry from the near cache."""

    EXPIRED = "expired"
    """The TTL had passed, whichever call removed the entry then."""
    EVICTED = "evicted"
    """The near cache was full."""
    REPLACED = "replaced"
    """A newer value replaced it, or exists and could not be stored."""
    INVALIDATED = "invalidated"
    """A call of `remove`."""
    CLEARED = "cleared"
    """A call of `clear`. The hook is called when the memory is free; the key may have another entry then."""
