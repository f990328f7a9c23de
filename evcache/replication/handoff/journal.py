"""The hint file of one client. It opens while calls go on, and calls go on without it if it cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from evcache.replication.handoff.file import HintsJournal
from evcache.replication.handoff.hints import Hint, Hints
from evcache.zones._tasks import abandon, cancel_once, unattended
from evcache.zones.errors import InvalidArgument


class HintJournal:
    """Keeps hints in the file that the settings name. Has no effect if they name none, and while the file is not open."""

    def __init__(self, settings: Hints, take_over: Callable[[list[Hint]], None]) -> None:
        """`take_over` gets the hints that a former process has left, when the file is open."""
        self._path = settings.path
        self._strict = settings.strict
        self._take_over = take_over
        self._file: HintsJournal | None = None
        self._made: HintsJournal | None = None  # it, or one that is being opened
        self._opening: asyncio.Task[None] | None = None
        self._enough: asyncio.Future[None] | None = None  # done: calls wait for the file no longer

    @property
    def is_wanted(self) -> bool:
        """True if hints are to outlive the process."""
        return self._path is not None

    @property
    def is_opening(self) -> bool:
        """True while the file is being opened."""
        return self._opening is not None and not self._opening.done()

    @property
    def error(self) -> str | None:
        """Why hints are kept in memory only although they are to be in a file; None if they are in it, or need not be."""
        return None if self._file is None else self._file.error

    async def open(self) -> None:
        """Open the file and take over the hints in it. May be called again.

        Without `strict`, return when `wait_no_longer` is called: the file is used as soon as it is open.
        Raises `InvalidArgument` if it is `strict`, and the file can't be used.
        """
        if self._path is None:
            return
        loop = asyncio.get_running_loop()
        if self._opening is None:
            self._opening = unattended(loop.create_task(self._open(self._path), name="evcache-hints-open"))
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._strict:
            await asyncio.shield(self._opening)
        else:
            self._enough = loop.create_future()
            await asyncio.wait([self._opening, self._enough], return_when=asyncio.FIRST_COMPLETED)

    def wait_no_longer(self) -> None:
        """Let calls go on while the file is being opened, unless it is `strict`."""
        if self._enough is not None and not self._enough.done():
            self._enough.set_result(None)

    def reopen(self) -> None:
        """Allow another opening, on any loop: after `close`, or when the loop is closed."""
        if self._opening is not None:
            abandon([self._opening])
        if self._made is not None:
            self._made.abandon()
        self._file = self._made = self._opening = self._enough = None

    async def _open(self, path: str) -> None:
        file = self._made = HintsJournal(path)
        found: list[Hint] = []
        try:
            found = await file.open()
        except InvalidArgument as error:
            await file.close()
            if self._strict:
                self._opening = None  # the next call tries again
                raise
            file.give_up(error.problem)
        except GeneratorExit:  # the event loop is closed
            file.abandon()
            raise
        except BaseException:
            await file.close()
            raise
        self._file = file
        self._take_over(found)

    def put(self, hint: Hint) -> None:
        """Queue a hint to be written."""
        if self._file is not None:
            self._file.put(hint)

    def remove(self, hint: Hint) -> None:
        """Queue a hint to be removed."""
        if self._file is not None:
            self._file.remove(hint)

    async def close(self) -> bool:
        """Write the queued changes and close the file. Return whether all hints are in it. May be called again."""
        try:
            if self._opening is not None and not self._opening.done():
                cancel_once([self._opening])
                await asyncio.wait([self._opening])
        finally:
            complete = self._file is not None and await self._file.close()
        return complete and self.error is None
