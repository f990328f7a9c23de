"""What a demo saw, second by second, and the judgement about it. Plain functions and counters: no I/O, no tasks."""

from __future__ import annotations

import enum
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# Every value repeats its text this often, so that a torn or mixed one can't look whole. About 200 bytes: the size of a
# small session.
VALUE_REPEATS = 12

# Latencies are kept as counts in buckets, each this much wider than the one before: quantiles to 5 %, in constant memory.
BUCKET_GROWTH = 1.05
SHORTEST_SECONDS = 1e-6

# Reads count as back in the local zone once it serves this share of them for this long. Not all of them: on servers
# without versions, keys are missing there until they are written again.
BACK_SHARE = 0.9
BACK_WINDOW_SECONDS = 0.25

# Distinct error texts that are kept: enough to see what is wrong, and no flood.
MAX_ERRORS = 5


class Phase(enum.StrEnum):
    """When a read began, seen from the outage."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


@dataclass
class Tally:
    """Counts. Each read is one of served, missed, failed and wrong; each write is acknowledged or refused."""

    served: Counter[str] = field(default_factory=Counter)
    """Reads that brought a right value, by the zone that it came from."""
    missed: int = 0
    lost: int = 0
    """Those of the missed whose key had been acknowledged: nothing may delete or expire it, so it was lost."""
    failed: int = 0
    """Reads that raised."""
    wrong: int = 0
    """Reads that brought another key's value, a torn one, or one that nobody wrote."""
    older: int = 0
    """Those of the served that brought an older write than was acknowledged when they began."""
    acknowledged: int = 0
    refused: int = 0

    @property
    def reads(self) -> int:
        """All reads."""
        return self.served.total() + self.missed + self.failed + self.wrong


@dataclass
class Second:
    """One second of a demo."""

    states: dict[str, str]
    """Each zone's state, the last one it had in this second."""
    tally: Tally = field(default_factory=Tally)
    events: list[str] = field(default_factory=list)


class Latencies:
    """How long reads took."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self._buckets[math.ceil(math.log(max(seconds, SHORTEST_SECONDS), BUCKET_GROWTH))] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share (0 to 1) of them was done, to 5 %; None when there were none."""
        wanted = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return float(BUCKET_GROWTH**bucket)
        return None


class Return:
    """When reads came back to the local zone. Times are on the record's timer, results in seconds since the restart."""

    def __init__(self) -> None:
        self.first: float | None = None
        """Until the first read was served there; None: not yet."""
        self.back: float | None = None
        """Until it served most of them; None: not yet."""
        self._restarted: float | None = None
        self._window_ends = 0.0
        self._window: Counter[bool] = Counter()

    def restarted(self, now: float) -> None:
        """The zone answers again."""
        self._restarted = now
        self._window_ends = now + BACK_WINDOW_SECONDS

    def read(self, now: float, *, local: bool) -> None:
        """A read ended."""
        if self._restarted is None or self.back is not None:
            return
        if now >= self._window_ends:
            if self._window[True] >= BACK_SHARE * self._window.total() > 0:
                self.back = self._window_ends - self._restarted
                return
            self._window.clear()
            self._window_ends = now + BACK_WINDOW_SECONDS
        self._window[local] += 1
        if local and self.first is None:
            self.first = now - self._restarted


