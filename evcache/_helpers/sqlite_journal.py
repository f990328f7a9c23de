"""Journal of values in memory: an SQLite file that outlives the process. SQLite blocks, so its calls run on a thread.

Changes are queued and written together, one transaction at a time. The changes of the last moment before a crash may be
lost. The thread runs from `open` to `close`.

A file that fails must not make calls fail, because all values are in memory, too. After an error such as a full disk, the
next change tries again. A damaged file, or one that has failed for long, is given up until the next process.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from evcache.zones._tasks import abandon, unattended
from evcache.zones.errors import InvalidArgument

T = TypeVar("T")
Record = TypeVar("Record")

Place = tuple[str, bytes]
"""Primary key of a row."""
Row = tuple[Any, ...]

# Changes that are kept for a file that cannot be written. Each takes about 200 bytes, and the value of its row.
MAX_UNSAVED = 100_000

# Seconds that `open` waits for another process to release the file.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Content of a file, and the marks that distinguish it from files of other programs and releases."""

    name: str
    """Name of the only table in the file."""
    application: int
    """`application_id` of SQLite. 0 in a file without one."""
    format: int
    """Version of the table, raised with each change. A file of another format is refused, and left unchanged."""
    create: str
    select: str
    """Query of all rows, the oldest first."""
    insert: str
    """Statement that inserts or replaces a row."""
    delete: str
    """Statement that deletes the row of a place."""


