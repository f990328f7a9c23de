"""Answers of classic servers as replies of the meta protocol, which callers read. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evcache.zones.protocol.replies import ERROR_STATUSES, Reply, is_unserved, unexpected


@dataclass(frozen=True, slots=True)
class Fetched:
    """An item as `gets` returns it."""

    value: bytes
    flags: int
    cas: int


def stored(line: bytes) -> Reply:
    """Return the reply for the answer to a store."""
    return _plain(line, {b"STORED": b"HD", b"NOT_STORED": b"NS", b"EXISTS": b"EX", b"NOT_FOUND": b"NF"})


def deleted(line: bytes) -> Reply:
    """Return the reply for the answer to `delete`."""
    return _plain(line, {b"DELETED": b"HD", b"NOT_FOUND": b"NF"})


def touched(line: bytes) -> Reply:
    """Return the reply for the answer to `touch`."""
    return _plain(line, {b"TOUCHED": b"HD", b"NOT_FOUND": b"EN"})


def counted(line: bytes) -> Reply:
    """Return the reply for the answer to `incr` or `decr`."""
    digits = line.rstrip(b" ")
    return Reply(b"VA", [], digits) if digits.isdigit() else _plain(line, {b"NOT_FOUND": b"NF"})


def refusal(line: bytes) -> Reply | None:
    """Return the reply for an error line, None for any other line."""
    status, *tokens = line.split(b" ")
    return Reply(status, tokens, None) if status in ERROR_STATUSES else None


def _plain(line: bytes, statuses: Mapping[bytes, bytes]) -> Reply:
    reply = refusal(line)
    if reply is not None:
        if is_unserved(reply):
            raise unexpected(reply)
        return reply
    if line not in statuses:
        raise unexpected(Reply(line, [], None))
    return Reply(statuses[line], [], None)