class Record:
    """Everything that one demo saw."""

    def __init__(self, zones: Sequence[str], local_zone: str, timer: Callable[[], float] = time.monotonic) -> None:
        """The first second begins now. `timer`: seconds, from any origin."""
        self.zones = tuple(zones)
        self.local_zone = local_zone
        self.timer = timer
        self.phase = Phase.BEFORE
        self.total = Tally()
        self.latencies = {phase: Latencies() for phase in Phase}
        self.returned = Return()
        self.errors: list[str] = []
        self.acknowledged: dict[str, int] = {}
        """The number of the newest acknowledged write, by key."""
        self._issued: dict[str, int] = {}
        self._states = dict.fromkeys(self.zones, "up")
        self._seconds: list[Second] = []
        self._began = timer()

    @property
    def seconds(self) -> list[Second]:
        """The seconds until now. The last one is under way."""
        index = int(self.timer() - self._began)
        while len(self._seconds) <= index:
            self._seconds.append(Second(dict(self._states)))
        return self._seconds

    def begin(self) -> None:
        """Let the first second begin now, and not when the record was made."""
        self._began = self.timer()
        self._seconds.clear()

    # What happens to the zones.

    def zone_became(self, zone: str, state: str, event: str) -> None:
        """A zone changed its state (`up`, `down`, `paused`); `event` says so to a reader."""
        second = self.seconds[-1]  # first: the seconds before this one get the states that they had
        self._states[zone] = state
        second.states[zone] = state
        second.events.append(event)

    # Writes.

    def next_write(self, key: str) -> int:
        """The number of the next write to a key."""
        self._issued[key] = self._issued.get(key, 0) + 1
        return self._issued[key]

    def wrote(self, key: str, number: int, *, acknowledged: bool) -> None:
        """A write ended."""
        for tally in self._tallies():
            if acknowledged:
                tally.acknowledged += 1
            else:
                tally.refused += 1
        if acknowledged:
            self.acknowledged[key] = max(number, self.acknowledged.get(key, 0))

    # Reads. `known` is what `acknowledged` said of the key when the read began, `phase` when that was, `took` in seconds.

    def read_hit(self, key: str, value: object, zone: str, known: int | None, phase: Phase, took: float) -> None:
        """A read brought a value from a zone."""
        number = number_in(key, value)
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

    def read_missed(self, key: str, known: int | None, phase: Phase, took: float) -> None:
        """A read found nothing."""
        for tally in self._tallies():
            tally.missed += 1
            tally.lost += known is not None
        self._read_ended(phase, took, local=False)
        if known is not None:
            self._keep(f"{key} is missing, though write {known} was acknowledged")

    def read_failed(self, error: Exception, phase: Phase, took: float) -> None:
        """A read raised."""
        for tally in self._tallies():
            tally.failed += 1
        self._read_ended(phase, took, local=False)
        self._keep(f"{type(error).__name__}: {error}")

    def _read_ended(self, phase: Phase, took: float, *, local: bool) -> None:
        self.latencies[phase].add(took)
        self.returned.read(self.timer(), local=local)

    def _tallies(self) -> tuple[Tally, Tally]:
        return self.total, self.seconds[-1].tally

    def _keep(self, error: str) -> None:
        if len(self.errors) < MAX_ERRORS and error not in self.errors:
            self.errors.append(error)


def value_of(key: str, number: int) -> str:
    """The value of a key's write with this number: it names both, from its beginning to its end."""
    return f"{key}/{number:08d};" * VALUE_REPEATS


def number_in(key: str, value: object) -> int | None:
    """The number of the write that a value of this key came from; None for another key's, a torn one, or anything else."""
    if not isinstance(value, str):
        return None
    name, _, number = value.partition(";")[0].rpartition("/")
    if name != key or not number.isdecimal() or value != value_of(key, int(number)):
        return None
    return int(number)


def problems(total: Tally) -> list[str]:
    """What a demo must not have seen, one sentence each. None: it may say that all went well."""
    found = []
    if not total.reads:
        found.append("no read was made")
    if total.failed:
        found.append(f"{total.failed} reads raised an error")
    if total.lost:
        found.append(f"{total.lost} reads missed a key that was acknowledged")
    if total.wrong:
        found.append(f"{total.wrong} reads brought a wrong value")
    return found


def states_of(states: Mapping[str, str]) -> str:
    """The zones' states in one line."""
    return ", ".join(f"{zone} {state}" for zone, state in states.items())
