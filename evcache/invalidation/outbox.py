"""What a process has to announce: gathered by key, numbered, bounded. Pure: no I/O, no clock.

Changes of one key that wait together become one, by this rule:

    unknown (None) and anything    unknown: receivers then drop what they hold, and keep nothing for a while
    version and version            the newer: whoever drops what is older than it drops what is older than both
    drop (0) and drop              one
    drop (0) and version           both are sent. The version alone would leave a copy that is as new and has the old TTL;
                                   the drop alone would let an older value be kept again.

The order in which they came does not matter, so concurrent calls of one process need none.

When too many wait, all are dropped and a number is skipped: each receiver notices that it has missed something, and
forgets all it holds. That says more than was to be said, and never less.

A publisher is a *spell* of announcing: it begins with number 1 and ends with a BYE, and the next one has another id. So a
receiver that has listened for a while and hears a number over 1 from somebody new knows that it has missed the others.
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

# Changes that may wait while the channel is out. With keys of 50 bytes some 5 MB; at 1,000 writes a second of different
# keys, 20 s. After longer, forgetting all is cheaper for receivers than as many announcements.
MAX_PENDING = 20_000

# Of the 64 bits of a publisher's id, those that count the spells of one process: its own messages are told by the others.
_SPELL_BITS = 16
_PROCESS_BITS = 48


class Outbox:
    """The announcements of one client that have not been sent."""

    __slots__ = ("_drops", "_limit", "_process", "_skip", "_spell", "_versions", "number")

    def __init__(self, limit: int = MAX_PENDING, process: int | None = None) -> None:
        """`process`: 48 bits that no other client has; None: drawn at random."""
        self.number = 0
        """The last one used in this spell; 0: nothing was announced."""
        self._limit = limit
        self._process = process
        self._spell = 0
        self._skip = 0  # numbers to leave out before the next batch, whichever spell it is in
        self._versions: dict[bytes, int | None] = {}
        self._drops: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._versions) + len(self._drops)

    @property
    def publisher(self) -> int:
        """The id of this spell."""
        if self._process is None:
            # Not before it is needed: processes that are forked from one that has made its client would all have one id,
            # and each take what the others say for its own.
            self._process = secrets.randbits(_PROCESS_BITS)
        return self._process << _SPELL_BITS | self._spell

    def is_own(self, publisher: int) -> bool:
        """Whether this is the id of one of its own spells."""
        return publisher >> _SPELL_BITS == self._process

    def add(self, key: bytes, version: int | None) -> bool:
        """Have a change announced. False when there was no room: what waited is dropped, and receivers will notice.

        Raises `InvalidArgument` for a key or version that can't be sent.
        """
        if len(key) > MAX_KEY_BYTES:
            raise InvalidArgument("key", f"it has {len(key)} bytes, and {MAX_KEY_BYTES} is the most that can be announced")
        if version is not None and not 0 <= version <= MAX_VERSION:
            raise InvalidArgument("version", f"64 bits are needed, not {version!r}")
        there_was_room = key in self._versions or key in self._drops or len(self) < self._limit
        if not there_was_room:
            self._versions, self._drops = {}, {}
            self._skip = 1
        if version is None:
            self._versions[key] = None
            self._drops.pop(key, None)
            return there_was_room
        waiting = self._versions.get(key, 0)
        if waiting is not None:
            if not version:
                self._drops[key] = None
            elif version > waiting:
                self._versions[key] = version
        return there_was_room

    def batch(self) -> InvalidationMessage | None:
        """The next message of changes, which do not wait any more; None when there are none.

        It is to be sent before anything else is, and again until it has been, as it is.
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
        """A sign of life. Not to be sent while a batch is waiting to be: its number says that the batch was."""
        return InvalidationMessage(Kind.HEARTBEAT, self.publisher, self.number)

    def bye(self) -> InvalidationMessage:
        """The last message of this spell."""
        return InvalidationMessage(Kind.BYE, self.publisher, self.number)

    def end_spell(self) -> None:
        """The last message was sent: what comes next begins anew."""
        self._spell = (self._spell + 1) % (1 << _SPELL_BITS)
        self.number = 0

    def reopen(self) -> None:
        """Begin another spell, without what waits: receivers notice that the last one fell silent."""
        self._versions, self._drops = {}, {}
        self._skip = 0
        if self.number:
            self.end_spell()

    def _all(self) -> Iterator[Change]:
        yield from self._versions.items()
        for key in self._drops:
            yield key, 0
