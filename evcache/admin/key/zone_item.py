"""Item of one zone under one key, with its version, its times and its form. No I/O, no clock."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from evcache.errors import DecodeError
from evcache.replication.hlc import HybridLogicalClock, counter_of, milliseconds_of, writer_of
from evcache.values.envelope import Envelope, unwrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE, describe_flags
from evcache.zones.protocol.replies import AnyReply, decimal, read_hit, token


class Content(enum.StrEnum):
    """Kind of an item."""

    VALUE = "value"
    ENVELOPE = "envelope"
    """Value behind its times."""
    TOMBSTONE = "tombstone"
    """Marker of a delete."""
    ABSENCE = "known absence"
    """Marker of a key that the source has no value for."""
    STUB = "lease stub"
    """Empty item of a process that loads the value, or of a guarded store that has not ended."""


_OF_FLAGS = {FLAG_ENVELOPE: Content.ENVELOPE, FLAG_TOMBSTONE: Content.TOMBSTONE, FLAG_ABSENT: Content.ABSENCE}


@dataclass(frozen=True, slots=True)
class WriteVersion:
    """Version of a write, with its parts."""

    number: int
    written_at: str
    """Time of the write in UTC, ISO 8601."""
    age: float
    """Seconds since the write. Negative if the writer's clock is ahead."""
    writer: int
    """Id of the client that wrote, 0 to 4095."""
    counter: int
    is_believed: bool
    """False if the version is so far ahead that clients treat the item as one without a version."""

    @classmethod
    def of(cls, cas: int, clock: HybridLogicalClock, now: float) -> Self | None:
        """Return the version that a CAS stands for, or None if it stands for none.

        Args:
            cas: CAS of the item.
            clock: Clock that decides which versions are believed.
            now: Unix time.
        """
        version = clock.decode(cas)
        if version is None:
            return None
        written = milliseconds_of(version) / 1000
        return cls(
            number=version,
            written_at=to_iso(written),
            age=round(now - written, 3),
            writer=writer_of(version),
            counter=counter_of(version),
            is_believed=clock.believes(version),
        )


@dataclass(frozen=True, slots=True)
class EnvelopeTimes:
    """Times in the envelope of a value. Times are UTC, ISO 8601."""

    made_at: str
    expires_at: str | None
    """End of the TTL, from which a plain read misses. None if the value never expires."""
    stale_until: str | None
    """End of the time in which `get_or_load` serves the value during a refresh. None if it has no end."""
    load_seconds: float | None
    """Duration of the load. None if it is unknown."""
    is_past_ttl: bool
    flags: int
    """Client flags of the value inside."""
    meaning: str
    """Form of the value inside, by its flags."""
    bytes: int
    """Size of the value inside."""

    @classmethod
    def of(cls, envelope: Envelope, now: float) -> Self:
        """Return the times of an envelope. `now` is the unix time."""
        return cls(
            made_at=to_iso(envelope.made_at),
            expires_at=None if math.isinf(envelope.expires_at) else to_iso(envelope.expires_at),
            stale_until=None if math.isinf(envelope.stale_until) else to_iso(envelope.stale_until),
            load_seconds=envelope.load_seconds or None,
            is_past_ttl=envelope.expires_at <= now,
            flags=envelope.flags,
            meaning=describe_flags(envelope.flags),
            bytes=len(envelope.data),
        )


@dataclass(frozen=True, slots=True)
class ZoneItem:
    """Item that one zone holds."""

    content: Content
    bytes: int
    """Size of the value as the server keeps it."""
    flags: int
    """Client flags."""
    meaning: str
    """Form of the value, by its flags."""
    version: WriteVersion | None
    cas: int
    ttl: int | None
    """Seconds left. -1 if the item never expires, and None if the server does not report it."""
    is_stale: bool
    """True if the item has the server's stale mark."""
    idle_seconds: int | None
    """Seconds since the last use. None if the server does not report it."""
    was_read: bool | None
    """True if a client has read the item since its write. None if the server does not report it."""
    envelope: EnvelopeTimes | None
    problem: str | None
    """Reason for which an envelope cannot be read. None if it can."""

    @property
    def is_miss(self) -> bool:
        """True if a plain read of this item is a miss."""
        if self.envelope is not None:
            return self.envelope.is_past_ttl
        return self.content not in (Content.VALUE, Content.ENVELOPE)


def item_of(reply: AnyReply, clock: HybridLogicalClock, now: float) -> ZoneItem | None:
    """Return the item in the reply to a read with `REPORT_FIELDS`, or None for a miss.

    Args:
        reply: The reply.
        clock: Clock that decides which versions are believed. It is not moved.
        now: Unix time.

    Raises:
        NodeError: The reply is an error.
    """
    hit = read_hit(reply)
    if hit is None:
        return None
    envelope, problem = None, None
    if hit.flags == FLAG_ENVELOPE:
        try:
            envelope = EnvelopeTimes.of(unwrap(hit.value), now)
        except DecodeError as error:
            problem = error.problem
    idle, was_read = token(reply, b"l"), token(reply, b"h")
    return ZoneItem(
        content=Content.STUB if hit.leased else _OF_FLAGS.get(hit.flags, Content.VALUE),
        bytes=len(hit.value),
        flags=hit.flags,
        meaning=describe_flags(hit.flags),
        version=WriteVersion.of(hit.cas, clock, now),
        cas=hit.cas,
        ttl=hit.ttl,
        is_stale=hit.stale,
        idle_seconds=None if idle is None else decimal(idle),
        was_read=None if was_read is None else was_read == b"1",
        envelope=envelope,
        problem=problem,
    )


def to_iso(unix_seconds: float) -> str:
    """Return a unix time in UTC as ISO 8601 with milliseconds. A time after the year 9999 is `after 9999`."""
    try:
        text = datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return "after 9999"
    return text.replace("+00:00", "Z")
