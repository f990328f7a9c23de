"""What waits to be written behind: values, and the batches in which a writer is given them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

NO_BATCH = ""  # in a file, the batch of what is in none

_BETWEEN_IDS = "/"


class PendingWrite(NamedTuple):
    """One value of one key."""

    value: Any
    is_delta: bool
    """It is to be added to what the source has, not to replace it."""
    number: int
    """Counts the entries; that of the first value, when newer ones were put over it."""
    since: float
    """When the first value came."""
    data: bytes = b""
    """The value and its flags in a file, if there is one."""
    flags: int = 0


class Saved(NamedTuple):
    """An entry as a file keeps it."""

    batch: str
    key: str
    is_delta: bool
    number: int
    data: bytes
    flags: int


class PutReceipt(NamedTuple):
    """What `put` did, so that it can be undone."""

    key: str
    entry: PendingWrite
    before: PendingWrite | None


class Batch(Mapping[str, Any]):
    """What a writer is given: keys and their values, which never change."""

    __slots__ = ("_values", "deltas", "id")

    def __init__(self, batch_id: str, entries: Mapping[str, PendingWrite]) -> None:
        self.id = batch_id
        """The same for each try of the same content, also after a crash when there is a file."""
        self.deltas = frozenset(key for key, entry in entries.items() if entry.is_delta)
        """The keys whose values are to be added to what the source has; all others replace it."""
        self._values = {key: entry.value for key, entry in entries.items()}

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids under which this may have been applied before: those of the batches it is a half of, then its own."""
        parts = self.id.split(_BETWEEN_IDS)
        return tuple(_BETWEEN_IDS.join(parts[: count + 1]) for count in range(len(parts)))

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
    """A batch that was cut, and what became of it so far."""

    batch: Batch
    entries: dict[str, PendingWrite]
    failures: int = 0
    seen: int | None = None
    """How much had been written when it last failed; None: it has not."""
    counted: int = 0
    """Failures alone, with others written since the one before."""
    is_suspect: bool = False
    """It has failed several times, or is a part of one that has."""

    def halves(self) -> Iterator[AttemptedBatch]:
        """The two that this is taken apart into, under ids that say what they are halves of: it may have been applied."""
        items = list(self.entries.items())
        middle = len(items) // 2
        for name, part in enumerate((items[:middle], items[middle:])):
            entries = dict(part)
            batch = Batch(f"{self.batch.id}{_BETWEEN_IDS}{name}", entries)
            yield AttemptedBatch(batch, entries, seen=self.seen, is_suspect=True)
