"""The task that brings what is due to the source: when it begins, what a failure means, and how long it pauses then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from tenacity import AsyncRetrying, retry_if_result, wait_exponential, wait_random

from evcache.write_behind.batch import AttemptedBatch, Batch
from evcache.write_behind.buffer import Buffer
from evcache.write_behind.capacity import Capacity
from evcache.zones._tasks import cancel_once, ended, name_of, unattended

# Between tries while they fail, doubled each time, with some jitter: a source that is down is asked six times a minute by
# each process, which it does not notice, and gets what has waited within ten seconds of its return.
RETRY_FIRST_SECONDS = 0.2
RETRY_LONGEST_SECONDS = 10.0

Writer = Callable[[Batch], Awaitable[Collection[str] | None]]

_log = logging.getLogger("evcache.write_behind")  # what is said of one buffer comes under one name


class Flusher:
    """One try after the other. It runs from `begin` to `end`, or to a bug, after which `begin` begins it anew."""

    def __init__(
        self,
        buffer: Buffer,
        room: Capacity,
        writer: Writer,
        *,
        timeout: float,
        before: Callable[[], Awaitable[object]],
        on_lost: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        """`timeout`: seconds that a try may take. `before` is awaited when a batch is cut, and before the writer sees it."""
        self.closing = False
        """Whether this is the end: then no pause is long."""
        self.task: asyncio.Task[None] | None = None
        self._buffer = buffer
        self._room = room
        self._writer = writer
        self._timeout = timeout
        self._before = before
        self._on_lost = on_lost
        self._wake = asyncio.Event()  # there may be something to flush
        self._hurry = False  # a pause is to end
        self._progress = asyncio.Event()  # set after each try, and replaced

    def begin(self) -> None:
        """Run, unless it does."""
        if self.task is None:
            self.task = unattended(asyncio.get_running_loop().create_task(self._run(), name="evcache-write-behind"))
            self.task.add_done_callback(self._ended)

    async def end(self) -> None:
        """Cancel a try that is under way, and wait until nothing runs. Cancelling it does not undo that.

        A writer that goes on after its cancellation is logged and left alone.
        """
        if (task := self.task) is not None:
            cancel_once([task])
            await ended([task], lambda _: f"the writer {name_of(self._writer)}")

    def look(self) -> None:
        """There may be something due. A pause between tries is not ended by that."""
        self._wake.set()

    def demand(self) -> int:
        """Have all that is here written now, without a pause; the number of the last of it."""
        number = self._buffer.demand()
        self._hurry = True
        self._wake.set()
        return number

    async def progress(self) -> None:
        """Wait until less may wait than now, or nothing runs any more."""
        await self._progress.wait()

    def progressed(self) -> None:
        """Less may wait than before: let others go on."""
        self._room.call()
        self._progress.set()
        self._progress = asyncio.Event()

    def lose(self, lost: Mapping[str, Any]) -> None:
        """Tell whoever wants to know."""
        if self._on_lost is None:
            return
        try:
            self._on_lost(dict(lost))
        except Exception:  # somebody else's code must not end the flushes
            _log.exception("on_lost has failed")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("flushes have ended with a bug; the next call begins them anew", exc_info=error)
        self.progressed()

    async def _run(self) -> None:
        retrying = AsyncRetrying(
            wait=wait_exponential(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS) + wait_random(0, RETRY_FIRST_SECONDS),
            retry=retry_if_result(bool),
            sleep=self._pause,
        )
        while True:
            await self._until_due()
            await retrying(self._flush_next)

    async def _until_due(self) -> None:
        now = asyncio.get_running_loop().time
        while (at := self._buffer.due_at()) is None or at > now():
            await self._woken(at)

    async def _pause(self, length: float) -> None:
        """Wait before the next try. While it is only suspects that fail, others are not held up."""
        now = asyncio.get_running_loop().time
        end = now() + (min(length, RETRY_FIRST_SECONDS) if self.closing else length)
        while not self._hurry:
            due = self._buffer.fresh_due_at() if self._buffer.source_works else None
            at = end if due is None else min(end, due)
            if at <= now():
                return
            await self._woken(at)

    async def _woken(self, at: float | None) -> None:
        """Wait until there may be something to do, until this time at the most."""
        self._wake.clear()
        try:
            async with asyncio.timeout_at(at):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _flush_next(self) -> bool:
        """Try one batch. True when there is to be a pause before the next."""
        self._hurry = False
        tried = self._buffer.next(asyncio.get_running_loop().time())
        if tried is None:
            return False
        await self._before()
        failure: BaseException | None = None
        unwritten: Collection[str] = ()
        try:
            async with asyncio.timeout(self._timeout):
                unwritten = _named(await self._writer(tried.batch), tried.batch)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the batch is in the buffer still
            failure = error  # something that the writer waited for was cancelled
        except Exception as error:  # whatever a writer raises, the source has not said yes
            failure = error
        self._took_note(tried, unwritten, failure)
        self.progressed()
        return failure is not None or len(unwritten) > 0

    def _took_note(self, tried: AttemptedBatch, unwritten: Collection[str], failure: BaseException | None) -> None:
        worked = self._buffer.source_works
        if failure is None and len(unwritten) < len(tried.batch):
            self._buffer.wrote(tried, unwritten)
            if not worked:
                _log.info("the source takes writes again, %d keys wait", len(self._buffer))
            return
        lost = self._buffer.failed(tried)
        why = "the writer says that nothing was written" if failure is None else repr(failure)
        if lost:
            _log.error("given up, since the source takes others but not %s: %s", ", ".join(map(repr, lost)), why)
            self.lose(lost)
        elif worked and not self._buffer.source_works:  # once for each time of trouble, not for each try
            _log.warning("a batch of %d could not be written, %d keys wait: %s", len(tried.batch), len(self._buffer), why)


def _named(answer: Collection[str] | None, batch: Batch) -> Collection[str]:
    """The keys that a writer says were not written. What can't be an answer counts as a failure: nothing is lost by it."""
    if answer is None:
        return ()
    if isinstance(answer, str | bytes) or not isinstance(answer, Collection):
        raise TypeError(f"a writer returns None or the keys that were not written, not {answer!r}")
    named = frozenset(answer)
    if not named <= batch.keys():
        raise ValueError(f"the writer names keys that are not in the batch: {sorted(named - batch.keys())[:3]}")
    return named
