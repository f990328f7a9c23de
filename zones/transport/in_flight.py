"""Requests in flight: the replies that each expects, and the check that a reply is its own.

The connection passes replies to `take`, one after another, until the request is complete. A reply that cannot belong to the
request raises `ProtocolError`, and the connection closes. No caller gets that reply. No I/O, no clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from evcache.zones.errors import NodeError, ProtocolError
from evcache.zones.protocol.replies import (
    ERROR_STATUSES,
    META_STATUSES,
    Decoded,
    Hit,
    Keyed,
    is_unserved,
    leaves_connection_in_sync,
    unexpected,
)


class Waiter(Protocol):
    """Receiver of a result: an `asyncio.Future`, or the part of a write that waits for one zone.

    The connection calls `set_result` or `set_exception` in the event loop, at most once, and never after `done()` is True.
    """

    def done(self) -> bool:
        """Return True if no caller waits."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Receive the reply, or the list of replies."""
        ...

    def set_exception(self, error: Any, /) -> None:
        """Receive the `NodeError` of a request without a reply."""
        ...


class ExpectReply:
    """Request with one reply."""

    __slots__ = ("deadline", "opaque", "waiter")

    payload: ClassVar[bool] = False
    """True if the request carries a value."""
    latest: float | None = None
    """End of the call, if another zone can serve the request as well. Else None."""

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes) -> None:
        self.waiter = waiter
        self.deadline = deadline
        self.opaque = opaque
        """Token that every reply must repeat. Error replies cannot."""

    def take(self, reply: Decoded) -> bool:
        """Give the waiter its reply, and return True if the request is complete.

        Raises:
            NodeUnavailable: The request is complete, and was not served.
            ProtocolError: The connection is out of sync.
        """
        if (reply.opaque != self.opaque) if type(reply) is Hit else (self.opaque not in reply.tokens):
            check_ours(reply, self.opaque, payload=self.payload)
            if is_unserved(reply):
                raise unexpected(reply)
        if not self.waiter.done():
            self.waiter.set_result(reply)
        return True

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Extend the deadline, because the server is in the middle of a reply. Return False if the request must not wait.

        A read may use half of the time of the zones after this one. Waiting costs less than to read the same large value
        from the next zone. But a slow zone must not use up the time of the next.

        Args:
            until: New deadline.
            to_the_end: The event loop of this process is slow, so a read may wait until its call ends.
        """
        del until, to_the_end
        return False

    def fail(self, error: NodeError) -> None:
        """Fail the waiter, unless it is done."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


class ExpectRead(ExpectReply):
    """Read with one reply. Another zone can serve it if this node stops sending."""

    __slots__ = ("latest", "share_ends")

    latest: float

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes, latest: float) -> None:
        """Make the entry of a read. `deadline` is the end of this zone's share of the time, `latest` the end of the call."""
        self.waiter = waiter
        self.deadline = self.share_ends = deadline
        self.opaque = opaque
        self.latest = latest

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Extend the deadline beyond the share of this zone. Return False if the read must not wait."""
        return extend_deadline(self, until, self.latest if to_the_end else (self.share_ends + self.latest) / 2)


class ExpectStore(ExpectReply):
    """Request with a value and one reply."""

    __slots__ = ()

    payload: ClassVar[bool] = True


class ExpectAll(ExpectStore):
    """Packet of several commands, whose waiter gets the list of replies."""

    __slots__ = ("replies", "unserved", "wanted")

    def __init__(self, waiter: Waiter, deadline: float, opaque: bytes, wanted: int) -> None:
        # Without `super`: a write sends one to each zone.
        self.waiter = waiter
        self.deadline = deadline
        self.opaque = opaque
        self.wanted = wanted
        self.replies: list[Decoded] = []
        self.unserved: Decoded | None = None

    def take(self, reply: Decoded) -> bool:
        """Keep the reply. With the last one, give the waiter the list. Raises the errors of `ExpectReply.take`."""
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


class ExpectText(ExpectReply):
    """Command that cannot carry an opaque, with one reply, or several up to the status `until`."""

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
        self.replies: list[Decoded] = []

    def take(self, reply: Decoded) -> bool:
        """Keep the reply. With the last one, give the waiter the list."""
        if reply.status in ERROR_STATUSES:
            if not self.may_be_unknown:
                check_harmless(reply, payload=False)
        elif type(reply) is Keyed or (reply.status in META_STATUSES and reply.status != b"MN" and not self.may_be_unknown):
            raise ProtocolError(f"reply to another request: {reply.line[:64]!r}")
        self.replies.append(reply)
        if self.until is not None and reply.status != self.until and reply.status not in ERROR_STATUSES:
            return False
        if not self.waiter.done():
            self.waiter.set_result(self.replies)
        return True


def extend_deadline(pending: ExpectReply, until: float, latest: float) -> bool:
    """Extend the deadline of a read, at most to `latest`. Return False if it must not wait."""
    may_wait = pending.deadline < latest
    if may_wait:
        pending.deadline = min(until, latest)
    return may_wait


class MovedAway:
    """Waiter in place of a caller that has gone to another zone. It lets the connection detect a late reply."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        """Return True once it has a reply or an error."""
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
    """Return the reads whose caller still waits, and can read another zone."""
    return [
        pending
        for pending in waiting
        if pending.latest is not None and not pending.waiter.done() and type(pending.waiter) is not MovedAway
    ]


def move_away(reads: Iterable[ExpectReply], error: Callable[[], NodeError]) -> None:
    """Fail these reads at once, each with a new error. They keep their places in the queue."""
    for pending in reads:
        waiter = pending.waiter
        if not waiter.done():  # the call of an earlier waiter may have cancelled it, or ended the connection
            pending.waiter = MovedAway()
            waiter.set_exception(error())


def check_ours(reply: Decoded, opaque: bytes, *, payload: bool) -> None:
    """Raise `ProtocolError` if the reply belongs to another request, or leaves the connection out of sync."""
    if reply.status in ERROR_STATUSES:
        check_harmless(reply, payload=payload)
    elif opaque not in reply.tokens:
        raise ProtocolError(f"reply to another request: {reply.line[:64]!r}, expected {opaque!r}")


def check_harmless(reply: Decoded, *, payload: bool) -> None:
    """Raise `ProtocolError` for an error reply that may leave the connection out of sync."""
    if not leaves_connection_in_sync(reply, payload=payload):
        raise ProtocolError(f"connection out of sync after error: {reply.line[:200].decode('ascii', 'backslashreplace')}")


def give_up(answer: asyncio.Future[Any]) -> None:
    """Cancel a future whose result no caller needs. The connection reads its reply and drops it."""
    # Retrieve the exception of a failed future, or asyncio reports it as one that was never handled.
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
