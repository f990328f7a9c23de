"""What waits to be written behind, in a file, so that it outlives the process. Plain sqlite on a thread of its own.

As with hints (`evcache.hint_file`), changes are gathered and written together, one transaction at a time: what came in the
last moment before a crash may be missing. But a batch is in the file before it is tried: the next process must not make
another one, with another id, of what the source may have been given.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from evcache.write_behind_buffer import Entry, Saved
from zones.errors import InvalidArgument

T = TypeVar("T")

# Raised with every change of the table. A file of another version is refused: it can't be read, nor thrown away.
FORMAT = 1

# Tells these files from those of others, hints among them ("WrBe").
APPLICATION = 0x57724265

# How long opening waits for another process to let go of the file.
BUSY_SECONDS = 1.0

# A key may be there twice: in a batch, and with a newer value in none.
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
    batch TEXT NOT NULL, key BLOB NOT NULL, is_delta INTEGER NOT NULL, number INTEGER NOT NULL,
    data BLOB NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (batch, key)
) WITHOUT ROWID
"""

_log = logging.getLogger(__name__)


class WriteBehindFile:
    """One file, for one process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evcache-write-behind")
        self._database: sqlite3.Connection | None = None
        self._changes: dict[tuple[str, str], Entry | None] = {}  # to be written; None: to be removed
        self._noted = 0
        self._saved = 0  # of those that were noted
        self._writing: asyncio.Task[None] | None = None
        self._step = asyncio.Event()  # set when a transaction has ended, and replaced
        self._closing: asyncio.Future[bool] | None = None

    async def open(self) -> list[Saved]:
        """Open or make the file; what it holds, the oldest first.

        Raises `InvalidArgument` when it can't be used: another process has it, it is no such file, or can't be written.
        """
        try:
            return await self._in_thread(self._open)
        except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:  # the last three: rows that are none
            raise InvalidArgument("path", f"{self.path}: {error}") from error

    def note(self, batch: str, key: str, entry: Entry | None) -> None:
        """Have it written soon; None: removed. No effect after `close`."""
        if self._closing is not None:
            return
        self._changes[batch, key] = entry
        self._noted += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="evcache-write-behind-file")

    async def written(self) -> bool:
        """Wait until all that was noted before is in the file. False when it could not be written, which was logged."""
        noted = self._noted
        while self._saved < noted and self._writing is not None:
            await self._step.wait()
        return self._saved >= noted

    async def close(self) -> bool:
        """Write what is to be written, and let go of the file. False when not all is in it. May be called again."""
        try:
            while self._writing is not None:
                await asyncio.wait([self._writing])
        finally:  # also when cancelled: the thread does it after what it does now
            if self._closing is None:
                loop = asyncio.get_running_loop()
                self._closing = loop.run_in_executor(self._thread, self._finish, self._changes)
                self._thread.shutdown(wait=False)
            complete = await asyncio.shield(self._closing)
        return complete

    async def _write(self) -> None:
        try:
            while self._changes and self._closing is None:
                changes, self._changes = self._changes, {}
                noted = self._noted
                try:
                    await self._in_thread(self._save, changes)
                except sqlite3.Error as error:
                    # A full disk, say. They are tried again with the next change; what is in memory is written from there.
                    self._changes = changes | self._changes
                    _log.error("%d changes could not be written to %s: %s", len(changes), self.path, error)
                    return
                self._saved = noted
                self._stepped()
        finally:
            self._writing = None
            self._stepped()

    def _stepped(self) -> None:
        self._step.set()
        self._step = asyncio.Event()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        # Shielded: what the thread does can't be taken back, and closing must not overtake it.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    # In the thread.

    def _open(self) -> list[Saved]:
        database = self._database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process; only a crash of the machine may take the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        found = (*database.execute("PRAGMA application_id").fetchone(), *database.execute("PRAGMA user_version").fetchone())
        if found not in ((0, 0), (APPLICATION, FORMAT)):
            raise sqlite3.DatabaseError(f"it is of another kind, or format, than this release knows {found}")
        database.execute(_TABLE)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
        rows = database.execute("SELECT batch, key, is_delta, number, data, flags FROM waiting ORDER BY number").fetchall()
        database.execute("COMMIT")
        return [Saved(batch, key.decode(), bool(is_delta), *rest) for batch, key, is_delta, *rest in rows]

    def _save(self, changes: dict[tuple[str, str], Entry | None]) -> None:
        assert self._database is not None
        self._database.execute("BEGIN")
        try:
            self._database.executemany(
                "DELETE FROM waiting WHERE batch = ? AND key = ?",
                [(batch, key.encode()) for (batch, key), entry in changes.items() if entry is None],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (batch, key.encode(), entry.is_delta, entry.number, entry.data, entry.flags)
                    for (batch, key), entry in changes.items()
                    if entry is not None
                ],
            )
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _finish(self, changes: dict[tuple[str, str], Entry | None]) -> bool:
        try:
            if self._database is None:
                return True
            try:
                self._save(changes)
            finally:
                self._database.close()
                self._database = None
        except sqlite3.Error as error:
            _log.error("%d changes could not be written to %s: %s", len(changes), self.path, error)
            return False
        return True
