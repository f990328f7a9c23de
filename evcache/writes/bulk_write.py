"""Bulk write: begins key after key as the zones take them, and collects the results, until the deadline.

`lanes` decides when the next key may begin. A key may not have begun when the deadline passes, or when the caller is
cancelled. It is then sent to no zone, neither now nor later. A key that has begun continues in every zone, as a single write
does, because half a write makes zones differ.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from evcache.errors import CacheUnavailable
from evcache.options import Options
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.gutter import GUTTER, GutterPool
from evcache.replication.lanes import STEP, Flow
from evcache.results import ACKNOWLEDGED, Outcome, WriteResult
from evcache.writes.ordinary_write import OrdinaryWrite, ordinary_zones
from evcache.writes.sender import RetriedWrite, Sender
from evcache.zones.errors import CacheError
from evcache.zones.snapshot import ClusterSnapshot

AnyKey = TypeVar("AnyKey", bound=Hashable)
Source = TypeVar("Source")

# Keys that are written to the gutter at once. Each takes a task.
GUTTER_KEYS = 256

# Seconds that the call waits beyond its deadline, so that the connections first fail requests with the same deadline. It is
# more than the resolution of an event loop's clock.
TIE_SECONDS = 1e-7


class BulkWrite(Generic[AnyKey]):
    """Keys of one call: those in flight, and the results of the others."""

    def __init__(
        self,
        sender: Sender,
        flow: Flow,
        view: ClusterSnapshot,
        options: Options,
        deadline: float,
        gutter: GutterPool | None = None,
    ) -> None:
        """Make it for one call.

        Args:
            sender: Parts of the client.
            flow: Flow control of the call.
            view: Zones.
            options: Number of acknowledgements, and the form of errors.
            deadline: End of the call, on the loop's clock.
            gutter: Takes writes that no zone took. If None, there is no gutter.
        """
        self._sender = sender
        self._flow = flow
        self._view = view
        self._options = options
        self._deadline = deadline
        self._gutter = gutter
        self._in_flight: deque[tuple[AnyKey, OrdinaryWrite | RetriedWrite]] = deque()
        self._results: dict[AnyKey, WriteResult] = {}
        # Keys whose result is known before every zone has answered. The outcomes of the other zones are read at the end.
        self._open: list[AnyKey] = []
        # Writes that no zone had answered when their result was taken, with their outcomes. Then those never answered.
        self._unanswered: list[tuple[OrdinaryWrite | RetriedWrite, dict[str, Outcome]]] = []
        self._unreachable: list[tuple[OrdinaryWrite | RetriedWrite, dict[str, Outcome]]] = []
        self._answered = False  # True if a readable zone, or the gutter, has answered for any key
        self._failures: dict[str, CacheError] = {}

    async def run(
        self, operation: str, sources: Mapping[AnyKey, Source], command: Callable[[Source], tuple[bytes, StoreCommand]]
    ) -> dict[AnyKey, WriteResult]:
        """Write all keys, and return a result for each.

        Args:
            operation: Name of the call, for errors.
            sources: Source of each write, by key.
            command: Makes the qualified key and the write of a source, when it is the turn of the key.

        Returns:
            The results, in the order of `sources`. A key that was not sent in time has `timeout` for every zone.

        Raises:
            CacheUnavailable: No zone could be reached for any key. Not with `errors="miss"`.
        """
        # A call that has spent its time on encoding proves nothing about the zones.
        had_time = self._deadline - self._view.loop.time() >= self._flow.patience
        try:
            try:
                async with asyncio.timeout_at(self._deadline + TIE_SECONDS) as scope:
                    await self._send(sources, command)
                    while self._in_flight:
                        await self._in_flight[0][1].wait_until_decided()
                        await self._collect()
            except TimeoutError:
                if not scope.expired():
                    raise
            await self._collect(late=True)
        finally:  # also for a caller that was cancelled, because the writes that have begun go on
            for _, sending in self._in_flight:
                sending.end()
        self._sort_unanswered()
        await self._store_in_gutter()
        if sources and not self._answered and had_time and self._options.errors == "raise":
            raise CacheUnavailable(operation, self._failures)
        await self._complete(sources)
        return self._results

    async def _send(self, sources: Mapping[AnyKey, Source], command: Callable[[Source], tuple[bytes, StoreCommand]]) -> None:
        flow, view = self._flow, self._view
        until = self._until()
        key = b""
        for count, (name, source) in enumerate(sources.items()):
            if count and not count % STEP:
                await self._collect()
                await asyncio.sleep(0)
                until = self._until()
            if flow.is_crowded:  # since the key before this one
                await self._collect()
                position = view.ring_position(key)
                await flow.room(pool.node(position) for pool in view.writers)
                until = self._until()
            key, store = command(source)
            self._in_flight.append((name, self._begin(key, store, until)))

    def _begin(self, key: bytes, store: StoreCommand, deadline: float) -> OrdinaryWrite | RetriedWrite:
        """Send a store to every zone, or let it wait for a zone that does not take it at once."""
        sender, flow, view, options = self._sender, self._flow, self._view, self._options
        zones = ordinary_zones(sender, view, store, flow)
        if zones is None:
            return RetriedWrite(sender, view, key, store, options, deadline=deadline, put=flow.put)
        return OrdinaryWrite(sender, view, store, options, zones, deadline, flow)

    def _until(self) -> float:
        """Return the deadline of a request that is sent now."""
        return max(self._deadline, self._view.loop.time() + self._flow.patience)

    async def _collect(self, *, late: bool = False) -> None:
        """Take the results of the completed keys, in order. If `late`, take those of all keys."""
        in_flight = self._in_flight
        step = 0
        while in_flight and (late or in_flight[0][1].is_decided):
            name, sending = in_flight.popleft()
            sending.end()
            write = sending.attempt
            outcomes = write.outcomes
            if not sending.is_decided:  # the deadline has passed
                outcomes = write.time_out_pending()
            elif _is_open(outcomes):
                self._open.append(name)
            if write.unanswered:
                self._unanswered.append((sending, outcomes))
            else:
                self._answered = True
            self._results[name] = WriteResult(write.met, sending.version, outcomes, write.fell_short)
            step += 1
            if not step % STEP:
                await asyncio.sleep(0)

    def _sort_unanswered(self) -> None:
        """Find the keys for which no zone could be reached. A key in flight before the deadline is not one of them."""
        is_late = self._view.loop.time() >= self._deadline
        for sending, outcomes in self._unanswered:
            write = sending.attempt
            if write.unreachable or (is_late and write.unanswered):
                self._unreachable.append((sending, outcomes))
                self._failures = self._failures or dict(write.failures)
            else:
                self._answered = True

    async def _store_in_gutter(self) -> None:
        gutter, view = self._gutter, self._view
        if gutter is None:
            return

        async def store(sending: OrdinaryWrite | RetriedWrite, outcomes: dict[str, Outcome]) -> None:
            write = sending.attempt
            assert isinstance(write.command, StoreCommand)
            outcome = await gutter.store(view, write.command, sending.deadline, write.age)
            write.note_gutter(outcome)
            outcomes[GUTTER] = outcome  # which are a copy if the deadline had passed
            self._answered = self._answered or outcome in ACKNOWLEDGED

        for first in range(0, len(self._unreachable), GUTTER_KEYS):
            await asyncio.gather(*(store(*write) for write in self._unreachable[first : first + GUTTER_KEYS]))
            if view.loop.time() >= self._deadline:
                break

    async def _complete(self, sources: Mapping[AnyKey, Source]) -> None:
        """Add the keys that were not sent, which come last, and freeze the outcomes of zones that are still in flight."""
        results = self._results
        zones = [pool.name for pool in self._view.writers]
        for step, name in enumerate(islice(sources, len(results), None), 1):
            results[name] = WriteResult(met=False, version=None, zones=dict.fromkeys(zones, Outcome.TIMEOUT))
            if not step % STEP:
                await asyncio.sleep(0)
        for step, name in enumerate(self._open, 1):
            result = results[name]
            if _is_open(result.zones):
                results[name] = WriteResult(result.met, result.version, dict(result.zones), result.fell_short)
            if not step % STEP:
                await asyncio.sleep(0)


def _is_open(outcomes: Mapping[str, Outcome]) -> bool:
    """Return True if a zone has no outcome yet. The write is not asked, because it would have to stay in memory for this."""
    return Outcome.PENDING in outcomes.values()
