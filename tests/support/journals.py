"""Journals of every kind on one path, for tests that hold for each of them."""

import asyncio
import math

from evcache.replication.handoff import journal as hint_journal
from evcache.replication.handoff.hints import Hint, Kind
from evcache.replication.handoff.journal import HintFile
from evcache.write_behind import journal as write_behind_journal
from evcache.write_behind.batch import PendingWrite, SavedWrite
from evcache.write_behind.journal import WriteBehindJournal


class OfHints:
    """The journal of hinted handoff. A record is a hint."""

    module = hint_journal
    file = HintFile
    logger = "evcache.replication"

    @staticmethod
    def record(number, data=b"data"):
        return Hint("a", b"k%d" % number, Kind.SET, number + 1, data, 7, 60, 1000.0 + number, math.inf)

    @staticmethod
    def put(file, record):
        file.put(record)

    @staticmethod
    def remove(file, record):
        file.remove(record)


class OfWriteBehind:
    """The journal of write-behind. A record is a write that no batch holds."""

    module = write_behind_journal
    file = WriteBehindJournal
    logger = "evcache.write_behind"

    @staticmethod
    def record(number, data=b"data"):
        return SavedWrite("", f"k{number}", False, number, data, 7)

    @staticmethod
    def put(file, record):
        file.note(
            record.batch, record.key, PendingWrite(None, record.is_delta, record.number, 0.0, record.data, record.flags)
        )

    @staticmethod
    def remove(file, record):
        file.note(record.batch, record.key, None)


class Bench:
    """Journals of one kind, on one path."""

    def __init__(self, kind, path):
        self.kind = kind
        self.path = path
        self.record = kind.record
        self.put = kind.put
        self.remove = kind.remove

    def new(self):
        """Return a journal that is not open."""
        return self.kind.file(str(self.path))

    async def filled(self, *records):
        """Return an open journal with these records in its file."""
        file = self.new()
        assert await file.open() == []
        for record in records:
            self.put(file, record)
        assert await file.flush()
        return file

    async def content(self):
        """Return what the next process finds."""
        file = self.new()
        try:
            return await file.open()
        finally:
            await file.close()


def fail_writes(file):
    """Let each write fail, as on a full disk."""
    file._thread.submit(file._database.execute, "PRAGMA query_only = ON").result()


def allow_writes(file):
    return file._thread.submit(file._database.execute, "PRAGMA query_only = OFF")


async def idle(file):
    """Wait until no transaction runs."""
    while file._writing is not None:
        await asyncio.wait([file._writing])


def abandon(file):
    """Do to the file what the end of a process does: the connection is gone, and nothing was closed in order."""
    database, file._database = file._database, None
    file._thread.submit(database.close).result()
    file._thread.shutdown()


def noise(path):
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:3000] + b"\xa5" * (size - 3000))
