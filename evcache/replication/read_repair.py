"""Repair: a zone that lacks the newest value of a key is brought it, in the background.

With the guarded store, so a repair that comes late does no harm: it can't replace anything newer, and a tombstone keeps it
from bringing back what was deleted. Only items with a version are repaired. A copy never outlives its original. What is
about to expire is not copied, and what a zone holds that is older is removed: it would be read once the newer one has
expired elsewhere.

One thing the guarded store can't know: a zone that was cut off may have missed a delete whose tombstone has expired
everywhere since. So after an outage that began longer ago than a tombstone lives, an item that is older than its end is
brought to no zone unless another one holds the key too, in whatever version: there, no delete has come after it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from evcache._background import BackgroundTasks
from evcache.config import TOMBSTONE_TTL_SECONDS
from evcache.hooks import Hooks
from evcache.replication.command import execute
from evcache.replication.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import HybridLogicalClock, milliseconds_of
from evcache.replication.node_requests import (
    Peeked,
    capabilities_of,
    peek,
    peek_request,
    read_peek,
    send_request,
    send_request_soon,
)
from evcache.replication.reconcile import ZoneHit
from evcache.replication.touch import remove_version
from evcache.results import Outcome
from evcache.values.ttl import exptime_of_copy, to_exptime
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import Hit, Reply, read_hit

# Repairs under way at once, and in a second. A zone that comes back empty would otherwise be sent everything in the same
# second, on top of its ordinary load; what is not repaired now is repaired by a later read.
MAX_REPAIRS = 64
MAX_REPAIRS_PER_SECOND = 1_000

# Seconds for a repair: nobody waits for it.
REPAIR_TIMEOUT_SECONDS = 1.0

# Of the time that a conditional write has, the share in which other zones say what they hold. A zone that hangs and is not
# known to be down yet costs no more than that.
COMPARE_SHARE = 1 / 3

# A tombstone is taken to be gone this much earlier than it is: time that passes while zones are compared.
TOMBSTONE_MARGIN_SECONDS = 2.0


class StaleCopy(NamedTuple):
    """A zone that lacks the newest version of a key, and where that is."""

    zone: str
    key: bytes
    version: int
    source: Node
    node: Node
    holds_older: bool
    """True if the zone holds an older version, and False if it holds nothing."""
    hit: Hit | None = None
    """What was read there, if the seconds that it has left were read too."""
    asked_at: float = 0.0
    """When the hit was asked for, on the loop's clock."""

    @property
    def can_be_mended(self) -> bool:
        """Whether the node can be reached, and orders writes by version."""
        capabilities = self.node.capabilities
        return not self.node.is_down and capabilities is not None and capabilities.versions


class Comparison(NamedTuple):
    """What the zones hold under one key, by version."""

    seen: dict[str, Peeked | None]
    """What each zone that answered holds; None: nothing."""
    failures: dict[str, CacheError]
    """Why the other zones did not answer."""
    newest: int | None
    """The newest version that was seen; None: no item has a version, or the only one may be a deleted value."""
    lacks: list[StaleCopy]
    """The zones that answered and hold nothing, or an older version."""

    def held_as(self, version: int, clock: HybridLogicalClock) -> Peeked | None:
        """Return what a zone that answered holds under this version."""
        return next((item for item in self.seen.values() if item is not None and clock.decode(item.cas) == version), None)


