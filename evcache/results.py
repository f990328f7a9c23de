"""What calls return."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V_co = TypeVar("V_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    V_co = TypeVar("V_co", covariant=True)


class Outcome(enum.StrEnum):
    """What one zone did with a write."""

    STORED = "stored"
    SUPERSEDED = "superseded"
    """A newer write is there already: as good as stored, since ours would have been replaced."""
    NOT_STORED = "not_stored"
    """The server refused: `add` on a key that exists, out of memory, too large."""
    EXISTS = "exists"
    """`cas`: the item is another than the one that was read."""
    NOT_FOUND = "not_found"
    TIMEOUT = "timeout"
    """No reply before the deadline; it may have been carried out."""
    UNAVAILABLE = "unavailable"
    """The zone could not be asked."""
    PENDING = "pending"
    """On its way when the call returned."""


ACKNOWLEDGED = frozenset({Outcome.STORED, Outcome.SUPERSEDED})
# After a delete the key is gone, whether or not it was there.
ACKNOWLEDGED_DELETE = ACKNOWLEDGED | {Outcome.NOT_FOUND}

Source = Literal["near", "local", "preferred", "fallback", "none"]
"""Origin of a read.

`near` is this process's memory, and `local` is its zone. `preferred` is the zone that the client reads first if it has no
local zone that can be read. `fallback` is any other zone or the gutter. `none`: no zone has the key.
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
    """A value and where it came from."""

    value: V_co
    version: int | None
    """The version of the write; None for an item that another kind of client wrote, or on servers without versions."""
    ttl: int | None
    """Whole seconds left; None when it does not expire, and on servers that don't tell (see docs/capabilities.md)."""
    zone: str
    source: Source
    """Where the value came from, as `Source` says."""
    stale: bool
    """Known to be out of date, and kept because that beats nothing."""
    cas_token: int
    """The item's CAS in `zone`, for `cas` on servers without versions."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write achieved. True when as many zones as were asked for have it."""

    met: bool
    version: int | None
    """The version that the write got; None where there are none."""
    zones: Mapping[str, Outcome]
    """What each zone did. Zones still under way when the call returned are `pending`, and go on."""

    def __bool__(self) -> bool:
        return self.met


class RemovalCause(enum.StrEnum):
    """Reason for the removal of an entry from the near cache."""

    EXPIRED = "expired"
    """The TTL had passed, whichever call removed the entry then."""
    EVICTED = "evicted"
    """The near cache was full."""
    REPLACED = "replaced"
    """A newer value took its place, or is known to exist but could not be stored."""
    INVALIDATED = "invalidated"
    """A call of `remove`."""
    CLEARED = "cleared"
    """A call of `clear`. Its memory is free now; another entry may be under its key by then."""
