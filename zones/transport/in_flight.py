"""Requests that wait for replies: what each expects, and whether what came is its own.

`take` is given the replies of the stream one after another and says when the request is complete. A reply that can't
belong to it raises `ProtocolError`, and the connection closes: it is never given to anyone. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

from evcache.zones.errors import NodeError, ProtocolError
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import (
    ERROR_STATUSES,
    META_STATUSES,
    AnyReply,
    Hit,
    is_unserved,
    leaves_connection_in_sync,
    unexpected,
)


class Waiter(Protocol):
    """Whoever waits for an answer. An `asyncio.Future` is one; a write that waits for several zones brings its own.

    Called from the event loop, once at most, and not at all once `done()` is true.
    """

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """The reply, or replies, that were asked for."""
        ...

    def set_exception(self, error: Any, /) -> None:
        """A `NodeError`: there will be no answer."""
        ...


class ExpectReply:
    """One request, one reply."""

    __slots__ = ("deadline", "opaque", "waiter")

    payload: ClassVar[bool] = False
    """True if the request carries a value."""

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes) -> None:
        self.waiter = waiter
        self.deadline = deadline
        self.opaque = opaque
        """What every reply must repeat, but for errors, which can't."""

    def take(self, reply: AnyReply) -> bool:
        """Give the waiter its reply, and return True if the request is complete.

        Raises:
            NodeUnavailable: The request is complete, and was not served.
            ProtocolError: The stream is of no more use.
        """
        if (reply.opaque != self.opaque) if type(reply) is Hit else (self.opaque not in reply.tokens):
            check_ours(reply, self.opaque, payload=self.payload)
            if is_unserved(reply):
                raise unexpected(reply)
        if not self.waiter.done():
            self.waiter.set_result(reply)
        return True

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Move the deadline, for a server that is in the middle of a reply. Return False if it has passed for good.

        A read waits half of the time that is left to the zones after this one: asking the next zone for the same large value
        costs more than to wait, but a zone that sends too slowly must not use up the time of the next. `to_the_end`: this
        process is the slow one, and a read waits until its call ends.
        """
        del until, to_the_end
        return False

    def fail(self, error: NodeError) -> None:
        """Tell the waiter that there will be no answer."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


