"""What clients asked for and what they were told: one record for each key of each call, in memory."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from integration.chaos.values import Value


class Kind(enum.StrEnum):
    """What was asked for."""

    SET = "set"
    DELETE = "delete"
    ADD = "add"
    CAS = "cas"
    READ = "read"
    LOOK = "look"
    """A look at a zone's server itself, which stands for the client: another one each time that it was started empty."""


class Outcome(enum.StrEnum):
    """What came of it."""

    PENDING = "pending"
    OK = "ok"
    """A read that was answered, if by a miss; a write that enough zones acknowledged."""
    FAILED = "failed"
    """A read that was not answered; a write that too few zones acknowledged, though some may have it."""
    UNKNOWN = "unknown"
    """A write that ended in an error: nobody can say whether it was carried out."""
    REFUSED = "refused"
    """An `add` or `cas` that was decided against: it was not carried out."""


WRITES = frozenset({Kind.SET, Kind.DELETE, Kind.ADD, Kind.CAS})


@dataclass(slots=True, eq=False)
class Call:
    """One call for one key. Times are seconds since the history began; a call that is under way ends never."""

    client: str
    key: str
    kind: Kind
    invoked: float
    completed: float = math.inf
    outcome: Outcome = Outcome.PENDING
    version: int | None = None
    """Of the write, or of the item that was read, where the client was told."""
    value: Value | None = None
    """Written or read; None for a delete and for a miss."""
    acknowledged: tuple[str, ...] = ()
    """The zones that had acknowledged a write when it returned."""

    @property
    def is_write(self) -> bool:
        """Whether it may have changed anything."""
        return self.kind in WRITES

    @property
    def is_acknowledged(self) -> bool:
        """Whether it is a write that the client was told has succeeded."""
        return self.outcome is Outcome.OK and self.kind in WRITES

    @property
    def has_value(self) -> bool:
        """Whether it is a read that found something."""
        return self.value is not None and self.kind not in WRITES


class History:
    """The calls of all clients. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[Call] = []
        self._clock = clock
        self._began = clock()

    def now(self) -> float:
        """Seconds since the history began."""
        return self._clock() - self._began

    def begin(self, client: str, key: str, kind: Kind, value: Value | None = None) -> Call:
        """Record a call that is about to be made. Whoever made it enters what came of it."""
        call = Call(client, key, kind, self.now(), value=value)
        self.calls.append(call)
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        """Enter the moment at which a call returned, and what came of it."""
        call.completed = self.now()
        call.outcome = outcome
