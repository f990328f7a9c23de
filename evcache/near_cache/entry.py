"""Item in the near cache, encoded or decoded."""

from __future__ import annotations

from typing import Any

from evcache.replication.reconcile import ABSENCES, ZoneHit
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.lifetime import Content, Lifetime

UNDECODED: Any = object()
"""Value of an entry that is decoded for each caller."""


class NearEntry:
    """Item in the near cache."""

    __slots__ = ("cas", "data", "expires_at", "flags", "has_envelope", "life", "typed", "value", "version", "zone")

    def __init__(self, content: Content, found: ZoneHit, expires_at: float) -> None:
        self.data: bytes | None = content.data
        """Encoded value. None if the decoded value is stored in its place."""
        self.flags = content.flags
        self.value = UNDECODED
        """Decoded value, if all callers may share one object."""
        self.typed: tuple[object, Any] | None = None
        """Decoder of a type, and the value of that type, if callers that name the type may share one object."""
        self.life = content.life
        self.has_envelope = found.hit.flags == FLAG_ENVELOPE
        """True if an envelope gives the lifetime. The server may hold the item for longer."""
        self.expires_at = expires_at
        """Time at which the item expires in its zone, on the near cache's clock. `math.inf` if it never does."""
        self.zone = found.zone
        self.version = found.version
        self.cas = found.hit.cas

    @property
    def is_value(self) -> bool:
        """True for a value, and False for a known absence."""
        return self.flags not in ABSENCES

    def replace_data(self, value: Any) -> None:
        """Store the decoded value instead of the bytes."""
        self.value = value
        self.data = None

    def add_typed(self, decoder: object, value: Any) -> None:
        """Store a value that this decoder made, beside the bytes."""
        self.typed = decoder, value

    def renew(self, life: Lifetime, expires_at: float) -> None:
        """Set the lifetime, and the time on the near cache's clock at which the item expires in its zone."""
        self.life = life
        self.expires_at = expires_at


SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
"""Immutable types."""

# A longer non-ASCII str takes more memory than its bytes. Up to this size the difference is within `ENTRY_OVERHEAD`.
_SMALL_TEXT_BYTES = 64


def is_as_small(value: Any, data: bytes | None) -> bool:
    """Return True if the value takes about as much memory as its bytes. A str beyond ASCII takes up to four times more."""
    return not isinstance(value, str) or value.isascii() or len(data or b"") < _SMALL_TEXT_BYTES
