"""Read repair: a zone that was seen to lack the newest value is brought it, in the background.

With the guarded store, so a repair that comes late does no harm: it can't replace anything newer, and a tombstone keeps it
from bringing back what was deleted. Only items with a version are repaired; the copy gets the seconds that the original
has left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from evcache.answers import Found
from evcache.background import Background
from evcache.commands import Store, ask, carry_out
from evcache.hooks import Hooks
from evcache.results import Outcome
from evcache.ttl import copied
from evcache.versions import VersionClock
from zones.errors import CacheError
from zones.node import Node
from zones.protocol import requests
from zones.protocol.replies import read_hit

# Repairs under way at once. A zone that comes back empty would otherwise be sent everything in the same second, on top of
# its ordinary load; what is not repaired now is repaired by a later read.
MAX_REPAIRS = 64

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
        self._clock = clock
        self._background = background
        self._hooks = hooks
        self._enabled = enabled
        self._now = now
        self._running: set[tuple[bytes, Node]] = set()

    def bring(self, key: bytes, found: Found, source: Node, behind: Mapping[str, Node]) -> None:
        """Have what was found on `source` brought to the zones that are behind (their nodes, by name). Returns at once."""
        if not self._enabled or found.version is None:
            return
        for zone, node in behind.items():
            place = (key, node)
            capabilities = node.capabilities
            if place in self._running or node.is_down or capabilities is None or not capabilities.versions:
                continue
            if len(self._running) >= MAX_REPAIRS:
                return
            self._running.add(place)
            if self._background.spawn(self._copy(zone, place, found.version, source)) is None:
                self._running.discard(place)

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
        except CacheError:
            outcome = Outcome.UNAVAILABLE
        finally:
            self._running.discard(place)
        self._hooks.repaired(zone, outcome)
