"""What waits to be written behind, and the batches it goes in. The book of it, without I/O and without a clock.

A value is waiting until a batch is cut with it. A batch that was tried and failed may have been applied all the same, so it
is tried again as it was, under the same id, and a newer value of one of its keys stays behind until the batch has ended.

    fresh       waits for a batch; at most one value for each key
    tried       a batch under way or to be tried again, before anything else
    suspects    batches that failed several times, and their halves: they take turns with fresh ones, so that what the
                source will never take holds up nothing else

A batch of one that keeps failing is given up, but only while others are written: what fails because the source is down is
no fault of its own, however often it does.
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
from evcache.write_behind.batch import NO_BATCH, AttemptedBatch, Batch, PendingWrite, PutReceipt, Saved
from evcache.zones.errors import InvalidArgument

# Failures in a row after which a batch is taken apart, if nothing else was written meanwhile: a source that restarts takes
# about as long, and halves cost it twice the calls.
SPLIT_AFTER = 3


@dataclass(frozen=True, slots=True)
class WriteBehindStats:
    """A write-behind buffer at one moment. Counts are since it was made."""

    waiting: int
    """Keys with a value that the source has not got, as far as is known."""
    oldest: float
    """Seconds that the oldest of them has waited; 0 when none does. The figure to alert on."""
    flushes: int
    """Batches that the source took, wholly or in part."""
    flushed: int
    """Entries in them that it took."""
    coalesced: int
    """Values that were put over one that waited, and so cost no write of their own."""
    failures: int
    """Tries that wrote nothing, or whose outcome is not known."""
    retried: int
    """Entries that are tried again because of that, or because the writer has named them, each time."""
    splits: int
    """Batches that were taken apart to find what fails in them."""
    given_up: int
    """Entries that the source would not take while it took others."""
    file_error: str | None = None
    """Why values are kept in memory only although `path` names a file; None if they are in the file, or need not be."""


class Buffer:
    """All that one `WriteBehind` has to write."""

    def __init__(
        self,
        *,
        max_batch: int,
        interval: float,
        max_attempts: int,
        merge: Callable[[Any, Any], Any] | None = None,
        codec: Codec | None = None,
        note: Callable[[str, str, PendingWrite | None], None] | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """`note(batch, key, entry)` is told of every change that a file has to know; `codec` makes bytes for it."""
        self.source_works = True
        """Whether the last try wrote something, those of suspects that failed aside."""
        self._max_batch = max_batch
        self._interval = interval
        self._max_attempts = max_attempts
        self._merge = merge
        self._codec = codec
        self._note = note
        self._new_id = new_id
        self._numbers = 0
        self._demanded = 0  # all up to this number are to be written without waiting for more
        self._written = 0  # tries that wrote something
        self._flushed = self._coalesced = self._failures = self._retried = self._splits = self._given_up = 0
        self._fresh: dict[str, PendingWrite] = {}
        self._behind: dict[str, PendingWrite] = {}  # newer values of keys that are in a batch
        self._held: dict[str, PendingWrite] = {}  # what is in a batch
        self._tried: deque[AttemptedBatch] = deque()
        self._suspects: deque[AttemptedBatch] = deque()
        self._fresh_last = False

    def __len__(self) -> int:
        """Keys, with one value or, while one is in a batch, two."""
        return len(self._fresh) + len(self._held)

    def __contains__(self, key: str) -> bool:
        return key in self._fresh or key in self._held

    @property
    def fresh(self) -> int:
        """Keys that wait for a batch."""
        return len(self._fresh)

    def stats(self, now: float | None) -> WriteBehindStats:
        """All of it in numbers. `now` is None when nothing has come yet."""
        oldest = min((entry.since for place in (self._held, self._fresh) for entry in place.values()), default=now)
        return WriteBehindStats(
            waiting=len(self),
            oldest=0.0 if now is None or oldest is None else now - oldest,
            flushes=self._written,
            flushed=self._flushed,
            coalesced=self._coalesced,
            failures=self._failures,
            retried=self._retried,
            splits=self._splits,
            given_up=self._given_up,
        )

    # Values.

    def put(self, key: str, value: Any, *, is_delta: bool, now: float) -> PutReceipt:
        """Keep a value, over what waits under the key. What `merge` and the codec raise leaves everything as it was."""
        place = self._behind if key in self._held else self._fresh
        before = place.get(key)
        if is_delta and self._merge is None:
            _check_sum(before or self._held.get(key), value)
        value, is_delta = self._over(before, value, is_delta=is_delta)
        if is_delta and key in self._held:
            self._over(self._held[key], value, is_delta=True)  # what can't be merged is to raise now, not in `value`
        data, flags = b"", 0
        if self._codec is not None:
            data, flags = self._codec.encode(value)
            # What the next process would find, so that a writer sees no difference.
            value = self._codec.decode(data, flags)
        self._numbers += 1
        number, since = (self._numbers, now) if before is None else (before.number, before.since)
        self._coalesced += before is not None
        entry = place[key] = PendingWrite(value, is_delta, number, since, data, flags)
        self._tell(NO_BATCH, key, entry)
        return PutReceipt(key, entry, before)

    def take_back(self, kept: PutReceipt) -> None:
        """As if it had not been put. No effect when something newer is there, or it has gone into a batch."""
        place = self._behind if kept.key in self._held else self._fresh
        if place.get(kept.key) is not kept.entry:
            return
        if kept.before is None:
            del place[kept.key]
        else:
            place[kept.key] = kept.before
            self._coalesced -= 1
        self._tell(NO_BATCH, kept.key, kept.before)

    def value(self, key: str, default: Any = None) -> Any:
        """What the source will have been given when all is written: the newest value, or the sum of the deltas."""
        first, second = self._held.get(key), self._fresh.get(key) or self._behind.get(key)
        if second is None:
            return default if first is None else first.value
        return self._over(first, second.value, is_delta=second.is_delta)[0]

    def values(self) -> dict[str, Any]:
        """`value` of every key."""
        return {key: self.value(key) for key in (*self._held, *self._fresh)}

    def load(self, saved: Iterable[Saved], now: float) -> None:
        """Take over what a file kept, the oldest first. Its batches are tried as they were. Raises `DecodeError`."""
        assert self._codec is not None
        batches: dict[str, dict[str, PendingWrite]] = {}
        for row in saved:
            value = self._codec.decode(row.data, row.flags)
            entry = PendingWrite(value, row.is_delta, row.number, now, row.data, row.flags)
            batches.setdefault(row.batch, {})[row.key] = entry
            self._numbers = max(self._numbers, row.number)
        waiting = batches.pop(NO_BATCH, {})
        for batch_id, entries in batches.items():
            self._held |= entries
            self._tried.append(AttemptedBatch(Batch(batch_id, entries), entries))
        for key, entry in waiting.items():
            (self._behind if key in self._held else self._fresh)[key] = entry

    def _over(self, older: PendingWrite | None, value: Any, *, is_delta: bool) -> tuple[Any, bool]:
        """A newer value over an older one, and whether both together are a delta."""
        if older is None or not is_delta:
            return value, is_delta
        merge = operator.add if self._merge is None else self._merge
        return merge(older.value, value), older.is_delta

    def _tell(self, batch: str, key: str, entry: PendingWrite | None) -> None:
        if self._note is not None:
            self._note(batch, key, entry)

    # Batches.

    def demand(self) -> int:
        """Have all that is here written without waiting for more; the number of the last of it."""
        self._demanded = self._numbers
        return self._numbers

    def has_until(self, number: int) -> bool:
        """Whether anything that came up to this number is still here."""
        return any(entry.number <= number for place in (self._held, self._fresh, self._behind) for entry in place.values())

    def due_at(self) -> float | None:
        """When there is something to try: `-math.inf` for now, None for never."""
        return -math.inf if self._tried or self._suspects else self.fresh_due_at()

    def next(self, now: float) -> AttemptedBatch | None:
        """The batch to try now; it stays here until `wrote` or `failed` says what became of it."""
        if self._tried:
            return self._tried[0]
        due = self.fresh_due_at()
        if due is not None and due <= now and not (self._suspects and self._fresh_last):
            self._fresh_last = True
            self._cut()
            return self._tried[0]
        self._fresh_last = False
        return self._suspects[0] if self._suspects else None

    def wrote(self, tried: AttemptedBatch, unwritten: Collection[str] = ()) -> None:
        """The source has a batch, but for these keys, whose outcome is as certain: they are tried again under a new id."""
        self._leave(tried)
        self._end({key: entry for key, entry in tried.entries.items() if key not in unwritten}, tried.batch.id)
        rest = {key: entry for key, entry in tried.entries.items() if key in unwritten}
        if rest:
            again = AttemptedBatch(Batch(self._new_id(), rest), rest, seen=self._written, is_suspect=True)
            self._move(again, tried.batch.id)
            self._suspects.append(again)
        self.source_works = True
        self._written += 1
        self._flushed += len(tried.entries) - len(rest)
        self._retried += len(rest)

    def failed(self, tried: AttemptedBatch) -> dict[str, Any]:
        """A batch may or may not have been written. What is given up for it, by key."""
        others_work = tried.seen is not None and tried.seen < self._written
        tried.seen = self._written
        tried.failures += 1
        self._failures += 1
        self.source_works = self.source_works and tried.is_suspect
        alone = len(tried.entries) == 1
        tried.counted += alone and others_work
        if tried.counted >= self._max_attempts:
            self._given_up += 1
            self._leave(tried)
            self._end(tried.entries, tried.batch.id)
            return dict(tried.batch)
        self._retried += len(tried.entries)
        if others_work or tried.failures >= SPLIT_AFTER:
            self._leave(tried)
            tried.is_suspect = True
            self._suspects.extend([tried] if alone else self._halves(tried))
        elif tried.is_suspect:
            self._suspects.rotate(-1)  # it was the first
        return {}

    def fresh_due_at(self) -> float | None:
        """When those that wait for a batch are to be in one: `-math.inf` for now, None while there are none."""
        if not self._fresh:
            return None
        if len(self._fresh) >= self._max_batch:
            return -math.inf
        entries = self._fresh.values()
        if self._demanded and any(entry.number <= self._demanded for entry in entries):
            return -math.inf
        # All are looked at, fewer than a batch: those that stayed behind one are older than those before them.
        return min(entry.since for entry in entries) + self._interval

    def _cut(self) -> None:
        keys = [key for key, _ in zip(self._fresh, range(self._max_batch), strict=False)]
        entries = {key: self._fresh.pop(key) for key in keys}
        tried = AttemptedBatch(Batch(self._new_id(), entries), entries)
        self._held |= entries
        self._move(tried, NO_BATCH)
        self._tried.append(tried)

    def _halves(self, tried: AttemptedBatch) -> Iterator[AttemptedBatch]:
        self._splits += 1
        for half in tried.halves():
            self._move(half, tried.batch.id)
            yield half

    def _move(self, tried: AttemptedBatch, before: str) -> None:
        for key, entry in tried.entries.items():
            self._tell(before, key, None)
            self._tell(tried.batch.id, key, entry)

    def _leave(self, tried: AttemptedBatch) -> None:
        (self._suspects if tried.is_suspect else self._tried).remove(tried)

    def _end(self, entries: Mapping[str, PendingWrite], batch: str) -> None:
        """These are out of here, and what stayed behind them waits for a batch."""
        for key in entries:
            del self._held[key]
            self._tell(batch, key, None)
            if key in self._behind:
                self._fresh[key] = self._behind.pop(key)


def _check_sum(older: PendingWrite | None, delta: Any) -> None:
    """Raise unless both are numbers: what can't be added up must not be kept."""
    if not _is_number(delta):
        raise InvalidArgument("delta", f"a finite number is needed where there is no merge, not {delta!r}")
    if older is not None and not _is_number(older.value):
        raise InvalidArgument("delta", f"what waits under the key is no number, but {older.value!r}")


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value))
