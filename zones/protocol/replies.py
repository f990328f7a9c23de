"""Replies of a server, and functions that read them.

A reply holds the tokens of its line. Each function that interprets a reply ends in `raise unexpected(reply)`. So an unknown
reply is an error, and never a miss.
"""

from __future__ import annotations

from typing import NamedTuple, final

from evcache.zones.errors import NodeError, NodeUnavailable, ProtocolError, ServerError

# First words of all lines that a server may send. Any other word means that the connection is out of sync.
META_STATUSES = frozenset({b"HD", b"VA", b"EN", b"NS", b"EX", b"NF", b"MN", b"ME"})
TEXT_STATUSES = frozenset({b"OK", b"END", b"STAT", b"VERSION", b"RESET", b"STORED"})
ERROR_STATUSES = frozenset({b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"})
STATUSES = META_STATUSES | TEXT_STATUSES | ERROR_STATUSES

# With these texts memcached refuses a value, or has no memory for it. It discards the value (1.6.18 and 1.6.38).
_REFUSALS = (
    b"SERVER_ERROR object too large for cache",
    b"SERVER_ERROR out of memory",
    b"SERVER_ERROR Out of memory",  # "during read" of a value over 512 KiB, which the server keeps in chunks
)

# The built-in proxy sends these texts for a failed backend or route, or at a limit of its own. It has read the value before
# it routes a request, or discards it (1.6.38).
_PROXY_ERRORS = (
    b"SERVER_ERROR backend failure",
    b"SERVER_ERROR lua failure",
    b"SERVER_ERROR lua start failure",
    b"SERVER_ERROR active request limit reached",
    b"SERVER_ERROR bad request",
    b"SERVER_ERROR bad response",
)

# After these errors the server has read the whole request with its value, and the next reply belongs to the next request.
# After any other error for a request with a value, the value may still be in the stream, and run as commands.
_IN_SYNC_ERRORS = (
    *_REFUSALS,
    *_PROXY_ERRORS,
    b"CLIENT_ERROR cannot increment or decrement non-numeric value",
    b"CLIENT_ERROR invalid flag",
    b"CLIENT_ERROR invalid or duplicate flag",
    b"CLIENT_ERROR authentication failure",
    b"CLIENT_ERROR unauthenticated",
)


# 2^64 has 20 digits, and no number of the protocol is larger.
MAX_DIGITS = 20


class Reply(NamedTuple):
    """Reply of a server: its status word, the tokens after it (after the length, for `VA`), and the value of a `VA`."""

    status: bytes
    tokens: list[bytes]
    value: bytes | None

    @property
    def line(self) -> bytes:
        """Line of the reply without the length of a value, for messages."""
        return b" ".join([self.status, *self.tokens])


@final
class Hit(NamedTuple):
    """Item in the reply to `mg <key> v f c [t]`. The decoder makes it directly from the usual reply to a read."""

    value: bytes
    flags: int
    cas: int
    ttl: int | None
    """Seconds left. -1 if the item never expires. None if the read did not request it, or the server cannot report it."""
    stale: bool
    """True if the item is marked stale (`X`): invalidated, or in the middle of a guarded store."""
    leased: bool
    """True for the stub of a lease: an empty value with `W` or `Z`, without `X`."""
    opaque: bytes = b""
    """Opaque of its request, if the decoder made it."""

    @property
    def status(self) -> bytes:
        """Status word `VA`."""
        return b"VA"

    @property
    def tokens(self) -> list[bytes]:
        """Tokens of the line after the length."""
        tokens = [b"f%d" % self.flags, b"c%d" % self.cas, self.opaque]
        if self.ttl is not None:
            tokens.insert(2, b"t%d" % self.ttl)
        return tokens

    @property
    def line(self) -> bytes:
        """Line of the reply without the length of the value, for messages."""
        return b" ".join([self.status, *self.tokens])


class Keyed(NamedTuple):
    """Item in the reply to `gets <key> ...`, which repeats the key in place of an opaque."""

    key: bytes
    hit: Hit
    """The item. Its `opaque` is empty, and the marks of stale and leased items are missing."""

    @property
    def status(self) -> bytes:
        """First word `VALUE`."""
        return b"VALUE"

    @property
    def tokens(self) -> list[bytes]:
        """Empty: no token is an opaque."""
        return []

    @property
    def line(self) -> bytes:
        """Begin of the line of the reply, for messages."""
        return b"VALUE " + self.key


AnyReply = Reply | Hit
Decoded = AnyReply | Keyed
"""Reply that a decoder can return."""


def leaves_connection_in_sync(reply: Decoded, *, payload: bool = True) -> bool:
    """Return True if the connection can still be used after this error reply.

    Args:
        reply: An error reply.
        payload: True if the request carried a value. Without one, the server has read all of a request that it answers with
            `SERVER_ERROR`, whatever the text.
    """
    return (not payload and reply.status == b"SERVER_ERROR") or reply.line.startswith(_IN_SYNC_ERRORS)


def is_unserved(reply: Decoded) -> bool:
    """Return True for a `SERVER_ERROR` that refuses nothing: a proxy's, for a server behind it that does not answer."""
    return reply.status == b"SERVER_ERROR" and not reply.line.startswith(_REFUSALS)


def token(reply: AnyReply, letter: bytes) -> bytes | None:
    """Return the argument of the flag `letter` (`b"60"` for `t60`), or None if the reply does not have the flag."""
    for candidate in reply.tokens:
        if candidate[:1] == letter:
            return candidate[1:]
    return None


def number(reply: AnyReply, letter: bytes) -> int:
    """Return the number of the flag `letter`. Raises `ProtocolError` if the flag is missing or has no number."""
    text = token(reply, letter)
    if text is None:
        raise ProtocolError(f"reply without flag {letter.decode()}: {reply.line!r}")
    return decimal(text)


def decimal(text: bytes) -> int:
    """Return the number of these digits, which may have a minus sign. `int()` would also take `1_0`, ` 10` and `+10`."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        raise ProtocolError(f"not a number: {text!r}")
    return int(text)


def read_hit(reply: AnyReply) -> Hit | None:
    """Return the item in the reply to `mg <key> v f c ...`, or None for a miss."""
    if type(reply) is Hit:
        return reply
    status, tokens, value = reply
    if status == b"VA" and value is not None:
        stale = b"X" in tokens
        ttl = token(reply, b"t")
        return Hit(
            value,
            number(reply, b"f"),
            number(reply, b"c"),
            None if ttl is None else decimal(ttl),
            stale,
            not value and not stale and (b"W" in tokens or b"Z" in tokens),
        )
    if status == b"EN":
        return None
    raise unexpected(reply)


def unexpected(reply: Decoded) -> NodeError:
    """Return the error for a reply that its request cannot have.

    Returns:
        `NodeUnavailable` for a request that was not served, `ServerError` for one that was refused, `ProtocolError` for
        anything but an error reply.
    """
    text = reply.line.decode("ascii", "backslashreplace")
    if is_unserved(reply):
        return NodeUnavailable(text)
    if reply.status in ERROR_STATUSES:
        return ServerError(text)
    return ProtocolError(f"reply does not fit the request: {text}")
