"""Comparison of two zones, key by key, with a repair of the stale copies on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from evcache.admin.copying.copier import Copier, CopyTally, look
from evcache.admin.copying.decision import is_held
from evcache.admin.copying.difference import Difference, Kind, Pair, difference, has_lasted, needs_values
from evcache.admin.copying.key_files import KeySource
from evcache.admin.copying.pace import Pace
from evcache.admin.copying.warm import BATCH_KEYS, SETTLE_SECONDS, batch_size
from evcache.zones.protocol.fields import INSPECT_FIELDS, INSPECT_VALUE_FIELDS
from evcache.zones.zone_pool import ZonePool

# Keys of each kind that the report names.
EXAMPLES = 5
# Keys that are compared again at once. They bound the memory, and make one pause serve many keys.
MOST_SUSPECTS = 50_000

Found = dict[bytes, Pair]


@dataclass(slots=True)
class CompareTally:
    """Result of a comparison so far."""

    compared: int = 0
    """Number of keys that both zones answered for."""
    unanswered: int = 0
    """Number of keys that a zone did not answer for."""
    differences: Counter[tuple[Kind, str | None]] = field(default_factory=Counter)
    """Number of differences by kind, and by the stale zone. The zone is None if nothing shows which zone is right."""
    examples: dict[tuple[Kind, str | None], list[bytes]] = field(default_factory=dict)
    """Some of the keys of each difference."""
    repaired: int = 0
    """Number of differences that a repair has removed. They are among the differences."""

    @property
    def different(self) -> int:
        """Number of keys that differ."""
        return self.differences.total()

    @property
    def remaining(self) -> int:
        """Number of keys that differ after the repairs."""
        return self.different - self.repaired


class Comparer:
    """One comparison of two zones."""

    def __init__(
        self,
        zones: tuple[ZonePool, ZonePool],
        keys: KeySource,
        *,
        keys_per_second: float,
        repair: bool,
        values: bool,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Make it.

        Args:
            zones: The two zones.
            keys: Source of the keys.
            keys_per_second: Limit of the rate. `math.inf` is no limit.
            repair: True to copy newer versions to the stale zone.
            values: True to compare the values of equal versions, too. All values are read then.
            sleep: Async function that pauses for the given seconds.
        """
        self.tally = CompareTally()
        """Result so far. Another task may read it."""
        self.copies = CopyTally()
        """Outcomes of the repairs."""
        self._zones = zones
        self._keys = keys
        self._pace = Pace(keys_per_second)
        self._batch_size = batch_size(keys_per_second)
        self._repair = repair
        self._fields = INSPECT_VALUE_FIELDS if values else INSPECT_FIELDS
        self._sleep = sleep
        self._copier = Copier(self.copies)
        self._suspects: dict[bytes, tuple[Difference, Pair]] = {}

    async def run(self) -> None:
        """Compare all keys of both zones. Cancellation ends the run; repairs that were sent have an effect.

        Raises:
            Unsupported: A server refuses to list its keys.
            NodeError: A server did not list its keys.
        """
        for place in (0, 1) if self._keys.depends_on_zone else (0,):
            async with aclosing(self._keys.batches(self._zones[place], self._batch_size)) as batches:
                async for batch in batches:
                    await self._compare(batch, skip_first=place == 1)
                    await self._sleep(self._pace.pause_after(len(batch), asyncio.get_running_loop().time()))
                    if len(self._suspects) >= MOST_SUSPECTS:
                        await self._confirm()
        await self._confirm()

    async def _compare(self, keys: Sequence[bytes], *, skip_first: bool) -> None:
        """Compare a batch. `skip_first`: leave out keys of the first zone, because its own list had them."""
        found = await self._look(keys)
        self.tally.unanswered += len(keys) - len(found)
        if skip_first:
            found = {key: items for key, items in found.items() if not is_held(items[0])}
        self.tally.compared += len(found)
        # Without the values, which would fill the memory.
        self._suspects |= {key: (one, _without_values(found[key])) for key, one in _differences(found).items()}

    async def _confirm(self) -> None:
        """Compare the keys that differ again, count those that still do, and repair them.

        A write of a client reaches the two zones at different times. It has reached both by now.
        """
        suspects, self._suspects = self._suspects, {}
        if suspects:
            await self._sleep(SETTLE_SECONDS)
        keys = list(suspects)
        for begin in range(0, len(keys), BATCH_KEYS):
            some = keys[begin : begin + BATCH_KEYS]
            found = await self._look(some)
            self.tally.unanswered += len(some) - len(found)
            self.tally.compared -= len(some) - len(found)
            different = {key: one for key, one in _differences(found).items() if has_lasted(*suspects[key], found[key])}
            for key, one in different.items():
                self._count(key, one)
            if self._repair:
                await self._repair_all(different)

    async def _look(self, keys: Sequence[bytes]) -> Found:
        """Return the items of both zones, for the keys that both answered for."""
        first, second = await asyncio.gather(*(look(pool, keys, self._fields) for pool in self._zones))
        found = {key: (first[key], second[key]) for key in keys if key in first and key in second}
        unordered = [] if self._fields is INSPECT_VALUE_FIELDS else [key for key in found if needs_values(found[key])]
        if unordered:
            first, second = await asyncio.gather(*(look(pool, unordered, INSPECT_VALUE_FIELDS) for pool in self._zones))
            found |= {key: (first[key], second[key]) for key in unordered if key in first and key in second}
        return found

    async def _repair_all(self, different: dict[bytes, Difference]) -> None:
        for stale in (0, 1):
            keys = [key for key, one in different.items() if one.stale == stale]
            if keys:
                await self._copier.copy(keys, self._zones[1 - stale], self._zones[stale])
                found = await self._look(keys)  # without the keys of a node that has stopped answering
                self.tally.repaired += len(found) - len(_differences(found))

    def _count(self, key: bytes, one: Difference) -> None:
        place = one.kind, None if one.stale is None else self._zones[one.stale].name
        self.tally.differences[place] += 1
        examples = self.tally.examples.setdefault(place, [])
        if len(examples) < EXAMPLES:
            examples.append(key)


def _without_values(items: Pair) -> Pair:
    first, second = (None if item is None else item._replace(value=None) for item in items)
    return first, second


def _differences(found: Found) -> dict[bytes, Difference]:
    pairs = ((key, difference(items)) for key, items in found.items())
    return {key: one for key, one in pairs if one is not None}
