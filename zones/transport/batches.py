"""Batches of reads in flight. Each is one entry of the queue, see `in_flight`. No I/O, no clock."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from evcache.zones.errors import NodeError, ProtocolError
from evcache.zones.protocol.fields import NO_FLAGS, Fields
from evcache.zones.protocol.replies import ERROR_STATUSES, Decoded, Hit, Keyed
from evcache.zones.transport.in_flight import ExpectReply, Waiter, check_harmless, check_ours, extend_deadline


class ExpectHits(ExpectReply):
    """Batch of reads that are silent on a miss, closed by a no-op. The waiter gets the list of replies.

    The list has None for a miss. An error does not name its read. After one, the reads without a hit are sent again, each
    with a reply. The list then holds the error replies of the reads that fail again.
    """

    __slots__ = ("fields", "following", "has_error", "keys", "latest", "opaques", "replies", "send", "share_ends")

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
            waiter: Receiver of the list.
            deadline: Time on the loop's clock at which the batch fails.
            opaques: Tokens of the reads.
            keys: Keys of the reads.
            fields: Fields that are read of each.
            send: Queues a request on the same connection. Raises a `NodeError` if it has no room.
            latest: See `ExpectRead`. If None, no other zone can serve the reads.
        """
        super().__init__(waiter, deadline, b"")
        self.share_ends = deadline
        self.latest = latest
        self.opaques = opaques
        self.keys = keys
        self.fields = fields
        self.send = send
        self.following = 0  # replies come in the order of the reads, so a repeated one is an error
        self.replies: list[Decoded | None] = [None] * len(keys)
        self.has_error = False

    def wait_on(self, until: float, *, to_the_end: bool) -> bool:
        """Extend the deadline as for a single read, if another zone can serve the batch."""
        if self.latest is None:
            return False
        return extend_deadline(self, until, self.latest if to_the_end else (self.share_ends + self.latest) / 2)

    def take(self, reply: Decoded) -> bool:
        """Keep a hit. The reply to the no-op ends the batch."""
        try:
            # The opaque is the last token. The usual reply is for the next read, or for one some misses later.
            opaque = reply.opaque if type(reply) is Hit else reply.tokens[-1]
            index = self.opaques.index(opaque, self.following)
        except (ValueError, IndexError):
            if reply.status == b"MN" or reply.status in ERROR_STATUSES:
                return self._take_other(reply)
            index = self._index(reply)
        self.following = index + 1
        self.replies[index] = reply
        return False

    def _take_other(self, reply: Decoded) -> bool:
        if reply.status != b"MN":
            check_harmless(reply, payload=False)
            self.has_error = True
            return False
        if self.waiter.done():
            pass
        elif self.has_error:
            self._ask_each(self._without_hit())
        else:
            self.waiter.set_result(self.replies)
        return True

    def _without_hit(self) -> list[int]:
        return [index for index, reply in enumerate(self.replies) if reply is None]

    def _ask_each(self, unclear: Sequence[int]) -> None:
        """Send these reads again, each with a reply."""
        if not unclear:
            self.waiter.set_result(self.replies)
            return
        opaque = self.opaques[0]  # the batch is complete, so no other request in flight has it
        data = b"".join([b"mg %b %b %b\r\n" % (self.keys[index], self.fields, opaque) for index in unclear])
        try:
            self.send(data, ExpectEach(self.waiter, self.deadline, opaque, unclear, self.replies))
        except NodeError as error:
            self.waiter.set_exception(error)

    def _index(self, reply: Decoded) -> int:
        """Return the index of a reply with tokens behind its opaque: the marks of a stale or leased item."""
        for token in reply.tokens:
            if token.startswith(b"O"):
                try:
                    return self.opaques.index(token, self.following)
                except ValueError:
                    break
        raise ProtocolError(f"reply to another request: {reply.line[:64]!r}")


