"""Estimate of what a measurement costs: bytes to and from each zone, memory, and the reasons to ask for confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evcache.admin.bench.plan import Plan
from evcache.consistency import Consistency
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.topology.model import Mode

# Bytes of requests and replies beside key and value. Measured with `EVCache.stats` on memcached 1.6.38, and rounded. Servers
# without versions get one plain store, which is less.
_READ_SENT = 19
_READ_RECEIVED = 48
_COPY_SENT = 65
_COPY_RECEIVED = 10
_LARGE_WRITE_SENT = 225
_LARGE_WRITE_RECEIVED = 40

# A guarded store sends values up to this size three times (docs/architecture.md), and larger ones once.
COPIED_UP_TO = 128
COPIES = 3

# Header, CAS and slab rounding of an item.
ITEM_OVERHEAD = 100

# Above these a measurement may hurt other users of the zones.
GENTLE_RATE = 20_000.0
# A twentieth of a link of 10 Gbit/s.
GENTLE_BYTES_PER_SECOND = 60e6
# The default memory of a memcached. More could evict the keys of others.
GENTLE_MEMORY_BYTES = 64e6


@dataclass(frozen=True, slots=True)
class ZoneCost:
    """Estimated bytes to and from one zone, for storing, the load and deleting."""

    name: str
    mode: str
    nodes: int
    is_local: bool
    sent: int
    received: int

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.sent + self.received


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated costs of a measurement."""

    zones: tuple[ZoneCost, ...]
    """Zones in the order of the topology. Without a local zone, one zone serves the reads, and which one is not known: each
    zone has its share of the reads."""
    memory: int
    """Bytes in each zone until the keys are deleted."""

    @property
    def cross_zone(self) -> int:
        """Bytes to and from zones other than the local one."""
        return sum(zone.total for zone in self.zones if not zone.is_local)


def estimate(plan: Plan, namespace: str, zones: ClusterSnapshot) -> Estimate:
    """Return the costs of a plan on these zones. Nothing is sent.

    Args:
        plan: The measurement.
        namespace: Prefix of its keys.
        zones: The zones.
    """
    key = len(namespace) + 1 + len(plan.key(plan.keys - 1))
    writes = plan.keys + round(plan.operations * plan.write_share)
    reads = plan.operations - round(plan.operations * plan.write_share)
    write_sent, write_received = _write(key, plan.size)
    delete_sent, delete_received = _write(key, 0)
    readable = [zone.name for zone in zones.topology.readable]
    read_share = _read_shares(plan, readable, zones.local)
    costs = []
    for zone in zones.topology.zones:
        here = reads * read_share.get(zone.name, 0.0)
        sent = here * (key + _READ_SENT) + writes * write_sent + plan.keys * delete_sent
        received = here * (plan.size + _READ_RECEIVED) + writes * write_received + plan.keys * delete_received
        is_local = zone.name == zones.local
        costs.append(ZoneCost(zone.name, Mode(zone.mode).value, len(zone.nodes), is_local, round(sent), round(received)))
    return Estimate(tuple(costs), plan.keys * (key + plan.size + ITEM_OVERHEAD))


def reasons_to_confirm(plan: Plan, costs: Estimate) -> list[str]:
    """Return the limits that a plan exceeds. A measurement above them may hurt other users of the zones."""
    seconds = plan.seconds + 2 * plan.filling_seconds
    per_second = sum(zone.total for zone in costs.zones) / seconds
    reasons = []
    if plan.rate > GENTLE_RATE:
        reasons.append(f"--rate {plan.rate:g} is above {GENTLE_RATE:g} operations per second")
    if per_second > GENTLE_BYTES_PER_SECOND:
        reasons.append(
            f"--rate {plan.rate:g} with --size {plan.size} is about {per_second / 1e6:.0f} MB per second, above "
            f"{GENTLE_BYTES_PER_SECOND / 1e6:.0f} MB"
        )
    if costs.memory > GENTLE_MEMORY_BYTES:
        reasons.append(
            f"--keys {plan.keys} with --size {plan.size} is about {costs.memory / 1e6:.0f} MB in each zone, above "
            f"{GENTLE_MEMORY_BYTES / 1e6:.0f} MB"
        )
    return reasons


def _write(key: int, size: int) -> tuple[int, int]:
    """Return the bytes sent and received for one write in one zone. A delete is the write of an empty value."""
    if size <= COPIED_UP_TO:
        return COPIES * (key + size + _COPY_SENT), COPIES * _COPY_RECEIVED
    return 4 * key + size + _LARGE_WRITE_SENT, _LARGE_WRITE_RECEIVED


def _read_shares(plan: Plan, readable: Sequence[str], local: str | None) -> dict[str, float]:
    """Return the share of the reads that each zone gets. Above `one`, every readable zone is asked."""
    if plan.consistency not in (None, Consistency.NONE, Consistency.ONE):
        return dict.fromkeys(readable, 1.0)
    if local is not None and local in readable:
        return {local: 1.0}
    return dict.fromkeys(readable, 1 / len(readable))
