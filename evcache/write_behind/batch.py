"""Pending writes, and the batches in which the writer receives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

NO_BATCH = ""
"""Batch id in the journal for writes that are in no batch."""

_ID_SEPARATOR = "/"


class PendingWrite(NamedTuple):
    """One value of one key that the source does not have yet."""

    value: Any
    is_delta: bool
    """True if the source adds the value to its own. False if the value replaces it."""
    number: int
    """Sequence number. A newer value that replaces a pending one keeps the number of the first."""
    since: float
    """Monotonic time at which the first value arrived."""
    data: bytes = b""
    """Encoded value for the journal. Empty without a journal."""
    flags: int = 0
    """Flags of the encoded value."""


class SavedWrite(NamedTuple):
    """A pending write as the journal stores it."""

    batch: str
    key: str
    is_delta: bool
    number: int
    data: bytes
    flags: int


class PutReceipt(NamedTuple):
    """Effect of one `Buffer.put`, from which `Buffer.undo` restores the previous state."""

    key: str
    entry: PendingWrite
    before: PendingWrite | None


class Batch(Mapping[str, Any]):
    """Immutable mapping of keys to values that the writer receives."""

    __slots__ = ("_values", "deltas", "id")

    def __init__(self, batch_id: str, entries: Mapping[str, PendingWrite]) -> None:
        self.id = batch_id
        """Identifier that is equal for each attempt with the same content. With a journal it survives a crash."""
        self.deltas = frozenset(key for key, entry in entries.items() if entry.is_delta)
        """Keys whose values the source adds to its own. All other values replace those of the source."""
        self._values = {key: entry.value for key, entry in entries.items()}

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids under which the source may have applied this content: those of the batches it was split from, then its own."""
        parts = self.id.split(_ID_SEPARATOR)
        return tuple(_ID_SEPARATOR.join(parts[: count + 1]) for count in range(len(parts)))

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {len(self)}>"


@dataclass(slots=True, eq=False)
class AttemptedBatch:
    """A batch with the record of its attempts."""

    batch: Batch
    entries: dict[str, PendingWrite]
    failures: int = 0
    """Number of failed attempts."""
    successes_at_failure: int | None = None
    """Number of batches that the source had accepted when this batch last failed. None before the first failure."""
    failures_alone: int = 0
    """Number of failures as a batch of one key, each after the source accepted another batch."""
    is_suspect: bool = False
    """True if the batch failed several times, or was split from one that did."""

    def split(self) -> Iterator[AttemptedBatch]:
        """Yield two halves. Their ids contain the id of this batch, because the source may have applied it."""
        items = list(self.entries.items())
        middle = len(items) // 2
        for name, part in enumerate((items[:middle], items[middle:])):
            entries = dict(part)
            batch = Batch(f"{self.batch.id}{_ID_SEPARATOR}{name}", entries)
            yield AttemptedBatch(batch, entries, successes_at_failure=self.successes_at_failure, is_suspect=True)
