"""Bookkeeping of pending writes and batches, without I/O and without a clock.

A write waits until it is put into a batch. A batch that failed may have been applied by the source. The buffer therefore
repeats it unchanged under the same id. A newer value of a key in a batch waits until that batch has ended.

    unbatched   writes that wait for a batch, at most one for each key
    newer       newer values of keys that are in a batch
    retries     batches in flight or to be repeated; they come before all others
    suspects    batches that failed several times, and their halves

Suspects alternate with new batches. An entry that the source never accepts therefore does not block the others.

The buffer gives up an entry that keeps failing alone, but only while the source accepts other batches. Failures during an
outage of the source do not count.
"""

from __future__ import annotations

import math
import operator
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evcache.values.codec import Codec
from evcache.write_behind.batch import NO_BATCH, AttemptedBatch, Batch, PendingWrite, PutReceipt, SavedWrite
from evcache.zones.errors import InvalidArgument

# Consecutive failures after which a batch is split if the source accepts nothing else. Three attempts with backoff last
# about as long as the restart of a database, and splitting doubles the calls.
SPLIT_AFTER = 3


@dataclass(frozen=True, slots=True)
class WriteBehindStats:
    """State and counters of a write-behind buffer. Counters start when the buffer is made."""

    waiting: int
    """Keys with a value that the source does not have, as far as the buffer knows."""
    oldest: float
    """Age in seconds of the oldest pending value. 0 if no value is pending. The figure to alert on."""
    flushes: int
    """Batches that the source accepted, wholly or in part."""
    flushed: int
    """Entries of those batches that the source accepted."""
    coalesced: int
    """Values that replaced a pending value and so needed no write of their own."""
    failures: int
    """Attempts that wrote nothing, or whose outcome is unknown."""
    retried: int
    """Entries that are repeated after a failure, or because the writer returned their keys. Each repetition counts."""
    splits: int
    """Batches that were split to find the entry that fails."""
    given_up: int
    """Entries that the source rejected while it accepted others."""
    file_error: str | None = None
    """Cause for which values are kept in memory only, although `path` names a file. None if the file is in use, or not
    wanted."""


