"""Hints in a file, so that they outlive the process."""

from __future__ import annotations

import re

from evcache._sqlite_journal import BUSY_SECONDS, Row, SqliteJournal, Table
from evcache.replication.handoff.hints import Hint, Kind

FORMAT = 1

_TABLE = """
CREATE TABLE IF NOT EXISTS hints (
    zone TEXT NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL, version BLOB NOT NULL, data BLOB NOT NULL,
    flags INTEGER NOT NULL, ttl INTEGER NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (zone, key)
) WITHOUT ROWID
"""

_VERSION_BYTES = 8  # an unsigned 64-bit number, which sqlite's integers are too small for


class HintsJournal(SqliteJournal[Hint]):
    """One file of hints, for one process."""

    table = Table(
        name="hints",
        application=0,
        format=FORMAT,
        create=_TABLE,
        select="SELECT * FROM hints ORDER BY made_at",
        insert="INSERT OR REPLACE INTO hints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        delete="DELETE FROM hints WHERE zone = ? AND key = ?",
    )
    argument = "hints.path"
    name = "evcache-hint-file"
    kind = "hint file"
    content = "hints"
    logger = "evcache.replication"

    def __init__(self, path: str) -> None:
        super().__init__(path, busy=BUSY_SECONDS)

    def put(self, hint: Hint) -> None:
        """Queue a hint to be written. No effect after `close` and `give_up`."""
        self._change((hint.zone, hint.key), _row(hint))

    def remove(self, hint: Hint) -> None:
        """Queue a hint to be removed. No effect after `close` and `give_up`."""
        self._change((hint.zone, hint.key), None)

    @staticmethod
    def _found(row: Row) -> Hint:
        return _hint(*row)


_is_key = re.compile(rb"[^\0- ]{1,250}").fullmatch  # no byte that could end the key or the line


def _row(hint: Hint) -> Row:
    return (*hint[:2], int(hint.kind), hint.version.to_bytes(_VERSION_BYTES, "big"), *hint[4:9])


def _hint(
    zone: str,
    key: bytes,
    kind: int,
    version: bytes,
    data: bytes,
    flags: int,
    ttl: int,
    made_at: float,
    expires_at: float,
) -> Hint:
    texts = isinstance(zone, str) and isinstance(key, bytes) and isinstance(version, bytes) and isinstance(data, bytes)
    numbers = (
        isinstance(flags, int) and isinstance(ttl, int) and isinstance(made_at, float) and isinstance(expires_at, float)
    )
    # sqlite takes any type in any column. The client sends the key as it is here, so a damaged key could be a command.
    if not texts or not numbers or len(version) != _VERSION_BYTES or not 0 <= flags < 2**32 or not _is_key(key):
        raise ValueError(f"it is damaged: {(zone, key)!r} is no hint")
    return Hint(zone, key, Kind(kind), int.from_bytes(version, "big"), data, flags, ttl, made_at, expires_at)