class SqliteJournal(ABC, Generic[Record]):
    """File of one process. Subclasses define its table and its records."""

    table: ClassVar[Table]
    argument: ClassVar[str]
    """Name of the setting with its path, for errors."""
    name: ClassVar[str]
    """Name of its thread and task."""
    kind: ClassVar[str]
    """Name of the file in log messages."""
    content: ClassVar[str]
    """Name of the records in log messages."""
    logger: ClassVar[str]
    """Name of the logger: the room of the data."""

    def __init__(self, path: str, *, busy: float = BUSY_SECONDS) -> None:
        """Create it without opening the file. `busy` is the seconds that `open` waits for another process."""
        self.path = path
        self.error: str | None = None
        """The reason why records are in memory only. None if the file is in use."""
        self._given_up = False
        self._busy = busy
        self._log = logging.getLogger(self.logger)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._changes: dict[Place, Row | None] = {}  # rows to write; None removes the row
        self._queued = 0  # number of changes since the file was opened
        self._saved = 0  # number of them that were written
        self._writing: asyncio.Task[None] | None = None
        self._step = asyncio.Event()  # set when a transaction has ended, and replaced
        self._closing: asyncio.Future[bool] | None = None
        # Used by the thread only.
        self._database: sqlite3.Connection | None = None
        self._unsaved: dict[Place, Row | None] = {}

    @staticmethod
    @abstractmethod
    def _decode(row: Row) -> Record:
        """Return the record of a row. Raises ValueError, TypeError or AttributeError for an invalid row."""

    async def open(self) -> list[Record]:
        """Open or create the file. An empty file counts as a new one.

        Returns:
            The records, the oldest first.

        Raises:
            InvalidArgument: The file cannot be used: another process has it, it is of another kind, or it cannot be written.
                A file of another kind is left unchanged.
        """
        try:
            return await self._in_thread(self._open)
        except sqlite3.Error as error:
            raise InvalidArgument(self.argument, f"{self.path}: {_cause(error, self.path)}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArgument(self.argument, f"{self.path}: damaged record: {error}") from error

    def _queue(self, place: Place, row: Row | None) -> None:
        """Queue a row to be written, or removed if it is None. No effect after `close` and `give_up`."""
        if self._closing is not None or self._given_up:
            return
        self._changes[place] = row
        self._queued += 1
        if self._writing is None:
            self._writing = unattended(asyncio.get_running_loop().create_task(self._write(), name=self.name))

    def give_up(self, cause: str) -> None:
        """Stop using the file. `cause` names it."""
        self._given_up = True
        self._unsaved = {}
        self._fail(cause)

    def _fail(self, cause: str) -> None:
        if self.error is None:  # once per outage, and not for each change
            self._log.error("%s unusable: %s; %s are kept in memory only", self.kind, cause, self.content)
        self.error = cause

    async def flush(self) -> bool:
        """Wait until all changes queued before are written. Return False if the file cannot be written, which is logged."""
        queued = self._queued
        while self._saved < queued and self._writing is not None:
            await self._step.wait()
        return self._saved >= queued

    async def close(self) -> bool:
        """Write the queued changes and close the file. Return False if not all were written. May be called again.

        After a cancellation, the thread still writes and closes.
        """
        try:
            while self._writing is not None:
                await asyncio.wait([self._writing])
        finally:
            if self._closing is None:
                loop = asyncio.get_running_loop()
                self._closing = loop.run_in_executor(self._thread, self._finish, self._changes)
                self._thread.shutdown(wait=False)
            complete = await asyncio.shield(self._closing)
        return complete

    def abandon(self) -> None:
        """Close the file after its event loop was closed, without awaiting. The thread writes the queued changes."""
        if self._writing is not None:
            abandon([self._writing])
        if self._closing is None:
            with suppress(RuntimeError):  # the thread has ended
                self._thread.submit(self._finish, self._changes)
        self._thread.shutdown(wait=False)

    async def _write(self) -> None:
        try:
            while self._changes and self._closing is None:
                changes, self._changes = self._changes, {}
                queued = self._queued
                if not await self._in_thread(self._save, changes):
                    return
                self._saved = queued
                self._signal_step()
        finally:
            self._writing = None
            self._signal_step()

    def _signal_step(self) -> None:
        self._step.set()
        self._step = asyncio.Event()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        # Shielded, because the thread's work cannot be undone, and closing must not overtake it.
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may be cancelled before
        return await asyncio.shield(done)

    # In the thread.

    def _open(self) -> list[Record]:
        table = self.table
        database = self._database = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None)
        # Set before the first access: SQLite then holds the lock until the file is closed, also between transactions.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        self._check_kind(database)  # before any change, because the file may belong to another program
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process. Only a crash of the machine may lose the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        database.execute(table.create)
        database.execute(f"PRAGMA application_id = {table.application}")
        database.execute(f"PRAGMA user_version = {table.format}")
        records = [self._decode(row) for row in database.execute(table.select)]
        database.execute("COMMIT")  # after all rows were decoded: a damaged file stays unchanged
        return records

    def _check_kind(self, database: sqlite3.Connection) -> None:
        """Raise `sqlite3.DatabaseError` unless the file is empty, or has exactly this table."""
        table = self.table
        marks = (*database.execute("PRAGMA application_id").fetchone(), *database.execute("PRAGMA user_version").fetchone())
        names = {
            name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'")
        }
        if (marks, names) not in (((0, 0), set()), ((table.application, table.format), {table.name})):
            raise sqlite3.DatabaseError(f"file of another kind or format: {marks}")

    def _save(self, changes: dict[Place, Row | None]) -> bool:
        """Write these changes, and those that failed before. Return False if that fails, which is logged."""
        if self._given_up:
            return False
        self._unsaved |= changes
        try:
            if self._unsaved:
                self._save_all()
        except Exception as error:  # calls proceed without the file after any error
            self._save_failed(error)
            return False
        self._unsaved = {}
        if self.error is not None:
            self.error = None
            self._log.info("%s in use again: %s", self.kind, self.path)
        return True

    def _save_failed(self, error: Exception) -> None:
        """Report that `_unsaved` was not written."""
        cause = f"{self.path}: {error}"
        if not isinstance(error, sqlite3.OperationalError) or len(self._unsaved) > MAX_UNSAVED:
            self.give_up(cause)  # damaged, or failing for long
        else:
            self._fail(cause)  # a full disk, for example: the next change tries again

    def _save_all(self) -> None:
        assert self._database is not None
        self._database.execute("BEGIN")
        try:
            self._database.executemany(self.table.delete, [place for place, row in self._unsaved.items() if row is None])
            self._database.executemany(self.table.insert, [row for row in self._unsaved.values() if row is not None])
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # on a full disk, SQLite may have ended it
                self._database.execute("ROLLBACK")
            raise

    def _finish(self, changes: dict[Place, Row | None]) -> bool:
        if self._database is None:
            return True
        try:
            return self._save(changes)
        finally:
            self._database.close()
            self._database = None


def _cause(error: Exception, path: str) -> str:
    """Return the cause of a failed open, in words that SQLite's own message may lack."""
    # The low byte. The other bytes name the place in SQLite.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process uses it ({error})"
    if code == sqlite3.SQLITE_CANTOPEN:
        if Path(path).is_dir():
            return f"it is a directory ({error})"
        if not Path(path).parent.is_dir():
            return f"its directory does not exist ({error})"
    return str(error)
