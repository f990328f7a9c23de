"""Results of a demo for each second, and their evaluation, without I/O."""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evcache.admin.latencies import Latencies

# Each value repeats its text, so that a torn or mixed value is recognized. About 200 bytes, the size of a small session.
VALUE_REPEATS = 12

# The local zone has recovered when it serves this share of the reads in one window. On servers without versions, keys are
# missing there until they are written again.
BACK_SHARE = 0.9
BACK_WINDOW_SECONDS = 0.25

# Number of distinct error texts in the summary.
MAX_ERRORS = 5


class Phase(enum.StrEnum):
    """Time of a read relative to the outage."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


@dataclass
class Tally:
    """Counts of reads and writes.

    Each read is served, missed, failed or wrong. Each write is acknowledged or refused.
    """

    served: Counter[str] = field(default_factory=Counter)
    """Reads that returned a right value, by the zone that served them."""
    missed: int = 0
    lost: int = 0
    """Missed reads of a key with an acknowledged write. No key is deleted or expires, so the key was lost."""
    failed: int = 0
    """Reads that raised an error."""
    wrong: int = 0
    """Reads that returned the value of another key, a torn value, or a value that was never written."""
    older: int = 0
    """Served reads of an older write than the latest acknowledged when the read began."""
    acknowledged: int = 0
    refused: int = 0

    @property
    def reads(self) -> int:
        """Number of reads."""
        return self.served.total() + self.missed + self.failed + self.wrong


@dataclass
class Second:
    """Results of one second of a demo."""

    states: dict[str, str]
    """Last state of each zone in this second."""
    tally: Tally = field(default_factory=Tally)
    events: list[str] = field(default_factory=list)


class Recovery:
    """Time from the restart of the local zone until it serves reads again."""

    def __init__(self) -> None:
        self.first: float | None = None
        """Seconds until the local zone served its first read. None before that."""
        self.complete: float | None = None
        """Seconds until the local zone served most reads. None before that."""
        self._restarted: float | None = None
        self._window_ends = 0.0
        self._window: Counter[bool] = Counter()

    def start(self, now: float) -> None:
        """Start the measurement at the restart of the zone."""
        self._restarted = now
        self._window_ends = now + BACK_WINDOW_SECONDS

    def read(self, now: float, *, local: bool) -> None:
        """Count a read that ended at `now`."""
        if self._restarted is None or self.complete is not None:
            return
        if now >= self._window_ends:
            if self._window[True] >= BACK_SHARE * self._window.total() > 0:
                self.complete = self._window_ends - self._restarted
                return
            self._window.clear()
            self._window_ends = now + BACK_WINDOW_SECONDS
        self._window[local] += 1
        if local and self.first is None:
            self.first = now - self._restarted


class Record:
    """Results of one demo."""

    def __init__(self, zones: Sequence[str], local_zone: str, timer: Callable[[], float] = time.monotonic) -> None:
        """Start the first second now. `timer` returns seconds since any origin."""
        self.zones = tuple(zones)
        self.local_zone = local_zone
        self.timer = timer
        self.phase = Phase.BEFORE
        self.total = Tally()
        self.latencies = {phase: Latencies() for phase in Phase}
        self.recovery = Recovery()
        self.errors: list[str] = []
        self.acknowledged: dict[str, int] = {}
        """Number of the latest acknowledged write, by key."""
        self._issued: dict[str, int] = {}
        self._states = dict.fromkeys(self.zones, "up")
        self._seconds: list[Second] = []
        self._began = timer()

    @property
    def seconds(self) -> list[Second]:
        """Seconds until now. The last one has not ended."""
        index = int(self.timer() - self._began)
        while len(self._seconds) <= index:
            self._seconds.append(Second(dict(self._states)))
        return self._seconds

    def begin(self) -> None:
        """Start the first second again at this moment."""
        self._began = self.timer()
        self._seconds.clear()

    # Zones.

    def set_zone_state(self, zone: str, state: str, event: str) -> None:
        """Record a new state of a zone (`up`, `down`, `paused`). `event` describes it for the user."""
        second = self.seconds[-1]  # created first, because earlier seconds get the previous state
        self._states[zone] = state
        second.states[zone] = state
        second.events.append(event)

    # Writes.

    def next_write(self, key: str) -> int:
        """Return a number for the next write of a key."""
        self._issued[key] = self._issued.get(key, 0) + 1
        return self._issued[key]

    def record_write(self, key: str, number: int, *, acknowledged: bool) -> None:
        """Record the end of a write."""
        for tally in self._tallies():
            if acknowledged:
                tally.acknowledged += 1
            else:
                tally.refused += 1
        if acknowledged:
            self.acknowledged[key] = max(number, self.acknowledged.get(key, 0))

    # Reads. `known` is the acknowledged write of the key and `phase` the phase when the read began. `took` is in seconds.

    def record_hit(self, key: str, value: object, zone: str, known: int | None, phase: Phase, took: float) -> None:
        """Record a read that returned a value."""
        number = write_number(key, value)
        right = number is not None and number <= self._issued.get(key, 0)
        for tally in self._tallies():
            if number is None or not right:
                tally.wrong += 1
            else:
                tally.served[zone] += 1
                tally.older += number < (known or 0)
        self._read_ended(phase, took, local=right and zone == self.local_zone)
        if not right:
            self._keep(f"wrong value for {key} from {zone}: {str(value)[:80]!r}")

    def record_miss(self, key: str, known: int | None, phase: Phase, took: float) -> None:
        """Record a read that returned no value."""
        for tally in self._tallies():
            tally.missed += 1
            tally.lost += known is not None
        self._read_ended(phase, took, local=False)
        if known is not None:
            self._keep(f"{key} is missing: write {known} was acknowledged")

    def record_failure(self, error: Exception, phase: Phase, took: float) -> None:
        """Record a read that raised an error."""
        for tally in self._tallies():
            tally.failed += 1
        self._read_ended(phase, took, local=False)
        self._keep(f"{type(error).__name__}: {error}")

    def _read_ended(self, phase: Phase, took: float, *, local: bool) -> None:
        self.latencies[phase].add(took)
        self.recovery.read(self.timer(), local=local)

    def _tallies(self) -> tuple[Tally, Tally]:
        return self.total, self.seconds[-1].tally

    def _keep(self, error: str) -> None:
        if len(self.errors) < MAX_ERRORS and error not in self.errors:
            self.errors.append(error)


def value_of(key: str, number: int) -> str:
    """Return the value of a write, which repeats its key and number throughout."""
    return f"{key}/{number:08d};" * VALUE_REPEATS


def write_number(key: str, value: object) -> int | None:
    """Return the number of the write that stored a value. None if the value is torn or belongs to another key."""
    if not isinstance(value, str):
        return None
    name, _, number = value.partition(";")[0].rpartition("/")
    if name != key or not number.isdecimal() or value != value_of(key, int(number)):
        return None
    return int(number)


def find_problems(total: Tally) -> list[str]:
    """Return a sentence for each kind of fault in the results. An empty list means that no fault was found."""
    found = []
    if not total.reads:
        found.append("no read was made")
    if total.failed:
        found.append(f"{total.failed} reads raised an error")
    if total.lost:
        found.append(f"{total.lost} reads missed an acknowledged key")
    if total.wrong:
        found.append(f"{total.wrong} reads returned a wrong value")
    return found


def format_states(states: Mapping[str, str]) -> str:
    """Return the states of the zones in one line."""
    return ", ".join(f"{zone} {state}" for zone, state in states.items())
