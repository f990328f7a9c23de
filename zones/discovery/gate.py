"""Gate between a source of topologies and the zones in use: it applies a topology, or holds it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from evcache.zones.discovery.guard import RemovalLimiter, TopologyGuard, restrained
from evcache.zones.errors import InvalidTopology
from evcache.zones.routing.ketama import Ring
from evcache.zones.topology.model import Endpoint, Topology

Rings = Mapping[str, Ring]

_log = logging.getLogger("evcache.zones.discovery")

# Seconds between looks at a topology that is held back: nodes may be down by then, and the source may work again.
RECHECK_SECONDS = 5.0


class HeldTopology(NamedTuple):
    """A topology of which a part is held back."""

    topology: Topology
    rings: Rings
    zones: Mapping[str, str]
    """Zones that are held back, with the reasons."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons alone."""
        return tuple(self.zones.values())


class TopologyGate:
    """The gate of one source. It belongs to one event loop."""

    def __init__(
        self,
        limits: TopologyGuard | None,
        current: Callable[[], Topology],
        apply: Callable[[Topology, Rings], object],
        *,
        stale: Callable[[], Collection[str] | None] = frozenset,
        is_down: Callable[[str, Endpoint], bool] = lambda _zone, _node: False,
    ) -> None:
        """Make an open gate.

        Args:
            limits: Limits of a change that is applied at once. If None, every change is.
            current: Return the topology in use.
            apply: Use a topology from now on. It raises `InvalidTopology` for one that cannot be used.
            stale: Return the zones whose last report says nothing about the present, because their source fails. None for
                all.
            is_down: Return True if a node of a zone has been down for a while.
        """
        self.held: HeldTopology | None = None
        """The topology of which a part is held back, or None."""
        self._limiter = None if limits is None else RemovalLimiter(limits, is_down)
        self._current = current
        self._apply = apply
        self._stale = stale
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, topology: Topology, rings: Rings) -> None:
        """Apply a topology of the source, or hold a part of it back. It replaces one that is held back."""
        self._cancel_timer()
        current, now = self._current(), self._loop.time()
        held, again_at = ({}, now) if self._limiter is None else self._limiter.judge(current, topology, now)
        if not held:
            self.held = None
            self._use(topology, rings)
            return
        reasons = tuple(held.values())
        if self.held is None or self.held.reasons != reasons:
            _log.warning(
                "topology held back: %s; the client applies it in %.0f s if it stays, or when it is confirmed",
                "; ".join(reasons),
                again_at - now,
            )
        self.held = HeldTopology(topology, rings, held)
        self._timer = self._loop.call_at(min(again_at, now + RECHECK_SECONDS), self.reconsider)
        try:
            rest = restrained(current, topology, held)
        except InvalidTopology:  # the zones that are held back are the only ones that can be read
            return
        if rest != current:
            self._use(rest, {zone: ring for zone, ring in rings.items() if zone not in held})

    def reconsider(self) -> None:
        """Look at the topology that is held back again. Has no effect if there is none."""
        if self.held is None:
            return
        stale = self._stale()
        if stale is not None and not self.held.zones.keys() & set(stale):
            self.offer(self.held.topology, self.held.rings)
        else:
            self._cancel_timer()
            self._timer = self._loop.call_later(RECHECK_SECONDS, self.reconsider)

    def confirm(self) -> bool:
        """Apply the topology that is held back now. Return False if there is none, or if it cannot be used."""
        if self.held is None:
            return False
        self._cancel_timer()
        held, self.held = self.held, None
        return self._use(held.topology, held.rings, confirmed=True)

    def close(self) -> None:
        """Drop the topology that is held back."""
        self._cancel_timer()
        self.held = None

    def _use(self, topology: Topology, rings: Rings, *, confirmed: bool = False) -> bool:
        current, now = self._current(), self._loop.time()
        limiter = self._limiter
        removals = [] if limiter is None or confirmed else limiter.removals(current, topology, now)
        try:
            self._apply(topology, rings)
        except InvalidTopology as error:
            _log.warning("topology update failed: %s; keeping the previous topology", error)
            return False
        if limiter is not None:
            limiter.applied(current, topology, now, removals)
        return True

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
