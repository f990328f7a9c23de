"""Changes that wait for the invalidation channel: merged by key, numbered, bounded. Pure: no I/O, no clock.

Changes of one key that wait together are merged:

    None and anything        None. Receivers drop their entry, and store nothing for the grace time.
    version and version      the higher one. Receivers that drop older entries than it drop all that either would drop.
    0 and 0                  one 0
    0 and version            both are sent. The version alone would leave an equal entry with the old TTL. The 0 alone
                             would let an older value in again.

The result does not depend on the order, so concurrent calls of one process need none.

If too many changes wait, all are dropped and a number is skipped. Each receiver then detects a gap, and clears its near
cache. That drops more entries than needed, and never fewer.

A publisher is one *session* of a process. A session begins with number 1 and ends with a BYE, and the next session has
another id. A receiver that has listened for a time and gets a number over 1 from an unknown publisher has missed messages.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from evcache.invalidation.messages import (
    HEADER_BYTES,
    MAX_CHANGES,
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_VERSION,
    Change,
    InvalidationMessage,
    Kind,
    size_of,
)
from evcache.zones.errors import InvalidArgument

# Changes that may wait while the channel is down. They take about 5 MB with keys of 50 bytes, and cover 20 s of 1,000 writes
# a second to different keys. After that, clearing near caches is cheaper for receivers than the messages.
MAX_PENDING = 20_000

# A publisher id has 64 bits: the process, and the number of its session. The process part identifies own messages.
_SESSION_BITS = 16
_PROCESS_BITS = 48


class Outbox:
    """Changes of one client that were not sent."""

    __slots__ = ("_drops", "_limit", "_process", "_session", "_skip", "_versions", "number")

    def __init__(self, limit: int = MAX_PENDING, process: int | None = None) -> None:
        """Create an empty outbox.

        Args:
            limit: Largest number of waiting changes.
            process: Unique id of 48 bits. If None, it is drawn at random on first use.
        """
        self.number = 0
        """Last number used in this session. 0 before the first change."""
        self._limit = limit
        self._process = process
        self._session = 0
        self._skip = 0  # numbers to skip before the next batch, in whichever session that is
        self._versions: dict[bytes, int | None] = {}
        self._drops: dict[bytes, None] = {}

    def __len__(self) -> int:
        """Number of waiting changes."""
        return len(self._versions) + len(self._drops)

    @property
    def publisher(self) -> int:
        """The publisher id of this session."""
        if self._process is None:
            # Drawn late: processes that are forked from one with a client would otherwise share an id. Each would take the
            # messages of the others for its own.
            self._process = secrets.randbits(_PROCESS_BITS)
        return self._process << _SESSION_BITS | self._session

    def is_own(self, publisher: int) -> bool:
        """Return True if this is the id of any session of this client."""
        return publisher >> _SESSION_BITS == self._process

    def add(self, key: bytes, version: int | None) -> bool:
        """Add a change.

        Args:
            key: Full key.
            version: As in `Change`.

        Returns:
            False if the outbox was full. The changes that waited are dropped then, and receivers detect a gap.

        Raises:
            InvalidArgument: The key is too long, or the version has more than 64 bits.
        """
        if len(key) > MAX_KEY_BYTES:
            raise InvalidArgument("key", f"at most {MAX_KEY_BYTES} bytes are allowed, not {len(key)}")
        if version is not None and not 0 <= version <= MAX_VERSION:
            raise InvalidArgument("version", f"an unsigned number of 64 bits is required, not {version!r}")
        has_room = key in self._versions or key in self._drops or len(self) < self._limit
        if not has_room:
            self._versions, self._drops = {}, {}
            self._skip = 1
        if version is None:
            self._versions[key] = None
            self._drops.pop(key, None)
            return has_room
        waiting = self._versions.get(key, 0)
        if waiting is not None:
            if not version:
                self._drops[key] = None
            elif version > waiting:
                self._versions[key] = version
        return has_room

    def take_batch(self) -> InvalidationMessage | None:
        """Remove the next changes and return them as a message, or None if none wait.

        The caller sends this message before any other, and repeats it unchanged until the channel accepts it.
        """
        changes: list[Change] = []
        size = HEADER_BYTES
        for key, version in self._all():
            size += size_of(key, version)
            if len(changes) == MAX_CHANGES or (changes and size > MAX_MESSAGE_BYTES):
                break
            changes.append((key, version))
        if not changes:
            return None
        for key, version in changes:
            del (self._drops if version == 0 else self._versions)[key]
        self.number += 1 + self._skip
        self._skip = 0
        return InvalidationMessage(Kind.CHANGES, self.publisher, self.number, tuple(changes))

    def heartbeat(self) -> InvalidationMessage:
        """Return a heartbeat. Send it only if no batch is in flight, because its number says that all batches were sent."""
        return InvalidationMessage(Kind.HEARTBEAT, self.publisher, self.number)

    def bye(self) -> InvalidationMessage:
        """Return the last message of this session."""
        return InvalidationMessage(Kind.BYE, self.publisher, self.number)

    def end_session(self) -> None:
        """Begin another session, after the last message of this one was sent."""
        self._session = (self._session + 1) % (1 << _SESSION_BITS)
        self.number = 0

    def reopen(self) -> None:
        """Begin another session without the changes that wait. Receivers detect that the last session stopped."""
        self._versions, self._drops = {}, {}
        self._skip = 0
        if self.number:
            self.end_session()

    def _all(self) -> Iterator[Change]:
        yield from self._versions.items()
        for key in self._drops:
            yield key, 0
