"""What waits to be written behind, in a file, so that it outlives the process.

What came in the last moment before a crash may be missing. But a batch is in the file before it is tried: the next process
must not make another one, with another id, of what the source may have been given.
"""

from __future__ import annotations

from evcache._sqlite_journal import BUSY_SECONDS, Row, SqliteJournal, Table
from evcache.write_behind.batch import PendingWrite, Saved

FORMAT = 1

# Tells these files from those of others, hints among them ("WrBe").
APPLICATION = 0x57724265

# A key may be there twice: in a batch, and with a newer value in none.
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
    batch TEXT NOT NULL, key BLOB NOT NULL, is_delta INTEGER NOT NULL, number INTEGER NOT NULL,
    data BLOB NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (batch, key)
) WITHOUT ROWID
"""


class WriteBehindJournal(SqliteJournal[Saved]):
    """One file, for one process."""

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
        """Have it written soon; None: removed. No effect after `close`."""
        place = (batch, key.encode())
        row = None if entry is None else (*place, entry.is_delta, entry.number, entry.data, entry.flags)
        self._change(place, row)

    @staticmethod
    def _found(row: Row) -> Saved:
        batch, key, is_delta, *rest = row
        return Saved(batch, key.decode(), bool(is_delta), *rest)
