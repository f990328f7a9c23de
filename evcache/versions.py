"""Versions: 64-bit stamps of a hybrid logical clock, the same in every zone, and how they are kept on servers.

A version is 44 bits of milliseconds since 1970, 8 bits of counter and 12 bits of writer id. It grows with every write of a
client, and past every version that the client has seen, so a write that comes after a read is newer than what was read,
whatever the clocks say (Kulkarni et al., "Logical Physical Clocks", 2014).

Servers keep it *inverted* as the item's CAS, `2^64 - 1 - version`: a server lets a store with an older or equal CAS
overwrite, and inverted, older means newer. See `zones.protocol.requests.guarded_store`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

COUNTER_BITS = 8
WRITER_BITS = 12

MAX_CAS = 2**64 - 1

# CAS numbers in these ranges were not made by this clock. Below: given out by a server, one by one from 1, or by another
# kind of client. Above: lease stubs, which must look older than every write. The clock passed 2^52 in January 1970.
NOT_A_VERSION = 2**52

# CAS of the stub that a guarded store makes where nothing is. It is in the range of lease stubs, which are drawn at random.
GUARD_STUB_CAS = MAX_CAS

# Older than every version. Said of a key whose item has changed without getting a new one, by a touch for instance: what
# a near cache holds is to be let go of, and nothing newer need be waited for.
NOTHING_NEWER = 0

# A clock further ahead than this is broken. Taking over its time would carry the error to every client that reads it, and
# its writes would win for as long as it is ahead. NTP keeps machines within milliseconds.
MAX_AHEAD_MS = 60_000

_WRITER_MASK = (1 << WRITER_BITS) - 1


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class VersionClock:
    """Makes versions and reads them. One for each client; not for several threads."""

    __slots__ = ("_horizon", "_stamp", "_wall_ms", "refused", "writer")

    def __init__(self, writer: int | None = None, wall_ms: Callable[[], int] = wall_clock_ms) -> None:
        """`writer` (0 to 4095) tells clients apart that write in the same millisecond; None: drawn at random."""
        # Drawn with the first version: drawn here, all processes that are forked from one that has made its client would
        # be one writer, and write different values with the same version.
        self.writer = None if writer is None else writer & (1 << WRITER_BITS) - 1
        self.refused = 0
        """Versions seen that were too far ahead to be believed."""
        self._wall_ms = wall_ms
        self._stamp = 0  # milliseconds and counter of the newest version made or seen; a full counter carries over
        self._horizon = 0  # stamps below this are believed without a look at the clock

    def next(self) -> int:
        """Make a version that is newer than every version made or seen here."""
        self._stamp = max(self._stamp + 1, self._wall_ms() << COUNTER_BITS)
        writer = self.writer
        if writer is None:
            writer = self.writer = secrets.randbits(WRITER_BITS)
        return self._stamp << WRITER_BITS | writer

    def version_of(self, cas: int) -> int | None:
        """The version behind an item's CAS, from now on in the past of this clock; None when the item has none.

        It has none when a server or another kind of client chose the CAS, and when it is too far in the future to be
        believed (counted in `refused`).
        """
        version = MAX_CAS - cas
        if version < NOT_A_VERSION or cas < NOT_A_VERSION:
            return None
        stamp = version >> WRITER_BITS
        if stamp > self._stamp:
            if stamp >= self._horizon:
                self._horizon = self._wall_ms() + MAX_AHEAD_MS << COUNTER_BITS
                if stamp >= self._horizon:
                    self.refused += 1
                    return None
            self._stamp = stamp
        return version

    def has_made(self, cas: int) -> bool:
        """Return True if this client has made the version behind an item's CAS. Ask before the clock moves past it."""
        version = MAX_CAS - cas
        return version & _WRITER_MASK == self.writer and version >> WRITER_BITS <= self._stamp


def cas_of(version: int) -> int:
    """The CAS under which servers keep a version."""
    return MAX_CAS - version


def milliseconds_of(version: int) -> int:
    """When a version was made, in milliseconds since 1970."""
    return version >> WRITER_BITS + COUNTER_BITS