class ExpectRead(ExpectReply):
    """One read, one reply. Another zone can answer it if this node falls silent."""

    __slots__ = ("latest", "share_ends")

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes, latest: float) -> None:
        """`deadline`: when the share of this zone ends. `latest`: when the call ends."""
        self.waiter = waiter
        self.deadline = self.share_ends = deadline
        self.opaque = opaque
        self.latest = latest

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Wait on this zone until then, beyond its share, but not too long. Return False if that is over."""
        return _wait_on(self, until, self.latest if to_the_end else (self.share_ends + self.latest) / 2)


class ExpectStore(ExpectReply):
    """One request with a value, one reply."""

    __slots__ = ()

    payload: ClassVar[bool] = True


class ExpectAll(ExpectStore):
    """Several requests in one packet: the list of their replies."""

    __slots__ = ("replies", "unserved", "wanted")

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes, wanted: int) -> None:
        # Without `super`: a write sends one to each zone.
        self.waiter = waiter
        self.deadline = deadline
        self.opaque = opaque
        self.wanted = wanted
        self.replies: list[AnyReply] = []
        self.unserved: AnyReply | None = None

    def take(self, reply: AnyReply) -> bool:
        """Keep the reply; with the last one, give the waiter all of them. Raises as `ExpectReply.take`."""
        if self.opaque not in reply.tokens:
            check_ours(reply, self.opaque, payload=self.payload)
            if is_unserved(reply):
                self.unserved = reply
        self.replies.append(reply)
        if len(self.replies) < self.wanted:
            return False
        if self.unserved is not None:
            raise unexpected(self.unserved)
        if not self.waiter.done():
            self.waiter.set_result(self.replies)
        return True


class ExpectHits(ExpectReply):
    """Reads that are silent on a miss, closed by a no-op: the list of `(index, Reply)` of those that were not.

    An error does not say which read it answers. After one, the reads without a hit are sent once more, and not quietly: the
    list then holds the error replies of those that fail again.
    """

    __slots__ = ("fields", "following", "has_error", "hits", "keys", "latest", "opaques", "send", "share_ends")

    def __init__(
        self,
        waiter: Waiter,
        deadline: float,
        opaques: Sequence[bytes],
        keys: Sequence[bytes],
        fields: Fields,
        send: Callable[[bytes, ExpectReply], None],
        latest: float | None = None,
    ) -> None:
        """Create a batch that has been sent.

        Args:
            waiter: What gets the list.
            deadline: Time on the loop's clock by which the waiter needs it.
            opaques: What the reply to each of the reads must repeat.
            keys: Keys of the reads.
            fields: Fields that are read of each.
            send: Queues a request on the same connection. Raises a `NodeError` if it has no room.
            latest: See `ExpectRead`. If None, no other zone can answer the reads.
        """
        super().__init__(waiter, deadline, b"")
        self.share_ends = deadline
        self.latest = latest
        self.opaques = opaques
        self.keys = keys
        self.fields = fields
        self.send = send
        self.following = 0  # replies come in the order of the reads, so a repeated one is noticed too
        self.hits: list[tuple[int, AnyReply]] = []
        self.has_error = False

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Wait as a single read does, if another zone can answer."""
        if self.latest is None:
            return False
        return _wait_on(self, until, self.latest if to_the_end else (self.share_ends + self.latest) / 2)

    def take(self, reply: AnyReply) -> bool:
        """Keep a hit; the no-op's answer ends the batch."""
        try:
            # The opaque was asked for last. The usual reply is the next hit, or some misses further on.
            opaque = reply.opaque if type(reply) is Hit else reply.tokens[-1]
            index = self.opaques.index(opaque, self.following)
        except (ValueError, IndexError):
            if reply.status == b"MN" or reply.status in ERROR_STATUSES:
                return self._take_other(reply)
            index = self._index(reply)
        self.following = index + 1
        self.hits.append((index, reply))
        return False

    def _take_other(self, reply: AnyReply) -> bool:
        if reply.status != b"MN":
            check_harmless(reply, payload=False)
            self.has_error = True
            return False
        if self.waiter.done():
            pass
        elif self.has_error:
            self._ask_each()
        else:
            self.waiter.set_result(self.hits)
        return True

    def _ask_each(self) -> None:
        """Send the reads without a hit once more, each with a reply of its own."""
        hit = {index for index, _ in self.hits}
        unclear = [index for index in range(len(self.keys)) if index not in hit]
        if not unclear:
            self.waiter.set_result(self.hits)
            return
        opaque = self.opaques[0]  # the batch is complete, so no other request in flight has it
        data = b"".join([b"mg %b %b %b\r\n" % (self.keys[index], self.fields, opaque) for index in unclear])
        try:
            self.send(data, ExpectEach(self.waiter, self.deadline, opaque, unclear, self.hits))
        except NodeError as error:
            self.waiter.set_exception(error)

    def _index(self, reply: AnyReply) -> int:
        """Of a reply with something behind its opaque: the marks of a stale or leased item."""
        for token in reply.tokens:
            if token.startswith(b"O"):
                try:
                    return self.opaques.index(token, self.following)
                except ValueError:
                    break
        raise ProtocolError(f"a reply to another request: {reply.line[:64]!r}")


class ExpectEach(ExpectReply):
    """Reads that are never silent: the list of `(index, Reply)` of those that did not miss, error replies included."""

    __slots__ = ("hits", "indices", "taken")

    def __init__(
        self,
        waiter: Waiter,
        deadline: float,
        opaque: bytes,
        indices: Sequence[int],
        hits: list[tuple[int, AnyReply]],
    ) -> None:
        """`indices`: what the reads are called in the list. `hits`: what is in it already."""
        super().__init__(waiter, deadline, opaque)
        self.indices = indices
        self.hits = hits
        self.taken = 0

    def take(self, reply: AnyReply) -> bool:
        """Keep what is no miss; with the last reply, give the waiter the list, in the order of the reads."""
        if (reply.opaque != self.opaque) if type(reply) is Hit else (self.opaque not in reply.tokens):
            check_ours(reply, self.opaque, payload=False)
        if reply.status != b"EN":
            self.hits.append((self.indices[self.taken], reply))
        self.taken += 1
        if self.taken < len(self.indices):
            return False
        if not self.waiter.done():
            self.waiter.set_result(sorted(self.hits, key=lambda hit: hit[0]))
        return True


