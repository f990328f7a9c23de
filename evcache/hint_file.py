"""Hints in a file, so that they outlive the process.

A file that fails must not make calls fail: hints are in memory in any case. A full disk is tried again with each change. A
file that is damaged, or that has failed for too long, is given up until the next process.
"""

from __future__ import annotations

import re
import sqlite3

from evcache.hints import Hint, Kind
from evcache.sqlite_file import BUSY_SECONDS, Place, Row, SqliteFile, Table

FORMAT = 1

_TABLE = """
CREATE TABLE IF NOT EXISTS hints (
    zone TEXT NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL, version BLOB NOT NULL, data BLOB NOT NULL,
    flags INTEGER NOT NULL, ttl INTEGER NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (zone, key)
) WITHOUT ROWID
"""

# Changes that are kept for a file that can't be written: each takes about 200 bytes, and a row as much as its hint besides.
MAX_UNSAVED = 100_000

_VERSION_BYTES = 8  # an unsigned 64-bit number, which sqlite's integers are too small for


class HintFile(SqliteFile[Hint]):
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

    def __init__(self, path: str) -> None:
        super().__init__(path, busy=BUSY_SECONDS)
        self.error: str | None = None
        """Why hints are kept in memory only; None if the file is in use."""
        self._given_up = False

    def put(self, hint: Hint) -> None:
        """Queue a hint to be written. No effect after `close` and `give_up`."""
        if not self._given_up:
            self._change((hint.zone, hint.key), _row(hint))

    def remove(self, hint: Hint) -> None:
        """Queue a hint to be removed. No effect after `close` and `give_up`."""
        if not self._given_up:
            self._change((hint.zone, hint.key), None)

    def give_up(self, cause: str) -> None:
        """Use the file no more. `cause` names it."""
        self._given_up = True
        self._unsaved = {}
        self._fail(cause)

    def _fail(self, cause: str) -> None:
        if self.error is None:  # once for each outage, not for each change
            self._log.error("hint file unusable, hints are kept in memory only: %s", cause)
        self.error = cause

    def _save(self, changes: dict[Place, Row | None]) -> bool:
        if self._given_up:
            return False
        saved = super()._save(changes)
        if saved and self.error is not None:
            self.error = None
            self._log.info("hint file in use again: %s", self.path)
        return saved

    def _save_failed(self, error: Exception) -> None:
        cause = f"{self.path}: {error}"
        if not isinstance(error, sqlite3.OperationalError) or len(self._unsaved) > MAX_UNSAVED:
            self.give_up(cause)  # damaged, or failing for long
        else:
            self._fail(cause)

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
