"""Background task that passes due batches to the writer, and repeats those that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from evcache._helpers.retry import retry_forever
from evcache.write_behind.batch import AttemptedBatch, Batch
from evcache.write_behind.buffer import Buffer
from evcache.write_behind.capacity import Capacity
from evcache.zones._tasks import cancel_once, ended, name_of, unattended

# Pause between failed attempts, doubled each time, with jitter. During an outage each process asks the source six times a
# minute. Pending writes arrive within ten seconds of the source's recovery.
RETRY_FIRST_SECONDS = 0.2
RETRY_LONGEST_SECONDS = 10.0

Writer = Callable[[Batch], Awaitable[Collection[str] | None]]

_log = logging.getLogger("evcache.write_behind")


class Flusher:
    """Sequential flushes of one buffer. At most one call of the writer runs at a time."""

    def __init__(
        self,
        buffer: Buffer,
        capacity: Capacity,
        writer: Writer,
        *,
        timeout: float,
        before_write: Callable[[], Awaitable[object]],
        on_lost: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        """Make a flusher that does not run yet.

        Args:
            buffer: Pending writes.
            capacity: Limit on pending keys, whose waiting calls are woken after each flush.
            writer: Function that writes a batch to the source.
            timeout: Seconds after which a call of the writer is cancelled.
            before_write: Function awaited after a batch is made and before the writer receives it.
            on_lost: Function called with values that are given up, by key.
        """
        self.task: asyncio.Task[None] | None = None
        """The running task. None before `start`, after `stop`, and after an unexpected exception."""
        self._buffer = buffer
        self._capacity = capacity
        self._writer = writer
        self._timeout = timeout
        self._before_write = before_write
        self._on_lost = on_lost
        self._is_closing = False
        self._wake = asyncio.Event()  # the buffer may have a due batch
        self._skip_pause = False
        self._progress = asyncio.Event()  # set after each attempt, and replaced

    def start(self) -> None:
        """Start the task, unless it runs."""
        if self.task is None:
            self.task = unattended(asyncio.get_running_loop().create_task(self._run(), name="evcache-write-behind"))
            self.task.add_done_callback(self._on_end)

    async def stop(self) -> None:
        """Cancel the running attempt, and wait for its end. Cancellation of this call does not undo that.

        A writer that ignores its cancellation is logged, and runs on without supervision.
        """
        if (task := self.task) is not None:
            cancel_once([task])
            await ended([task], lambda _: f"the writer {name_of(self._writer)}")

    def begin_close(self) -> None:
        """Keep pauses between attempts short from now on."""
        self._is_closing = True

    def wake(self) -> None:
        """Let the task look for a due batch. A pause after a failure goes on."""
        self._wake.set()

    def flush_all(self) -> int:
        """Write all present writes without a pause. Return the sequence number of the last one."""
        number = self._buffer.flush_all()
        self._skip_pause = True
        self._wake.set()
        return number

    async def wait_for_progress(self) -> None:
        """Wait until an attempt ends, or until the task ends."""
        await self._progress.wait()

    def notify_progress(self) -> None:
        """Wake calls that wait for progress or for capacity, because fewer writes may be pending."""
        self._capacity.wake_next()
        self._progress.set()
        self._progress = asyncio.Event()

    def report_lost(self, lost: Mapping[str, Any]) -> None:
        """Call `on_lost` with lost values, by key."""
        if self._on_lost is None:
            return
        try:
            self._on_lost(dict(lost))
        except Exception:  # an error in the service's callback must not end the flushes
            _log.exception("write-behind callback on_lost failed: unexpected exception")

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("write-behind flusher failed: unexpected exception; restarting on the next call", exc_info=error)
        self.notify_progress()

    async def _run(self) -> None:
        while True:
            await self._wait_until_due()
            await retry_forever(self._flush_next, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS, sleep=self._pause)

    async def _wait_until_due(self) -> None:
        now = asyncio.get_running_loop().time
        while (at := self._buffer.due_at()) is None or at > now():
            await self._wait_for_wake(at)

    async def _pause(self, length: float) -> None:
        """Wait before the next attempt. If only suspects fail, a due batch of other keys ends the pause."""
        now = asyncio.get_running_loop().time
        end = now() + (min(length, RETRY_FIRST_SECONDS) if self._is_closing else length)
        while not self._skip_pause:
            due = self._buffer.unbatched_due_at() if self._buffer.source_works else None
            at = end if due is None else min(end, due)
            if at <= now():
                return
            await self._wait_for_wake(at)

    async def _wait_for_wake(self, at: float | None) -> None:
        """Wait for `wake`, or until this monotonic time."""
        self._wake.clear()
        try:
            async with asyncio.timeout_at(at):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _flush_next(self) -> bool:
        """Try one batch. Return False if the attempt failed, so that a pause must follow."""
        self._skip_pause = False
        attempted = self._buffer.next_batch(asyncio.get_running_loop().time())
        if attempted is None:
            return True
        await self._before_write()
        failure: BaseException | None = None
        unwritten: Collection[str] = ()
        try:
            async with asyncio.timeout(self._timeout):
                unwritten = _unwritten_keys(await self._writer(attempted.batch), attempted.batch)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the buffer still holds the batch
            failure = error  # the writer awaited something that was cancelled
        except Exception as error:  # after any exception of the writer the outcome is unknown
            failure = error
        self._record(attempted, unwritten, failure)
        self.notify_progress()
        return failure is None and not unwritten

    def _record(self, attempted: AttemptedBatch, unwritten: Collection[str], failure: BaseException | None) -> None:
        worked = self._buffer.source_works
        if failure is None and len(unwritten) < len(attempted.batch):
            self._buffer.succeeded(attempted, unwritten)
            if not worked:
                _log.info("write-behind source recovered: %d keys are pending", len(self._buffer))
            return
        lost = self._buffer.failed(attempted)
        cause = "the writer returned all keys as unwritten" if failure is None else repr(failure)
        if lost:
            keys = ", ".join(map(repr, lost))
            _log.error("write-behind gave up keys %s: the source accepts others and rejects these: %s", keys, cause)
            self.report_lost(lost)
        elif worked and not self._buffer.source_works:  # once for each outage, not for each attempt
            _log.warning(
                "write-behind batch of %d keys failed: %s; %d keys are pending",
                len(attempted.batch),
                cause,
                len(self._buffer),
            )


def _unwritten_keys(answer: Collection[str] | None, batch: Batch) -> Collection[str]:
    """Return the keys that the writer reports as unwritten.

    Raises:
        TypeError: The answer is neither None nor a collection of keys.
        ValueError: The answer names keys that are not in the batch. The batch then counts as failed, so no value is lost.
    """
    if answer is None:
        return ()
    if isinstance(answer, str | bytes) or not isinstance(answer, Collection):
        raise TypeError(f"invalid result of the writer: None or a collection of unwritten keys is required, not {answer!r}")
    named = frozenset(answer)
    if not named <= batch.keys():
        raise ValueError(f"invalid result of the writer: keys that are not in the batch: {sorted(named - batch.keys())[:3]}")
    return named
