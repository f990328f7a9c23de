r"""Bytes, in any slices, to replies. No I/O, no clock.

Driven by lengths: a value is taken by its announced size and never searched for line ends, so a value may hold anything,
`END\r\n` included. Anything the protocol does not know raises `ProtocolError`; after that the decoder is of no more use,
and the connection has to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from zones.errors import ProtocolError
from zones.protocol.replies import STATUSES, Reply

# The longest line a server writes is about a key (250 bytes) and the flags that were asked for; memcached itself gives up
# on a request line of 2,048 bytes. Error texts and STAT lines stay well below.
MAX_LINE_BYTES = 2048

# The largest item a memcached can be told to take (`-I`): 1 GiB. It only bounds what a broken length can make us wait for:
# nothing is allocated before bytes arrive.
MAX_VALUE_BYTES = 1024 * 1024 * 1024

_MAX_SIZE_DIGITS = len(str(MAX_VALUE_BYTES))

_END = b"\r\n"
_END_BYTES = len(_END)
# Reply(...) goes through a Python-level __new__; this is the same without it, and there is one for every reply.
_new_reply = tuple.__new__


class Decoder:
    """One for each connection. Feed it what arrives; it gives the replies that are complete."""

    __slots__ = ("_chunks", "_have", "_max_line", "_max_value", "_need", "_rest", "_tokens")

    def __init__(self, *, max_line: int = MAX_LINE_BYTES, max_value: int = MAX_VALUE_BYTES) -> None:
        self._max_line = max_line
        self._max_value = max_value
        self._rest = b""  # the beginning of a line
        # A value that has not arrived in full: its parts are collected and joined once, so that a large value
        # in many slices is copied twice at most.
        self._need = 0  # bytes of value and line end still awaited by _tokens, 0: between replies
        self._have = 0
        self._chunks: list[bytes] = []
        self._tokens: list[bytes] = []

    @property
    def idle(self) -> bool:
        """Whether the stream is between two replies: nothing of the next one has arrived."""
        return not self._need and not self._rest

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that `data` completes, in order.

        Raises `ProtocolError` at the first byte that can't belong to a reply; the replies before it are given first, since
        they are whole and belong to requests of their own.
        """
        if self._need:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
            size, self._need = self._need - _END_BYTES, 0
            if not data.startswith(_END, size):
                raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
            yield _new_reply(Reply, (b"VA", self._tokens, data[:size]))
            position = size + _END_BYTES
        else:
            if self._rest:
                data = self._rest + data
                self._rest = b""
            position = 0

        longest = self._max_line + _END_BYTES
        while True:
            end = data.find(_END, position, position + longest)
            if end < 0:
                self._rest = data[position:]
                if len(self._rest) >= longest:  # a line that is full, but for a CR whose LF has not arrived
                    raise ProtocolError(f"a line of over {self._max_line} bytes: {self._rest[:64]!r}")
                return
            tokens = data[position:end].split(b" ")
            status = tokens[0]
            position = end + _END_BYTES
            if status == b"VA":
                digits = tokens[1] if len(tokens) > 1 else b""
                size = int(digits) if digits.isdigit() and len(digits) <= _MAX_SIZE_DIGITS else -1
                if not 0 <= size <= self._max_value:
                    raise ProtocolError(f"a value of no length that is possible: {data[position - 64 : position]!r}")
                del tokens[:2]
                stop = position + size
                if stop + _END_BYTES > len(data):
                    self._tokens = tokens
                    self._need = size + _END_BYTES
                    self._chunks.append(data[position:])
                    self._have = len(data) - position
                    return
                if not data.startswith(_END, stop):
                    raise ProtocolError(f"a value of {size} bytes is not followed by a line end")
                yield _new_reply(Reply, (status, tokens, data[position:stop]))
                position = stop + _END_BYTES
            elif status in STATUSES:
                del tokens[0]
                yield _new_reply(Reply, (status, tokens, None))
            else:
                raise ProtocolError(f"not a reply: {data[max(0, end - 64) : end]!r}")
