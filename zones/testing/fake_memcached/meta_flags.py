"""Flags of a meta command, parsed in one pass before the command acts."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.dialect import read_int32, read_uint32, read_uint64
from evcache.zones.testing.fake_memcached.state import BAD_FORMAT

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.dialect import Dialect

MAX_OPAQUE_LENGTH = 32  # the letter included
# A line is refused from this many tokens on, the command and the key included.
MAX_TOKENS = 20

_LETTERS = 127  # end of the server's table of letters; it treats letters beyond as seen
_BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_PADDING = ord("=")
_SILENT = frozenset(b"kstcfOPL")  # known, and without effect before the reply


class RefusedError(Exception):
    """Error line with which the command ends."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(slots=True)
class MetaFlags:
    """Parsed flags. `tokens` keeps their order, which the reply follows."""

    key: bytes
    tokens: list[bytes]
    base64_key: bool = False
    value: bool = False
    quiet: bool = False
    no_bump: bool = False
    fetch_facts: bool = False  # h, l, N, T or R, which are reported before the fetch is counted
    stale: bool = False
    drop_value: bool = False
    ttl: int | None = None  # seconds, as in the command
    create_ttl: int | None = None
    recache_ttl: int = 0
    client_flags: int = 0
    compare: int | None = None
    new_cas: int | None = None
    mode: bytes = b""
    initial: int = 0
    delta: int = 1
    seen: set[int] = field(default_factory=set)

    def opaque(self, token: bytes) -> bytes:
        """Return the token of an `O` flag for the reply. Raises RefusedError if it is too long."""
        if len(token) > MAX_OPAQUE_LENGTH:
            raise RefusedError(b"CLIENT_ERROR opaque token too long\r\n")
        return token

    def shown_key(self) -> bytes:
        """Return the key of the request for the `k` flag of a reply."""
        return key_token(self.key, base64_key=self.base64_key)

    def echoes(self) -> list[bytes]:
        """Return the parts of a reply without other data: opaque and key."""
        parts = []
        for token in self.tokens:
            if token[:1] == b"O":
                parts.append(self.opaque(token))
            elif token[:1] == b"k":
                parts.append(self.shown_key())
        return parts


def key_token(key: bytes, *, base64_key: bool) -> bytes:
    """Return the key in the form of replies."""
    return b"k" + base64.b64encode(key) + b" b" if base64_key else b"k" + key


def decode_base64(token: bytes) -> bytes:
    """Return the key of a base64 token, or b"" for an invalid token.

    As the server does it: characters outside the alphabet are skipped, and what follows the padding is ignored.
    """
    characters = bytes(byte for byte in token if byte in _BASE64 or byte == _PADDING)
    if len(characters) % 4:
        return b""
    key = b""
    for start in range(0, len(characters), 4):
        block = characters[start : start + 4]
        padding = block.count(_PADDING)
        if padding > 2:
            return b""
        decoded = base64.b64decode(block.replace(b"=", b"A"))
        key += decoded[: 3 - padding]
        if padding:
            break
    return key


def parse_flags(key: bytes, tokens: list[bytes], dialect: Dialect) -> MetaFlags:
    """Read all flags, or raise RefusedError with the error of the last bad one.

    An unknown or repeated letter ends the reading at once, a bad argument does not. Letters that belong to
    another command are read, and mean nothing.
    """
    flags = MetaFlags(key, tokens)
    failed = False
    error = BAD_FORMAT
    for token in tokens:
        letter = token[0]
        if letter >= _LETTERS or letter in flags.seen:
            raise RefusedError(b"CLIENT_ERROR duplicate flag\r\n")
        flags.seen.add(letter)
        if letter in _SILENT:
            continue
        problem = _read_flag(flags, token[:1], token[1:], dialect)
        if problem is not None:
            failed = True
            error = problem or error
    if failed:
        raise RefusedError(error)
    return flags


def _read_flag(flags: MetaFlags, letter: bytes, argument: bytes, dialect: Dialect) -> bytes | None:
    """Parse one flag. Returns an error line if its argument is wrong, or b"" for the line of the earlier error."""
    match letter:
        case b"v":
            flags.value = True
        case b"q":
            flags.quiet = True
        case b"u":
            flags.no_bump = True
        case b"h" | b"l":
            flags.fetch_facts = True
        case b"I":
            flags.stale = True
        case b"x" if dialect.explicit_cas:
            flags.drop_value = True
        case b"b":
            flags.base64_key = True
            flags.key = decode_base64(flags.key)
            if not flags.key:
                return b"CLIENT_ERROR error decoding key\r\n"
        case b"T" | b"N" | b"R":
            return _read_ttl(flags, letter, argument)
        case b"F":
            client_flags = read_uint32(argument)
            if client_flags is None:
                return b""  # the only bad argument without a text of its own
            flags.client_flags = client_flags
        case b"C":
            flags.compare = read_uint64(argument)
            return _BAD_TOKEN if flags.compare is None else None
        case b"E" if dialect.explicit_cas:
            flags.new_cas = read_uint64(argument)
            return _BAD_TOKEN if flags.new_cas is None else None
        case b"M":
            if len(argument) != 1:
                return b"CLIENT_ERROR incorrect length for M token\r\n"
            flags.mode = argument
        case b"J" | b"D":
            return _read_amount(flags, letter, argument)
        case _:
            raise RefusedError(b"CLIENT_ERROR invalid flag\r\n")
    return None


def _read_ttl(flags: MetaFlags, letter: bytes, argument: bytes) -> bytes | None:
    seconds = read_int32(argument)
    if letter == b"N":
        flags.create_ttl = seconds
    elif letter == b"T":
        flags.ttl = seconds
    else:
        flags.recache_ttl = seconds or 0
    flags.fetch_facts = True
    return _BAD_TOKEN if seconds is None else None


def _read_amount(flags: MetaFlags, letter: bytes, argument: bytes) -> bytes | None:
    amount = read_uint64(argument)
    if letter == b"J":
        flags.initial = amount or 0
        return b"CLIENT_ERROR invalid numeric initial value\r\n" if amount is None else None
    flags.delta = amount or 0
    return b"CLIENT_ERROR invalid numeric delta value\r\n" if amount is None else None
