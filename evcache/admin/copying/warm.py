"""Warm-up: the items of one zone are copied to another, at a limited rate.

A target that is a write-only zone receives the writes of all clients during the run. The guarded store orders both: a copy
never replaces a newer version. The run may end at any moment. The next run finds the keys that are in place, and copies the
rest.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from evcache.admin.copying.copier import Copier, CopyTally, look
from evcache.admin.copying.decision import is_held, is_wanted
from evcache.admin.copying.difference import expires_soon
from evcache.admin.copying.key_files import KeySource, reservoir_step
from evcache.admin.copying.pace import Pace
from evcache.replication.commands.node_requests import Peeked
from evcache.zones.protocol.fields import INSPECT_FIELDS
from evcache.zones.zone_pool import ZonePool

# Most keys of one batch. A batch is one request to each node, and its values are in memory. At a low rate, a batch has the
# keys of a short time, so that the load is even.
BATCH_KEYS = 200
BATCH_SECONDS = 0.2
# Batches in flight. They hide the round trips between the zones.
BATCHES_IN_FLIGHT = 4

# A copy must not disturb the traffic of the source. One connection to a node carries about 100,000 requests per second.
DEFAULT_RATE = 5_000.0

# Attempts for the keys of a node that does not answer, and the seconds between them. A restart takes a second or two.
ATTEMPTS = 4
RETRY_SECONDS = 1.0

SAMPLE_KEYS = 1_000
# Seconds until a key that differs is compared again. A write has reached all zones by then, see `EVCache(write_timeout=)`.
SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WarmLimits:
    """Limits of a warm-up."""

    keys_per_second: float = DEFAULT_RATE
    """Keys per second. `math.inf` is no limit."""
    bytes_per_second: float = math.inf
    """Bytes of values per second. `math.inf` is no limit."""


@dataclass(frozen=True, slots=True)
class SampleCheck:
    """Comparison of some of the keys after the copy."""

    keys: int
    """Number of keys that were compared."""
    in_place: int
    """Number of keys that the target holds in the source's version or a newer one, or that the source does not hold."""


def batch_size(rate: float) -> int:
    """Return the number of keys of one batch at this rate, in keys per second."""
    return max(1, int(min(BATCH_KEYS, rate * BATCH_SECONDS)))


class WarmUp:
    """One warm-up."""

    def __init__(
        self,
        source: ZonePool,
        target: ZonePool,
        keys: KeySource,
        limits: WarmLimits,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Make it.

        Args:
            source: Zone whose items are copied.
            target: Zone that receives them.
            keys: Source of the keys.
            limits: Limits of the rate.
            sleep: Async function that pauses for the given seconds.
        """
        self.tally = CopyTally()
        """Numbers so far. Another task may read them."""
        self._source = source
        self._target = target
        self._keys = keys
        self._sleep = sleep
        self._copier = Copier(self.tally)
        self._rate = limits.keys_per_second
        self._of_keys = Pace(limits.keys_per_second)
        self._of_bytes = Pace(limits.bytes_per_second)
        self._sample: list[bytes] = []
        self._seen = 0
        self._random = random.Random()  # noqa: S311  # a sample, not a secret

    async def run(self) -> None:
        """Copy all keys. Cancellation ends the run between two commands: each item is copied or not.

        Raises:
            Unsupported: A server of the source refuses to list its keys.
            NodeError: A server of the source did not list its keys.
        """
        turn = asyncio.Lock()
        try:
            async with (
                aclosing(self._keys.batches(self._source, batch_size(self._rate))) as batches,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(BATCHES_IN_FLIGHT):
                    group.create_task(self._work(batches, turn))
        except BaseExceptionGroup as errors:  # the first one has cancelled the other tasks
            raise errors.exceptions[0] from None

    async def _work(self, batches: AsyncIterator[Sequence[bytes]], turn: asyncio.Lock) -> None:
        while True:
            async with turn:  # a generator serves one task at a time
                batch = await anext(batches, None)
                if batch is None:
                    return
                await self._sleep(self._of_keys.pause_after(len(batch), asyncio.get_running_loop().time()))
            self._keep_sample(batch)
            before = self.tally.value_bytes
            await self._copy(batch)
            spent = self.tally.value_bytes - before
            await self._sleep(self._of_bytes.pause_after(spent, asyncio.get_running_loop().time()))

    async def _copy(self, batch: Sequence[bytes]) -> None:
        """Copy a batch. The keys of a node that does not answer are tried again."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._sleep(RETRY_SECONDS)
            batch = await self._copier.copy(batch, self._source, self._target)
            if not batch:
                return
        self.tally.failed += len(batch)

    def _keep_sample(self, batch: Sequence[bytes]) -> None:
        for key in batch:
            self._seen += 1
            reservoir_step(self._sample, key, self._seen, SAMPLE_KEYS, self._random)

    async def check(self) -> SampleCheck:
        """Compare a random sample of the keys in both zones.

        A write of a client reaches the two zones at different times. So keys that seem to be missing are compared again.
        """
        missing = await self._missing(dict.fromkeys(self._sample))
        if missing:
            await self._sleep(SETTLE_SECONDS)
            missing = await self._missing(missing)
        return SampleCheck(len(self._sample), len(self._sample) - len(missing))

    async def _missing(self, keys: Mapping[bytes, Peeked | None]) -> dict[bytes, Peeked | None]:
        """Return the keys whose item the target lacks, or holds in an older version, or of which a zone did not answer.

        Args:
            keys: Keys, each with the item of the source at an earlier look. A key that is written all the time is newer in
                the source at each look, so the target must lack the earlier item, too. If None, there was no look.

        Returns:
            The keys with the item of the source. None if a zone did not answer.
        """
        missing: dict[bytes, Peeked | None] = {}
        names = list(keys)
        for begin in range(0, len(names), BATCH_KEYS):
            some = names[begin : begin + BATCH_KEYS]
            source = await look(self._source, some, INSPECT_FIELDS)
            target = await look(self._target, some, INSPECT_FIELDS)
            for key in some:
                if key not in source or key not in target:
                    missing[key] = None
                elif _lacks(source[key], target[key]) and (keys[key] is None or _lacks(keys[key], target[key])):
                    missing[key] = source[key]
        return missing


def _lacks(source: Peeked | None, target: Peeked | None) -> bool:
    """Return True if the target lacks the item of the source, although a copy would not have expired."""
    return is_wanted(source, target) and (is_held(target) or not expires_soon(source))
