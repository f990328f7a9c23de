"""Journal of hints: an SQLite file, so that hints outlive the process.

The file opens while calls proceed. If it cannot be used, hints stay in memory only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from evcache._helpers.sqlite_journal import BUSY_SECONDS, Row, SqliteJournal, Table
from evcache.replication.handoff.hints import Hint, Hints, HintStore, Kind
from evcache.zones._tasks import abandon, cancel_once, unattended
from evcache.zones.errors import InvalidArgument

FORMAT = 1

_TABLE = """
CREATE TABLE IF NOT EXISTS hints (
    zone TEXT NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL, version BLOB NOT NULL, data BLOB NOT NULL,
    flags INTEGER NOT NULL, ttl INTEGER NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (zone, key)
) WITHOUT ROWID
"""

_VERSION_BYTES = 8  # an unsigned 64-bit number, too large for SQLite's integers

_is_key = re.compile(rb"[^\0- ]{1,250}").fullmatch  # no byte that could end the key or the command line


class HintFile(SqliteJournal[Hint]):
    """File of the hints of one process."""

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
        self._queue((hint.zone, hint.key), _row(hint))

    def remove(self, hint: Hint) -> None:
        """Queue a hint to be removed. No effect after `close` and `give_up`."""
        self._queue((hint.zone, hint.key), None)

    @staticmethod
    def _decode(row: Row) -> Hint:
        return _hint(*row)


class HintJournal:
    """Hint file of one client. Has no effect if the settings name no file, and while the file is not open."""

    def __init__(self, settings: Hints, restore: Callable[[list[Hint]], None]) -> None:
        """Create it without opening the file.

        Args:
            settings: Path of the file, and if it must be usable.
            restore: Called with the hints of an earlier process when the file is open.
        """
        self._path = settings.path
        self._strict = settings.strict
        self._restore = restore
        self._file: HintFile | None = None
        self._made: HintFile | None = None  # `_file`, or the one that is being opened
        self._opening: asyncio.Task[None] | None = None
        self._enough: asyncio.Future[None] | None = None  # done if calls stop waiting for the file

    @property
    def is_wanted(self) -> bool:
        """True if the settings name a file."""
        return self._path is not None

    @property
    def is_opening(self) -> bool:
        """True while the file is being opened."""
        return self._opening is not None and not self._opening.done()

    @property
    def error(self) -> str | None:
        """The reason why the file cannot be used. None if it can, or if the settings name none."""
        return None if self._file is None else self._file.error

    async def open(self) -> None:
        """Open the file and restore its hints. May be called again.

        Without `strict`, it returns early if `wait_no_longer` is called. The file is used as soon as it is open.

        Raises:
            InvalidArgument: The file is `strict`, and cannot be used.
        """
        if self._path is None:
            return
        loop = asyncio.get_running_loop()
        if self._opening is None:
            self._opening = unattended(loop.create_task(self._open(self._path), name="evcache-hints-open"))
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._strict:
            await asyncio.shield(self._opening)
        else:
            self._enough = loop.create_future()
            await asyncio.wait([self._opening, self._enough], return_when=asyncio.FIRST_COMPLETED)

    def wait_no_longer(self) -> None:
        """Let calls proceed while the file is being opened, unless it is `strict`."""
        if self._enough is not None and not self._enough.done():
            self._enough.set_result(None)

    def reopen(self) -> None:
        """Allow another opening, on any loop: after `close`, or if the loop is closed."""
        if self._opening is not None:
            abandon([self._opening])
        if self._made is not None:
            self._made.abandon()
        self._file = self._made = self._opening = self._enough = None

    async def _open(self, path: str) -> None:
        file = self._made = HintFile(path)
        found: list[Hint] = []
        try:
            found = await file.open()
        except InvalidArgument as error:
            await file.close()
            if self._strict:
                self._opening = None  # the next call tries again
                raise
            file.give_up(error.problem)
        except GeneratorExit:  # the event loop is closed
            file.abandon()
            raise
        except BaseException:
            await file.close()
            raise
        self._file = file
        self._restore(found)

    def put(self, hint: Hint) -> None:
        """Queue a hint to be written."""
        if self._file is not None:
            self._file.put(hint)

    def put_all(self, hints: list[Hint], store: HintStore) -> None:
        """Queue those hints that the store still holds."""
        for hint in hints:
            if store.get(hint.zone, hint.key) is hint:
                self.put(hint)

    def remove(self, hint: Hint) -> None:
        """Queue a hint to be removed."""
        if self._file is not None:
            self._file.remove(hint)

    async def close(self) -> bool:
        """Write the queued changes and close the file. Return True if the file holds all hints. May be called again."""
        try:
            if self._opening is not None and not self._opening.done():
                cancel_once([self._opening])
                await asyncio.wait([self._opening])
        finally:
            complete = self._file is not None and await self._file.close()
        return complete and self.error is None


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
    # SQLite takes any type in any column. The client sends the key unchanged, so a damaged key could inject a command.
    if not texts or not numbers or len(version) != _VERSION_BYTES or not 0 <= flags < 2**32 or not _is_key(key):
        raise ValueError(f"{(zone, key)!r} is no hint")
    return Hint(zone, key, Kind(kind), int.from_bytes(version, "big"), data, flags, ttl, made_at, expires_at)
