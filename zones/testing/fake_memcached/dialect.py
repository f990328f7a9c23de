"""Forms of the protocol: differences between memcached releases, and numbers as memcached reads them.

memcached reads numbers with C's strtol, which wraps around and tolerates some bytes behind the digits. A client must not
rely on this. In its tests, a client that sends a wrong number sees the real effect: `T4294967296` means "never expires". A
length of 99999999999 makes the server wait for 1.2 GB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """The abilities of one release, decided once so that commands never compare version numbers."""

    version: str
    classic_only: bool  # the meta commands do not exist, each one answers ERROR
    serverless: bool  # the restrictions of Amazon ElastiCache Serverless, see `FakeMemcached`
    twemproxy: bool  # few commands, and every other one closes the connection

    explicit_cas: bool  # 1.6.27: `E` sets the CAS, `x` drops a value
    append_creates: bool  # 1.6.20: `ms MA N60` makes a missing item
    reports_stored_size: bool  # 1.6.20: `ms s`
    conditional_get: bool  # 1.6.40: `mg C` leaves the value out when the CAS is equal
    signed_me_expiry: bool  # 1.6.24: before it, `me` printed exp with the wrong sign
    newer_stats: bool  # the lines of `stats` are those of 1.6.38, else those of 1.6.18; it is not known which release began
    dump_shows_flags: bool  # 1.6.24: `lru_crawler metadump` shows the client flags
    cas_taken_with_line: bool  # 1.6.27: an `ms` line takes its CAS number, stored or not; before it, only a store does

    @classmethod
    def of(cls, version: str, *, classic_only: bool = False, serverless: bool = False, twemproxy: bool = False) -> Dialect:
        """Return the dialect of a text with three numbers and dots, such as `1.6.38`. Otherwise raises ValueError."""
        match = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
        if match is None:
            raise ValueError(f"not a memcached version: {version!r}")
        number = tuple(int(part) for part in match.groups())
        return cls(
            version=version,
            classic_only=classic_only,
            serverless=serverless,
            twemproxy=twemproxy,
            explicit_cas=number >= (1, 6, 27),
            append_creates=number >= (1, 6, 20),
            reports_stored_size=number >= (1, 6, 20),
            conditional_get=number >= (1, 6, 40),
            signed_me_expiry=number >= (1, 6, 24),
            newer_stats=number >= (1, 6, 27),
            dump_shows_flags=number >= (1, 6, 24),
            cas_taken_with_line=number >= (1, 6, 27),
        )


# White space, a sign, digits, then the end of the token or white space. A token may contain a lone CR or a tab.
_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)(?:[ \t\n\v\f\r\0]|\Z)")

_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1
_INT64_MAX = (1 << 63) - 1
_MAX_DIGITS = 20  # of a 64-bit number; Python refuses to read some thousand digits


def _read(token: bytes) -> tuple[bool, int] | None:
    """Return True for a minus, and the number behind it. None if the token is not a number."""
    match = _NUMBER.match(token)
    if match is None:
        return None
    digits = match[2].lstrip(b"0") or b"0"
    return None if len(digits) > _MAX_DIGITS else (match[1] == b"-", int(digits))


def read_int32(token: bytes) -> int | None:
    """Return the token as int32, cut to its low 32 bits as the server does. None if it is no number or exceeds 64 bits."""
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
    """Return the token as uint64. None if it is no number, exceeds 64 bits or is negative.

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
    """Return client flags: like read_uint64, then cut to the low 32 bits without an error."""
    value = read_uint64(token)
    return None if value is None else value & _UINT32
