"""What a write sends to one node, and what the answer means. The guarded store lives here.

Every write of a version, be it a caller's set, a delete or a repair, is the same command: bring this version to that zone.
An older one can never replace a newer one, in any order of arrival, and sending one twice changes nothing.

Deciding is done in plain functions (`judge_...`); the coroutines only carry decisions to the server and back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from evcache.replication.hlc import GUARD_STUB_CAS, NOT_A_VERSION, HybridLogicalClock, cas_of
from evcache.replication.node_requests import capabilities_of, peek, send_request
from evcache.results import Outcome
from evcache.values.flags import FLAG_INT, FLAG_TOMBSTONE
from evcache.zones.nodes.capabilities import FITS_ANYWHERE_BYTES, Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.packet import Packet
from evcache.zones.protocol.replies import ERROR_STATUSES, Reply, unexpected
from evcache.zones.transport.base import Transport
from evcache.zones.transport.in_flight import Waiter

# Values up to this size travel three times in a guarded store, larger ones once (`requests.guarded_store_once`).
# Measured with `python -m benchmarks.guarded_store`, three zones of memcached 1.6.38, 32 callers. Processor time of client
# and servers for one copy, three copies being 1: 1.03 to 1.13 from 64 bytes to 1 kB, 0.9 at 4 kB, 0.7 at 10 kB, 0.4 from
# 100 kB on. Bytes to each zone: 0.82 at 64, 0.72 at 100, 0.67 at 128, 0.54 at 256, 0.40 at 1,000. One copy names the key
# four times and not three: over 128 bytes it sends less with any key of up to 200 bytes.
THREE_COPIES_MAX_BYTES = 128

# Lifetime of the stub that the one-copy store makes where nothing is. If the connection ends inside the packet, the stub
# stays and holds up leases of its key. Servers count in ticks of one second: 2 lives 1 to 2 seconds, 1 might live none. A
# stub that ends while the value is on its way costs a second round trip (`StoreCommand.settle`).
STUB_SECONDS = 2

# A counter without a version is one that another client has just moved, and is about to give one (`counting`).
# Before anything else is done about it, the client looks again as often as this: for a round trip or so.
NAMING_LOOKS = 20
NAMING_PAUSE_SECONDS = 0.001

# Makes of an answer what became of the write; None when the answer does not say, and `settle` must look closer.
Judge = Callable[[Any], Outcome | None]


class Command(Protocol):
    """A write as one node sees it. Made once, sent to every zone."""

    def send(
        self, connection: Transport, capabilities: Capabilities, waiter: Waiter, deadline: float
    ) -> Judge | Outcome | None:
        """Send it; the waiter gets what the returned judge is for.

        An outcome: there was nothing to send. None: it takes more than one exchange, see `settle`.
        Raises `NodeUnavailable` when it can't be sent.
        """
        ...

    async def settle(self, node: Node, deadline: float) -> Outcome:
        """Bring it to an end by looking first. Raises a `NodeError`."""
        ...


class StoreCommand:
    """Bring a value to a zone: newest wins where it has a version and the server keeps them, last to arrive elsewhere."""

    __slots__ = (
        "_arrival",
        "_cas",
        "_clock",
        "_guarded",
        "_plain",
        "believed",
        "carried",
        "cause",
        "data",
        "flags",
        "key",
        "newest_wins",
        "ttl",
        "unseen",
        "version",
    )

    def __init__(
        self,
        clock: HybridLogicalClock,
        key: bytes,
        data: bytes,
        flags: int,
        *,
        ttl: int,
        version: int | None,
        newest_wins: bool = True,
    ) -> None:
        """`ttl` as it goes on the wire. `version` None: no version at all. `newest_wins` False: in order of arrival."""
        self._clock = clock
        self.key = key
        self.data = data
        self.flags = flags
        self.ttl = ttl
        self.version = version
        self.newest_wins = newest_wins
        self.cause: object = None
        """What listeners call the write that it is part of."""
        self.carried = False
        """Whether a server that keeps versions was sent this one."""
        self.believed = True
        """False for a version that went past an item whose version is too far ahead to be believed. Readers then take the
        item for one without a version, so nothing may wait for this version, or for a newer one."""
        self.unseen = 0
        """The newest version that a zone refused this write for, and that this client has not made; 0 if there is none. The
        client had not seen it when it made its own version, which would be newer otherwise."""
        self._cas = None if version is None else cas_of(version)
        self._guarded: Packet | None = None
        self._arrival: bytes | None = None
        self._plain: bytes | None = None

    def send(self, connection: Transport, capabilities: Capabilities, waiter: Waiter, deadline: float) -> Judge | Outcome:
        """Send one packet in the best form that the server takes (see `Command`).

        Returns:
            The judge of the replies. `Outcome.NOT_STORED`, with nothing sent, for a value over the server's item limit.
        """
        size = len(self.data)
        if size > FITS_ANYWHERE_BYTES and size > capabilities.largest_value(self.key):
            return Outcome.NOT_STORED  # the server would delete what it has under the key, and then refuse
        if self._cas is None or not capabilities.versions:
            return self._send_plain(connection, waiter, deadline)
        self.carried = True
        if not self.newest_wins:
            if self._arrival is None:
                self._arrival = requests.meta_set(self.key, size, ttl=self.ttl, flags=self.flags, cas=self._cas)
            connection.request(self._arrival, waiter, deadline, self.data)
            return interpret_store
        if self._guarded is None:
            self._guarded = self._packet(self._cas)
        connection.request_all(self._guarded, waiter, deadline)
        return interpret_guarded if size <= THREE_COPIES_MAX_BYTES else interpret_guarded_once

    def _packet(self, cas: int) -> Packet:
        """Build the guarded store, in the form that suits the size of the value."""
        if len(self.data) <= THREE_COPIES_MAX_BYTES:
            return requests.guarded_store(self.key, self.data, cas=cas, ttl=self.ttl, flags=self.flags)
        return requests.guarded_store_once(
            self.key,
            self.data,
            cas=cas,
            ttl=self.ttl,
            flags=self.flags,
            stub=GUARD_STUB_CAS,
            stub_seconds=STUB_SECONDS,
        )

    def _send_plain(self, connection: Transport, waiter: Waiter, deadline: float) -> Judge:
        if self._plain is None:
            self._plain = requests.meta_set(self.key, len(self.data), ttl=self.ttl, flags=self.flags)
        connection.request(self._plain, waiter, deadline, self.data)
        return interpret_store

    async def settle(self, node: Node, deadline: float, *, over_equal: bool = True) -> Outcome:
        """Find out why a guarded store was refused, and store by compare-and-set where nothing newer is there.

        Called when the replies to the packet do not prove an outcome: the server holds a newer version, an item without a
        version, or lost the item between two commands of the packet. Each attempt looks first and stores over what it saw,
        which takes two round trips. Sets that meet none of these never come here. A newer version that this client has not
        made is noted in `unseen`.

        Args:
            node: node that refused the store.
            deadline: time on the loop's clock.
            over_equal: Store over an item of the same version, and over one without a version. False for copies: what the
                zone has may live longer than the copy.

        Returns:
            The outcome, once the node has this version or a newer one, or refuses the value.

        Raises:
            NodeError: the node can't be reached or did not answer by the deadline.
        """
        looks = 0
        while True:
            seen = await peek(node, self.key, deadline)
            if seen is None:
                line = self._line(mode="add")
            elif seen.flags == FLAG_INT and seen.cas < NOT_A_VERSION and looks < NAMING_LOOKS:
                looks += 1
                await asyncio.sleep(NAMING_PAUSE_SECONDS)
                continue
            else:
                # An item without a version was written by another kind of client. It wins and loses against nothing, so
                # ours replaces it, and not by luck: only while it is what was seen.
                is_own = self._clock.has_made(seen.cas)
                version = self._clock.observe_stored(seen.cas)
                assert self.version is not None
                if version is not None and version > self.version:
                    if not is_own:
                        self.unseen = max(self.unseen, version)
                    return Outcome.SUPERSEDED
                if not over_equal and (version is None or version == self.version):
                    return Outcome.SUPERSEDED
                line = self._line(compare=seen.cas)
            reply = await send_request(node, line, deadline, self.data)
            outcome = interpret_store(reply)
            if outcome is Outcome.STORED or reply.status in ERROR_STATUSES:
                return outcome
            # Something else got between the look and the store: look again.

    def _line(self, mode: requests.StoreMode = "set", compare: int | None = None) -> bytes:
        return requests.meta_set(
            self.key, len(self.data), ttl=self.ttl, flags=self.flags, mode=mode, compare=compare, cas=self._cas
        )


class DeleteCommand(StoreCommand):
    """A delete is a write: a tombstone, which a late copy of an older value can't replace. Readers see a miss.

    Where there are no versions, the item is removed.
    """

    __slots__ = ()

    def __init__(
        self, clock: HybridLogicalClock, key: bytes, *, ttl: int, version: int | None, newest_wins: bool = True
    ) -> None:
        super().__init__(clock, key, b"", FLAG_TOMBSTONE, ttl=ttl, version=version, newest_wins=newest_wins)

    def _send_plain(self, connection: Transport, waiter: Waiter, deadline: float) -> Judge:
        connection.request(requests.meta_delete(self.key), waiter, deadline)
        return interpret_delete


async def execute(command: Command, node: Node, deadline: float) -> Outcome:
    """Send a command to one node, connecting first if need be, and see it through. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    judge = command.send(connection, capabilities_of(node), answer, deadline)
    if isinstance(judge, Outcome):
        return judge
    if judge is not None:
        outcome = judge(await answer)
        if outcome is not None:
            return outcome
    return await command.settle(node, deadline)


