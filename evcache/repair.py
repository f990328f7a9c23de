"""Repair: a zone that lacks the newest value of a key is brought it, in the background.

With the guarded store, so a repair that comes late does no harm: it can't replace anything newer, and a tombstone keeps it
from bringing back what was deleted. Only items with a version are repaired; the copy gets the seconds that the original
has left.

One thing the guarded store can't know: a zone that was cut off may have missed a delete, whose tombstone has expired
everywhere since. So an item that is older than the end of its node's outage is brought to no zone unless another one
holds it too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from evcache.answers import Found
from evcache.background import Background
from evcache.commands import Seen, Store, ask, carry_out, inspect
from evcache.hooks import Hooks
from evcache.results import Outcome
from evcache.ttl import copied
from evcache.versions import VersionClock, milliseconds_of
from zones.cluster import View
from zones.errors import CacheError
from zones.node import Node
from zones.protocol import requests
from zones.protocol.replies import read_hit

# Repairs under way at once, and in a second. A zone that comes back empty would otherwise be sent everything in the same
# second, on top of its ordinary load; what is not repaired now is repaired by a later read.
MAX_REPAIRS = 64
MAX_REPAIRS_PER_SECOND = 1_000

# Seconds for a repair: nobody waits for it.
REPAIR_TIMEOUT_SECONDS = 1.0


class Repair:
    """The repairs of one client."""

    def __init__(
        self,
        clock: VersionClock,
        background: Background,
        hooks: Hooks,
        *,
        enabled: bool,
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
        for zone, node in behind.items():
            self._bring(zone, key, found.version, source, node)

    def check(self, view: View, key: bytes) -> None:
        """Have all zones compared, and those that are behind brought the newest version. Returns at once."""
        if not self.enabled or key in self._checking or not self._has_room():
            return
        self._checking.add(key)
        if self._background.spawn(self._check(view, key)) is None:
            self._checking.discard(key)

    async def compare(self, view: View, key: bytes, deadline: float) -> None:
        """Compare all zones now, and start what repairs follow. Zones that can't be reached are left out."""
        place = view.place(key)
        nodes = {pool.name: pool.node(place) for pool in view.writers}
        seen = await asyncio.gather(*(self._look(node, key, deadline) for node in nodes.values()))
        answers = dict(zip(nodes, seen, strict=True))
        versions = {
            zone: version
            for zone, item in answers.items()
            if isinstance(item, Seen) and (version := self._clock.version_of(item.cas)) is not None
        }
        if not versions:
            return
        newest = max(versions.values())
        holders = [zone for zone, version in versions.items() if version == newest]
        if len(holders) == 1 and self._may_be_undead(nodes[holders[0]], newest):
            return
        for zone, item in answers.items():
            if zone not in holders and not isinstance(item, CacheError) and (item is None or zone in versions):
                self._bring(zone, key, newest, nodes[holders[0]], nodes[zone])

    async def _check(self, view: View, key: bytes) -> None:
        try:
            await self.compare(view, key, view.loop.time() + REPAIR_TIMEOUT_SECONDS)
        finally:
            self._checking.discard(key)

    async def _look(self, node: Node, key: bytes, deadline: float) -> Seen | CacheError | None:
        try:
            return await inspect(node, key, deadline)
        except CacheError as error:
            return error

    def _may_be_undead(self, node: Node, version: int) -> bool:
        if node.returned_at is None:
            return False
        ago = asyncio.get_running_loop().time() - node.returned_at
        return milliseconds_of(version) < (self._now() - ago) * 1000

    def _bring(self, zone: str, key: bytes, version: int, source: Node, node: Node) -> None:
        place = (key, node)
        capabilities = node.capabilities
        if place in self._running or node.is_down or capabilities is None or not capabilities.versions:
            return
        if not self._has_room():
            return
        self._running.add(place)
        if self._background.spawn(self._copy(zone, place, version, source)) is None:
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

    async def _copy(self, zone: str, place: tuple[bytes, Node], version: int, source: Node) -> None:
        key, node = place
        try:
            deadline = asyncio.get_running_loop().time() + REPAIR_TIMEOUT_SECONDS
            # Read again, now with the time that is left: an ordinary read does not ask for it, to stay small.
            hit = read_hit(await ask(source, requests.meta_get(key, requests.COPY_FLAGS), deadline))
            if hit is None or hit.ttl is None or self._clock.version_of(hit.cas) != version:
                return  # expired, or replaced by a write that goes to every zone by itself
            store = Store(self._clock, key, hit.value, hit.flags, ttl=copied(hit.ttl, self._now()), version=version)
            outcome = await carry_out(store, node, deadline)
            self.done += outcome in (Outcome.STORED, Outcome.SUPERSEDED)
        except CacheError:
            outcome = Outcome.UNAVAILABLE
        finally:
            self._running.discard(place)
        self._hooks.repaired(zone, outcome)
