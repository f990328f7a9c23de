"""Versions: 64-bit stamps of a hybrid logical clock, the same in every zone, and how they are kept on servers.

A version is 44 bits of milliseconds since 1970, 8 bits of counter and 12 bits of writer id. It grows with every write of a
client, and past every version that the client has seen, so a write that comes after a read is newer than what was read,
whatever the clocks say (Kulkarni et al., "Logical Physical Clocks", 2014).

Servers keep it *inverted* as the item's CAS, `2^64 - 1 - version`: a server lets a store with an older or equal CAS
overwrite, and inverted, older means newer. See `evcache.zones.protocol.requests.guarded_store`.
"""

from __future__ import annotations

import logging
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

# The newest version that a store can go past without leaving the range of versions.
_NEWEST_PASSABLE = MAX_CAS - NOT_A_VERSION - 2 * (1 << WRITER_BITS)

_log = logging.getLogger("evcache.replication")


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class HybridLogicalClock:
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

    def next(self, after: int = 0) -> int:
        """Make a version that is newer than every version made or seen here.

        Args:
            after: a version that the new one must be newer than, as `version_on_server` returned it. If it is too far
                ahead to be believed, only this one version goes past it. The clock does not move there, because every
                later write would then carry the error of another clock to other keys.

        Returns:
            The version, with the writer id of this client.

        """
        stamp = self._stamp = max(self._stamp + 1, self._wall_ms() << COUNTER_BITS)
        writer = self.writer
        if writer is None:
            writer = self.writer = secrets.randbits(WRITER_BITS)
        if after >= stamp << WRITER_BITS:
            stamp = (after >> WRITER_BITS) + 1
        return stamp << WRITER_BITS | writer

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
                    self._refuse(version)
                    return None
            self._stamp = stamp
        return version

    def version_on_server(self, cas: int) -> int | None:
        """Return the version behind an item's CAS as servers compare it, also if it is too far ahead to be believed.

        Stores compare with this one. A store that replaced an item "without a believable version" would put an older
        version over a newer one whenever it is the clock of this client that is wrong. All other clients would then take
        that zone to be behind.

        Args:
            cas: the CAS of an item.

        Returns:
            The version. None if the item has none, or if no version can be newer than the number. The clock moves past
            the version if it is believed; otherwise the version is counted in `refused`.

        """
        version = self.version_of(cas)
        if version is None and cas >= NOT_A_VERSION and NOT_A_VERSION <= MAX_CAS - cas <= _NEWEST_PASSABLE:
            return MAX_CAS - cas
        return version

    def has_made(self, cas: int) -> bool:
        """Return True if this client has made the version behind an item's CAS. Ask before the clock moves past it.

        False for a version that went past one which is not believed (see `next`): of those the clock keeps nothing.
        """
        version = MAX_CAS - cas
        return version & _WRITER_MASK == self.writer and version >> WRITER_BITS <= self._stamp

    def believes(self, version: int) -> bool:
        """Return True if the version is not too far ahead of this clock."""
        stamp = version >> WRITER_BITS
        return stamp <= self._stamp or stamp < self._wall_ms() + MAX_AHEAD_MS << COUNTER_BITS

    def _refuse(self, version: int) -> None:
        self.refused += 1
        if self.refused == 1:  # once for each client: a clock that is wrong is wrong for every item
            _log.warning(
                "version refused: it is %.1f s ahead of this client's clock (limit %d s), so this clock or the clock of"
                " writer %d is wrong; items with such versions are read without a version",
                (milliseconds_of(version) - self._wall_ms()) / 1000,
                MAX_AHEAD_MS // 1000,
                version & _WRITER_MASK,
            )


def cas_of(version: int) -> int:
    """The CAS under which servers keep a version."""
    return MAX_CAS - version


def milliseconds_of(version: int) -> int:
    """When a version was made, in milliseconds since 1970."""
    return version >> WRITER_BITS + COUNTER_BITS