class ExpectText(ExpectReply):
    """A command that can't carry an opaque: one reply, or all up to the status `until`."""

    __slots__ = ("may_be_unknown", "replies", "until")

    def __init__(self, waiter: Waiter, deadline: float, until: bytes | None, *, may_be_unknown: bool = False) -> None:
        """Create the entry of one text request.

        Args:
            waiter: receives the list of replies.
            deadline: on the loop's clock.
            until: status of the last reply. If None, the request has one reply.
            may_be_unknown: accept any refusal, and the status of any meta command, as the answer. The caller judges it. The
                request must have no payload: after a refusal, the server then reads the next request.
        """
        super().__init__(waiter, deadline, b"")
        self.until = until
        self.may_be_unknown = may_be_unknown
        self.replies: list[AnyReply] = []

    def take(self, reply: AnyReply) -> bool:
        """Keep the reply; with the last one, give the waiter the list of them, the last included."""
        if reply.status in ERROR_STATUSES:
            if not self.may_be_unknown:
                check_harmless(reply, payload=False)
        elif reply.status in META_STATUSES and reply.status != b"MN" and not self.may_be_unknown:
            raise ProtocolError(f"a reply to another request: {reply.line[:64]!r}")
        self.replies.append(reply)
        if self.until is not None and reply.status != self.until and reply.status not in ERROR_STATUSES:
            return False
        if not self.waiter.done():
            self.waiter.set_result(self.replies)
        return True


def _wait_on(pending: ExpectReply, until: float, latest: float) -> bool:
    may_wait = pending.deadline < latest
    if may_wait:
        pending.deadline = min(until, latest)
    return may_wait


class MovedAway:
    """The waiter in place of a caller that asks another zone. The connection still sees when the reply is late."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        """Return True once a reply or an error has come."""
        return self._done

    def set_result(self, result: object, /) -> None:
        """Drop a reply."""
        del result
        self._done = True

    def set_exception(self, error: object, /) -> None:
        """Drop an error."""
        del error
        self._done = True


def movable(waiting: Iterable[ExpectReply]) -> list[ExpectReply]:
    """Return the reads whose caller still waits here and can ask another zone."""
    return [
        pending
        for pending in waiting
        if (type(pending) is ExpectRead or (type(pending) is ExpectHits and pending.latest is not None))
        and not pending.waiter.done()
        and type(pending.waiter) is not MovedAway
    ]


def move_away(reads: Iterable[ExpectReply], error: Callable[[], NodeError]) -> None:
    """Fail these reads at once, each with an error of its own, and keep their places in the queue."""
    for pending in reads:
        waiter, pending.waiter = pending.waiter, MovedAway()
        waiter.set_exception(error())


def check_ours(reply: AnyReply, opaque: bytes, *, payload: bool) -> None:
    """Raise `ProtocolError` when the reply belongs to another request, or the stream may be out of sync after it."""
    if reply.status in ERROR_STATUSES:
        check_harmless(reply, payload=payload)
    elif opaque not in reply.tokens:
        raise ProtocolError(f"a reply to another request: {reply.line[:64]!r}, expected {opaque!r}")


def check_harmless(reply: AnyReply, *, payload: bool) -> None:
    """Raise `ProtocolError` for an error reply after which the stream may be out of sync."""
    if not leaves_connection_in_sync(reply, payload=payload):
        raise ProtocolError(f"connection out of sync after error: {reply.line[:200].decode('ascii', 'backslashreplace')}")
