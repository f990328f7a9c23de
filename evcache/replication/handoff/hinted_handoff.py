"""Hinted hand-off: a write that a zone missed is kept, and brought to it when it can be reached again.

With the guarded store, like every write: a replay that comes late can't replace anything newer. Deletes first, for until
they are delivered the zone shows values that are gone.

While a delete is kept, this client remembers its version for good, and so believes no older value of that key from any
zone. Other clients, which know nothing of it, may be shown the value by the zone that missed the delete, until it is
delivered.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential, wait_random

from evcache._background import BackgroundTasks
from evcache.hooks import HintEnd, Hooks
from evcache.replication.command import execute
from evcache.replication.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.handoff.hints import Hint, Hints, HintStore, Kind
from evcache.replication.handoff.journal import HintJournal
from evcache.replication.hlc import NOTHING_NEWER, HybridLogicalClock
from evcache.replication.read_repair import ReadRepair
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.touch import remove_version, touch_version
from evcache.results import Outcome
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.values.ttl import TTL_GRANULARITY_SECONDS, exptime_sent_again
from evcache.zones._tasks import unattended
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, ServerError, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Topology

# Deliveries under way at once.
MAX_DELIVERIES = 32
DELIVERY_TIMEOUT_SECONDS = 1.0

# Between looks at the book. A node that is down is not tried: its return is told. But one that can be reached and did not
# take a delivery, and one that has taken the place of another, is found by looking.
RETRY_FIRST_SECONDS = 0.5
RETRY_LONGEST_SECONDS = 5.0

# Hints of nodes that are down that are passed over before the event loop gets a turn: a millisecond or two.
MAX_PASSED_OVER = 1_000

_ENDS: dict[Outcome, HintEnd] = {
    Outcome.STORED: "delivered",
    Outcome.SUPERSEDED: "superseded",
}

_log = logging.getLogger("evcache.replication")


class HintedHandoff:
    """The hints of one client, and their delivery."""

    def __init__(
        self,
        limits: Hints,
        clock: HybridLogicalClock,
        background: BackgroundTasks,
        hooks: Hooks,
        repair: ReadRepair,
        remembered: SeenVersions,
        view: Callable[[], ClusterSnapshot | None],
        *,
        tombstone_ttl: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is unix time."""
        self.book = HintStore(limits)
        self.journal = HintJournal(limits, self._take_over)
        self.delivered = 0
        """Hints whose zone has the write, or a newer one."""
        self.dropped = 0
        """Hints that were given up: too old, too many, or refused by the server."""
        self.caught_up: Callable[[bytes, int], None] = _nobody
        """Told the key, and the version, when a zone has got what it had missed."""
        self._limits = limits
        self._clock = clock
        self._background = background
        self._hooks = hooks
        self._repair = repair
        self._remembered = remembered
        self._view = view
        # A set that is delivered in the last second before a tombstone goes could outlive it.
        self._set_life = max(0.0, tombstone_ttl - DELIVERY_TIMEOUT_SECONDS - TTL_GRANULARITY_SECONDS)
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closing = False
        self._closed = False
        self._overflowed = False

    def _take_over(self, found: list[Hint]) -> None:
        missed = list(self.book)  # while the file was being opened, and from an earlier opening
        for hint in found:
            known = self.book.get(hint.zone, hint.key)
            if known is None or known._replace(cause=None) != hint:
                self._put(hint)
        for hint in missed:
            if self.book.get(hint.zone, hint.key) is hint:
                self.journal.put(hint)

    async def close(self, *, keep: bool = False) -> None:
        """Stop to keep writes. Call it when the last request has ended. May be called again.

        The file keeps what was not delivered. Without a file it is dropped and logged.

        Args:
            keep: Leave it in memory for the next opening.
        """
        self._closed = True
        is_kept = await self.journal.close()
        left = list(self.book)
        if keep:
            if left:
                _log.info("the event loop ended with %d writes to deliver; the next loop delivers them", len(left))
            return
        if is_kept:
            if left:
                _log.info("closed with %d writes to deliver, kept in %s", len(left), self._limits.path)
            return
        zones = Counter(hint.zone for hint in left)
        for zone, count in zones.items():
            _log.warning("closed with %d writes that zone %s has not got", count, zone)
        for hint in left:
            self._end(hint, "closed")

    def reopen(self) -> None:
        """Allow another opening, on any loop. What is in the book is delivered then."""
        self.journal.reopen()
        self._task = None
        self._hurry = asyncio.Event()  # an event belongs to the loop that has waited for it
        self._closing = self._closed = False

    # Keeping.

    def missed(self, zone: str, store: StoreCommand, age: float, cause: object = None) -> None:
        """Keep a write that a zone did not take. `age`: seconds since it was sent."""
        if store.version is None:
            return
        sent_at = self._now() - age
        delete = store.flags == FLAG_TOMBSTONE
        kind = Kind.DELETE if delete else Kind.SET
        until = math.inf if delete else sent_at + self._set_life
        self._put(Hint(zone, store.key, kind, store.version, store.data, store.flags, store.ttl, sent_at, until, cause))

    def missed_touch(self, zone: str, key: bytes, version: int, ttl: int, age: float) -> None:
        """Keep a touch that a zone did not take, of the version that other zones touched. `ttl` in the wire form."""
        hint = self.book.get(zone, key)
        if hint is not None and hint.kind is Kind.SET and hint.version == version:
            # The zone missed the value, too: it gets both at once.
            self._put(hint._replace(ttl=ttl, made_at=self._now() - age))
        else:
            self._put(Hint(zone, key, Kind.TOUCH, version, b"", 0, ttl, self._now() - age, math.inf))

    def uncertain(self, zone: str, key: bytes) -> None:
        """Nobody can say what a zone did with a write: have the zones compared when it can be reached."""
        self._put(Hint(zone, key, Kind.CHECK, 0, b"", 0, 0, self._now(), math.inf))

    def reached(self, zone: str, store: StoreCommand) -> None:
        """A zone took a write: what was kept for it before is not needed any more."""
        hint = self.book.get(zone, store.key)
        if hint is not None and store.version is not None and hint.version <= store.version:
            self._end(hint, "superseded")

    def touched(self, zone: str, key: bytes) -> None:
        """A zone took a touch: an earlier one that it missed is not needed any more."""
        hint = self.book.get(zone, key)
        if hint is not None and hint.kind is Kind.TOUCH:
            self._end(hint, "superseded")

    def ended(self, topology: Topology, key: bytes) -> None:
        """A write has ended in every zone of the topology that it began with.

        A zone that was added meanwhile has not got it, and may have been brought an older version by a read that found it
        in a zone which was slow to take this one: have the zones compared.
        """
        view = self._view()
        if view is not None and view.topology is not topology:
            for zone in view.topology.zones:
                if zone != topology.zone(zone.name):
                    self.uncertain(zone.name, key)

    def _put(self, hint: Hint) -> None:
        if self._closed:
            return
        gone = self.book.put(hint)
        self._pin(hint)
        if self.book.get(hint.zone, hint.key) is hint:
            self._hooks.hinted(hint.zone)
            self.journal.put(hint)
        for other in gone:
            self._dropped(other, "overflow")
        if gone and not self._overflowed:
            self._overflowed = True
            _log.warning("too many writes to keep for zones that can't be reached: the oldest are dropped")
        if self._task is None:
            self._hurry.clear()  # a return when there was nothing to deliver
            self._start()

    def _pin(self, hint: Hint) -> None:
        if not self.book.has_delete(hint.key):
            self._remembered.unpin(hint.key)
        elif hint.kind is Kind.DELETE and self._clock.believes(hint.version):
            # One that is too far ahead would make this client take its own later writes of the key for out of date.
            self._remembered.pin(hint.key, hint.version)

    # Delivering.

    def wake(self) -> None:
        """A node is back: see what is kept for it."""
        self._hurry.set()
        self._start()

    def finish(self) -> None:
        """The client is closing: see what can still be delivered, and wait for nothing that is down."""
        self._closing = True
        self.wake()

    def _start(self) -> None:
        if self._task is None and len(self.book):
            self._task = self._background.spawn(self._run())
            if self._task is not None:
                self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return  # of an earlier opening
        self._task = None
        # A write may have been missed since the last look. After a bug, which is logged, no new attempt is made by itself.
        if not task.cancelled() and task.exception() is None:
            self._start()

    async def _run(self) -> None:
        """Deliver what can be, again and again until nothing is left."""
        # What was missed is not sent again at once: whatever made the zone miss it may be still there.
        await self._pause(RETRY_FIRST_SECONDS)
        retrying = AsyncRetrying(
            wait=wait_exponential(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS) + wait_random(0, RETRY_FIRST_SECONDS),
            retry=retry_if_result(bool),
            sleep=self._pause,
            before=self._before_pass,
        )
        await retrying(self._deliver_all)

    def _before_pass(self, retry: RetryCallState) -> None:
        del retry
        self._hurry.clear()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _deliver_all(self) -> bool:
        """One pass over the book. True when there is to be another."""
        view = self._view()
        if view is None:
            return not self._closing
        for hint in self.book.expired(self._now()):
            self._dropped(hint, "expired")
        again = False
        for batch in _batches(self._within_reach(view), MAX_DELIVERIES):
            began = view.loop.time()
            taken = await asyncio.gather(
                *(unattended(asyncio.ensure_future(self._deliver(view, hint, node))) for hint, node in batch)
            )
            again = again or not all(taken)
            pace = len(batch) / self._limits.rate - (view.loop.time() - began)
            await asyncio.sleep(max(0.0, pace))
        return again if self._closing else len(self.book) > 0

    def _within_reach(self, view: ClusterSnapshot) -> Iterator[tuple[Hint, Node] | None]:
        """What can be delivered, and None after many that can't."""
        pools = {pool.name: pool for pool in view.writers}
        passed_over = 0
        for hint in self.book:
            pool = pools.get(hint.zone)
            if pool is None:
                # By what is known now: a pass takes a while, and what has been put in since may be for a new zone.
                now = self._view()
                if now is None or now.topology.zone(hint.zone) is None:
                    self._end(hint, "expired")  # the zone has left: when it is added again, it is to be empty
            elif not (node := pool.node(view.ring_position(hint.key))).is_down:
                yield hint, node
            else:
                passed_over += 1
                if not passed_over % MAX_PASSED_OVER:
                    yield None

    async def _deliver(self, view: ClusterSnapshot, hint: Hint, node: Node) -> bool:
        """Bring one hint to its node. False when it is to be tried again."""
        if self.book.get(hint.zone, hint.key) is not hint:
            return True  # ended meanwhile
        # Only a set can come too late. A file of an earlier release may give a delete an end, which no longer counts.
        if hint.kind is Kind.SET and hint.expires_at <= self._now():
            self.book.take_out(hint)
            self._dropped(hint, "expired")
            return True
        deadline = view.loop.time() + DELIVERY_TIMEOUT_SECONDS
        unsettled: Collection[str] = ()
        try:
            await node.connected(deadline)
            if node.capabilities is None or not node.capabilities.versions:
                end: HintEnd = "refused"  # without versions it can't be told from a newer write
            elif hint.kind is Kind.CHECK or self._has_expired(hint):
                compared = await self._repair.settle(view, hint.key, deadline, least=hint.version)
                unsettled = compared.failures
                is_gone = (compared.newest or 0) < hint.version  # what the zone missed has come and gone
                if hint.zone in unsettled or (is_gone and unsettled):
                    return False
                held_older = is_gone and compared.seen.get(hint.zone) is not None
                end = "delivered" if hint.kind is Kind.CHECK or held_older else "expired"
            else:
                end = _ENDS.get(await self._send(hint, node, deadline), "refused")
                if end != "refused":
                    # The node may have come back empty, and a newer write of somebody else be in the other zones: it would
                    # show an old value in place of none. Or it holds something newer that no other zone has: a decision
                    # whose reply was lost (`uncertain` keeps no check beside another hint).
                    unsettled = (await self._repair.settle(view, hint.key, deadline)).failures
        except (ServerError, Unsupported):
            end = "refused"
        except CacheError:
            return False
        self._end(hint, end)
        for zone in unsettled:  # what is the newest may be there, or be what it lacks
            self.uncertain(zone, hint.key)
        return True

    def _has_expired(self, hint: Hint) -> bool:
        """Return whether a value would have expired by the time of its delivery."""
        return hint.kind is Kind.SET and self._exptime(hint) is None

    def _exptime(self, hint: Hint) -> int | None:
        return exptime_sent_again(hint.ttl, self._now() - hint.made_at + DELIVERY_TIMEOUT_SECONDS)

    async def _send(self, hint: Hint, node: Node, deadline: float) -> Outcome:
        """Send a delete, a value or a touch. Raises a `NodeError`."""
        if hint.kind is Kind.DELETE:  # a tombstone gets its full time
            return await execute(DeleteCommand(self._clock, hint.key, ttl=hint.ttl, version=hint.version), node, deadline)
        exptime = self._exptime(hint)
        if hint.kind is Kind.SET:
            assert exptime is not None
            store = StoreCommand(self._clock, hint.key, hint.data, hint.flags, ttl=exptime, version=hint.version)
            return await execute(store, node, deadline)
        if exptime is None:
            outcome = await remove_version(node, hint.key, hint.version, deadline)
        else:
            outcome = await touch_version(node, hint.key, hint.version, exptime, deadline)
        return outcome if outcome is Outcome.STORED else Outcome.SUPERSEDED

    def _end(self, hint: Hint, end: HintEnd) -> None:
        if not self.book.remove(hint):
            return
        if end in ("delivered", "superseded"):
            self.delivered += 1
            self._settle(hint)
            if end == "delivered":
                # Of a check it is not known what was newer, and it is there now. A touch made nothing newer.
                self.caught_up(hint.key, NOTHING_NEWER if hint.kind >= Kind.CHECK else hint.version)
            self._hooks.hint_ended(hint.zone, end)
            if hint.cause is not None:
                self._hooks.replayed(hint.zone, end, hint.cause)
        else:
            self._dropped(hint, end)

    def _dropped(self, hint: Hint, end: HintEnd) -> None:
        self.dropped += 1
        self._settle(hint)
        self._hooks.hint_ended(hint.zone, end)

    def _settle(self, hint: Hint) -> None:
        if not len(self.book):
            self._overflowed = False
        if not self.book.has_delete(hint.key):
            self._remembered.unpin(hint.key)
        if self.book.get(hint.zone, hint.key) is None:
            self.journal.remove(hint)


def _nobody(key: bytes, version: int) -> None:
    del key, version


def _batches(hints: Iterator[tuple[Hint, Node] | None], size: int) -> Iterator[Sequence[tuple[Hint, Node]]]:
    """So many at once, and fewer, or none, where there is a None."""
    batch: list[tuple[Hint, Node]] = []
    for pair in hints:
        if pair is not None:
            batch.append(pair)
        if pair is None or len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
