"""What a server says, and what it means.

A reply is kept as the tokens of its line; the few functions below read them. Each way to interpret a reply ends in
`raise unexpected(reply)`, so that an answer nobody thought of is an error and never a miss.
"""

from __future__ import annotations

from typing import NamedTuple, final

from evcache.zones.errors import NodeError, NodeUnavailable, ProtocolError, ServerError

# Everything a server may begin a line with, by what follows. Anything else means that the two sides have lost each other.
META_STATUSES = frozenset({b"HD", b"VA", b"EN", b"NS", b"EX", b"NF", b"MN", b"ME"})
TEXT_STATUSES = frozenset({b"OK", b"END", b"STAT", b"VERSION", b"RESET", b"STORED"})
ERROR_STATUSES = frozenset({b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"})
STATUSES = META_STATUSES | TEXT_STATUSES | ERROR_STATUSES

# With these memcached refuses a value, or has no memory for it. It discards the value (1.6.18 and 1.6.38).
_REFUSALS = (
    b"SERVER_ERROR object too large for cache",
    b"SERVER_ERROR out of memory",
    b"SERVER_ERROR Out of memory",  # "during read" of a value over 512 KiB, which the server keeps in chunks
)

# The built-in proxy answers with these for a backend or a route that fails, or at a limit of its own. It has read the value
# before it routes a request, or discards it (1.6.38).
_PROXY_ERRORS = (
    b"SERVER_ERROR backend failure",
    b"SERVER_ERROR lua failure",
    b"SERVER_ERROR lua start failure",
    b"SERVER_ERROR active request limit reached",
    b"SERVER_ERROR bad request",
    b"SERVER_ERROR bad response",
)

# After these the server has read the whole request, value included, and the next reply belongs to the next request. After
# any other error to a request with a value, the value may still be in the stream, and run as commands.
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
    """One reply: its status word, the tokens after it (after the length, for `VA`), and the value of a `VA`."""

    status: bytes
    tokens: list[bytes]
    value: bytes | None

    @property
    def line(self) -> bytes:
        """The reply's line, for messages (without the length of a value)."""
        return b" ".join([self.status, *self.tokens])


@final
class Hit(NamedTuple):
    """An item as `mg <key> v f c [t]` shows it. The usual reply to a read is decoded into one at once: see `decoder`."""

    value: bytes
    flags: int
    cas: int
    ttl: int | None
    """Seconds left; -1 when the item never expires; None when it was not asked for, and when the server can't tell."""
    stale: bool
    """Marked stale (`X`): invalidated, or in the middle of a guarded store."""
    leased: bool
    """A zero-byte stub that says "somebody is computing this" (`W` or `Z` without `X` on an empty value)."""
    opaque: bytes = b""
    """Which request it is the reply to, if it was decoded as one."""

    @property
    def status(self) -> bytes:
        """As of a `Reply`."""
        return b"VA"

    @property
    def tokens(self) -> list[bytes]:
        """As of a `Reply`."""
        tokens = [b"f%d" % self.flags, b"c%d" % self.cas, self.opaque]
        if self.ttl is not None:
            tokens.insert(2, b"t%d" % self.ttl)
        return tokens

    @property
    def line(self) -> bytes:
        """As of a `Reply`."""
        return b" ".join([self.status, *self.tokens])


AnyReply = Reply | Hit


def leaves_connection_in_sync(reply: AnyReply, *, payload: bool = True) -> bool:
    """Return True if the connection can still be used after this error reply.

    Args:
        reply: An error reply.
        payload: True if the request carried a value. Without one, the server has read all of a request that it answers with
            `SERVER_ERROR`, whatever the text.
    """
    return (not payload and reply.status == b"SERVER_ERROR") or reply.line.startswith(_IN_SYNC_ERRORS)


def is_unserved(reply: AnyReply) -> bool:
    """Return True for a `SERVER_ERROR` that refuses nothing: a proxy's, for a server behind it that does not answer."""
    return reply.status == b"SERVER_ERROR" and not reply.line.startswith(_REFUSALS)


def token(reply: AnyReply, letter: bytes) -> bytes | None:
    """The argument of the reply's flag `letter` (`b"60"` for `t60`), or None when the reply does not have it."""
    for candidate in reply.tokens:
        if candidate[:1] == letter:
            return candidate[1:]
    return None


def number(reply: AnyReply, letter: bytes) -> int:
    """The number behind the reply's flag `letter`. Raises `ProtocolError` when it is missing or is not one."""
    text = token(reply, letter)
    if text is None:
        raise ProtocolError(f"reply without {letter.decode()}: {reply.line!r}")
    return decimal(text)


def decimal(text: bytes) -> int:
    """Digits, with a minus sign at most: `int()` would also take `1_0`, ` 10` and `+10`."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        raise ProtocolError(f"not a number: {text!r}")
    return int(text)


def read_hit(reply: AnyReply) -> Hit | None:
    """What an `mg <key> v f c ...` found, or None for a miss."""
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


def unexpected(reply: AnyReply) -> NodeError:
    """Return the error for a reply that its request can't have.

    Returns:
        `NodeUnavailable` for a request that was not served, `ServerError` for one that was refused, `ProtocolError` for
        anything but an error reply.
    """
    text = reply.line.decode("ascii", "backslashreplace")
    if is_unserved(reply):
        return NodeUnavailable(text)
    if reply.status in ERROR_STATUSES:
        return ServerError(text)
    return ProtocolError(f"a reply that does not fit the request: {text}")
