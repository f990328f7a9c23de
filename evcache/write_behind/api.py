"""Write-behind: values go to the cache at once, and to the source later, in batches.

For a service that counts, or that updates rows more often than its database can take. docs/write-behind.md says what is
promised and what a crash loses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from evcache._loop_affinity import LoopAffinity
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
from evcache.zones.validation import at_least_one, flag, methods, seconds, zero_or_more

MAX_BATCH = 500  # rows of one statement that databases take without trouble
INTERVAL_SECONDS = 1.0
MAX_KEYS = 10_000  # an entry takes 170 bytes beside its key and value, and twice that in a batch (tracemalloc)
ROOM_SECONDS = 1.0
FLUSH_TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS = 5

# Orchestrators give a process 30 s between the first signal and the last; a service has other things to close, too.
DRAIN_SECONDS = 10.0

_log = logging.getLogger("evcache.write_behind")


class Cache(Protocol):
    """What is needed of a cache: an `EVCache` has it."""

    async def set(self, key: str, value: Any, *, ttl: Seconds | None = None) -> WriteResult:
        """Store a value."""
        ...


class BufferFull(CacheError):
    """As many keys wait to be written as may (`max_keys`), and none was written in time. Nothing was kept."""

    def __init__(self, max_keys: int) -> None:
        super().__init__(max_keys)
        self.max_keys = max_keys

    def __str__(self) -> str:
        return f"{self.max_keys} keys wait to be written, and no room was made in time"


class WriteBehind(Live):
    """A buffer in front of a source, and its flushes. For one event loop, that of its first call."""

    def __init__(
        self,
        cache: Cache | None,
        writer: Writer,
        *,
        max_batch: int = MAX_BATCH,
        interval: float = INTERVAL_SECONDS,
        max_keys: int = MAX_KEYS,
        timeout: float | None = ROOM_SECONDS,
        flush_timeout: float = FLUSH_TIMEOUT_SECONDS,
        max_attempts: int = MAX_ATTEMPTS,
        merge: Callable[[Any, Any], Any] | None = None,
        path: str | None = None,
        strict: bool = False,
        codec: Codec | None = None,
        on_lost: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """`cache`: where `set` stores values at once; None: nowhere.

        writer: brings a `Batch` to the source. Returns None, or the keys that were certainly not written, which are tried
            again. When it raises, or is cancelled, anything may have been written, and the same batch comes again.
        max_batch, interval: a flush begins when so many keys wait, or so many seconds after the first came.
        max_keys, timeout: with so many keys waiting, a new one waits so many seconds for room; None: as long as it takes.
        flush_timeout: seconds after which a try is cancelled.
        max_attempts: times that an entry fails alone, while others are written, until it is given up.
        merge: makes one delta of an older and a newer one, or a value of a value and a delta. It changes neither. None:
            numbers are added up.
        path: a file that keeps what waits beyond the end of this process; one for each process. None: in memory only.
        strict: if True, a file that cannot be opened is an error of the first call. If False, the buffer goes on in memory,
            logs an ERROR once, and says why in `stats().file_error`.
        codec: how values are kept there; None: `StandardCodec()`. Not used without a file.
        on_lost: called with what was given up, and with what is lost on closing.

        Raises `InvalidArgument`. Nothing runs, and no file is opened, before the first call.
        """
        methods(cache, ("set",), "cache")
        chosen = checked(StandardCodec() if codec is None else codec)
        for name, function in (("writer", writer), ("merge", merge), ("on_lost", on_lost)):
            if not callable(function) and (function is not None or name == "writer"):
                raise InvalidArgument(name, f"a function is needed, not {function!r}")
        if path is not None and (not isinstance(path, str) or not path):
            raise InvalidArgument("path", f"the path of a file is needed, not {path!r}")
        flag(strict, "strict")
        if strict and path is None:
            raise InvalidArgument("strict", "it is about a file: set path, too")
        for name, number in (("max_batch", max_batch), ("max_keys", max_keys), ("max_attempts", max_attempts)):
            at_least_one(number, name)
        if timeout is not None:
            zero_or_more(timeout, "timeout")
        self._cache = cache
        self._max_batch = max_batch
        self._timeout = timeout
        self._strict = strict
        self._file = None if path is None else WriteBehindJournal(path)
        self._buffer = Buffer(
            max_batch=max_batch,
            interval=seconds(interval, "interval"),
            max_attempts=max_attempts,
            merge=merge,
            codec=None if path is None else chosen,
            note=None if path is None else self._note,
        )
        self._room = Capacity(self._buffer, max_keys)
        self._flushes = Flusher(
            self._buffer,
            self._room,
            writer,
            timeout=seconds(flush_timeout, "flush_timeout"),
            before=self._in_file,
            on_lost=on_lost,
        )
        self._owner = LoopAffinity("the buffer is closed")
        self._opening = asyncio.Lock()
        self._is_open = False
        self._unflushed: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Values.

    async def set(self, key: str, value: Any, *, ttl: Seconds | None = None) -> WriteResult | None:
        """Have a value written to the source, over what waits under the key; then store it in the cache, for `ttl` seconds.

        What the cache said, None without one. What it raises is about the cache alone, as `CacheUnavailable` is: the value
        is written to the source all the same. Only when it takes the call for wrong (`InvalidArgument`, `EncodeError`,
        `ValueTooLarge`) is the value not kept, if it has not gone into a batch meanwhile.
        Raises `BufferFull`, and `UsageError` after `close`. Cancelled while it waits for room, it leaves nothing; later, the
        value is kept.
        """
        if ttl is not None:
            seconds_to_live(ttl)
        kept = await self._keep(key, value, is_delta=False)
        if self._cache is None:
            return None
        # After the buffer, whose order is the one in which the source gets values. The other way round, a value that a
        # full buffer does not take would be in the cache, and nowhere else.
        try:
            return await self._cache.set(key, value, ttl=ttl)
        except (InvalidArgument, CodecError):
            self._buffer.take_back(kept)
            self._flushes.progressed()
            raise

    async def add(self, key: str, delta: Any) -> None:
        """Have a delta added to what the source has under the key. Those of one key are summed up until they are written.

        Over a value that was `set` and waits, it makes the value larger. The cache is not touched.
        Raises `InvalidArgument` for what can't be added up; `BufferFull`, and `UsageError` after `close`. What `merge`
        raises leaves everything as it was. Cancelled, it leaves nothing.
        """
        await self._keep(key, delta, is_delta=True)

    def waiting(self, key: str, default: Any = None) -> Any:
        """What waits under a key: the value that the source will have, or the sum of the deltas that it has yet to add.

        For a loader, which would otherwise bring back what the source has had before. What a try under way has brought
        there counts as waiting, too.
        """
        return self._buffer.value(key, default)

    async def _keep(self, key: str, value: Any, *, is_delta: bool) -> PutReceipt:
        _check_key(key)
        await self._enter()
        if not self._room.has(key):
            await self._wait_for_room(key)
        try:
            kept = self._buffer.put(key, value, is_delta=is_delta, now=asyncio.get_running_loop().time())
        finally:
            self._room.done(key)
        if self._buffer.fresh == 1 or self._buffer.fresh >= self._max_batch:
            self._flushes.look()
        return kept

    async def _wait_for_room(self, key: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while not self._room.has(key):
                    self._buffer.demand()  # no use in waiting for more
                    self._flushes.look()
                    await self._room.turn(key)
                    self._owner.enter()
        except TimeoutError:
            raise BufferFull(self._room.max_keys) from None

    # Flushing.

    async def flush(self, *, timeout: float | None = None) -> bool:
        """Write everything that is here, now, and wait until the source has it. Values that come later are not waited for.

        False when it has not got all of it after `timeout` seconds (None: as long as it takes), or by the end of `close`.
        What was given up meanwhile is not waited for. Cancelling it, or the end of its time, ends only the waiting.
        """
        if timeout is not None:
            zero_or_more(timeout, "timeout")
        await self._enter()
        number = self._flushes.demand()
        try:
            async with asyncio.timeout(timeout):
                while self._buffer.has_until(number):
                    if self._flushes.task is None:
                        return False
                    await self._flushes.progress()
        except TimeoutError:
            return False
        return True

    def stats(self) -> WriteBehindStats:
        """What waits, and what was done, in plain numbers."""
        loop = self._owner.open_in
        stats = self._buffer.stats(None if loop is None else loop.time())
        return stats if self._file is None else replace(stats, file_error=self._file.error)

    # Opening and closing.

    async def _enter(self) -> None:
        """Open what is to be open, with the first call. Raises `UsageError` for one from elsewhere, or after `close`."""
        if self._owner.open_in is not asyncio.get_running_loop():
            self._check_loop()
            self._owner.enter()
        if self._flushes.task is not None:
            return
        async with self._opening:
            self._owner.enter()  # closed meanwhile
            if self._file is not None and not self._is_open:
                await self._load(self._file)
            self._is_open = True
            self._flushes.begin()

    def _check_loop(self) -> None:
        if self._owner.is_lost:
            raise UsageError("the buffer belongs to another event loop, which is closed")

    async def _load(self, file: WriteBehindJournal) -> None:
        try:
            saved = await file.open()
            try:
                self._buffer.load(saved, asyncio.get_running_loop().time())
            except CodecError as error:
                raise InvalidArgument("path", f"{file.path}: {error}") from error
        except InvalidArgument as error:
            await file.close()
            if self._strict:
                self._file = WriteBehindJournal(file.path)  # for the next call
                raise
            file.give_up(error.problem)
        except BaseException:
            await file.close()
            self._file = WriteBehindJournal(file.path)  # for the next call
            raise

    def _note(self, batch: str, key: str, entry: PendingWrite | None) -> None:
        if self._file is not None:
            self._file.note(batch, key, entry)

    async def _in_file(self) -> None:
        if self._file is not None:
            await self._file.written()

    async def close(self, drain: float = DRAIN_SECONDS) -> dict[str, Any]:
        """Take nothing more, write what waits within `drain` seconds, and end. What could not be written, by key.

        With a file it is kept there, for the next process. Without one it is lost, which is logged, and told to `on_lost`;
        of what a last try was cancelled for, the source may have got some. May be called again, with the same answer.
        Cancelled, it ends the flushes at once, and a further call says what was left.
        Raises `UsageError` when this belongs to another loop or process.
        """
        zero_or_more(drain, "drain")
        if self._unflushed is not None:
            return dict(self._unflushed)
        self._check_loop()
        self._owner.close()
        self._flushes.closing = True
        self._room.call_all()
        try:
            async with asyncio.timeout(drain), self._opening:
                self._flushes.demand()
                while len(self._buffer) and self._flushes.task is not None:
                    await self._flushes.progress()
        except TimeoutError:
            pass
        finally:
            is_kept = await self._end()
        if self._unflushed is None:
            self._report(is_kept=is_kept)
        return dict(self._unflushed or {})

    async def _end(self) -> bool:
        """End the flushes and let go of the file. Whether what is left is in it."""
        await self._flushes.end()
        if self._file is None or not self._is_open:
            return False
        return await self._file.close() and self._file.error is None

    def _report(self, *, is_kept: bool) -> None:
        left = self._unflushed = self._buffer.values()
        if left and is_kept and self._file is not None:
            _log.info("closed with %d keys to be written, kept in %s", len(left), self._file.path)
        elif left:
            _log.warning("closed with %d keys that were not written, and are lost", len(left))
            self._flushes.lose(left)


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidKey("key", f"a str that is not empty is needed, not {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKey("key", f"{key!r} has a lone surrogate, which has no UTF-8 form") from None
