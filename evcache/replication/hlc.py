"""Versions: 64-bit timestamps of a hybrid logical clock, equal in every zone, and their form on servers.

A version is 44 bits of milliseconds since 1970, 8 bits of counter and 12 bits of writer id. It grows with every write of a
client, and past every version that the client has seen. So a write that follows a read is newer than the item that was read,
even if clocks differ (Kulkarni et al., "Logical Physical Clocks", 2014).

Servers keep a version *inverted* as the item's CAS, `2^64 - 1 - version`. A server lets a store overwrite an item with an
equal or older CAS, and inverted, older means newer. See `evcache.zones.protocol.operations.guarded_store`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

COUNTER_BITS = 8
WRITER_BITS = 12

MAX_CAS = 2**64 - 1

# CAS numbers below this one, and versions below it, were not made by this clock. Such a low CAS comes from a server, which
# counts from 1, or from another kind of client. Such a low version is a lease stub, which must look older than every write.
# The clock passed 2^52 in January 1970.
NOT_A_VERSION = 2**52

# CAS of the stub that a guarded store makes where nothing is. It is in the range of lease stubs, which are drawn at random.
GUARD_STUB_CAS = MAX_CAS

# Older than every version. It is reported for a key whose item has changed without a new version, by a touch for example.
# A near cache drops its entry then, and accepts any version afterwards.
NOTHING_NEWER = 0

# A clock further ahead than this is broken. A client that adopted its time would carry the error to the readers of its
# writes. Such writes would win for as long as the clock is ahead. NTP keeps machines within milliseconds.
MAX_AHEAD_MS = 60_000

# Bits of a version below its milliseconds.
MILLISECONDS_SHIFT = WRITER_BITS + COUNTER_BITS

_WRITER_MASK = (1 << WRITER_BITS) - 1

# Highest version for which `tick` can make a newer one that is still in the range of versions.
_HIGHEST_PASSABLE = MAX_CAS - NOT_A_VERSION - 2 * (1 << WRITER_BITS)

_log = logging.getLogger("evcache.replication")


def wall_clock_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class HybridLogicalClock:
    """Clock that makes the versions of one client. It is not for several threads."""

    __slots__ = ("_horizon", "_made", "_stamp", "_wall_ms", "refused", "writer")

    def __init__(self, writer: int | None = None, wall_ms: Callable[[], int] = wall_clock_ms) -> None:
        """Make a clock.

        Args:
            writer: Writer id, 0 to 4095. It distinguishes clients that write in the same millisecond. If None, it is random.
            wall_ms: Returns milliseconds since 1970.
        """
        # The first `tick` draws a random id. If the id were drawn here, a process that makes its client and then forks would
        # share it with its children. They would write different values with one version.
        self.writer = None if writer is None else writer & (1 << WRITER_BITS) - 1
        self.refused = 0
        """Number of versions seen that were too far ahead to be believed."""
        self._wall_ms = wall_ms
        self._stamp = 0  # milliseconds and counter of the latest version made or seen; a full counter carries over
        self._made = 0  # of the latest version made
        self._horizon = 0  # versions with a lower stamp are believed without reading the wall clock

    @property
    def passed(self) -> int:
        """Highest version that this clock has passed: `observe` of it, or of a lower one, does not move the clock."""
        return self._stamp << WRITER_BITS | _WRITER_MASK

    def tick(self, after: int = 0) -> int:
        """Make a version that is newer than every version made or observed by this clock.

        Args:
            after: A version that the new one must be newer than, as `observe_stored` returned it. If it is too far ahead to
                be believed, only this one version goes past it. The clock does not move there, because every later write
                would then carry the error of another clock to other keys.

        Returns:
            The version, with the writer id of this client.
        """
        stamp = self._wall_ms() << COUNTER_BITS
        if stamp <= self._stamp:  # a call of `max` would take as long as the rest
            stamp = self._stamp + 1
        self._made = self._stamp = stamp
        writer = self.writer
        if writer is None:
            writer = self.writer = secrets.randbits(WRITER_BITS)
        if after >= stamp << WRITER_BITS:
            stamp = (after >> WRITER_BITS) + 1
        return stamp << WRITER_BITS | writer

    @staticmethod
    def decode(cas: int) -> int | None:
        """Return the version that an item's CAS stands for. If None, the CAS was not made by a clock of this kind.

        The version may be too far ahead to be believed. No clock moves.
        """
        version = MAX_CAS - cas
        return None if version < NOT_A_VERSION or cas < NOT_A_VERSION else version

    def observe(self, cas: int) -> int | None:
        """Move this clock past the version of an item's CAS, so that later writes of this client are newer.

        Returns:
            The version. None, with the clock unchanged, if a server or another kind of client chose the CAS, or if the
            version is too far ahead to be believed. The latter is counted in `refused`.
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

    def observe_stored(self, cas: int) -> int | None:
        """Observe an item's CAS, and return its version as servers compare it, also if it is too far ahead to be believed.

        Stores compare with this version. If the clock of this client is wrong, every present item is too far ahead. A store
        that ignored their versions would replace newer ones, and all other clients would find that zone stale.

        Returns:
            The version. None if the item has none, or if no version can be newer than it.
        """
        version = self.observe(cas)
        if version is None and cas >= NOT_A_VERSION and NOT_A_VERSION <= MAX_CAS - cas <= _HIGHEST_PASSABLE:
            return MAX_CAS - cas
        return version

    def has_made(self, cas: int) -> bool:
        """Return True if this client has made the version of an item's CAS.

        It is False for a version that went past one which is not believed (see `tick`). The clock has no record of those.
        Two clients may have drawn the same writer id, with a chance of 1 in 4,096. A version of the other client that is
        newer than every version of this one is still not taken for its own.
        """
        version = MAX_CAS - cas
        return version & _WRITER_MASK == self.writer and version >> WRITER_BITS <= self._made

    def believes(self, version: int) -> bool:
        """Return True if the version is not too far ahead of this clock."""
        stamp = version >> WRITER_BITS
        return stamp <= self._stamp or stamp < self._wall_ms() + MAX_AHEAD_MS << COUNTER_BITS

    def _refuse(self, version: int) -> None:
        self.refused += 1
        if self.refused == 1:  # once for each client, because a wrong clock is wrong for every item
            _log.warning(
                "version refused: it is %.1f s ahead of this client's clock (limit %d s); check the clocks of this client"
                " and of writer %d",
                (milliseconds_of(version) - self._wall_ms()) / 1000,
                MAX_AHEAD_MS // 1000,
                writer_of(version),
            )


def cas_of(version: int) -> int:
    """Return the CAS under which servers keep a version."""
    return MAX_CAS - version


def milliseconds_of(version: int) -> int:
    """Return the time at which a version was made, in milliseconds since 1970."""
    return version >> MILLISECONDS_SHIFT


def counter_of(version: int) -> int:
    """Return the counter of a version, which orders versions of one millisecond."""
    return version >> WRITER_BITS & (1 << COUNTER_BITS) - 1


def writer_of(version: int) -> int:
    """Return the writer id of a version."""
    return version & _WRITER_MASK
