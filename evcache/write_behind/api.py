"""Write-behind buffer: the cache receives values at once, and the source receives them later, in batches.

For services that count, or that update rows more often than their database can. docs/write-behind.md states the guarantees,
and what a crash loses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from evcache._helpers.loop_affinity import LoopAffinity
from evcache.errors import CodecError
from evcache.options import Seconds
from evcache.results import WriteResult
from evcache.values.checked_codec import checked
from evcache.values.codec import Codec, StandardCodec
from evcache.values.ttl import seconds_to_live
from evcache.write_behind.batch import PendingWrite, PutReceipt
from evcache.write_behind.buffer import Buffer, WriteBehindStats
from evcache.write_behind.capacity import Capacity
from evcache.write_behind.flusher import Flusher, Writer
from evcache.write_behind.journal import WriteBehindJournal
from evcache.zones._live import Live
from evcache.zones.errors import CacheError, InvalidArgument, InvalidKey, UsageError
from evcache.zones.validation import at_least_one, flag, methods, positive_seconds, zero_or_more

MAX_BATCH = 500  # keys; databases accept statements with this number of rows
INTERVAL_SECONDS = 1.0
MAX_KEYS = 10_000  # a pending write takes 170 bytes beside its key and value, twice that in a batch (tracemalloc)
CAPACITY_SECONDS = 1.0
FLUSH_TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS = 5

# Kubernetes sends SIGKILL 30 s after SIGTERM. A service has other parts to close in that time.
DRAIN_SECONDS = 10.0

_log = logging.getLogger("evcache.write_behind")


class Cache(Protocol):
    """Cache that a `WriteBehind` stores values in. `EVCache` satisfies it."""

    async def set(self, key: str, value: Any, *, ttl: Seconds | None = None) -> WriteResult:
        """Store a value, and return its result, which the buffer passes on.

        Args:
            key: Key of the value.
            value: The value.
            ttl: Seconds that the cache keeps the value. If None, the cache's default.
        """
        ...


class BufferFull(CacheError):
    """A write was refused: `max_keys` keys are pending, and none was written within `timeout`. Nothing was stored."""

    def __init__(self, max_keys: int) -> None:
        super().__init__(max_keys)
        self.max_keys = max_keys
        """Limit on pending keys, as the setting of the buffer."""

    def __str__(self) -> str:
        return f"write-behind buffer full: {self.max_keys} keys are pending, and none was written in time"


class WriteBehind(Live):
    """Buffer in front of a source. It belongs to the event loop of its first call."""

    def __init__(
        self,
        cache: Cache | None,
        writer: Writer,
        *,
        max_batch: int = MAX_BATCH,
        interval: float = INTERVAL_SECONDS,
        max_keys: int = MAX_KEYS,
        timeout: float | None = CAPACITY_SECONDS,
        flush_timeout: float = FLUSH_TIMEOUT_SECONDS,
        max_attempts: int = MAX_ATTEMPTS,
        merge: Callable[[Any, Any], Any] | None = None,
        path: str | None = None,
        strict: bool = False,
        codec: Codec | None = None,
        on_lost: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Make a buffer. It starts no task and opens no file before its first call.

        Args:
            cache: Cache that `set` stores values in at once. If None, values go to the source only.
            writer: Async function that writes a `Batch` to the source. It returns None, or the keys that it certainly did
                not write, which are repeated. After an exception or a cancellation the outcome is unknown, and the same
                batch is repeated.
            max_batch: Number of pending keys with which a flush begins, and the most keys of one batch.
            interval: Seconds after the first value at which a flush begins.
            max_keys: Limit on pending keys.
            timeout: Seconds that a call waits for a place if `max_keys` keys are pending. If None, without a limit.
            flush_timeout: Seconds after which a call of `writer` is cancelled.
            max_attempts: Number of failures alone, while other keys are written, after which an entry is given up.
            merge: Function that makes one delta of an older and a newer one, or a value of a value and a delta. It must
                change neither. If None, numbers are added.
            path: File that stores pending writes beyond the end of the process. Each process needs its own. If None,
                pending writes are in memory only.
            strict: If True, a file that cannot be opened is an error of the first call. If False, the buffer works in
                memory, logs an ERROR once, and reports the cause in `stats().file_error`.
            codec: Codec of values in the file. If None, `StandardCodec()`. Not used without a file.
            on_lost: Function called with values that are given up, and with those that are lost on closing.

        Raises:
            InvalidArgument: An argument cannot be used.
        """
        methods(cache, ("set",), "cache")
        chosen = checked(StandardCodec() if codec is None else codec)
        for name, function in (("writer", writer), ("merge", merge), ("on_lost", on_lost)):
            if not callable(function) and (function is not None or name == "writer"):
                raise InvalidArgument(name, f"a function is required, not {function!r}")
        if path is not None and (not isinstance(path, str) or not path):
            raise InvalidArgument("path", f"the path of a file is required, not {path!r}")
        flag(strict, "strict")
        if strict and path is None:
            raise InvalidArgument("strict", "`path` is required, because `strict` is about the file")
        for name, number in (("max_batch", max_batch), ("max_keys", max_keys), ("max_attempts", max_attempts)):
            at_least_one(number, name)
        if timeout is not None:
            zero_or_more(timeout, "timeout")
        self._cache = cache
        self._max_batch = max_batch
        self._timeout = timeout
        self._strict = strict
        self._journal = None if path is None else WriteBehindJournal(path)
        self._buffer = Buffer(
            max_batch=max_batch,
            interval=positive_seconds(interval, "interval"),
            max_attempts=max_attempts,
            merge=merge,
            codec=None if path is None else chosen,
            on_change=None if path is None else self._save,
        )
        self._capacity = Capacity(self._buffer, max_keys)
        self._flusher = Flusher(
            self._buffer,
            self._capacity,
            writer,
            timeout=positive_seconds(flush_timeout, "flush_timeout"),
            before_write=self._saved,
            on_lost=on_lost,
        )
        self._affinity = LoopAffinity("the buffer is closed")
        self._opening = asyncio.Lock()
        self._is_open = False
        self._unflushed: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Values.

    async def set(self, key: str, value: Any, *, ttl: Seconds | None = None) -> WriteResult | None:
        """Store a value in the buffer, in place of a pending one, and then in the cache.

        The value reaches the source even if the cache is unavailable. Cancellation while the call waits for a place leaves
        nothing. Later, the buffered value stays.

        Args:
            key: The key, a `str` that is not empty.
            value: The value. It must not be changed afterwards.
            ttl: Seconds that the cache keeps the value. If None, the cache's default.

        Returns:
            The result of the cache, or None without a cache.

        Raises:
            BufferFull: `max_keys` keys were pending for `timeout` seconds. Nothing was stored.
            CacheUnavailable: The cache could not store the value. The source receives it.
            EncodeError: The cache cannot encode the value. The buffer drops it, unless it is in a batch.
            InvalidArgument: An argument cannot be used. The buffer drops the value, unless it is in a batch.
            UsageError: The buffer is closed, or belongs to another loop or process.
            ValueTooLarge: The cache cannot store the value. The buffer drops it, unless it is in a batch.
        """
        if ttl is not None:
            seconds_to_live(ttl)
        receipt = await self._put(key, value, is_delta=False)
        if self._cache is None:
            return None
        # The buffer comes first, because its order is the order in which the source receives values. In the reverse order,
        # a full buffer would leave a value in the cache that the source never receives.
        try:
            return await self._cache.set(key, value, ttl=ttl)
        except (InvalidArgument, CodecError):
            self._buffer.undo(receipt)
            self._flusher.notify_progress()
            raise

    async def add(self, key: str, delta: Any) -> None:
        """Store a delta that the source adds to its value of the key. Pending deltas of one key are added up.

        A delta after a pending `set` is added to the value of that `set`. The cache is not changed. Cancellation leaves
        nothing.

        Args:
            key: The key, a `str` that is not empty.
            delta: A finite number, or what `merge` accepts.

        Raises:
            BufferFull: `max_keys` keys were pending for `timeout` seconds. Nothing was stored.
            InvalidArgument: The delta cannot be added. The buffer is unchanged, also after an exception of `merge`.
            UsageError: The buffer is closed, or belongs to another loop or process.
        """
        await self._put(key, delta, is_delta=True)

    def waiting(self, key: str, default: Any = None) -> Any:
        """Return the pending value of a key, or the sum of its pending deltas.

        A loader needs it: the source still has the previous value. A value in a running flush counts as pending.

        Args:
            key: The key.
            default: Result if nothing is pending.
        """
        return self._buffer.value(key, default)

    async def _put(self, key: str, value: Any, *, is_delta: bool) -> PutReceipt:
        _check_key(key)
        await self._open()
        if not self._capacity.admits(key):
            await self._wait_for_capacity(key)
        try:
            receipt = self._buffer.put(key, value, is_delta=is_delta, now=asyncio.get_running_loop().time())
        finally:
            self._capacity.release(key)
        if self._buffer.unbatched == 1 or self._buffer.unbatched >= self._max_batch:
            self._flusher.wake()
        return receipt

    async def _wait_for_capacity(self, key: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while not self._capacity.admits(key):
                    self._buffer.flush_all()  # a full buffer gains nothing by waiting for more keys
                    self._flusher.wake()
                    await self._capacity.wait(key)
                    self._affinity.enter()
        except TimeoutError:
            raise BufferFull(self._capacity.max_keys) from None

    # Flushing.

    async def flush(self, *, timeout: float | None = None) -> bool:
        """Write all present values at once, and wait until the source has them.

        The call does not wait for values that arrive later, nor for values that are given up. Its cancellation and its
        timeout end only the waiting.

        Args:
            timeout: Seconds to wait. If None, without a limit.

        Returns:
            True if the source has them all. False after `timeout`, or if the buffer was closed first.
        """
        if timeout is not None:
            zero_or_more(timeout, "timeout")
        await self._open()
        number = self._flusher.flush_all()
        try:
            async with asyncio.timeout(timeout):
                while self._buffer.has_writes_up_to(number):
                    if self._flusher.task is None:
                        return False
                    await self._flusher.wait_for_progress()
        except TimeoutError:
            return False
        return True

    def stats(self) -> WriteBehindStats:
        """Return the number of pending keys and the counters, without I/O."""
        loop = self._affinity.open_in
        stats = self._buffer.stats(None if loop is None else loop.time())
        return stats if self._journal is None else replace(stats, file_error=self._journal.error)

    # Opening and closing.

    async def _open(self) -> None:
        """Open the file and start the flusher with the first call.

        Raises:
            UsageError: The buffer is closed, or belongs to another loop or process.
        """
        if self._affinity.open_in is not asyncio.get_running_loop():
            self._check_loop()
            self._affinity.enter()
        if self._flusher.task is not None:
            return
        async with self._opening:
            self._affinity.enter()  # `close` may have run while this call waited
            if self._journal is not None and not self._is_open:
                await self._load(self._journal)
            self._is_open = True
            self._flusher.start()

    def _check_loop(self) -> None:
        if self._affinity.is_lost:
            raise UsageError("the buffer belongs to another event loop, which is closed")

    async def _load(self, journal: WriteBehindJournal) -> None:
        try:
            saved = await journal.open()
            try:
                self._buffer.load(saved, asyncio.get_running_loop().time())
            except CodecError as error:
                raise InvalidArgument("path", f"{journal.path}: {error}") from error
        except InvalidArgument as error:
            await journal.close()
            if self._strict:
                self._journal = WriteBehindJournal(journal.path)  # for the next call
                raise
            journal.give_up(error.problem)
        except BaseException:
            await journal.close()
            self._journal = WriteBehindJournal(journal.path)  # for the next call
            raise

    def _save(self, batch: str, key: str, entry: PendingWrite | None) -> None:
        if self._journal is not None:
            self._journal.note(batch, key, entry)

    async def _saved(self) -> None:
        if self._journal is not None:
            await self._journal.flush()

    async def close(self, drain: float = DRAIN_SECONDS) -> dict[str, Any]:
        """Refuse further calls, write pending values within `drain` seconds, and stop.

        With a file, values that remain are stored there for the next process. Without one they are lost, which is logged
        and reported to `on_lost`. The source may have received some of them if the last attempt was cancelled. The call may
        be repeated, with the same result. Cancellation stops the flusher at once; a further call returns what remained.

        Args:
            drain: Seconds to wait for the source.

        Returns:
            The values that were not written, by key.

        Raises:
            UsageError: The buffer belongs to another loop or process.
        """
        zero_or_more(drain, "drain")
        if self._unflushed is not None:
            return dict(self._unflushed)
        self._check_loop()
        self._affinity.close()
        self._flusher.begin_close()
        self._capacity.wake_all()
        try:
            async with asyncio.timeout(drain), self._opening:
                self._flusher.flush_all()
                while len(self._buffer) and self._flusher.task is not None:
                    await self._flusher.wait_for_progress()
        except TimeoutError:
            pass
        finally:
            is_saved = await self._stop()
        if self._unflushed is None:
            self._report(is_saved=is_saved)
        return dict(self._unflushed or {})

    async def _stop(self) -> bool:
        """Stop the flusher and close the file. Return True if the remaining values are in the file."""
        await self._flusher.stop()
        if self._journal is None or not self._is_open:
            return False
        return await self._journal.close() and self._journal.error is None

    def _report(self, *, is_saved: bool) -> None:
        left = self._unflushed = self._buffer.values()
        if left and is_saved and self._journal is not None:
            _log.info("write-behind closed with %d unwritten keys: stored in %s", len(left), self._journal.path)
        elif left:
            _log.warning("write-behind closed with %d unwritten keys: no file, values are lost", len(left))
            self._flusher.report_lost(left)


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidKey("key", f"a str that is not empty is required, not {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKey("key", f"{key!r} has a lone surrogate, which has no UTF-8 form") from None
