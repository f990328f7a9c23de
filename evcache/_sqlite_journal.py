"""A file that outlives the process, for what is kept in memory. Plain sqlite; its calls block, so they run on a thread.

Changes are gathered and written together, one transaction at a time: what was noted in the last moment before a crash may
be missing. The thread begins with `open` and ends with `close`.

A file that fails must not make calls fail, because everything is in memory too. A full disk is tried again with each change.
A file that is damaged, or that has failed for too long, is given up until the next process.
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
Found = TypeVar("Found")

Place = tuple[str, bytes]
Row = tuple[Any, ...]

# Changes that are kept for a file that can't be written. Each takes about 200 bytes, and its row as much as its value.
MAX_UNSAVED = 100_000

# How long opening waits for another process to let go of the file.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """What is in a file, and how it is told from what other programs and releases have written."""

    name: str
    """Name of the only table in the file."""
    application: int
    """sqlite's `application_id`; 0 in a file that says nothing of it."""
    format: int
    """Raised with every change of the table. A file of another one is refused: it can't be read, nor thrown away."""
    create: str
    select: str
    """All rows, the oldest first."""
    insert: str
    """A row, in place of one that is there."""
    delete: str
    """The row of a place."""


class SqliteJournal(ABC, Generic[Found]):
    """One file, for one process. Classes of it say what is in it."""

    table: ClassVar[Table]
    argument: ClassVar[str]
    """The setting that has its path, for errors."""
    name: ClassVar[str]
    """Of its thread and task."""
    kind: ClassVar[str]
    """What the log calls it."""
    content: ClassVar[str]
    """What it keeps, for the log."""
    logger: ClassVar[str]
    """Name of the logger: the room of the data."""

    def __init__(self, path: str, *, busy: float = BUSY_SECONDS) -> None:
        """`busy`: seconds that `open` waits for another process."""
        self.path = path
        self.error: str | None = None
        """Why the content is kept in memory only; None if the file is in use."""
        self._given_up = False
        self._busy = busy
        self._log = logging.getLogger(self.logger)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._changes: dict[Place, Row | None] = {}  # to be written; None: to be removed
        self._noted = 0
        self._saved = 0  # of those that were noted
        self._writing: asyncio.Task[None] | None = None
        self._step = asyncio.Event()  # set when a transaction has ended, and replaced
        self._closing: asyncio.Future[bool] | None = None
        # The thread's own.
        self._database: sqlite3.Connection | None = None
        self._unsaved: dict[Place, Row | None] = {}

    @staticmethod
    @abstractmethod
    def _found(row: Row) -> Found:
        """What a row says. Raises ValueError, TypeError or AttributeError for one that can't be meant."""

    async def open(self) -> list[Found]:
        """Open or make the file, and return what it holds, the oldest first. An empty file counts as a new one.

        Raises `InvalidArgument` when it can't be used: another process has it, it is no such file, or can't be written. A
        file of another kind is left as it is.
        """
        try:
            return await self._in_thread(self._open)
        except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
            raise InvalidArgument(self.argument, f"{self.path}: {_cause(error, self.path)}") from error

    def _change(self, place: Place, row: Row | None) -> None:
        """Queue a row to be written, or removed if it is None. No effect after `close` and `give_up`."""
        if self._closing is not None or self._given_up:
            return
        self._changes[place] = row
        self._noted += 1
        if self._writing is None:
            self._writing = unattended(asyncio.get_running_loop().create_task(self._write(), name=self.name))

    def give_up(self, cause: str) -> None:
        """Use the file no more. `cause` names it."""
        self._given_up = True
        self._unsaved = {}
        self._fail(cause)

    def _fail(self, cause: str) -> None:
        if self.error is None:  # once for each outage, not for each change
            self._log.error("%s unusable, %s are kept in memory only: %s", self.kind, self.content, cause)
        self.error = cause

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

    def abandon(self) -> None:
        """Close the file after its event loop was closed, so that nothing can be awaited. The thread writes what is left."""
        if self._writing is not None:
            abandon([self._writing])
        if self._closing is None:
            with suppress(RuntimeError):  # the thread ends already
                self._thread.submit(self._finish, self._changes)
        self._thread.shutdown(wait=False)

    async def _write(self) -> None:
        try:
            while self._changes and self._closing is None:
                changes, self._changes = self._changes, {}
                noted = self._noted
                if not await self._in_thread(self._save, changes):
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
        # Shielded: the thread's work can't be undone, and closing must not overtake it.
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may be cancelled before
        return await asyncio.shield(done)

    # In the thread.

    def _open(self) -> list[Found]:
        table = self.table
        database = self._database = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None)
        # Set before the first access: the lock is kept until the file is closed, also between transactions.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        self._check_kind(database)  # before any change, because the file may belong to another program
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process; only a crash of the machine may take the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        database.execute(table.create)
        database.execute(f"PRAGMA application_id = {table.application}")
        database.execute(f"PRAGMA user_version = {table.format}")
        found = [self._found(row) for row in database.execute(table.select)]
        database.execute("COMMIT")  # not before all of it could be read: a damaged file stays as it is
        return found

    def _check_kind(self, database: sqlite3.Connection) -> None:
        """Raise `sqlite3.DatabaseError` unless the file is empty, or has the only table that is ours."""
        table = self.table
        marks = (*database.execute("PRAGMA application_id").fetchone(), *database.execute("PRAGMA user_version").fetchone())
        names = {
            name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'")
        }
        if (marks, names) not in (((0, 0), set()), ((table.application, table.format), {table.name})):
            raise sqlite3.DatabaseError(f"it is of another kind, or format, than this release knows {marks}")

    def _save(self, changes: dict[Place, Row | None]) -> bool:
        """Write these, and what could not be written before. False when it can't, which is logged."""
        if self._given_up:
            return False
        self._unsaved |= changes
        try:
            if self._unsaved:
                self._save_all()
        except Exception as error:  # calls go on without the file after any error
            # A full disk, say. They are tried again with the next change; what is in memory is done from there.
            self._save_failed(error)
            return False
        self._unsaved = {}
        if self.error is not None:
            self.error = None
            self._log.info("%s in use again: %s", self.kind, self.path)
        return True

    def _save_failed(self, error: Exception) -> None:
        """Report that `_unsaved` could not be written. Called in the thread."""
        cause = f"{self.path}: {error}"
        if not isinstance(error, sqlite3.OperationalError) or len(self._unsaved) > MAX_UNSAVED:
            self.give_up(cause)  # damaged, or failing for long
        else:
            self._fail(cause)

    def _save_all(self) -> None:
        assert self._database is not None
        self._database.execute("BEGIN")
        try:
            self._database.executemany(self.table.delete, [place for place, row in self._unsaved.items() if row is None])
            self._database.executemany(self.table.insert, [row for row in self._unsaved.values() if row is not None])
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # with a full disk, sqlite may have ended it
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
    """Return what is wrong with a file, where sqlite's own words do not say it."""
    # The low byte; the others say where in sqlite it happened.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process uses it ({error})"
    if code == sqlite3.SQLITE_CANTOPEN:
        if Path(path).is_dir():
            return f"it is a directory ({error})"
        if not Path(path).parent.is_dir():
            return f"its directory does not exist ({error})"
    return str(error)
