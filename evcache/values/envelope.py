"""Values that are kept for longer than they are fresh: the times of their life, in front of the bytes.

A server knows one time, when an item goes. A value that may be served for a while after it has gone out of date, while it is
loaded anew or while it can't be, needs two more. Values that need none of this are stored as they are, so that any client
can read them.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from evcache.errors import DecodeError

# Of the format, the flags inside, three unix times in milliseconds, and a duration in milliseconds.
_HEADER = struct.Struct(">BIQQQI")
_FORMAT = 1
_NEVER = 2**64 - 1
_LONGEST_LOAD_MS = 2**32 - 1


class Envelope(NamedTuple):
    """A value and its life. Times are unix seconds."""

    data: bytes
    flags: int
    """The codec's."""
    made_at: float
    expires_at: float
    """From then on it is out of date: a plain read does not see it. `math.inf`: never."""
    stale_until: float
    """Until then it is served all the same, while it is loaded anew."""
    load_seconds: float
    """What it took to load it; 0.0: not known."""


def wrap(envelope: Envelope) -> bytes:
    """The bytes that are stored, under `FLAG_ENVELOPE`."""
    load_ms = min(_LONGEST_LOAD_MS, math.ceil(envelope.load_seconds * 1000))
    times = (_to_ms(envelope.made_at), _to_ms(envelope.expires_at), _to_ms(envelope.stale_until))
    return _HEADER.pack(_FORMAT, envelope.flags, *times, load_ms) + envelope.data


def unwrap(stored: bytes) -> Envelope:
    """What was stored. Raises `DecodeError`."""
    if len(stored) < _HEADER.size:
        raise DecodeError("an envelope that is cut short")
    form, flags, made, expires, stale, load_ms = _HEADER.unpack_from(stored)
    if form != _FORMAT:
        raise DecodeError(f"an envelope of format {form}, which this release does not know")
    return Envelope(stored[_HEADER.size :], flags, made / 1000, _to_seconds(expires), _to_seconds(stale), load_ms / 1000)


def _to_ms(unix_seconds: float) -> int:
    return _NEVER if math.isinf(unix_seconds) else min(_NEVER - 1, int(unix_seconds * 1000))


def _to_seconds(ms: int) -> float:
    return math.inf if ms == _NEVER else ms / 1000
