"""Envelopes: the lifetime of a value, stored in front of its bytes.

A server knows one time of an item, its expiry. A value that may be served past its TTL needs two more: the end of its TTL,
and the end of that permission. All other values are stored without an envelope, so that any client can read them.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from evcache.errors import DecodeError

# Format, flags of the codec, three unix times in milliseconds, and the duration of the load in milliseconds.
_HEADER = struct.Struct(">BIQQQI")
_FORMAT = 1
_NEVER = 2**64 - 1
_LONGEST_LOAD_MS = 2**32 - 1


class Envelope(NamedTuple):
    """Value and its lifetime. Times are unix seconds."""

    data: bytes
    flags: int
    """Flags of the codec."""
    made_at: float
    expires_at: float
    """Time from which a plain read misses. `math.inf` never expires."""
    stale_until: float
    """Time until which `get_or_load` serves the value during a refresh."""
    load_seconds: float
    """Duration of the load. 0.0 is unknown."""


def wrap(envelope: Envelope) -> bytes:
    """Return the bytes to store under `FLAG_ENVELOPE`."""
    load_ms = min(_LONGEST_LOAD_MS, math.ceil(envelope.load_seconds * 1000))
    times = (_to_ms(envelope.made_at), _to_ms(envelope.expires_at), _to_ms(envelope.stale_until))
    return _HEADER.pack(_FORMAT, envelope.flags, *times, load_ms) + envelope.data


def unwrap(stored: bytes) -> Envelope:
    """Return the envelope of stored bytes. Raises `DecodeError` if they are cut short or have an unknown format."""
    if len(stored) < _HEADER.size:
        raise DecodeError("invalid envelope: cut short")
    form, flags, made, expires, stale, load_ms = _HEADER.unpack_from(stored)
    if form != _FORMAT:
        raise DecodeError(f"invalid envelope: format {form} is unknown to this release")
    return Envelope(stored[_HEADER.size :], flags, made / 1000, _to_seconds(expires), _to_seconds(stale), load_ms / 1000)


def _to_ms(unix_seconds: float) -> int:
    return _NEVER if math.isinf(unix_seconds) else min(_NEVER - 1, int(unix_seconds * 1000))


def _to_seconds(ms: int) -> float:
    return math.inf if ms == _NEVER else ms / 1000
