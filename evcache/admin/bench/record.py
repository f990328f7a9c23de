"""Results of a measurement while it runs. No I/O; times are arguments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from evcache.admin.bench.limits import Limits
from evcache.admin.bench.plan import Operation, Plan
from evcache.admin.latencies import Latencies
from evcache.hooks import Hooks
from evcache.results import ACKNOWLEDGED, Outcome
from evcache.stats import Stats, ZoneTraffic
from evcache.zones.errors import CacheError

# asyncio wakes a sleeper up to 1 ms late, because epoll counts in milliseconds. This delay is no latency of the servers.
TIMER_SECONDS = 0.001

MISS = "miss"
"""Name of reads that returned no value, in place of a zone."""
NEAR = "near cache"
"""Name of reads that the near cache served, in place of a zone."""

MAX_EXAMPLES = 3


@dataclass
class NodeTimes:
    """Pings of one node: round trips of the command `mn`, which touches no item."""

    zone: str
    node: str
    """Label of the node."""
    before: Latencies = field(default_factory=Latencies)
    """Pings before the load: the floor of what an operation can take."""
    during: Latencies = field(default_factory=Latencies)
    """Pings during the load."""
    failures: int = 0
    """Number of pings that failed during the load."""
    error: str | None = None
    """Reason for which the last failed ping failed."""


class Record(Hooks):
    """Results of one measurement. It is the listener of its client, too."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reads: defaultdict[str, Latencies] = defaultdict(Latencies)
        """Latencies of reads by the zone that served them, with `MISS` and `NEAR`."""
        self.all_reads = Latencies()
        """Latencies of all reads, failed ones included."""
        self.writes = Latencies()
        """Latencies of all writes, failed ones included."""
        self.lateness = Latencies()
        """Times from the moment at which an operation was due until it was sent, without the delay of a timer."""
        self.sources: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        """Failed operations, by kind."""
        self.examples: dict[str, None] = {}
        """Texts of some errors, in order."""
        self.completed = 0
        """Number of operations that ended, failed ones included."""
        self.not_sent = 0
        """Number of operations that were due, and that no caller could begin in time."""
        self.missed_writes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Outcomes of writes that a zone did not acknowledge, by zone."""
        self.fallbacks: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Reads that left a zone for another one, by zone and reason."""
        self.nodes: list[NodeTimes] = []
        self.filled = 0
        """Number of keys that were stored before the load."""
        self.left = 0
        """Number of keys that were not deleted. They expire."""
        self.stopped: str | None = None
        """Reason for which the measurement stopped early. None if it did not."""
        self.began: float | None = None
        """Time at which the load began. None before it."""
        self.ended: float | None = None
        """Time at which the load ended. None before its end."""
        self.traffic: Mapping[str, ZoneTraffic] = {}
        """Bytes to and from each zone during the load."""
        self.whole_traffic: Mapping[str, ZoneTraffic] = {}
        """Bytes to and from each zone from the opening of the client until the keys were deleted."""
        self.counts: Mapping[str, int] = {}
        """Counts of the client during the load."""
        self._limits = Limits(plan)
        self._before: Stats | None = None

    # Load.

    @property
    def is_running(self) -> bool:
        """True during the load."""
        return self.began is not None and self.ended is None

    def begin(self, now: float, stats: Stats) -> None:
        """Start the load at `now`."""
        self.began, self._before = now, stats
        for node in self.nodes:
            node.during = Latencies()  # storing the keys is no part of the results

    def end(self, now: float, stats: Stats) -> None:
        """End the load at `now`."""
        assert self._before is not None
        self.ended = now
        before = self._before.traffic
        self.traffic = {zone: _difference(before.get(zone), traffic) for zone, traffic in stats.traffic.items()}
        names = ("writes_resent", "failovers", "failovers_denied", "repairs", "repairs_skipped", "decode_errors")
        self.counts = {name: getattr(stats, name) - getattr(self._before, name) for name in names}

    def stop(self, reason: str) -> None:
        """Record the reason for which the measurement stops. The first one counts."""
        self.stopped = self.stopped or reason

    # Operations.

    def due_at(self, operation: Operation) -> float:
        """Return the time at which an operation is due."""
        assert self.began is not None
        return self.began + operation.due

    def sent(self, operation: Operation, now: float, *, slept: bool) -> float:
        """Record that an operation is sent now, and return the time from which its latency counts.

        It is the time at which the operation was due, so the wait for a free caller counts. The delay of a timer does not.

        Args:
            operation: The operation.
            now: Time.
            slept: True if a caller slept until the operation was due. False if all callers were busy then.
        """
        lateness = max(0.0, now - self.due_at(operation) - (TIMER_SECONDS if slept else 0.0))
        self.lateness.add(lateness)
        return now - lateness

    def read_ended(self, origin: str, source: str, since: float, now: float) -> None:
        """Record a read. `origin`: the zone that served it, or `MISS`, or `NEAR`. `source`: see `evcache.results.Source`."""
        self.reads[origin].add(now - since)
        self.sources[source] += 1
        self._ended(self.all_reads, since, now)

    def write_ended(self, since: float, now: float) -> None:
        """Record a write that enough zones acknowledged."""
        self._ended(self.writes, since, now)

    def failed(self, operation: Operation, kind: str, text: str, since: float, now: float) -> None:
        """Record an operation that failed."""
        self.errors[kind] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.setdefault(text)
        self._ended(self.writes if operation.is_write else self.all_reads, since, now)
        self._stop_for(self._limits.failed(now, text))

    def never_sent(self, operation: Operation, now: float) -> None:
        """Record an operation that was due before `now` and never sent. Its latency is at least the time it waited."""
        self.not_sent += 1
        (self.writes if operation.is_write else self.all_reads).add(now - self.due_at(operation))

    def _ended(self, latencies: Latencies, since: float, now: float) -> None:
        self.completed += 1
        latencies.add(now - since)
        self._stop_for(self._limits.took(now, now - since))

    def _stop_for(self, reason: str | None) -> None:
        if reason is not None:
            self.stop(reason)

    # Events of the client.

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """Count a write that a zone missed."""
        del late
        if outcome not in ACKNOWLEDGED and self.is_running:
            self.missed_writes[zone][outcome.value] += 1

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """Count a read that left a zone."""
        if self.is_running:
            self.fallbacks[zone]["miss" if error is None else type(error).__name__] += 1


def _difference(before: ZoneTraffic | None, after: ZoneTraffic) -> ZoneTraffic:
    sent, received = (0, 0) if before is None else (before.sent, before.received)
    return ZoneTraffic(after.sent - sent, after.received - received, after.is_local)
