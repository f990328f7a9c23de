"""Requests of clients and their results: one record for each key of each call, in memory."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from evcache.replication.hlc import COUNTER_BITS, WRITER_BITS
from integration.chaos.values import Value


class Kind(enum.StrEnum):
    """What was asked for."""

    SET = "set"
    DELETE = "delete"
    ADD = "add"
    CAS = "cas"
    REPLACE = "replace"
    APPEND = "append"
    PREPEND = "prepend"
    INCR = "incr"
    DECR = "decr"
    TOUCH = "touch"
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
    """A write that ended in an error. The client cannot say whether it was carried out."""
    REFUSED = "refused"
    """A conditional write that was decided against: it was not carried out."""


WRITES = frozenset(Kind) - {Kind.TOUCH, Kind.READ, Kind.LOOK}
CONDITIONAL = frozenset({Kind.ADD, Kind.CAS, Kind.REPLACE, Kind.APPEND, Kind.PREPEND, Kind.INCR, Kind.DECR})
"""The writes about which one zone decides."""

WRITE_TIMEOUT_SECONDS = 1.0
"""Timeout of a write. Its last request leaves the client within that time, even if the call has returned."""

SHORT_SECONDS = 60.0
"""A write or touch with a smaller ttl makes values expire within a run."""

SHORTER_SECONDS = 2.0
"""Time by which a server may forget an item before its ttl: a tick, and a second if the write was sent again."""

FLOOR_SECONDS = 0.02
"""Tolerance in seconds between the readings of two clocks, and for corrections of the wall clock."""

MAX_SKEW_SECONDS = 1.0
"""Largest difference between the clocks of two clients: half a second each."""


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
    """Version of the write, or of the item that was read, if the client received it."""
    value: Value | None = None
    """Written or read; None for a delete, for a miss, and for a counter. Of a list: the element that was added last."""
    acknowledged: tuple[str, ...] = ()
    """The zones that had acknowledged a write when it returned."""
    what: str = ""
    """The operation and its level, for the counts of a report; empty: the kind."""
    floor: int | None = None
    """Lower bound of the versions of an unconditional write. A write that is sent again gets a newer version, and readers
    may have seen the former one. If None, `version` is the only one."""
    ttl: float | None = None
    """Seconds to live that a write or touch asked for; None: the clients' default, longer than a run."""
    base: int | None = None
    """The version that a `cas` named."""
    number: int | None = None
    """Number of a counter that was set, read or returned."""
    elements: tuple[Value, ...] | None = None
    """Elements of a list that was read, in order."""
    refusal: str = ""
    """Outcome with which the deciding zone refused."""
    odd: str = ""
    """Value that was read from a counter in place of an int."""
    last_seen: float | None = None
    """Time at which the last look began that saw the same."""
    seen_until: float | None = None
    """Time by which the last look that saw the same was answered."""
    expires: float | None = None
    """Latest expiry of the item by the server's answer to a look, in seconds since the history began."""
    absence: bool = False
    """True for a look that found a tombstone or a remembered absence."""

    @property
    def is_write(self) -> bool:
        """True if it may have changed a value."""
        return self.kind in WRITES

    @property
    def is_acknowledged(self) -> bool:
        """True for a write that was reported to the client as successful."""
        return self.outcome is Outcome.OK and self.kind in WRITES

    @property
    def has_value(self) -> bool:
        """Whether it is a read that found something."""
        return (self.value is not None or self.number is not None) and self.kind in (Kind.READ, Kind.LOOK)

    @property
    def operation(self) -> str:
        """The operation and its level, for people."""
        return self.what or str(self.kind)

    @property
    def sent_by(self) -> float:
        """Time by which the last request of a write or touch had left the client."""
        return max(self.completed, self.invoked + WRITE_TIMEOUT_SECONDS)


def may_be_newer(one: Call, other: Call) -> bool:
    """Return True unless a write is certainly older than the other: by version, or by time where a version is not known."""
    if one.version is not None and other.version is not None:
        return one.version > other.version
    return one.completed + MAX_SKEW_SECONDS >= other.invoked


class History:
    """The calls of all clients. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[Call] = []
        self._clock = clock
        self._began = clock()
        self._wall_began = time.time()

    def now(self) -> float:
        """Seconds since the history began."""
        return self._clock() - self._began

    def floor(self, skew: float) -> int:
        """Return a version that is older than any that a client makes from now on whose clock is ahead by `skew` seconds."""
        return int((self._wall_began + self.now() + skew - FLOOR_SECONDS) * 1000) << COUNTER_BITS + WRITER_BITS

    def begin(self, client: str, key: str, kind: Kind, value: Value | None = None, *, what: str = "") -> Call:
        """Record a call that is about to be made. The caller then enters the result with `end`."""
        call = Call(client, key, kind, self.now(), value=value, what=what)
        self.calls.append(call)
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        """Enter the moment at which a call returned, and what came of it."""
        call.completed = self.now()
        call.outcome = outcome
