"""Read repair: zones without the latest version of a key receive it in the background.

A repair uses the guarded store, so a late repair cannot replace a newer version, and a tombstone refuses deleted values.
Only items with a version are repaired. A copy never outlives its original. An item that is about to expire is not copied.
The older version of a stale zone is then removed, because readers would see it after the latest version has expired
elsewhere.

The guarded store cannot prevent one case. A zone that was cut off may have missed a delete whose tombstone has expired in
all zones since. So after an outage that began longer ago than a tombstone lives, items that are older than its end are not
copied (`may_resurrect`). Another zone that holds the key in any version proves that no delete has come after it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from evcache._helpers.background import BackgroundTasks
from evcache.hooks import Hooks
from evcache.replication.commands.command import execute
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.commands.node_requests import (
    Peeked,
    capabilities_of,
    get,
    peek,
    peek_soon,
    read_peek,
)
from evcache.replication.commands.touch import remove_version
from evcache.replication.hlc import HybridLogicalClock
from evcache.replication.reconcile import ZoneHit
from evcache.replication.repair.comparison import (
    Comparison,
    StaleCopy,
    compare_replicas,
    may_resurrect,
    needs_more_standby,
)
from evcache.results import Outcome
from evcache.values.ttl import TOMBSTONE_TTL_SECONDS, exptime_of_copy, to_exptime
from evcache.zones.errors import CacheError, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.protocol.replies import AnyReply, read_hit
from evcache.zones.snapshot import ClusterSnapshot

# Concurrent repairs, and repairs per second. A zone that comes back empty would otherwise receive all items within a second,
# on top of its ordinary load. Later reads repair what is skipped now.
MAX_REPAIRS = 64
MAX_REPAIRS_PER_SECOND = 1_000

# Seconds for a repair. No caller waits for it.
REPAIR_TIMEOUT_SECONDS = 1.0

# Share of the time of a conditional write in which the other zones answer. A hung zone that counts as up costs no more.
COMPARE_SHARE = 1 / 3

# Seconds by which a tombstone counts as expired early, for the time that a comparison takes.
TOMBSTONE_MARGIN_SECONDS = 2.0


class ReadRepair:
    """Repairs of one client."""

    def __init__(
        self,
        hlc: HybridLogicalClock,
        background: BackgroundTasks,
        hooks: Hooks,
        *,
        enabled: bool,
        tombstone_ttl: float = TOMBSTONE_TTL_SECONDS,
        on_repaired: Callable[[bytes, int], None] | None = None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """Create it without repairs.

        Args:
            hlc: Clock of the client.
            background: Runs the repairs.
            hooks: Informed about each repair.
            enabled: False if reads start no repairs.
            tombstone_ttl: Seconds that a tombstone lives.
            on_repaired: Called with the key and the version when a zone with an older version has been repaired.
            unix_time: Returns unix time in seconds.
        """
        self.enabled = enabled
        self.done = 0
        """Number of copies that a zone has stored, or refused because it held a newer version."""
        self.skipped = 0
        """Number of repairs that were left to a later read, because of the limits."""
        self._hlc = hlc
        self._background = background
        self._hooks = hooks
        self._on_repaired = on_repaired
        self._unix_time = unix_time
        self._tombstone_ttl = tombstone_ttl
        self._tombstone_life = max(0.0, tombstone_ttl - TOMBSTONE_MARGIN_SECONDS)
        self._copying: set[tuple[bytes, Node]] = set()
        self._comparing: set[bytes] = set()
        self._second = 0.0  # begin of the present second on the loop's clock, and the repairs in it
        self._in_second = 0

    def reopen(self) -> None:
        """Forget the repairs of the last opening."""
        self._copying, self._comparing = set(), set()
        self._second, self._in_second = -math.inf, 0  # the clock of another loop may be behind

    @property
    def running(self) -> int:
        """Number of repairs that run."""
        return len(self._copying) + len(self._comparing)

    def repair(
        self,
        view: ClusterSnapshot,
        key: bytes,
        found: ZoneHit,
        source: Node,
        missed: Mapping[str, Node],
        behind: Mapping[str, Node],
        asked_at: float,
    ) -> None:
        """Start to copy an item to stale zones. Returns at once.

        Args:
            view: The zones.
            key: The key.
            found: The item.
            source: Node that holds it.
            missed: Nodes of zones that hold nothing, by zone.
            behind: Nodes of zones that hold an older version, by zone.
            asked_at: Time at which the read of the item began, on the loop's clock.
        """
        if not self.enabled or found.version is None:
            return
        if self._may_resurrect(source, found.version):
            self.start_comparison(view, key)  # it reads the other zones first
            return
        hit = found.hit if found.hit.ttl is not None else None
        for nodes, holds_older in ((missed, False), (behind, True)):
            for zone, node in nodes.items():
                self._start_copy(StaleCopy(zone, key, found.version, source, node, holds_older, hit, asked_at))

    def start_comparison(self, view: ClusterSnapshot, key: bytes) -> None:
        """Start to compare all zones and to repair the stale ones. Returns at once."""
        if not self.enabled or key in self._comparing or not self._admit():
            return
        self._comparing.add(key)
        if self._background.spawn(self._compare_and_start_copies(view, key)) is None:
            self._comparing.discard(key)

    async def compare(
        self, view: ClusterSnapshot, key: bytes, deadline: float, *, decider: str | None = None, value: bool = False
    ) -> Comparison:
        """Compare what the zones hold under a key. Cancellation abandons the requests.

        Args:
            view: The zones.
            key: The key.
            deadline: Time on the loop's clock at which zones without an answer count as failed.
            decider: Readable zone that decides about the key. Write-only zones are then left out, and the other zones
                have a share of the time. Standby zones are compared as well.
            value: Read the value of the decider, too.

        Returns:
            The comparison. Failures of zones are part of it.
        """
        position = view.ring_position(key)
        nodes = {pool.name: pool.node(position) for pool in (view.writers if decider is None else view.read_order)}
        now = view.loop.time()
        until = deadline if decider is None else now + (deadline - now) * COMPARE_SHARE
        asked: dict[str, asyncio.Future[AnyReply]] = {}
        for zone, node in nodes.items():
            if zone == decider:
                asked[zone] = peek_soon(node, key, deadline, view.loop, value=value)
            else:
                asked[zone] = peek_soon(node, key, until, view.loop)
        seen: dict[str, Peeked | None] = {}
        failures: dict[str, CacheError] = {}
        try:
            for zone, answer in asked.items():
                try:
                    seen[zone] = read_peek(await answer)
                except CacheError as error:
                    failures[zone] = error
        finally:
            if len(seen) + len(failures) < len(asked):  # cancelled
                for answer in asked.values():
                    answer.cancel()
                    if answer.done() and not answer.cancelled():
                        answer.exception()  # retrieved, so that asyncio does not report it
        versions = {
            zone: version
            for zone, item in seen.items()
            if item is not None and (version := self._hlc.observe(item.cas)) is not None
        }
        if view.standby:
            readable, standby = ({pool.name for pool in pools} for pools in (view.readers, view.standby))
            if needs_more_standby(seen, readable, standby, versions):
                return Comparison(seen, failures, None, [], is_uncertain=True)
        compared = compare_replicas(key, nodes, seen, versions)
        if compared is None:
            return Comparison(seen, failures, None, [])
        source, stale = compared
        latest = max(versions.values())
        # Another zone that holds the key in any version has not seen a delete after it, so the value was not deleted.
        if len(versions) == 1 and self._may_resurrect(source, latest):
            return Comparison(seen, failures, None, [])
        return Comparison(seen, failures, latest, stale)

    async def compare_and_repair(self, view: ClusterSnapshot, key: bytes, deadline: float, *, least: int = 0) -> Comparison:
        """Compare all zones, copy the latest version to the stale ones, and wait until they have it.

        Meant for a few keys at a time: it does not count among the running repairs.

        Args:
            view: The zones.
            key: The key.
            deadline: Time on the loop's clock.
            least: Version that is known to have been written. If all zones hold less, it has expired or was evicted. A
                tombstone of it then replaces older versions, unless a zone that may hold it did not answer.

        Returns:
            The comparison. Its failures include the zones that may lack the latest version now.
        """
        compared = await self.compare(view, key, deadline)
        if (compared.latest or 0) < least:
            if not compared.failures:
                await self._bury(view, key, least, compared, deadline)
            return compared
        for copy in compared.stale:
            # A node that went down since the comparison may lack the version. A node without versions never gets it.
            if copy.node.is_down or (copy.is_repairable and not await self._copy_to(copy)):
                compared.failures[copy.zone] = copy.node.unavailable()
        return compared

    async def _bury(self, view: ClusterSnapshot, key: bytes, version: int, compared: Comparison, deadline: float) -> None:
        """Store a tombstone of this version in each zone that holds an older one."""
        position = view.ring_position(key)
        for pool in view.writers:
            seen = compared.seen.get(pool.name)
            if seen is not None and self._hlc.observe(seen.cas) is not None:
                exptime = to_exptime(self._tombstone_ttl, self._unix_time())
                tombstone = DeleteCommand(self._hlc, key, ttl=exptime, version=version)
                try:
                    await execute(tombstone, pool.node(position), deadline)
                except CacheError as error:
                    compared.failures[pool.name] = error

    async def catch_up(
        self, view: ClusterSnapshot, key: bytes, zone: str, node: Node, deadline: float, *, value: bool = False
    ) -> tuple[Peeked | None, Comparison]:
        """Ensure that a zone holds the latest version of the reachable zones before it decides about a key.

        It works with `enabled=False`, too: a decision on an older version would undo the newer one.

        Args:
            view: The zones.
            key: The key.
            zone: Readable zone that decides.
            node: Its node.
            deadline: Time on the loop's clock.
            value: Read the value of the zone, too.

        Returns:
            The item that the zone holds now, or None, and the comparison. If the latest item is about to expire, and so was
            not copied, it is returned although only its zone holds it.

        Raises:
            NodeError: The zone did not answer.
            ServerError: The zone refused the latest version.
        """
        compared = await self.compare(view, key, deadline, decider=zone, value=value)
        if zone in compared.failures:
            raise compared.failures[zone]
        copy = next((copy for copy in compared.stale if copy.zone == zone), None)
        if copy is None:
            return compared.seen[zone], compared
        now = view.loop.time()
        outcome = await self._store_copy(copy, now, min(REPAIR_TIMEOUT_SECONDS, deadline - now))
        if outcome is Outcome.NOT_STORED:
            raise ServerError(f"conditional write of {key!r} failed: the server refused the latest version", node.label)
        seen = await peek(node, key, deadline, value=value)
        return seen or (compared.item_of(copy.version, self._hlc) if outcome is None else None), compared

    async def _compare_and_start_copies(self, view: ClusterSnapshot, key: bytes) -> None:
        try:
            compared = await self.compare(view, key, view.loop.time() + REPAIR_TIMEOUT_SECONDS)
            for copy in compared.stale:
                self._start_copy(copy)
        finally:
            self._comparing.discard(key)

    def _may_resurrect(self, node: Node, version: int) -> bool:
        """Return True if a copy of this version from the node could resurrect a deleted value."""
        return bool(node.outages) and may_resurrect(
            node.outages, version, asyncio.get_running_loop().time(), self._unix_time(), self._tombstone_life
        )

    def _start_copy(self, copy: StaleCopy) -> None:
        place = (copy.key, copy.node)
        if place in self._copying or not copy.is_repairable or not self._admit():
            return
        self._copying.add(place)
        if self._background.spawn(self._copy_to(copy)) is None:
            self._copying.discard(place)

    def _admit(self) -> bool:
        """Admit a repair, and count it. Return False, and count it as skipped, if a limit is reached."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        if self.running >= MAX_REPAIRS or self._in_second >= MAX_REPAIRS_PER_SECOND:
            self.skipped += 1
            return False
        self._in_second += 1
        return True

    async def _copy_to(self, copy: StaleCopy) -> bool:
        """Copy the latest version to a zone. Return False if the zone or the source did not answer."""
        try:
            began = asyncio.get_running_loop().time() if copy.hit is None else copy.asked_at
            outcome = await self._store_copy(copy, began, REPAIR_TIMEOUT_SECONDS)
            self.done += outcome in (Outcome.STORED, Outcome.SUPERSEDED)
        except CacheError:
            outcome = Outcome.UNAVAILABLE
        finally:
            self._copying.discard((copy.key, copy.node))
        if outcome is not None:
            self._hooks.repaired(copy.zone, outcome)
        return outcome is not Outcome.UNAVAILABLE

    async def _store_copy(self, copy: StaleCopy, began: float, seconds: float) -> Outcome | None:
        """Store the latest version in a stale zone.

        Args:
            copy: The zone, and the source.
            began: Time at which the item was read from the source, on the loop's clock.
            seconds: Time from then until the deadline.

        Returns:
            The outcome. None if the source does not hold the version any more.

        Raises:
            NodeError: The zone or the source did not answer.
        """
        hit, deadline = copy.hit, began + seconds
        if hit is None:  # read again, with the remaining TTL, which ordinary reads leave out to stay small
            hit = read_hit(await get(copy.source, copy.key, COPY_FIELDS, deadline))
        if hit is None or hit.ttl is None or self._hlc.observe(hit.cas) != copy.version:
            return None  # expired, or replaced by a write that goes to all zones
        exptime = exptime_of_copy(hit.ttl, seconds, self._unix_time())
        if exptime is None:
            return await self._remove_older(copy, deadline) if copy.holds_older else None
        if len(hit.value) > capabilities_of(copy.node).largest_value(copy.key):
            return Outcome.NOT_STORED  # the server would delete its item of the key, and then refuse
        store = StoreCommand(self._hlc, copy.key, hit.value, hit.flags, ttl=exptime, version=copy.version)
        # The zones were read one after another, and this zone may have got the version since. A copy must not shorten the
        # TTL of that item, so the store peeks first.
        outcome = await store.peek_and_apply(copy.node, deadline, over_equal=False)
        self._report_repaired(copy, outcome)
        return outcome

    def _report_repaired(self, copy: StaleCopy, outcome: Outcome) -> None:
        """Report a repair if the zone held an older version.

        The near cache of another process may have stored the older version, if it read this zone after the invalidation of
        the write. Copies to an empty zone are not reported, because they would flood the channel without use.
        """
        if outcome is Outcome.STORED and copy.holds_older and self._on_repaired is not None:
            self._on_repaired(copy.key, copy.version)

    async def _remove_older(self, copy: StaleCopy, deadline: float) -> Outcome:
        """Remove a version that is older than an item that is about to expire. Readers would see it after the expiry.

        A tombstone of the newer version is not used, because a touch may yet extend the life of the item in its zone.
        """
        seen = await peek(copy.node, copy.key, deadline)
        version = None if seen is None else self._hlc.observe(seen.cas)
        if version is None or version >= copy.version:
            return Outcome.SUPERSEDED
        outcome = await remove_version(copy.node, copy.key, version, deadline)
        self._report_repaired(copy, outcome)
        return outcome
