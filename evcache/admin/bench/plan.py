"""Parameters of a measurement, its schedule of operations, its keys and its values. No I/O and no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from evcache.consistency import Consistency

# Keys that a killed measurement leaves behind expire this long after the time at which it would have ended.
SPARE_TTL_SECONDS = 60

# Keys of one bulk write or delete. They are sent at the rate of the plan, a tenth of a second at a time.
MAX_BATCH = 200
BATCHES_PER_SECOND = 10

# A random block makes values that compression cannot shrink, so the traffic is that of their size.
_BLOCK_SEED = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of one measurement."""

    run: str
    """Text that no other measurement has. It is a part of every key, so no key of a user is touched."""
    seconds: float = 10.0
    """Seconds of load. Storing and deleting the keys takes time before and after it."""
    rate: float = 500.0
    """Operations per second."""
    callers: int = 8
    """Largest number of concurrent operations."""
    size: int = 100
    """Bytes of each value."""
    keys: int = 1000
    write_share: float = 0.1
    """Share of the operations that are writes, from 0 to 1."""
    consistency: Consistency | None = None
    """Level of reads and writes. If None, the defaults of a client."""
    max_errors: float = 0.05
    """Share of failed operations in a second, from 0 to 1, above which the measurement stops."""
    max_p99: float | None = 0.25
    """Seconds of the p99 in a second, and of the ping of a node, above which the measurement stops. If None, neither."""

    @property
    def operations(self) -> int:
        """Number of operations."""
        return max(1, math.floor(self.seconds * self.rate))

    @property
    def batch(self) -> int:
        """Number of keys that are stored or deleted at once."""
        return max(1, min(MAX_BATCH, int(self.rate / BATCHES_PER_SECOND)))

    @property
    def filling_seconds(self) -> float:
        """Seconds for storing all keys at the rate of the plan. Deleting them takes as long."""
        return self.keys / self.rate

    @property
    def ttl(self) -> int:
        """Seconds that a key lives. No key expires during the measurement."""
        return math.ceil(2 * self.filling_seconds + self.seconds) + SPARE_TTL_SECONDS

    def key(self, number: int) -> str:
        """Return the key of this number, without the namespace."""
        return f"{self.run}:{number}"

    def due(self, index: int) -> float:
        """Return the seconds after the start at which operation `index` begins."""
        return index / self.rate


class Operation(NamedTuple):
    """One operation of the schedule."""

    due: float
    """Seconds after the start."""
    is_write: bool
    number: int
    """Number of its key."""


def schedule(plan: Plan, seed: int) -> Iterator[Operation]:
    """Yield the operations in their order.

    The schedule is open-loop: the times do not depend on replies. A slow server therefore delays no later operation
    without a trace, which would hide its own slowness (coordinated omission).
    """
    choice = random.Random(seed)  # noqa: S311  # a load, not a secret
    for index in range(plan.operations):
        yield Operation(plan.due(index), choice.random() < plan.write_share, choice.randrange(plan.keys))


class Values:
    """Values of a measurement. Each names its key, so that a value of another key is noticed."""

    def __init__(self, plan: Plan) -> None:
        self._size = plan.size
        self._block = random.Random(_BLOCK_SEED).randbytes(plan.size)  # noqa: S311  # a load, not a secret

    def value(self, number: int) -> bytes:
        """Return the value of the key of this number. Values shorter than the number are a part of it."""
        name = b"%d;" % number
        return name[: self._size] + self._block[len(name) :]