class ExpectValues(ExpectHits):
    """Batch of reads by `gets`, closed by a no-op. The waiter gets what that of `ExpectHits` gets.

    The commands have no opaque. The server repeats the key of each item, in the order of the request. An `END` closes each
    command, and the no-op shows that no `END` was missing or too many. A server takes about a third of the time that it
    takes for reads with opaques, and the request has half of the bytes.

    The reply does not show the stub of a lease. It looks like an empty value with flags 0, so those are read again.
    """

    __slots__ = ("cas", "ends", "flags", "unclear")

    def __init__(
        self,
        waiter: Waiter,
        deadline: float,
        opaque: bytes,
        keys: Sequence[bytes],
        ends: list[int],
        fields: Fields,
        send: Callable[[bytes, ExpectReply], None],
        latest: float | None = None,
        cas: array[int] | None = None,
        flags: int = NO_FLAGS,
    ) -> None:
        """Create a batch that has been sent.

        Args:
            waiter: See `ExpectHits`.
            deadline: See `ExpectHits`.
            opaque: Token of reads that are sent again.
            keys: Keys of the reads.
            ends: Number of the keys up to the end of each command, in order.
            fields: Fields of reads that are sent again.
            send: See `ExpectHits`.
            latest: See `ExpectHits`.
            cas: See `Transport.get_many`. Only the compiled core uses it, and may add values alone to `replies`.
            flags: See `Transport.get_many`.
        """
        super().__init__(waiter, deadline, [opaque], keys, fields, send, latest)
        self.ends = ends
        self.cas = cas
        self.flags = flags
        self.unclear: list[int] = []

    def take(self, reply: Decoded) -> bool:
        """Keep a hit. The reply to the no-op ends the batch."""
        if type(reply) is Keyed:
            key, hit = reply
            index = self.following
            stop = self.ends[0] if self.ends else 0
            if index >= stop or self.keys[index] != key:  # a miss is in between, or the reply is for another command
                try:
                    index = self.keys.index(key, index, stop)
                except ValueError:
                    raise ProtocolError(f"reply to another request: {reply.line[:64]!r}") from None
            self.following = index + 1
            if hit[0] or hit[1]:  # a value, or flags
                self.replies[index] = hit
            else:
                self.unclear.append(index)
            return False
        status = reply.status
        if status == b"END":
            if not self.ends:
                raise ProtocolError("one END too many")
            self.following = self.ends.pop(0)
            return False
        if status == b"MN" and not self.has_error:
            if self.ends:  # after an error, it may stand in place of an END
                raise ProtocolError(f"{len(self.ends)} times no END")
            if not self.waiter.done():
                self._ask_each(self.unclear)
            return True
        if status != b"MN" and status not in ERROR_STATUSES:
            raise ProtocolError(f"reply to another request: {reply.line[:64]!r}")
        return self._take_other(reply)


class ExpectEach(ExpectReply):
    """Reads with a reply each, whose waiter gets the list of replies, with None for a miss."""

    __slots__ = ("indices", "replies", "taken")

    def __init__(
        self,
        waiter: Waiter,
        deadline: float,
        opaque: bytes,
        indices: Sequence[int],
        replies: list[Decoded | None],
    ) -> None:
        """Make the entry of reads that have been sent.

        Args:
            waiter: Receiver of the list.
            deadline: Time on the loop's clock at which the reads fail.
            opaque: Token of all reads.
            indices: Index of each read in the list.
            replies: The list, with the replies that it has already.
        """
        super().__init__(waiter, deadline, opaque)
        self.indices = indices
        self.replies = replies
        self.taken = 0

    def take(self, reply: Decoded) -> bool:
        """Keep a hit or an error. With the last reply, give the waiter the list."""
        if (reply.opaque != self.opaque) if type(reply) is Hit else (self.opaque not in reply.tokens):
            check_ours(reply, self.opaque, payload=False)
        if reply.status != b"EN":
            self.replies[self.indices[self.taken]] = reply
        self.taken += 1
        if self.taken < len(self.indices):
            return False
        if not self.waiter.done():
            self.waiter.set_result(self.replies)
        return True
