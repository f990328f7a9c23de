r"""Bytes, in any slices, to replies. No I/O, no clock.

Driven by lengths: a value is taken by its announced size and never searched for line ends, so a value may hold anything,
`END\r\n` included. Anything the protocol does not know raises `ProtocolError`; after that the decoder is of no more use,
and the connection has to go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from evcache.zones.errors import ProtocolError
from evcache.zones.protocol.replies import STATUSES, AnyReply, Hit, Reply

# The longest line a server writes is about a key (250 bytes) and the flags that were asked for; memcached itself gives up
# on a request line of 2,048 bytes. Error texts and STAT lines stay well below.
MAX_LINE_BYTES = 2048

# The largest item a memcached can be told to take (`-I`): 1 GiB. It only bounds what a broken length can make us wait for:
# nothing is allocated before bytes arrive.
MAX_VALUE_BYTES = 1024 * 1024 * 1024

_MAX_SIZE_DIGITS = len(str(MAX_VALUE_BYTES))

_WITHOUT_VALUE = STATUSES - {b"VA"}
_END = b"\r\n"
_END_BYTES = len(_END)
# Reply(...) goes through a Python-level __new__; this is the same without it, and there is one for every reply.
_new_reply = _new_hit = tuple.__new__

# The first line of the usual reply to a read: size, client flags, CAS, seconds left if asked for, opaque, in the order in
# which they were asked for. Taken apart in one step, which halves the work for an item. Those that are stale or leased say
# more, and are taken apart like any other reply.
_usual_item = re.compile(rb"VA (\d{1,10}) f(\d{1,10}) c(\d{1,20})(?: t(-?\d{1,10}))? (O\d{1,20})\r\n").match


class Decoder:
    """One for each connection. Feed it what arrives; it gives the replies that are complete."""

    __slots__ = ("_chunks", "_have", "_make", "_max_line", "_max_value", "_rest", "awaited")

    def __init__(self, *, max_line: int = MAX_LINE_BYTES, max_value: int = MAX_VALUE_BYTES) -> None:
        self._max_line = max_line
        self._max_value = max_value
        self._rest = b""  # the beginning of a line
        # A value that has not arrived in full: its parts are collected and joined once, so that a large value in many slices
        # is copied once.
        self.awaited = 0
        """Bytes of the value that is arriving, with its line end; 0 between replies."""
        self._have = 0
        self._chunks: list[bytes] = []
        self._make: Callable[[bytes], AnyReply] | None = None  # what the value becomes

    def feed(self, data: bytes) -> Iterator[AnyReply]:
        """The replies that `data` completes, in order.

        Raises `ProtocolError` at the first byte that can't belong to a reply; the replies before it are given first, since
        they are whole and belong to requests of their own.
        """
        position = 0
        if self.awaited:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self.awaited:
                return
            position = len(data) - (self._have - self.awaited)
            yield self._whole_value()
        elif self._rest:
            data = self._rest + data
            self._rest = b""

        longest = self._max_line + _END_BYTES
        while True:
            if (
                data.startswith(b"V", position)
                and (usual := _usual_item(data, position)) is not None
                and (start := usual.end()) - position <= longest
            ):
                digits, flags, cas, ttl, opaque = usual.groups()
                stop = start + int(digits)
                left = None if ttl is None else int(ttl)
                if data.startswith(_END, stop) and stop - start <= self._max_value:
                    yield _new_hit(Hit, (data[start:stop], int(flags), int(cas), left, False, False, opaque))
                    position = stop + _END_BYTES
                    continue
                make: Callable[[bytes], AnyReply] = partial(
                    Hit, flags=int(flags), cas=int(cas), ttl=left, stale=False, leased=False, opaque=opaque
                )
            else:
                end = data.find(_END, position, position + longest)
                if end < 0:
                    self._rest = data[position:]
                    if len(self._rest) >= longest:  # a line that is full, but for a CR whose LF has not arrived
                        raise ProtocolError(f"a line of over {self._max_line} bytes: {self._rest[:64]!r}")
                    return
                status, *tokens = data[position:end].split(b" ")
                position = end + _END_BYTES
                if status in _WITHOUT_VALUE:
                    yield _new_reply(Reply, (status, tokens, None))
                    continue
                start = position
                if status != b"VA":
                    raise ProtocolError(f"not a reply: {data[max(0, end - 64) : end]!r}")
                digits = tokens[0] if tokens else b""
                if not digits.isdigit() or len(digits) > _MAX_SIZE_DIGITS:
                    raise ProtocolError(f"a value of no length that is possible: {data[max(0, start - 64) : start]!r}")
                make = partial(Reply, status, tokens[1:])
            # A value, of whose reply this was the first line.
            size = int(digits)
            if size > self._max_value:
                raise ProtocolError(f"a value of no length that is possible: {data[max(0, start - 64) : start]!r}")
            position = start + size + _END_BYTES
            if position > len(data):
                self._make = make
                self.awaited = size + _END_BYTES
                self._chunks.append(data[start:])
                self._have = len(data) - start
                return
            if not data.startswith(_END, start + size):
                raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
            yield make(data[start : start + size])

    def _whole_value(self) -> AnyReply:
        """The reply whose value has arrived in full, with whatever follows it."""
        chunks, self._chunks = self._chunks, []
        size, self.awaited = self.awaited - _END_BYTES, 0
        last = chunks.pop()
        while (in_last := size - (self._have - len(last))) < 0:  # bytes of the value: its line end is in several parts
            last = chunks.pop() + last
        if not last.startswith(_END, in_last):
            raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
        chunks.append(last[:in_last])
        assert self._make is not None
        return self._make(b"".join(chunks))
