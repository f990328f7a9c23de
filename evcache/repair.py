"""Repair: a zone that lacks the newest value of a key is brought it, in the background.

With the guarded store, so a repair that comes late does no harm: it can't replace anything newer, and a tombstone keeps it
from bringing back what was deleted. Only items with a version are repaired; the copy gets the seconds that the original
has left.

One thing the guarded store can't know: a zone that was cut off may have missed a delete whose tombstone has expired
everywhere since. So after an outage that began longer ago than a tombstone lives, an item that is older than its end is
brought to no zone unless another one holds the key too, in whatever version: there, no delete has come after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from evcache.answers import Found
from evcache.background import Background
from evcache.commands import Seen, Store, ask, carry_out, inspect
from evcache.config import TOMBSTONE_TTL_SECONDS
from evcache.hooks import Hooks
from evcache.results import Outcome
from evcache.ttl import copied
from evcache.versions import VersionClock, milliseconds_of
from zones.cluster import View
from zones.errors import CacheError
from zones.node import Node
from zones.protocol import requests
from zones.protocol.replies import Hit, read_hit

# Repairs under way at once, and in a second. A zone that comes back empty would otherwise be sent everything in the same
# second, on top of its ordinary load; what is not repaired now is repaired by a later read.
MAX_REPAIRS = 64
MAX_REPAIRS_PER_SECOND = 1_000

# Seconds for a repair: nobody waits for it.
REPAIR_TIMEOUT_SECONDS = 1.0


# A tombstone is taken to be gone this much earlier than it is: time that passes while zones are compared.
TOMBSTONE_MARGIN_SECONDS = 2.0


class Lack(NamedTuple):
    """A zone that lacks the newest version of a key, and where that is."""

    zone: str
    key: bytes
    version: int
    source: Node
    node: Node
    hit: Hit | None = None
    """What was read there, if the seconds that it has left were read too."""

    @property
    def can_be_mended(self) -> bool:
        """Whether the node can be reached, and orders writes by version."""
        capabilities = self.node.capabilities
        return not self.node.is_down and capabilities is not None and capabilities.versions


class Repair:
    """The repairs of one client."""

    def __init__(
        self,
        clock: VersionClock,
        background: Background,
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
        self._clock = clock
        self._background = background
        self._hooks = hooks
        self._now = now
        self._tombstone_life = max(0.0, tombstone_ttl - TOMBSTONE_MARGIN_SECONDS)
        self._running: set[tuple[bytes, Node]] = set()
        self._checking: set[bytes] = set()
        self._second = 0.0  # when the present second began, on the loop's clock, and the repairs in it
        self._in_second = 0

    @property
    def running(self) -> int:
        """Repairs under way."""
        return len(self._running) + len(self._checking)

    def bring(self, view: View, key: bytes, found: Found, source: Node, behind: Mapping[str, Node]) -> None:
        """Have what was found on `source` brought to the zones that are behind (their nodes, by name). Returns at once."""
        if not self.enabled or found.version is None:
            return
        if self._may_be_undead(source, found.version):
            self.check(view, key)  # asks the other zones first
            return
        hit = found.hit if found.hit.ttl is not None else None
        for zone, node in behind.items():
            self._mend(Lack(zone, key, found.version, source, node, hit))

    def check(self, view: View, key: bytes) -> None:
        """Have all zones compared, and those that are behind brought the newest version. Returns at once."""
        if not self.enabled or key in self._checking or not self._has_room():
            return
        self._checking.add(key)
        if self._background.spawn(self._check(view, key)) is None:
            self._checking.discard(key)

    async def compare(self, view: View, key: bytes, deadline: float) -> tuple[list[Lack], set[str]]:
        """Which zones lack the newest version of a key, and the zones that can't be reached."""
        place = view.place(key)
        nodes = {pool.name: pool.node(place) for pool in view.writers}
        looks = await asyncio.gather(*(self._look(node, key, deadline) for node in nodes.values()))
        seen = {zone: item for zone, item in zip(nodes, looks, strict=True) if not isinstance(item, CacheError)}
        versions = {zone: self._clock.version_of(item.cas) for zone, item in seen.items() if item is not None}
        versioned = {zone: version for zone, version in versions.items() if version is not None}
        out_of_reach = nodes.keys() - seen.keys()
        if not versioned:
            return [], out_of_reach
        newest = max(versioned.values())
        source = next(zone for zone, version in versioned.items() if version == newest)
        # Another zone that holds the key in any version has not seen a delete after it: then it is not the undead.
        if self._may_be_undead(nodes[source], newest) and len(versioned) == 1:
            return [], out_of_reach
        lacks = [
            Lack(zone, key, newest, nodes[source], nodes[zone])
            for zone, item in seen.items()
            if item is None or (zone in versioned and versioned[zone] < newest)
        ]
        return lacks, out_of_reach

    async def settle(self, view: View, key: bytes, deadline: float) -> set[str]:
        """Compare all zones, and bring those that are behind the newest version; done when they have it.

        Returns the zones of which that can't be said. For few: it is not counted among the repairs under way.
        """
        lacks, unsettled = await self.compare(view, key, deadline)
        for lack in lacks:
            # One that has gone down since the look is not settled; one that keeps no versions never will be.
            if lack.node.is_down or (lack.can_be_mended and not await self._copy(lack)):
                unsettled.add(lack.zone)
        return unsettled

    async def _check(self, view: View, key: bytes) -> None:
        try:
            lacks, _ = await self.compare(view, key, view.loop.time() + REPAIR_TIMEOUT_SECONDS)
            for lack in lacks:
                self._mend(lack)
        finally:
            self._checking.discard(key)

    async def _look(self, node: Node, key: bytes, deadline: float) -> Seen | CacheError | None:
        try:
            return await inspect(node, key, deadline)
        except CacheError as error:
            return error

    def _may_be_undead(self, node: Node, version: int) -> bool:
        """Whether the node was cut off after this was written, and long enough for a delete to be forgotten meanwhile."""
        loop_now, now = asyncio.get_running_loop().time(), self._now()
        return any(
            loop_now - outage.began >= self._tombstone_life
            and milliseconds_of(version) < (now - (loop_now - outage.ended)) * 1000
            for outage in node.outages
        )

    def _mend(self, lack: Lack) -> None:
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

    async def _copy(self, lack: Lack) -> bool:
        """Bring a zone what it lacks. False when it, or the source, did not answer."""
        try:
            deadline = asyncio.get_running_loop().time() + REPAIR_TIMEOUT_SECONDS
            hit = lack.hit
            if hit is None:  # read again, now with the time that is left: an ordinary read does not ask, to stay small
                hit = read_hit(await ask(lack.source, requests.meta_get(lack.key, requests.COPY_FLAGS), deadline))
            if hit is None or hit.ttl is None or self._clock.version_of(hit.cas) != lack.version:
                return True  # expired, or replaced by a write that goes to every zone by itself
            ttl = copied(hit.ttl, self._now())
            store = Store(self._clock, lack.key, hit.value, hit.flags, ttl=ttl, version=lack.version)
            outcome = await carry_out(store, lack.node, deadline)
            self.done += outcome in (Outcome.STORED, Outcome.SUPERSEDED)
        except CacheError:
            outcome = Outcome.UNAVAILABLE
        finally:
            self._running.discard((lack.key, lack.node))
        self._hooks.repaired(lack.zone, outcome)
        return outcome is not Outcome.UNAVAILABLE