class ReadRepair:
    """The repairs of one client."""

    def __init__(
        self,
        clock: HybridLogicalClock,
        background: BackgroundTasks,
        hooks: Hooks,
        *,
        enabled: bool,
        tombstone_ttl: float = TOMBSTONE_TTL_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is the unix time."""
        self.enabled = enabled
        self.done = 0
        """Zones that were brought a value, or were found to have a newer one by then."""
        self.skipped = 0
        """Repairs that were left to a later read: too many at once, or in this second."""
        self.announce: Callable[[bytes, int], None] | None = None
        """Called with the key and the version when a zone that held an older version has been repaired."""
        self._clock = clock
        self._background = background
        self._hooks = hooks
        self._now = now
        self._tombstone_ttl = tombstone_ttl
        self._tombstone_life = max(0.0, tombstone_ttl - TOMBSTONE_MARGIN_SECONDS)
        self._running: set[tuple[bytes, Node]] = set()
        self._checking: set[bytes] = set()
        self._second = 0.0  # when the present second began, on the loop's clock, and the repairs in it
        self._in_second = 0

    def reopen(self) -> None:
        """Forget the repairs of the last opening."""
        self._running, self._checking = set(), set()
        self._second, self._in_second = -math.inf, 0  # the clock of another loop may be behind

    @property
    def running(self) -> int:
        """Repairs under way."""
        return len(self._running) + len(self._checking)

    def bring(
        self,
        view: ClusterSnapshot,
        key: bytes,
        found: ZoneHit,
        source: Node,
        missed: Mapping[str, Node],
        behind: Mapping[str, Node],
        asked_at: float,
    ) -> None:
        """Start copying what was found on `source` to zones that lack it. Returns at once.

        Args:
            view: The zones.
            key: The key.
            found: What was found.
            source: The node that holds it.
            missed: The nodes of zones that hold nothing, by zone.
            behind: The nodes of zones that hold an older version, by zone.
            asked_at: When the read that found it began, on the loop's clock.
        """
        if not self.enabled or found.version is None:
            return
        if self._may_be_undead(source, found.version):
            self.check(view, key)  # asks the other zones first
            return
        hit = found.hit if found.hit.ttl is not None else None
        for nodes, holds_older in ((missed, False), (behind, True)):
            for zone, node in nodes.items():
                self._mend(StaleCopy(zone, key, found.version, source, node, holds_older, hit, asked_at))

    def check(self, view: ClusterSnapshot, key: bytes) -> None:
        """Have all zones compared, and those that are behind brought the newest version. Returns at once."""
        if not self.enabled or key in self._checking or not self._has_room():
            return
        self._checking.add(key)
        if self._background.spawn(self._check(view, key)) is None:
            self._checking.discard(key)

    async def compare(
        self, view: ClusterSnapshot, key: bytes, deadline: float, *, decider: str | None = None, value: bool = False
    ) -> Comparison:
        """Compare what the zones hold under a key.

        Args:
            view: The zones.
            key: The key.
            deadline: When zones that have not answered count as failed, on the loop's clock.
            decider: The readable zone that is to decide about the key: write-only zones are left out then, and the others
                have a share of the time to answer in.
            value: Ask the decider for its value, too.
        """
        place = view.ring_position(key)
        nodes = {pool.name: pool.node(place) for pool in (view.writers if decider is None else view.readers)}
        now = view.loop.time()
        until = deadline if decider is None else now + (deadline - now) * COMPARE_SHARE
        line = peek_request(key)
        asked: dict[str, asyncio.Future[Reply]] = {}
        for zone, node in nodes.items():
            if zone == decider:
                asked[zone] = send_request_soon(node, peek_request(key, value=value), deadline, view.loop)
            else:
                asked[zone] = send_request_soon(node, line, until, view.loop)
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
                        answer.exception()  # looked at, so that it is not reported as lost
        versions = {zone: self._clock.observe(item.cas) for zone, item in seen.items() if item is not None}
        versioned = {zone: version for zone, version in versions.items() if version is not None}
        if not versioned:
            return Comparison(seen, failures, None, [])
        newest = max(versioned.values())
        source = next(zone for zone, version in versioned.items() if version == newest)
        # Another zone that holds the key in any version has not seen a delete after it: then it is not the undead.
        if self._may_be_undead(nodes[source], newest) and len(versioned) == 1:
            return Comparison(seen, failures, None, [])
        lacks = [
            StaleCopy(zone, key, newest, nodes[source], nodes[zone], holds_older=item is not None)
            for zone, item in seen.items()
            if item is None or (zone in versioned and versioned[zone] < newest)
        ]
        return Comparison(seen, failures, newest, lacks)

    async def settle(self, view: ClusterSnapshot, key: bytes, deadline: float, *, least: int = 0) -> Comparison:
        """Compare all zones, and bring those that are behind the newest version; done when they have it.

        Meant for few keys at once: it is not counted among the repairs under way.

        Args:
            view: The zones.
            key: The key.
            deadline: On the loop's clock.
            least: A version that is known to have been written. Where all zones hold less, it has come and gone: a tombstone
                of it replaces what is older, unless a zone did not answer that may hold it.

        Returns:
            The comparison, in which the zones that may not have the newest version now are failures.
        """
        compared = await self.compare(view, key, deadline)
        if (compared.newest or 0) < least:
            if not compared.failures:
                await self._bury(view, key, least, compared, deadline)
            return compared
        for lack in compared.lacks:
            # One that has gone down since the look is not settled; one that keeps no versions never will be.
            if lack.node.is_down or (lack.can_be_mended and not await self._copy(lack)):
                compared.failures[lack.zone] = lack.node.unavailable()
        return compared

    async def _bury(self, view: ClusterSnapshot, key: bytes, version: int, compared: Comparison, deadline: float) -> None:
        place = view.ring_position(key)
        for pool in view.writers:
            seen = compared.seen.get(pool.name)
            if seen is not None and self._clock.observe(seen.cas) is not None:
                tombstone = self._tombstone(key, version)
                try:
                    await execute(tombstone, pool.node(place), deadline)
                except CacheError as error:
                    compared.failures[pool.name] = error

    async def bring_up_to_date(
        self, view: ClusterSnapshot, key: bytes, zone: str, node: Node, deadline: float, *, value: bool = False
    ) -> tuple[Peeked | None, Comparison]:
        """Make sure that a zone holds the newest version that a reachable zone does, before it decides about a key.

        Also where repairs are turned off: a decision on an older version would undo the newer one.

        Args:
            view: The zones.
            key: The key.
            zone: The readable zone that decides.
            node: Its node.
            deadline: On the loop's clock.
            value: Ask for the value that the zone holds, too.

        Returns:
            What the deciding zone holds then, None for nothing, and the comparison. Of an item that is about to expire, and
            so is not copied, what its zone holds is returned: it is still there.

        Raises:
            NodeError: The deciding zone did not answer.
            ServerError: It refused the newest version.
        """
        compared = await self.compare(view, key, deadline, decider=zone, value=value)
        if zone in compared.failures:
            raise compared.failures[zone]
        lack = next((lack for lack in compared.lacks if lack.zone == zone), None)
        if lack is None:
            return compared.seen[zone], compared
        now = view.loop.time()
        outcome = await self._carry_over(lack, now, min(REPAIR_TIMEOUT_SECONDS, deadline - now))
        if outcome is Outcome.NOT_STORED:
            raise ServerError(f"{key!r}: the newest version can't be stored, and without it nothing is decided", node.label)
        seen = await peek(node, key, deadline, value=value)
        return seen or (compared.held_as(lack.version, self._clock) if outcome is None else None), compared

    async def _check(self, view: ClusterSnapshot, key: bytes) -> None:
        try:
            compared = await self.compare(view, key, view.loop.time() + REPAIR_TIMEOUT_SECONDS)
            for lack in compared.lacks:
                self._mend(lack)
        finally:
            self._checking.discard(key)

    def _may_be_undead(self, node: Node, version: int) -> bool:
        """Whether the node was cut off after this was written, and long enough for a delete to be forgotten meanwhile."""
        loop_now, now = asyncio.get_running_loop().time(), self._now()
        return any(
            loop_now - outage.began >= self._tombstone_life
            and milliseconds_of(version) < (now - (loop_now - outage.ended)) * 1000
            for outage in node.outages
        )

    def _mend(self, lack: StaleCopy) -> None:
        place = (lack.key, lack.node)
        if place in self._running or not lack.can_be_mended or not self._has_room():
            return
        self._running.add(place)
        if self._background.spawn(self._copy(lack)) is None:
            self._running.discard(place)

    def _has_room(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        if self.running >= MAX_REPAIRS or self._in_second >= MAX_REPAIRS_PER_SECOND:
            self.skipped += 1
            return False
        self._in_second += 1
        return True

    async def _copy(self, lack: StaleCopy) -> bool:
        """Bring a zone what it lacks. False when it, or the source, did not answer."""
        try:
            began = asyncio.get_running_loop().time() if lack.hit is None else lack.asked_at
            outcome = await self._carry_over(lack, began, REPAIR_TIMEOUT_SECONDS)
            self.done += outcome in (Outcome.STORED, Outcome.SUPERSEDED)
        except CacheError:
            outcome = Outcome.UNAVAILABLE
        finally:
            self._running.discard((lack.key, lack.node))
        if outcome is not None:
            self._hooks.repaired(lack.zone, outcome)
        return outcome is not Outcome.UNAVAILABLE

    async def _carry_over(self, lack: StaleCopy, began: float, seconds: float) -> Outcome | None:
        """Store what a zone lacks there. None: there is nothing to store any more. Raises a `NodeError`.

        `began`: when the original was asked for, on the loop's clock; `seconds`: how long the copy may take from then on.
        """
        hit, deadline = lack.hit, began + seconds
        if hit is None:  # read again, now with the time that is left: an ordinary read does not ask, to stay small
            hit = read_hit(await send_request(lack.source, requests.meta_get(lack.key, requests.COPY_FLAGS), deadline))
        if hit is None or hit.ttl is None or self._clock.observe(hit.cas) != lack.version:
            return None  # expired, or replaced by a write that goes to every zone by itself
        exptime = exptime_of_copy(hit.ttl, seconds, self._now())
        if exptime is None:
            return await self._remove_older(lack, deadline) if lack.holds_older else None
        if len(hit.value) > capabilities_of(lack.node).largest_value(lack.key):
            return Outcome.NOT_STORED  # the server would delete what it has under the key, and then refuse
        store = StoreCommand(self._clock, lack.key, hit.value, hit.flags, ttl=exptime, version=lack.version)
        # The zones were asked one after another, and this one may have got the version since. It must not get a shorter life
        # by a copy, and so the store looks again.
        outcome = await store.peek_and_apply(lack.node, deadline, over_equal=False)
        self._announce_repaired(lack, outcome)
        return outcome

    def _announce_repaired(self, lack: StaleCopy, outcome: Outcome) -> None:
        """Announce a repair to other processes if the zone held an older version."""
        if outcome is Outcome.STORED and lack.holds_older and self.announce is not None:
            # A near cache of another process may have kept the older value, read here after the write was announced. An
            # announcement for each copy to an empty zone would be a flood without use.
            self.announce(lack.key, lack.version)

    async def _remove_older(self, lack: StaleCopy, deadline: float) -> Outcome:
        """Remove what is older than an item that is about to expire: it would be read when that one is gone.

        Not by a tombstone of the newer version, which a touch may yet keep alive in its zone.
        """
        seen = await peek(lack.node, lack.key, deadline)
        version = None if seen is None else self._clock.observe(seen.cas)
        if version is None or version >= lack.version:
            return Outcome.SUPERSEDED
        outcome = await remove_version(lack.node, lack.key, version, deadline)
        self._announce_repaired(lack, outcome)
        return outcome

    def _tombstone(self, key: bytes, version: int) -> DeleteCommand:
        return DeleteCommand(self._clock, key, ttl=to_exptime(self._tombstone_ttl, self._now()), version=version)
