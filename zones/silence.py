"""Detector of a server that stands still: reads wait on its connection, and no byte arrives.

A circuit opens after timeouts, and the deadline of a read is long compared with a usual answer. The reads of that time would
all wait. This detector speaks up after some milliseconds of silence; a circuit is not opened by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from zones.loop_lag import STALL_SECONDS

# Reads that must wait at least. With fewer, one late reply would look like a server that stands still. The number of
# timeouts after which a circuit opens is the same.
SUSPICIOUS_READS = 3


class Heard(Protocol):
    """What the detector looks at: a connection."""

    @property
    def heard_at(self) -> float:
        """Time of the last byte, or of the first request since nothing waited, on the loop's clock."""
        ...

    @property
    def pending(self) -> int:
        """Number of requests whose reply has not been read."""
        ...

    def movable_reads(self) -> int:
        """Count the reads that wait and that another zone could answer."""
        ...


class SilenceDetector:
    """The detector of one connection. It has at most one timer, and none while nothing waits."""

    __slots__ = ("_due", "_heard", "_loop", "_on_silence", "_patience", "_timer", "is_silent", "is_watching", "round_trip")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, patience: float, heard: Heard, on_silence: Callable[[], None]
    ) -> None:
        self.is_silent = False
        """True from the call of `on_silence` until `heard` is called."""
        self.is_watching = False
        """True while a timer runs."""
        self.round_trip: float | None = None
        """Seconds that the first reply took; None before it. A far server is silent for as long after each burst."""
        self._loop = loop
        self._patience = patience
        self._heard = heard
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def watch(self) -> None:
        """Begin to watch: a request waits."""
        if self.round_trip is not None:
            self._look_at(self._loop.time() + self._limit)

    def heard(self, quiet: float) -> None:
        """Note that a byte arrived after so many quiet seconds."""
        if self.round_trip is None:
            self.round_trip = quiet
        self.is_silent = False
        if not self.is_watching and self._heard.pending:
            self.watch()

    def stop(self) -> None:
        """Stop watching."""
        self.is_watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _limit(self) -> float:
        return self._patience + 2 * (self.round_trip or 0.0)

    def _look_at(self, when: float) -> None:
        self._due = when
        self.is_watching = True
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        self.is_watching = False
        if self.is_silent or not self._heard.pending:
            return
        now = self._loop.time()
        silent_at = self._heard.heard_at + self._limit
        if now - self._due > STALL_SECONDS:  # the loop stood still: what has arrived may not have been read yet
            self._look_at(now + self._limit)
        elif now < silent_at:
            self._look_at(silent_at)
        elif self._heard.movable_reads() < SUSPICIOUS_READS:
            self._look_at(now + self._limit)
        else:
            self.is_silent = True
            self._on_silence()
