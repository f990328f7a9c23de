r"""Decoder of replies from bytes, in any slices. No I/O, no clock.

The decoder takes a value by the length in its first line, and never searches it for line ends. So a value may hold any
bytes, `END\r\n` included. Bytes that the protocol does not know raise `ProtocolError`. The connection must close after that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from evcache.zones.errors import ProtocolError
from evcache.zones.protocol.replies import STATUSES, Decoded, Hit, Keyed, Reply

# The longest line of a server has a key (250 bytes) and the requested flags. memcached refuses a request line of 2,048
# bytes. Error texts and STAT lines are far shorter.
MAX_LINE_BYTES = 2048

# Largest item that a memcached can be configured for (`-I`): 1 GiB. It bounds the wait for a value with a corrupt length.
MAX_VALUE_BYTES = 1024 * 1024 * 1024

# Values of these sizes have memory of their own from their first line on, and the event loop writes the bytes there. The
# parts of other values are collected, and joined once. A smaller value is seldom in several parts. The length of a larger
# one may be corrupt.
MIN_LANDING_BYTES = 64 * 1024
MAX_LANDING_BYTES = 64 * 1024 * 1024

MAX_SIZE_DIGITS = len(str(MAX_VALUE_BYTES))

WITHOUT_VALUE = STATUSES - {b"VA"}
_END = b"\r\n"
_END_BYTES = len(_END)
# Reply(...) calls a __new__ in Python. tuple.__new__ skips it, once for every reply.
_new_reply = _new_hit = _new_keyed = tuple.__new__

# First line of the usual reply to a read: size, client flags, CAS, seconds left if requested, opaque, in the order of the
# request. One match splits it, which halves the work for an item. The line of a stale or leased item has more tokens, and is
# split like that of any other reply.
_usual_item = re.compile(rb"VA (\d{1,10}) f(\d{1,10}) c(\d{1,20})(?: t(-?\d{1,10}))? (O\d{1,20})\r\n").match

# First line of an item in the reply to `gets`: key, client flags, size, CAS.
_keyed_item = re.compile(rb"VALUE ([^ \r\n]{1,250}) (\d{1,10}) (\d{1,10}) (\d{1,20})\r\n").match


def _keyed(value: bytes, key: bytes, flags: int, cas: int) -> Keyed:
    return _new_keyed(Keyed, (key, _new_hit(Hit, (value, flags, cas, None, False, False, b""))))


class Decoder:
    """Decoder of one connection."""

    __slots__ = ("_chunks", "_have", "_make", "_max_line", "_max_value", "_rest", "_value", "awaited", "landing")

    def __init__(self, *, max_line: int = MAX_LINE_BYTES, max_value: int = MAX_VALUE_BYTES) -> None:
        self._max_line = max_line
        self._max_value = max_value
        self._rest = b""  # the beginning of a line
        self.awaited = 0
        """Bytes of the incomplete value, with its line end. 0 between replies."""
        self.landing: memoryview | None = None
        """Memory for the next bytes of a large value. None if the next bytes are not of one. See `landed`."""
        self._have = 0  # bytes of the incomplete value that have arrived
        self._chunks: list[bytes] = []  # its parts, or what has arrived behind a value in `_value`
        self._value: bytearray | None = None  # a large one
        self._make: Callable[[bytes], Decoded] | None = None  # makes the reply of the value

    def feed(self, data: bytes) -> Iterator[Decoded]:
        """Yield the replies that `data` completes, in order.

        Raises:
            ProtocolError: A byte cannot belong to a reply. The complete replies before it are yielded first.
        """
        position = 0
        if self.landing is not None:
            count = min(len(data), len(self.landing))
            self.landing[:count] = data[:count]
            self.landed(count)
            data = data[count:]
            if not data:
                return
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
            is_item = data.startswith(b"V", position)
            if (
                is_item
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
                make: Callable[[bytes], Decoded] = partial(
                    Hit, flags=int(flags), cas=int(cas), ttl=left, stale=False, leased=False, opaque=opaque
                )
            elif (
                is_item
                and (keyed := _keyed_item(data, position)) is not None
                and (start := keyed.end()) - position <= longest
            ):
                key, flags, digits, cas = keyed.groups()
                stop = start + int(digits)
                if data.startswith(_END, stop) and stop - start <= self._max_value:
                    hit = _new_hit(Hit, (data[start:stop], int(flags), int(cas), None, False, False, b""))
                    yield _new_keyed(Keyed, (key, hit))
                    position = stop + _END_BYTES
                    continue
                make = partial(_keyed, key=key, flags=int(flags), cas=int(cas))
            else:
                end = data.find(_END, position, position + longest)
                if end < 0:
                    self._rest = data[position:]
                    if len(self._rest) >= longest:  # a line that is full, but for a CR whose LF has not arrived
                        raise ProtocolError(f"line of over {self._max_line} bytes: {self._rest[:64]!r}")
                    return
                status, *tokens = data[position:end].split(b" ")
                position = end + _END_BYTES
                if status in WITHOUT_VALUE:
                    yield _new_reply(Reply, (status, tokens, None))
                    continue
                start = position
                if status != b"VA":
                    raise ProtocolError(f"not a reply: {data[max(0, end - 64) : end]!r}")
                digits = tokens[0] if tokens else b""
                if not digits.isdigit() or len(digits) > MAX_SIZE_DIGITS:
                    raise ProtocolError(f"invalid value length: {data[max(0, start - 64) : start]!r}")
                make = partial(Reply, status, tokens[1:])
            # The line was the first one of a value.
            size = int(digits)
            if size > self._max_value:
                raise ProtocolError(f"invalid value length: {data[max(0, start - 64) : start]!r}")
            position = start + size + _END_BYTES
            if position > len(data):
                self._make = make
                self.awaited = size + _END_BYTES
                self._have = len(data) - start
                if MIN_LANDING_BYTES <= size <= MAX_LANDING_BYTES:
                    self._begin_landing(size, data[start:])
                else:
                    self._chunks.append(data[start:])
                return
            if not data.startswith(_END, start + size):
                raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
            yield make(data[start : start + size])

    def landed(self, count: int) -> None:
        """Take this number of bytes, which were written to the beginning of `landing`."""
        if self.landing is None or not 0 <= count <= len(self.landing):
            raise ValueError("more bytes than there was memory for")
        self._have += count
        left = self.landing[count:]
        self.landing = left or None

    def _begin_landing(self, size: int, begin: bytes) -> None:
        self._value = bytearray(size)
        self._value[: min(size, len(begin))] = begin[:size]
        if len(begin) < size:
            self.landing = memoryview(self._value)[len(begin) :]
        elif len(begin) > size:  # a part of the line end
            self._chunks.append(begin[size:])

    def _whole_value(self) -> Decoded:
        """Return the reply whose value is complete. Its last part may contain later bytes."""
        chunks, self._chunks = self._chunks, []
        size, self.awaited = self.awaited - _END_BYTES, 0
        if self._value is not None:
            value, self._value = bytes(self._value), None
            if not b"".join(chunks).startswith(_END):
                raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
            assert self._make is not None
            return self._make(value)
        last = chunks.pop()
        while (in_last := size - (self._have - len(last))) < 0:  # negative if the line end is in several parts
            last = chunks.pop() + last
        if not last.startswith(_END, in_last):
            raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
        chunks.append(last[:in_last])
        assert self._make is not None
        return self._make(b"".join(chunks))
