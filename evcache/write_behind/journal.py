"""Journal of pending writes, which outlives the process.

A crash may lose the writes of its last moments. A batch is saved before the writer receives it. The next process therefore
repeats it under the same id, and never puts its content into a batch with another id.
"""

from __future__ import annotations

from evcache._helpers.sqlite_journal import BUSY_SECONDS, Row, SqliteJournal, Table
from evcache.write_behind.batch import PendingWrite, SavedWrite

FORMAT = 1

# Application id of these files in the SQLite header ("WrBe"). Journals of hints have another one.
APPLICATION = 0x57724265

# A key has two rows if one value is in a batch and a newer one is not.
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
    batch TEXT NOT NULL, key BLOB NOT NULL, is_delta INTEGER NOT NULL, number INTEGER NOT NULL,
    data BLOB NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (batch, key)
) WITHOUT ROWID
"""


class WriteBehindJournal(SqliteJournal[SavedWrite]):
    """Journal file of one buffer in one process."""

    table = Table(
        name="waiting",
        application=APPLICATION,
        format=FORMAT,
        create=_TABLE,
        select="SELECT batch, key, is_delta, number, data, flags FROM waiting ORDER BY number",
        insert="INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)",
        delete="DELETE FROM waiting WHERE batch = ? AND key = ?",
    )
    argument = "path"
    name = "evcache-write-behind-file"
    kind = "write-behind file"
    content = "values"
    logger = "evcache.write_behind"

    def __init__(self, path: str) -> None:
        super().__init__(path, busy=BUSY_SECONDS)

    def note(self, batch: str, key: str, entry: PendingWrite | None) -> None:
        """Queue a change: the write under this batch and key, or its removal if `entry` is None. No effect after `close`."""
        place = (batch, key.encode())
        row = None if entry is None else (*place, entry.is_delta, entry.number, entry.data, entry.flags)
        self._queue(place, row)

    @staticmethod
    def _decode(row: Row) -> SavedWrite:
        batch, key, is_delta, *rest = row
        return SavedWrite(batch, key.decode(), bool(is_delta), *rest)
