"""Numbers as memcached reads them: C's strtol, with its wrap-around and its tolerance for what follows.

A client must not rely on any of this. It is here because a client that sends a wrong number must see in its
tests what the real server would do with it: `T4294967296` means "never expires", a length of 99999999999 makes
the server wait for 1.2 GB.
"""

from __future__ import annotations

import re

# White space, a sign, digits; then the end of the token or white space (a lone CR or a tab may stand in a token).
_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)(?:[ \t\n\v\f\r\0]|\Z)")

_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1
_INT64_MAX = (1 << 63) - 1
_MAX_DIGITS = 20  # of a 64-bit number; longer ones are not even read, as Python refuses to above some thousand


def _read(token: bytes) -> tuple[bool, int] | None:
    """Whether there is a minus, and the number behind it; None if there is none."""
    match = _NUMBER.match(token)
    if match is None:
        return None
    digits = match[2].lstrip(b"0") or b"0"
    return None if len(digits) > _MAX_DIGITS else (match[1] == b"-", int(digits))


def read_int32(token: bytes) -> int | None:
    """The token as int32, cut to its low 32 bits as the server does; None if it is no number or exceeds 64 bits."""
    read = _read(token)
    if read is None:
        return None
    negative, value = read
    if negative:
        value = -value
    if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        return None
    low = value & _UINT32
    return low - (1 << 32) if low > _UINT32 >> 1 else low


def read_uint64(token: bytes) -> int | None:
    """The token as uint64; None if it is no number, exceeds 64 bits or is negative.

    C negates modulo 2^64, so -18446744073709551615 is 1 and passes; -1 is not.
    """
    read = _read(token)
    if read is None:
        return None
    negative, value = read
    if value > _UINT64:
        return None
    if negative:
        value = -value & _UINT64
        if value > _INT64_MAX:
            return None
    return value


def read_uint32(token: bytes) -> int | None:
    """Client flags: like read_uint64, then cut to the low 32 bits without a complaint."""
    value = read_uint64(token)
    return None if value is None else value & _UINT32
