"""Run of a measurement: store the keys, make the operations of the schedule, delete the keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

from evcache.admin.bench.pings import Pings, targets_of
from evcache.admin.bench.plan import Operation, Plan, Values, schedule
from evcache.admin.bench.record import MISS, NEAR, NodeTimes, Record
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.errors import CacheError, CacheUnavailable, NodeUnavailable
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Topology

REFRESH_SECONDS = 0.25

# Beyond the time that deleting takes at the rate of the plan. Keys that are left expire.
CLEAN_UP_SPARE_SECONDS = 5.0

# A bulk call takes longer than one for a key.
BULK_TIMEOUT_SECONDS = 2.0

WRONG_VALUE = "WrongValue"
TOO_FEW_ZONES = "TooFewZones"


class Bench:
    """One measurement. Use it once."""

    def __init__(
        self,
        plan: Plan,
        record: Record,
        cache: EVCache,
        settings: NodeSettings,
        refresh: Callable[[str], object],
        seed: int = 1,
    ) -> None:
        """Make a measurement.

        Args:
            plan: What it does.
            record: Receives the results.
            cache: Client that is not open, with `record` as its hooks and the TTL of the plan.
            settings: Connections of the pings.
            refresh: Called several times a second with the name of the present phase.
            seed: Seed of the order of operations.
        """
        self._plan = plan
        self._record = record
        self._cache = cache
        self._settings = settings
        self._refresh = refresh
        self._values = Values(plan)
        self._operations: Iterator[Operation] = schedule(plan, seed)
        self._stop = asyncio.Event()
        self._phase = "fill"

    async def run(self) -> None:
        """Run the measurement. Cancellation ends the load, and deletes the keys before it returns.

        Raises:
            CacheUnavailable: No readable zone answered.
        """
        async with self._cache as cache:
            topology = cache.topology
            assert topology is not None  # the client is open
            targets = targets_of(topology)
            self._record.nodes = [target.times for target in targets]
            pings = Pings(targets, self._settings, self._plan.max_p99)
            self._refresh("ping")
            await pings.measure_floor()
            check_any_answered(topology, self._record.nodes)
            try:
                await _run_until(self._stop, self._work(), [pings.watch(self._stop_for), self._show()])
            finally:
                try:
                    await self._clean_up()
                finally:
                    self._record.whole_traffic = cache.stats().traffic

    async def _work(self) -> None:
        await self._fill()
        self._phase = "load"
        self._refresh(self._phase)
        await self._load()

    def _stop_for(self, reason: str) -> None:
        self._record.stop(reason)
        self._stop.set()

    async def _show(self) -> None:
        while True:
            self._refresh(self._phase)
            await asyncio.sleep(REFRESH_SECONDS)

    # Keys.

    async def _fill(self) -> None:
        """Store all keys, at the rate of the plan."""
        plan, record = self._plan, self._record
        failed = 0
        async for first in self._paced(plan.keys):
            numbers = range(first, min(first + plan.batch, plan.keys))
            record.filled = numbers.stop  # before the call, because a call that fails may have stored some
            results = await self._cache.set_many(
                {plan.key(number): self._values.value(number) for number in numbers},
                consistency=plan.consistency,
                timeout=BULK_TIMEOUT_SECONDS,
            )
            failed += sum(not result for result in results.values())
            if failed > plan.max_errors * plan.keys:
                self._stop_for(f"too few zones stored {failed} of {numbers.stop} keys before the load")

    async def _clean_up(self) -> None:
        """Delete the keys, at the rate of the plan."""
        plan, record = self._plan, self._record
        record.left = record.filled
        try:
            async with asyncio.timeout(plan.filling_seconds + CLEAN_UP_SPARE_SECONDS):
                async for first in self._paced(record.filled):
                    keys = [plan.key(number) for number in range(first, min(first + plan.batch, record.filled))]
                    results = await self._cache.delete_many(
                        keys, consistency=Consistency.ALL, timeout=BULK_TIMEOUT_SECONDS, errors="miss"
                    )
                    record.left -= sum(bool(result) for result in results.values())
                    self._refresh("delete")
        except TimeoutError:
            pass  # the report has the number of keys that are left

    async def _paced(self, keys: int) -> AsyncIterator[int]:
        """Yield the first key of each batch when it is due."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for first in range(0, keys, self._plan.batch):
            await asyncio.sleep(max(0.0, began + self._plan.due(first) - loop.time()))
            yield first

    # Load.

    async def _load(self) -> None:
        loop, record = asyncio.get_running_loop(), self._record
        record.begin(loop.time(), self._cache.stats())
        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(self._plan.callers):
                    callers.create_task(self._call())
        finally:
            now = loop.time()
            for operation in self._operations:
                if record.due_at(operation) > now:
                    break
                record.never_sent(operation, now)
            record.end(now, self._cache.stats())

    async def _call(self) -> None:
        """Make operations in turn with the other callers, until none is left or the time is over."""
        loop, record = asyncio.get_running_loop(), self._record
        assert record.began is not None
        until = record.began + self._plan.seconds
        while loop.time() < until and (operation := next(self._operations, None)) is not None:
            delay = record.due_at(operation) - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            since = record.sent(operation, loop.time(), slept=delay > 0)
            try:
                await (self._write(operation, since) if operation.is_write else self._read(operation, since))
            except CacheError as error:
                record.failed(operation, type(error).__name__, str(error), since, loop.time())
            if record.stopped is not None:
                self._stop.set()

    async def _read(self, operation: Operation, since: float) -> None:
        loop, record = asyncio.get_running_loop(), self._record
        item = await self._cache.get_item(self._plan.key(operation.number), consistency=self._plan.consistency)
        now = loop.time()
        if item is None:
            record.read_ended(MISS, "none", since, now)
        elif item.value != self._values.value(operation.number):
            text = f"zone {item.zone} returned a wrong value for key {self._plan.key(operation.number)}"
            record.failed(operation, WRONG_VALUE, text, since, now)
        else:
            record.read_ended(NEAR if item.source == "near" else item.zone, item.source, since, now)

    async def _write(self, operation: Operation, since: float) -> None:
        loop, record, number = asyncio.get_running_loop(), self._record, operation.number
        result = await self._cache.set(
            self._plan.key(number), self._values.value(number), consistency=self._plan.consistency
        )
        if result:
            record.write_ended(since, loop.time())
        else:
            outcomes = ", ".join(f"{zone} {outcome}" for zone, outcome in result.zones.items())
            record.failed(operation, TOO_FEW_ZONES, f"too few zones acknowledged a write: {outcomes}", since, loop.time())


def check_any_answered(topology: Topology, nodes: Sequence[NodeTimes]) -> None:
    """Raise `CacheUnavailable` if no node of a readable zone answered a ping."""
    readable = {zone.name for zone in topology.readable}
    of_readable = [node for node in nodes if node.zone in readable]
    if not any(node.before.count for node in of_readable):
        failures: dict[str, CacheError] = {node.zone: NodeUnavailable(node.error or "", node.node) for node in of_readable}
        raise CacheUnavailable("bench", failures)


async def _run_until(
    stop: asyncio.Event, work: Coroutine[Any, Any, None], companions: Sequence[Coroutine[Any, Any, None]]
) -> None:
    """Run the work until it has ended or `stop` is set, and then cancel all. The first error ends all tasks."""
    try:
        async with asyncio.TaskGroup() as group:
            main = group.create_task(work)
            others = [group.create_task(companion) for companion in companions]
            stopping = group.create_task(stop.wait())
            await asyncio.wait([main, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (main, stopping, *others):
                task.cancel()
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from errors
