"""Guarded store: the command of sets, deletes and copies.

A server refuses a guarded store if it holds a newer version. So an older version can never replace a newer one, in any order
of arrival, and a repeated store changes nothing.

`send` puts a request on a connection, and plain functions (`interpret_...`) read its replies. Only `peek_and_apply` awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, NamedTuple

from evcache.replication.commands.command import Interpret, Sent, Skipped
from evcache.replication.commands.node_requests import peek, store
from evcache.replication.hlc import GUARD_STUB_CAS, MAX_CAS, NOT_A_VERSION, HybridLogicalClock
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, Outcome
from evcache.values.flags import FLAG_INT, FLAG_TOMBSTONE
from evcache.zones.nodes.capabilities import FITS_ANYWHERE_BYTES, Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.operations import EncodedStore, StoreMode
from evcache.zones.protocol.replies import ERROR_STATUSES, Reply, unexpected
from evcache.zones.transport.base import Transport
from evcache.zones.transport.core import selected
from evcache.zones.transport.in_flight import Waiter

# A counter without a version is one that another client has just moved, and is about to give a version (`increment`).
# The client peeks this number of times, about one round trip, before it does anything else about such a counter.
NAMING_LOOKS = 20
NAMING_PAUSE_SECONDS = 0.001


class StoreCommand:
    """Store of a value in one zone.

    The latest version wins if the value has a version and the server keeps versions. Otherwise the last to arrive wins.
    """

    __slots__ = (
        "_cas",
        "_guarded",
        "_hlc",
        "believed",
        "carried",
        "data",
        "flags",
        "key",
        "newest_wins",
        "ttl",
        "unseen",
        "version",
    )

    acknowledged: ClassVar[frozenset[Outcome]] = ACKNOWLEDGED

    def __init__(
        self,
        hlc: HybridLogicalClock,
        key: bytes,
        data: bytes,
        flags: int,
        *,
        ttl: int,
        version: int | None,
        newest_wins: bool = True,
        carried: bool = False,
        believed: bool = True,
    ) -> None:
        """Make a store.

        Args:
            hlc: Clock that observes the versions on servers.
            key: Qualified key.
            data: Encoded value.
            flags: Flags of the value.
            ttl: Exptime: the TTL in the form that memcached takes.
            version: Version of the write. If None, it has none.
            newest_wins: If False, servers order the write by arrival, although it has a version.
            carried: True if the coordinator's node has stored this version.
            believed: False if the version is too far ahead of the clock.
        """
        self._hlc = hlc
        self.key = key
        self.data = data
        self.flags = flags
        self.ttl = ttl
        self.version = version
        self.newest_wins = newest_wins
        self.carried = carried
        """True if a server that keeps versions was sent this one."""
        self.believed = believed
        """False for a version that went past an item whose version is too far ahead to be believed. Readers then take the
        item for one without a version, so no reader may wait for this version, or for a newer one."""
        self.unseen = 0
        """Highest version for which a zone refused this write, of those that this client has not made. 0 if there is none.
        The client had not seen it when it made its own version, which would be newer otherwise."""
        self._cas = None if version is None else MAX_CAS - version  # `cas_of`, without a call
        self._guarded: EncodedStore | None = None  # for the zones that follow

    @property
    def fence(self) -> int | None:
        """Version of the write, if zones order it by version and readers believe it (see `Command`)."""
        return self.version if self.newest_wins and self.believed else None

    def note_sent(self, *, versioned: bool) -> None:
        """Record that a node gets this store by another request. `versioned`: the node gets its version, too."""
        self.carried = versioned and self.version is not None

    def send(self, connection: Transport, capabilities: Capabilities, waiter: Waiter, deadline: float) -> Sent | Skipped:
        """Send one packet in the best form that the server takes (see `Command`). A value over its item limit is skipped."""
        size = len(self.data)
        if size > FITS_ANYWHERE_BYTES and size > capabilities.largest_value(self.key):
            return _TOO_LARGE  # the server would delete its item of the key, and then refuse
        if self._cas is None or not capabilities.versions:
            return self._send_plain(connection, waiter, deadline)
        if not self.newest_wins:
            self.carried = True
            connection.store(self.key, self.data, self.flags, self.ttl, waiter, deadline, cas=self._cas)
            return _SENT_STORE
        self.carried = True
        guarded = self._guarded
        if guarded is None:
            guarded = self._guarded = self._encode_guarded()
        connection.send_store(guarded, waiter, deadline)
        return _SENT[guarded.packet.commands]

    def encoded(self) -> tuple[EncodedStore, ReplyForm]:
        """Return the request of this store, which has a version, and is about to be sent to servers with versions only."""
        self.carried = True
        if self.newest_wins:
            store = self._encode_guarded()
        else:
            cas: int = self._cas  # type: ignore[assignment]  # an assert would cost every write
            store = selected.SELECTED.plain_store(self.key, self.data, self.flags, self.ttl, cas)
        return store, _FORMS[store.packet.commands]

    def _encode_guarded(self) -> EncodedStore:
        cas: int = self._cas  # type: ignore[assignment]  # as above
        return selected.SELECTED.guarded_store(self.key, self.data, self.flags, self.ttl, cas, GUARD_STUB_CAS)

    def _send_plain(self, connection: Transport, waiter: Waiter, deadline: float) -> Sent:
        connection.store(self.key, self.data, self.flags, self.ttl, waiter, deadline)
        return _SENT_STORE

    async def peek_and_apply(self, node: Node, deadline: float, *, over_equal: bool = True) -> Outcome:
        """Find out why a guarded store was refused, and store by compare-and-set unless the node holds a newer version.

        Called when the replies do not prove an outcome. The server may hold a newer version, or an item without a version.
        Or it lost the item between two commands of the packet. Each attempt peeks first and stores over the item that it
        saw, which takes two round trips. Sets that meet none of these never come here. A newer version that this client has
        not made is noted in `unseen`.

        Args:
            node: Node that refused the store.
            deadline: Time on the loop's clock.
            over_equal: Store over an item of the same version, and over one without a version. False for copies, because
                the item of the zone may live longer than the copy.

        Returns:
            The outcome, once the node has this version or a newer one, or refuses the value.

        Raises:
            NodeError: The node cannot be reached or did not answer by the deadline.
        """
        looks = 0
        while True:
            seen = await peek(node, self.key, deadline)
            if seen is None:
                reply = await self._store(node, deadline, mode="add")
            elif seen.flags == FLAG_INT and seen.cas < NOT_A_VERSION and looks < NAMING_LOOKS:
                looks += 1
                await asyncio.sleep(NAMING_PAUSE_SECONDS)
                continue
            else:
                # An item without a version was written by another kind of client. No version is older or newer, so this
                # store replaces it. The compare ensures that it replaces no other item.
                is_own = self._hlc.has_made(seen.cas)
                version = self._hlc.observe_stored(seen.cas)
                assert self.version is not None
                if version is not None and version > self.version:
                    if not is_own:
                        self.unseen = max(self.unseen, version)
                    return Outcome.SUPERSEDED
                if not over_equal and (version is None or version == self.version):
                    return Outcome.SUPERSEDED
                reply = await self._store(node, deadline, compare=seen.cas)
            outcome = interpret_store(reply)
            if outcome is Outcome.STORED or reply.status in ERROR_STATUSES:
                return outcome
            # Another write came between the look and the store: look again.

    def _store(
        self, node: Node, deadline: float, *, mode: StoreMode = "set", compare: int | None = None
    ) -> Coroutine[Any, Any, Reply]:
        return store(node, self.key, self.data, self.flags, self.ttl, deadline, mode=mode, compare=compare, cas=self._cas)


class DeleteCommand(StoreCommand):
    """Store of a tombstone, which a late copy of an older value cannot replace. Readers see a miss.

    On a server without versions, it removes the item.
    """

    __slots__ = ()

    acknowledged: ClassVar[frozenset[Outcome]] = ACKNOWLEDGED_DELETE

    def __init__(
        self,
        hlc: HybridLogicalClock,
        key: bytes,
        *,
        ttl: int,
        version: int | None,
        newest_wins: bool = True,
        believed: bool = True,
    ) -> None:
        """Make a delete. Args as for `StoreCommand`; `ttl` is the lifetime of the tombstone."""
        super().__init__(hlc, key, b"", FLAG_TOMBSTONE, ttl=ttl, version=version, newest_wins=newest_wins, believed=believed)

    def _send_plain(self, connection: Transport, waiter: Waiter, deadline: float) -> Sent:
        connection.delete(self.key, waiter, deadline)
        return _SENT_DELETE


def interpret_guarded(replies: list[Reply]) -> Outcome | None:
    """Return the outcome of the three-copy store.

    Its third command matches only the item that the first two have just stored, so its reply alone proves the outcome.
    """
    decides = replies[2]
    status = decides.status
    if status == b"HD":
        return Outcome.STORED
    # EX: the server holds an item that it takes for newer. It is a newer write, or an item whose CAS is not a version.
    # NF: the item was evicted, or expired, between the stores.
    if status in (b"EX", b"NF"):
        return None
    return interpret_store(decides)


# Replies that each command of a one-copy `GuardedStore` can have besides errors.
_ONCE_STATUSES = (
    frozenset({b"HD", b"EN"}),
    frozenset({b"HD", b"EX", b"NF", b"NS"}),
    frozenset({b"HD", b"EX", b"NF"}),
    frozenset({b"HD", b"EX", b"NF", b"NS"}),
)


def interpret_guarded_once(replies: list[Reply]) -> Outcome | None:
    """Return the outcome of the one-copy store by the replies to its four commands.

    Returns:
        `STORED` if the third and the fourth command matched this version: the server holds it with its TTL and without the
        stale mark. `NOT_STORED` if the server refused the value and holds no item. Otherwise None. The item may be newer,
        without a version, a stub, or this version with the wrong TTL or with the mark.

    Raises:
        ProtocolError: A reply that its command cannot have.
    """
    stub, took_over, ttl_set, unmarked = replies
    if unmarked.status == ttl_set.status == took_over.status == stub.status == b"HD":  # usually
        return Outcome.STORED
    for reply, known in zip(replies, _ONCE_STATUSES, strict=True):
        if reply.status not in known and reply.status not in ERROR_STATUSES:
            raise unexpected(reply)
    if ttl_set.status == unmarked.status == b"HD":
        return Outcome.STORED
    if took_over.status in ERROR_STATUSES and ttl_set.status == b"NF":
        return Outcome.NOT_STORED
    return None


def interpret_store(reply: Reply) -> Outcome:
    """Return the outcome of a single store."""
    if reply.status == b"HD":
        return Outcome.STORED
    if reply.status == b"NS" or reply.status in ERROR_STATUSES:  # an error that leaves the connection usable: refused
        return Outcome.NOT_STORED
    if reply.status == b"EX":
        return Outcome.EXISTS
    if reply.status == b"NF":
        return Outcome.NOT_FOUND
    raise unexpected(reply)


def interpret_delete(reply: Reply) -> Outcome | None:
    """Return the outcome of a delete: an item was removed, or the server held none."""
    if reply.status == b"HD":
        return Outcome.STORED
    if reply.status == b"NF":
        return Outcome.NOT_FOUND
    raise unexpected(reply)


class ReplyForm(NamedTuple):
    """Form of the replies to an encoded store."""

    usual: tuple[frozenset[bytes] | None, ...]
    """Statuses of each reply to a store that has succeeded. Others may show that as well, and `interpret` knows. None if
    the reply does not matter."""
    interpret: Interpret
    """Returns the outcome of any replies."""


_DONE = frozenset({b"HD"})
GUARDED = ReplyForm((None, None, _DONE), interpret_guarded)
GUARDED_ONCE = ReplyForm((_ONCE_STATUSES[0], _DONE, _DONE, _DONE), interpret_guarded_once)
PLAIN = ReplyForm((_DONE,), lambda replies: interpret_store(replies[0]))
_FORMS = {1: PLAIN, 3: GUARDED, 4: GUARDED_ONCE}  # by the number of commands

# The results of `send`, made once: a write allocates none for each zone.
_SENT_STORE = Sent(interpret_store)
_SENT = {commands: Sent(form.interpret) for commands, form in _FORMS.items()}
_SENT_DELETE = Sent(interpret_delete)
_TOO_LARGE = Skipped(Outcome.NOT_STORED)