def interpret_guarded(replies: list[Reply]) -> Outcome | None:
    """Judge the three-copy store. Its third command matches only what the first two have just stored, so it alone tells."""
    status = replies[2].status
    if status == b"HD":
        return Outcome.STORED
    # EX: something that the server takes for newer is there: a newer write, or an item whose CAS is no version at all.
    # NF: it was evicted, or expired, between the stores.
    if status in (b"EX", b"NF"):
        return None
    return interpret_store(replies[2])


# Replies that each command of `requests.guarded_store_once` can have besides errors.
_ONCE_STATUSES = (
    frozenset({b"HD", b"EN"}),
    frozenset({b"HD", b"EX", b"NF", b"NS"}),
    frozenset({b"HD", b"EX", b"NF"}),
    frozenset({b"HD", b"EX", b"NF", b"NS"}),
)


def interpret_guarded_once(replies: list[Reply]) -> Outcome | None:
    """Judge the one-copy store by the replies to `requests.guarded_store_once`.

    Returns:
        `STORED` if the third and the fourth command matched this version: it is there with its TTL and without the stale
        mark. `NOT_STORED` if the server refused the value and holds nothing. None otherwise: what is there may be newer, an
        item without a version, a stub, or this version with the wrong TTL or with the mark.

    Raises:
        ProtocolError: a reply that its command can't have.
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
    """A single store."""
    if reply.status == b"HD":
        return Outcome.STORED
    if reply.status == b"NS" or reply.status in ERROR_STATUSES:  # an error after which the connection lives: refused
        return Outcome.NOT_STORED
    if reply.status == b"EX":
        return Outcome.EXISTS
    if reply.status == b"NF":
        return Outcome.NOT_FOUND
    raise unexpected(reply)


def interpret_delete(reply: Reply) -> Outcome | None:
    """An item removed, or none there."""
    if reply.status == b"HD":
        return Outcome.STORED
    if reply.status == b"NF":
        return Outcome.NOT_FOUND
    raise unexpected(reply)
