"""Hints in a file, so that they outlive the process. Plain sqlite; its calls block, so they run on a thread of their own.

Changes are gathered and written together, one transaction at a time: what was noted in the last moment before a crash may
be missing. The thread begins with `open` and ends with `close`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from evcache.hints import Hint, Kind
from zones.errors import InvalidArgument

T = TypeVar("T")

# Raised with every change of the table. A file of another version is refused: its hints can't be read, nor thrown away.
FORMAT = 1

# How long opening waits for another process to let go of the file.
BUSY_SECONDS = 1.0

_TABLE = """
CREATE TABLE IF NOT EXISTS hints (
    zone TEXT NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL, version BLOB NOT NULL, data BLOB NOT NULL,
    flags INTEGER NOT NULL, ttl INTEGER NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (zone, key)
) WITHOUT ROWID
"""

_VERSION_BYTES = 8  # an unsigned 64-bit number, which sqlite's integers are too small for

_log = logging.getLogger(__name__)


class HintFile:
    """One file of hints, for one process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evcache-hints")
        self._database: sqlite3.Connection | None = None
        self._changes: dict[tuple[str, bytes], Hint | None] = {}  # to be written; None: to be removed
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> list[Hint]:
        """Open or make the file; what it holds, the oldest first.

        Raises `InvalidArgument` when it can't be used: another process has it, it is no such file, or can't be written.
        """
        try:
            return await self._in_thread(self._open)
        except (sqlite3.Error, ValueError, TypeError) as error:  # the last two: rows that are no hints
            raise InvalidArgument("hints", f"{self.path}: {error}") from error

    def put(self, hint: Hint) -> None:
        """Have it written, soon."""
        self._changes[hint.zone, hint.key] = hint
        self._write_soon()

    def remove(self, hint: Hint) -> None:
        """Have it removed, soon."""
        self._changes[hint.zone, hint.key] = None
        self._write_soon()

    async def close(self) -> None:
        """Write what is to be written, and let go of the file. May be called again.

        What is put or removed later has no effect: requests may end after the client that made them.
        """
        try:
            while self._writing is not None:
                await asyncio.wait([self._writing])
            if self._changes:  # could not be written before
                await self._write()
        finally:  # also when cancelled: the thread does it after what it does now
            if not self._closed:
                self._closed = True
                closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
                self._thread.shutdown(wait=False)
                await asyncio.shield(closing)

    def _write_soon(self) -> None:
        if self._writing is None and not self._closed:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="evcache-hint-file")

    async def _write(self) -> None:
        try:
            while self._changes and not self._closed:
                changes, self._changes = self._changes, {}
                try:
                    await self._in_thread(self._save, changes)
                except sqlite3.Error as error:
                    # A full disk, say. They are tried again with the next change; what is in memory is delivered from there.
                    self._changes = changes | self._changes
                    _log.error("%d changes of hints could not be written to %s: %s", len(changes), self.path, error)
                    return
        finally:
            self._writing = None

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        # Shielded: what the thread does can't be taken back, and closing must not overtake it.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    # In the thread.

    def _open(self) -> list[Hint]:
        database = self._database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process; only a crash of the machine may take the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"it has format {version}, and this release knows {FORMAT}")
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {FORMAT}")
        rows = database.execute("SELECT * FROM hints ORDER BY made_at").fetchall()
        database.execute("COMMIT")
        return [_hint(*row) for row in rows]

    def _save(self, changes: dict[tuple[str, bytes], Hint | None]) -> None:
        assert self._database is not None
        self._database.execute("BEGIN")
        try:
            self._database.executemany(
                "DELETE FROM hints WHERE zone = ? AND key = ?", [place for place, hint in changes.items() if hint is None]
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO hints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(hint) for hint in changes.values() if hint is not None],
            )
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _row(hint: Hint) -> tuple[object, ...]:
    return (*hint[:2], int(hint.kind), hint.version.to_bytes(_VERSION_BYTES, "big"), *hint[4:])


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
    return Hint(zone, key, Kind(kind), int.from_bytes(version, "big"), data, flags, ttl, made_at, expires_at)
