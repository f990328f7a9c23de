"""Hinted handoff: hints of writes that a zone missed, and their delivery when the zone has recovered.

A delivery uses the guarded store, like every write, so a late delivery cannot replace a newer version. Deletes are delivered
first, because until then the zone serves deleted values.

While the hint of a delete is stored, this client pins its version, and accepts no older value of the key from any zone.
Other clients do not know the delete. The zone that missed it may serve them the value until the delivery.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from evcache._helpers.background import BackgroundTasks
from evcache._helpers.retry import retry_forever, wait_until_set
from evcache.hooks import HintEnd, Hooks
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.handoff.delivery import DELIVERY_TIMEOUT_SECONDS, batches, has_expired, send_hint
from evcache.replication.handoff.hints import Hint, Hints, HintStore, Kind
from evcache.replication.handoff.journal import HintJournal
from evcache.replication.hlc import NOTHING_NEWER, HybridLogicalClock
from evcache.replication.repair.read_repair import ReadRepair
from evcache.replication.seen_versions import SeenVersions
from evcache.results import Outcome
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError, ServerError, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.topology.model import Topology

# Concurrent deliveries.
MAX_DELIVERIES = 32

# Pauses between passes over the hints. A node that is down is not asked, and its recovery wakes the task. The pauses are for
# a reachable node that did not take a delivery, and for a node that has replaced another.
RETRY_FIRST_SECONDS = 0.5
RETRY_LONGEST_SECONDS = 5.0

# Hints for nodes that are down that are skipped before the event loop runs other tasks: a millisecond or two.
MAX_SKIPPED = 1_000

_ENDS: dict[Outcome, HintEnd] = {
    Outcome.STORED: "delivered",
    Outcome.SUPERSEDED: "superseded",
}

_log = logging.getLogger("evcache.replication")


class HintedHandoff:
    """Hints of one client, and their delivery."""

    def __init__(
        self,
        limits: Hints,
        hlc: HybridLogicalClock,
        background: BackgroundTasks,
        hooks: Hooks,
        repair: ReadRepair,
        remembered: SeenVersions,
        view: Callable[[], ClusterSnapshot | None],
        *,
        tombstone_ttl: float,
        on_delivered: Callable[[bytes, int], None],
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """Create it without hints.

        Args:
            limits: Limits of the store, and the path of the journal.
            hlc: Clock of the client.
            background: Runs the delivery.
            hooks: Informed about each hint.
            repair: Compares zones for checks, and after deliveries.
            remembered: Versions that the client pins for deletes.
            view: Returns the present zones, or None before they are known.
            tombstone_ttl: Seconds that a tombstone lives.
            on_delivered: Called with the key and the version when a zone has received what it missed.
            unix_time: Returns unix time in seconds.
        """
        self.hints = HintStore(limits)
        self.journal = HintJournal(limits, self._restore)
        self.delivered = 0
        """Number of hints whose zone has the write, or a newer one."""
        self.dropped = 0
        """Number of hints that were given up: too old, too many, or refused by the server."""
        self._limits = limits
        self._hlc = hlc
        self._background = background
        self._hooks = hooks
        self._repair = repair
        self._remembered = remembered
        self._view = view
        self._on_delivered = on_delivered
        # A set that is delivered in the last second before a tombstone expires could outlive the tombstone.
        self._set_life = max(0.0, tombstone_ttl - DELIVERY_TIMEOUT_SECONDS - TTL_GRANULARITY_SECONDS)
        self._unix_time = unix_time
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # ends a pause between passes
        self._closing = False
        self._closed = False
        self._overflow_logged = False

    def _restore(self, found: list[Hint]) -> None:
        """Add the hints of the journal, and write those that were recorded before it was open."""
        recorded = list(self.hints)
        for hint in found:
            present = self.hints.get(hint.zone, hint.key)
            if present is None or present._replace(cause=None) != hint:
                self._put(hint)
        self.journal.put_all(recorded, self.hints)

    async def close(self, *, keep: bool = False) -> None:
        """Stop recording hints. Call it when the last request has ended. May be called again.

        Undelivered hints remain in the journal. If there is none, they are dropped and logged.

        Args:
            keep: Keep them in memory for the next opening.
        """
        self._closed = True
        is_saved = await self.journal.close()
        left = list(self.hints)
        if keep:
            if left:
                _log.info("event loop ended with %d undelivered hints: the next loop delivers them", len(left))
            return
        if is_saved:
            if left:
                _log.info("closed with %d undelivered hints: saved in %s", len(left), self._limits.path)
            return
        zones = Counter(hint.zone for hint in left)
        for zone, count in zones.items():
            _log.warning("closed with %d undelivered hints for zone %s: dropped", count, zone)
        for hint in left:
            self._end(hint, "closed")

    def reopen(self) -> None:
        """Allow another opening, on any loop. Hints in memory are delivered then."""
        self.journal.reopen()
        self._task = None
        self._hurry = asyncio.Event()  # an event belongs to the loop that has waited for it
        self._closing = self._closed = False

    # Recording.

    def record_write(self, zone: str, store: StoreCommand, age: float, cause: object = None) -> None:
        """Record a write that a zone missed.

        Args:
            zone: Name of the zone.
            store: The write.
            age: Seconds since it was sent.
            cause: Value that hooks use to name the write.
        """
        if store.version is None:
            return
        sent_at = self._unix_time() - age
        is_delete = store.flags == FLAG_TOMBSTONE
        kind = Kind.DELETE if is_delete else Kind.SET
        until = math.inf if is_delete else sent_at + self._set_life
        self._put(Hint(zone, store.key, kind, store.version, store.data, store.flags, store.ttl, sent_at, until, cause))

    def record_touch(self, zone: str, key: bytes, version: int, exptime: int, age: float) -> None:
        """Record a touch that a zone missed, of the version that other zones touched. `age` is the seconds since then."""
        sent_at = self._unix_time() - age
        hint = self.hints.get(zone, key)
        if hint is not None and hint.kind is Kind.SET and hint.version == version:
            self._put(hint._replace(ttl=exptime, made_at=sent_at))  # the zone missed the value, too: one hint for both
        else:
            self._put(Hint(zone, key, Kind.TOUCH, version, b"", 0, exptime, sent_at, math.inf))

    def record_check(self, zone: str, key: bytes) -> None:
        """Record that the content of a zone is unknown, so that all zones are compared when the zone is reachable."""
        self._put(Hint(zone, key, Kind.CHECK, 0, b"", 0, 0, self._unix_time(), math.inf))

    def end_superseded(self, zone: str, store: StoreCommand) -> None:
        """End an older hint for a zone that took a write."""
        hint = self.hints.get(zone, store.key)
        if hint is not None and store.version is not None and hint.version <= store.version:
            self._end(hint, "superseded")

    def end_superseded_touch(self, zone: str, key: bytes) -> None:
        """End an earlier touch for a zone that took a touch."""
        hint = self.hints.get(zone, key)
        if hint is not None and hint.kind is Kind.TOUCH:
            self._end(hint, "superseded")

    def check_new_zones(self, topology: Topology, key: bytes) -> None:
        """Record checks for zones that joined during a write.

        1. A write begins, with the zones of `topology`.
        2. A zone joins.
        3. A read finds an older version in a slow zone, and copies it to the new zone.
        4. The write ends in every zone that it began with.
        """
        view = self._view()
        if view is not None and view.topology is not topology:
            for zone in view.topology.zones:
                if zone != topology.zone(zone.name):
                    self.record_check(zone.name, key)

    def _put(self, hint: Hint) -> None:
        if self._closed:
            return
        gone = self.hints.put(hint)
        self._pin(hint)
        if self.hints.get(hint.zone, hint.key) is hint:
            self._hooks.hinted(hint.zone)
            self.journal.put(hint)
        for other in gone:
            self._drop(other, "overflow")
        if gone and not self._overflow_logged:
            self._overflow_logged = True
            _log.warning("hint limit reached: the oldest hints are dropped, the first one for zone %s", gone[0].zone)
        if self._task is None:
            self._hurry.clear()  # it may be set by a recovery without hints to deliver
            self._start()

    def _pin(self, hint: Hint) -> None:
        if not self.hints.has_delete(hint.key):
            self._remembered.unpin(hint.key)
        elif hint.kind is Kind.DELETE and self._hlc.believes(hint.version):
            # With a version too far ahead, this client would take its own later writes of the key for stale.
            self._remembered.pin(hint.key, hint.version)

    # Delivery.

    def wake(self) -> None:
        """Deliver now, because a node has recovered."""
        self._hurry.set()
        self._start()

    def finish(self) -> None:
        """Deliver what can be delivered now, because the client closes. The task then waits for no node."""
        self._closing = True
        self.wake()

    def _start(self) -> None:
        if self._task is None and len(self.hints):
            self._task = self._background.spawn(self._run())
            if self._task is not None:
                self._task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return  # of an earlier opening
        self._task = None
        # A hint may have been recorded since the last pass. After an unexpected exception, which is logged, none is
        # delivered until the next hint or recovery.
        if not task.cancelled() and task.exception() is None:
            self._start()

    async def _run(self) -> None:
        """Deliver hints in passes until none is left."""
        # A missed write is not sent again at once, because its cause may persist.
        await wait_until_set(self._hurry, RETRY_FIRST_SECONDS)
        await retry_forever(self._deliver_all, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS, wake=self._hurry)

    async def _deliver_all(self) -> bool:
        """Try to deliver each hint once. Return True if no other pass is needed."""
        view = self._view()
        if view is None:
            return self._closing
        for hint in self.hints.demote_expired(self._unix_time()):
            self._drop(hint, "expired")
        all_ended = True
        for batch in batches(self._deliverable(view), MAX_DELIVERIES):
            began = view.loop.time()
            ended = await asyncio.gather(
                *(unattended(asyncio.ensure_future(self._deliver(view, hint, node))) for hint, node in batch)
            )
            all_ended = all_ended and all(ended)
            pace = len(batch) / self._limits.rate - (view.loop.time() - began)
            await asyncio.sleep(max(0.0, pace))
        return all_ended if self._closing else not self.hints

    def _deliverable(self, view: ClusterSnapshot) -> Iterator[tuple[Hint, Node] | None]:
        """Yield each hint whose node is up, and a None after many whose node is down."""
        pools = {pool.name: pool for pool in view.writers}
        skipped = 0
        for hint in self.hints:
            pool = pools.get(hint.zone)
            if pool is None:
                # The present view decides. A pass takes time, and a hint that was recorded since may be for a new zone.
                now = self._view()
                if now is None or now.topology.zone(hint.zone) is None:
                    self._end(hint, "expired")  # the zone was removed; if it is added again, it is empty
            elif not (node := pool.node(view.ring_position(hint.key))).is_down:
                yield hint, node
            else:
                skipped += 1
                if not skipped % MAX_SKIPPED:
                    yield None

    async def _deliver(self, view: ClusterSnapshot, hint: Hint, node: Node) -> bool:
        """Deliver one hint to its node. Return False if the next pass must try again."""
        if self.hints.get(hint.zone, hint.key) is not hint:
            return True  # it has ended since the pass began
        # Only a set can be too old. A file of an earlier release may give a delete an end, which no longer counts.
        if hint.kind is Kind.SET and hint.expires_at <= self._unix_time():
            self.hints.demote(hint)
            self._drop(hint, "expired")
            return True
        deadline = view.loop.time() + DELIVERY_TIMEOUT_SECONDS
        unsettled: Collection[str] = ()
        try:
            await node.connected(deadline)
            if node.capabilities is None or not node.capabilities.versions:
                end: HintEnd = "refused"  # without versions the hint could replace a newer write
            elif hint.kind is Kind.CHECK or has_expired(hint, self._unix_time()):
                compared = await self._repair.compare_and_repair(view, hint.key, deadline, least=hint.version)
                unsettled = compared.failures
                is_gone = (compared.latest or 0) < hint.version  # the missed version has expired or was evicted
                if hint.zone in unsettled or (is_gone and unsettled):
                    return False
                held_older = is_gone and compared.seen.get(hint.zone) is not None
                end = "delivered" if hint.kind is Kind.CHECK or held_older else "expired"
            else:
                end = _ENDS.get(await send_hint(hint, node, self._hlc, self._unix_time(), deadline), "refused")
                if end != "refused":
                    # The node may be empty, and other zones may hold a newer write of another client: the delivery would
                    # then serve an old value. Or the node holds a newer version that no other zone has: a decision whose
                    # reply was lost (a check is not stored beside another hint).
                    unsettled = (await self._repair.compare_and_repair(view, hint.key, deadline)).failures
        except (ServerError, Unsupported):
            end = "refused"
        except CacheError:
            return False
        self._end(hint, end)
        for zone in unsettled:  # the zone may hold the latest version, or miss it
            self.record_check(zone, hint.key)
        return True

    # The end of a hint.

    def _end(self, hint: Hint, end: HintEnd) -> None:
        if not self.hints.remove(hint):
            return
        if end not in ("delivered", "superseded"):
            self._drop(hint, end)
            return
        self.delivered += 1
        self._forget(hint)
        if end == "delivered":
            # The version that a check delivered is unknown, and the zone has it now. A touch has no newer version.
            self._on_delivered(hint.key, NOTHING_NEWER if hint.kind >= Kind.CHECK else hint.version)
        self._hooks.hint_ended(hint.zone, end)
        if hint.cause is not None:
            self._hooks.replayed(hint.zone, end, hint.cause)

    def _drop(self, hint: Hint, end: HintEnd) -> None:
        self.dropped += 1
        self._forget(hint)
        self._hooks.hint_ended(hint.zone, end)

    def _forget(self, hint: Hint) -> None:
        """Remove the traces of a hint that is not in the store any more."""
        if not self.hints:
            self._overflow_logged = False
        if not self.hints.has_delete(hint.key):
            self._remembered.unpin(hint.key)
        if self.hints.get(hint.zone, hint.key) is None:
            self.journal.remove(hint)
