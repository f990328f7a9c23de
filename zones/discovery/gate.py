"""Gate between a source of topologies and the zones in use: it applies a topology, or holds it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from evcache.zones.discovery.guard import RemovalLimiter, TopologyGuard
from evcache.zones.errors import InvalidTopology
from evcache.zones.routing.ketama import Ring
from evcache.zones.topology.model import Topology

Rings = Mapping[str, Ring]

_log = logging.getLogger("evcache.zones.discovery")


class HeldTopology(NamedTuple):
    """A topology that is held back."""

    topology: Topology
    rings: Rings
    reasons: tuple[str, ...]


class TopologyGate:
    """The gate of one source. It belongs to one event loop."""

    def __init__(
        self,
        limits: TopologyGuard | None,
        current: Callable[[], Topology],
        apply: Callable[[Topology, Rings], object],
    ) -> None:
        """Make an open gate.

        Args:
            limits: Limits of a change that is applied at once. If None, every change is.
            current: Return the topology in use.
            apply: Use a topology from now on. It raises `InvalidTopology` for one that cannot be used.
        """
        self.held: HeldTopology | None = None
        """The topology that is held back, or None."""
        self._limiter = None if limits is None else RemovalLimiter(limits)
        self._current = current
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, topology: Topology, rings: Rings) -> None:
        """Apply a topology of the source, or hold it back. It replaces one that is held back."""
        self._cancel_timer()
        current, now = self._current(), self._loop.time()
        if self._limiter is None:
            self._use(topology, rings)
            return
        reasons, again_at = self._limiter.judge(current, topology, now)
        if not reasons:
            self._use(topology, rings)
            return
        if self.held is None or self.held.reasons != reasons:
            _log.warning(
                "topology held back: %s; the client applies it in %.0f s if it stays, or when it is confirmed",
                "; ".join(reasons),
                again_at - now,
            )
        self.held = HeldTopology(topology, rings, reasons)
        self._timer = self._loop.call_at(again_at, self.offer, topology, rings)

    def confirm(self) -> bool:
        """Apply the topology that is held back now. Return False if there is none."""
        if self.held is None:
            return False
        self._cancel_timer()
        self._use(self.held.topology, self.held.rings)
        return True

    def close(self) -> None:
        """Drop the topology that is held back."""
        self._cancel_timer()
        self.held = None

    def _use(self, topology: Topology, rings: Rings) -> None:
        current, self.held = self._current(), None
        try:
            self._apply(topology, rings)
        except InvalidTopology as error:
            _log.warning("topology update failed: %s; keeping the previous topology", error)
            return
        if self._limiter is not None:
            self._limiter.applied(current, topology, self._loop.time())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