class Buffer:
    """Pending writes of one `WriteBehind`, and the batches that they are written in."""

    def __init__(
        self,
        *,
        max_batch: int,
        interval: float,
        max_attempts: int,
        merge: Callable[[Any, Any], Any] | None = None,
        codec: Codec | None = None,
        on_change: Callable[[str, str, PendingWrite | None], None] | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Make an empty buffer.

        Args:
            max_batch: Number of keys with which a batch is due at once, and the most that it holds.
            interval: Seconds after which the oldest unbatched write is due.
            max_attempts: Failures alone after which an entry is given up.
            merge: Function that combines an older value with a delta. If None, numbers are added.
            codec: Codec for the journal. If None, values are not encoded.
            on_change: Function that records a change in the journal: batch id, key, and the write or None if it is removed.
            new_id: Function that returns a new batch id.
        """
        self.source_works = True
        """True if the last attempt wrote something. Failures of suspects do not count."""
        self._max_batch = max_batch
        self._interval = interval
        self._max_attempts = max_attempts
        self._merge = merge
        self._codec = codec
        self._on_change = on_change
        self._new_id = new_id
        self._last_number = 0
        self._due_up_to = 0  # writes up to this number are due at once
        self._successes = 0  # attempts that wrote something
        self._flushed = self._coalesced = self._failures = self._retried = self._splits = self._given_up = 0
        self._unbatched: dict[str, PendingWrite] = {}
        self._newer: dict[str, PendingWrite] = {}  # newer values of keys that are in a batch
        self._batched: dict[str, PendingWrite] = {}
        self._retries: deque[AttemptedBatch] = deque()
        self._suspects: deque[AttemptedBatch] = deque()
        self._last_was_unbatched = False

    def __len__(self) -> int:
        """Number of keys with a pending value. A key with a batched and a newer value counts once."""
        return len(self._unbatched) + len(self._batched)

    def __contains__(self, key: str) -> bool:
        return key in self._unbatched or key in self._batched

    @property
    def unbatched(self) -> int:
        """Number of keys that wait for a batch."""
        return len(self._unbatched)

    def stats(self, now: float | None) -> WriteBehindStats:
        """Return the statistics.

        Args:
            now: Monotonic time. None if the buffer was never used.
        """
        oldest = min(
            (entry.since for entries in (self._batched, self._unbatched) for entry in entries.values()), default=now
        )
        return WriteBehindStats(
            waiting=len(self),
            oldest=0.0 if now is None or oldest is None else now - oldest,
            flushes=self._successes,
            flushed=self._flushed,
            coalesced=self._coalesced,
            failures=self._failures,
            retried=self._retried,
            splits=self._splits,
            given_up=self._given_up,
        )

    # Values.

    def put(self, key: str, value: Any, *, is_delta: bool, now: float) -> PutReceipt:
        """Add a pending write, or combine it with the one that waits under the key.

        An exception of `merge` or of the codec leaves the buffer unchanged.
        """
        entries = self._newer if key in self._batched else self._unbatched
        before = entries.get(key)
        if is_delta and self._merge is None:
            _check_numbers(before or self._batched.get(key), value)
        value, is_delta = self._merged(before, value, is_delta=is_delta)
        if is_delta and key in self._batched:
            # `value` merges with the batched write later. A pair that cannot be merged must raise now, in its own call.
            self._merged(self._batched[key], value, is_delta=True)
        data, flags = b"", 0
        if self._codec is not None:
            data, flags = self._codec.encode(value)
            # The next process reads the decoded form. The writer gets this form in both cases.
            value = self._codec.decode(data, flags)
        self._last_number += 1
        number, since = (self._last_number, now) if before is None else (before.number, before.since)
        self._coalesced += before is not None
        entry = entries[key] = PendingWrite(value, is_delta, number, since, data, flags)
        self._record(NO_BATCH, key, entry)
        return PutReceipt(key, entry, before)

    def undo(self, receipt: PutReceipt) -> None:
        """Remove the write of a `put`. No effect if a newer one replaced it, or if it is in a batch."""
        entries = self._newer if receipt.key in self._batched else self._unbatched
        if entries.get(receipt.key) is not receipt.entry:
            return
        if receipt.before is None:
            del entries[receipt.key]
        else:
            entries[receipt.key] = receipt.before
            self._coalesced -= 1
        self._record(NO_BATCH, receipt.key, receipt.before)

    def value(self, key: str, default: Any = None) -> Any:
        """Return what the source receives under the key in total: the latest value, or the sum of deltas."""
        first, second = self._batched.get(key), self._unbatched.get(key) or self._newer.get(key)
        if second is None:
            return default if first is None else first.value
        return self._merged(first, second.value, is_delta=second.is_delta)[0]

    def values(self) -> dict[str, Any]:
        """Return `value` of each key."""
        return {key: self.value(key) for key in (*self._batched, *self._unbatched)}

    def load(self, saved: Iterable[SavedWrite], now: float) -> None:
        """Restore the content of a journal, oldest first. Its batches keep their ids.

        Raises:
            DecodeError: A value cannot be decoded.
        """
        assert self._codec is not None
        batches: dict[str, dict[str, PendingWrite]] = {}
        for row in saved:
            value = self._codec.decode(row.data, row.flags)
            entry = PendingWrite(value, row.is_delta, row.number, now, row.data, row.flags)
            batches.setdefault(row.batch, {})[row.key] = entry
            self._last_number = max(self._last_number, row.number)
        unbatched = batches.pop(NO_BATCH, {})
        for batch_id, entries in batches.items():
            self._batched |= entries
            self._retries.append(AttemptedBatch(Batch(batch_id, entries), entries))
        for key, entry in unbatched.items():
            (self._newer if key in self._batched else self._unbatched)[key] = entry

    def _merged(self, older: PendingWrite | None, value: Any, *, is_delta: bool) -> tuple[Any, bool]:
        """Return an older write combined with a newer value, and True if the result is a delta."""
        if older is None or not is_delta:
            return value, is_delta
        merge = operator.add if self._merge is None else self._merge
        return merge(older.value, value), older.is_delta

    def _record(self, batch: str, key: str, entry: PendingWrite | None) -> None:
        if self._on_change is not None:
            self._on_change(batch, key, entry)

    # Batches.

    def flush_all(self) -> int:
        """Make all present writes due at once. Return the sequence number of the last one."""
        self._due_up_to = self._last_number
        return self._last_number

    def has_writes_up_to(self, number: int) -> bool:
        """Return True if a write with this sequence number or a lower one is pending."""
        pending = (self._batched, self._unbatched, self._newer)
        return any(entry.number <= number for entries in pending for entry in entries.values())

    def due_at(self) -> float | None:
        """Return the time of the next attempt: `-math.inf` for now, None if nothing is pending."""
        return -math.inf if self._retries or self._suspects else self.unbatched_due_at()

    def next_batch(self, now: float) -> AttemptedBatch | None:
        """Return the batch to try next, or None if none is due. `succeeded` or `failed` must report its outcome."""
        if self._retries:
            return self._retries[0]
        due = self.unbatched_due_at()
        if due is not None and due <= now and not (self._suspects and self._last_was_unbatched):
            self._last_was_unbatched = True
            self._make_batch()
            return self._retries[0]
        self._last_was_unbatched = False
        return self._suspects[0] if self._suspects else None

    def succeeded(self, attempted: AttemptedBatch, unwritten: Collection[str] = ()) -> None:
        """Record that the source accepted a batch, except the keys in `unwritten`. Those go into a batch with a new id."""
        self._remove_batch(attempted)
        self._remove({key: entry for key, entry in attempted.entries.items() if key not in unwritten}, attempted.batch.id)
        rest = {key: entry for key, entry in attempted.entries.items() if key in unwritten}
        if rest:
            again = AttemptedBatch(Batch(self._new_id(), rest), rest, successes_at_failure=self._successes, is_suspect=True)
            self._rename(again, attempted.batch.id)
            self._suspects.append(again)
        self.source_works = True
        self._successes += 1
        self._flushed += len(attempted.entries) - len(rest)
        self._retried += len(rest)

    def failed(self, attempted: AttemptedBatch) -> dict[str, Any]:
        """Record a failure with an unknown outcome. Return the values that the buffer gives up, by key."""
        others_succeed = attempted.successes_at_failure is not None and attempted.successes_at_failure < self._successes
        attempted.successes_at_failure = self._successes
        attempted.failures += 1
        self._failures += 1
        self.source_works = self.source_works and attempted.is_suspect
        is_alone = len(attempted.entries) == 1
        attempted.failures_alone += is_alone and others_succeed
        if attempted.failures_alone >= self._max_attempts:
            self._given_up += 1
            self._remove_batch(attempted)
            self._remove(attempted.entries, attempted.batch.id)
            return dict(attempted.batch)
        self._retried += len(attempted.entries)
        if others_succeed or attempted.failures >= SPLIT_AFTER:
            self._remove_batch(attempted)
            attempted.is_suspect = True
            self._suspects.extend([attempted] if is_alone else self._halves(attempted))
        elif attempted.is_suspect:
            self._suspects.rotate(-1)  # it was the first
        return {}

    def unbatched_due_at(self) -> float | None:
        """Return the time at which unbatched writes are due: `-math.inf` for now, None if there are none."""
        if not self._unbatched:
            return None
        if len(self._unbatched) >= self._max_batch:
            return -math.inf
        entries = self._unbatched.values()
        if self._due_up_to and any(entry.number <= self._due_up_to for entry in entries):
            return -math.inf
        # The first entry need not be the oldest: newer values of batched keys are appended with their own age. The scan
        # covers less than one batch.
        return min(entry.since for entry in entries) + self._interval

    def _make_batch(self) -> None:
        keys = [key for key, _ in zip(self._unbatched, range(self._max_batch), strict=False)]
        entries = {key: self._unbatched.pop(key) for key in keys}
        attempted = AttemptedBatch(Batch(self._new_id(), entries), entries)
        self._batched |= entries
        self._rename(attempted, NO_BATCH)
        self._retries.append(attempted)

    def _halves(self, attempted: AttemptedBatch) -> Iterator[AttemptedBatch]:
        self._splits += 1
        for half in attempted.split():
            self._rename(half, attempted.batch.id)
            yield half

    def _rename(self, attempted: AttemptedBatch, previous_id: str) -> None:
        for key, entry in attempted.entries.items():
            self._record(previous_id, key, None)
            self._record(attempted.batch.id, key, entry)

    def _remove_batch(self, attempted: AttemptedBatch) -> None:
        (self._suspects if attempted.is_suspect else self._retries).remove(attempted)

    def _remove(self, entries: Mapping[str, PendingWrite], batch: str) -> None:
        """Remove batched writes. Newer values of their keys wait for a batch from now on."""
        for key in entries:
            del self._batched[key]
            self._record(batch, key, None)
            if key in self._newer:
                self._unbatched[key] = self._newer.pop(key)


def _check_numbers(older: PendingWrite | None, delta: Any) -> None:
    """Raise `InvalidArgument` unless both are finite numbers, before the buffer stores a delta that it cannot add."""
    if not _is_number(delta):
        raise InvalidArgument("delta", f"a finite number is required without a merge function, not {delta!r}")
    if older is not None and not _is_number(older.value):
        raise InvalidArgument("delta", f"the pending value of the key is not a number: {older.value!r}")


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value))
