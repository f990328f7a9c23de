"""Source that is asked again at an interval."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from evcache.zones.discovery.base import Handover, SourceStatus
from evcache.zones.errors import DiscoveryError
from evcache.zones.topology.model import Topology
from evcache.zones.validation import positive_seconds

# Share by which each pause is shorter or longer, at random. Processes that were started together must not ask together.
JITTER = 0.2

# Seconds until a source that failed is asked again, doubled with each further failure up to the interval. An API server or a
# name server restarts in seconds.
FIRST_RETRY_SECONDS = 1.0


class Look(NamedTuple):
    """Result of one look at a source."""

    topology: Topology
    """Zones and nodes that the source has now."""
    pause: float | None = None
    """Seconds until the next look. If None, the interval of the source applies."""
    error: DiscoveryError | None = None
    """Failure of a part of the source. The topology then has the last known nodes of that part."""
    stale: tuple[str, ...] = ()
    """Zones whose nodes were not found, if there is an error."""


class PolledDiscovery:
    """Source that is asked again at an interval. A subclass defines `look`.

    Several clients may share it. If a look fails, the source logs the first failure in a row, and the topology in use stays.
    """

    def __init__(self, source: str, *, interval: float, timeout: float, draw: Callable[[], float] = random.random) -> None:
        """Make a source.

        Args:
            source: Name of the source, for logs and errors.
            interval: Seconds between looks. Each pause differs from it by up to a fifth.
            timeout: Seconds for one look.
            draw: Return a random number from 0 to 1.

        Raises:
            InvalidArgument: An argument has a wrong type or value.
        """
        self.status = SourceStatus(source)
        """Freshness of the topology."""
        self._interval = positive_seconds(interval, "interval")
        self._timeout = positive_seconds(timeout, "timeout")
        self._draw = draw
        self._retry_at = float("-inf")
        self._failed: DiscoveryError | None = None
        self._loads: Handover[float] = Handover()  # with the pause until the next look

    async def look(self) -> Look:
        """Return what the source has now. Any exception counts as a failure of the source."""
        raise NotImplementedError

    async def load(self) -> Topology:
        """Return the present topology.

        Raises:
            DiscoveryError: The source did not answer in time. For a moment, further calls raise the same error, because each
                call of a service would ask the source again.
        """
        loop = asyncio.get_running_loop()
        # The lower limit is for another event loop, whose clock may be behind.
        if self._failed is not None and self._retry_at - FIRST_RETRY_SECONDS <= loop.time() < self._retry_at:
            # A copy, because one error object would collect the tracebacks of all calls.
            raise DiscoveryError(self._failed.source, self._failed.problem)
        self.status.reset()
        try:
            topology, pause = await self._look()
        except DiscoveryError as error:
            # From the end of the look, because one that hangs takes longer than the pause.
            self._failed, self._retry_at = error, loop.time() + FIRST_RETRY_SECONDS
            raise
        self._loads.put(topology, pause)
        return topology

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology that differs from the last one."""
        last, pause = self._loads.take() or (None, min(FIRST_RETRY_SECONDS, self._interval))
        retry = FIRST_RETRY_SECONDS
        while True:
            await asyncio.sleep(pause * (1 + JITTER * (2 * self._draw() - 1)))
            try:
                topology, pause = await self._look()
            except DiscoveryError as error:
                self.status.fail(error)
                pause, retry = min(retry, self._interval), retry * 2
                continue
            retry = FIRST_RETRY_SECONDS
            if topology != last:
                last = topology
                yield topology

    async def _look(self) -> tuple[Topology, float]:
        """Return the topology, and the seconds until the next look before jitter."""
        try:
            async with asyncio.timeout(self._timeout) as limit:
                topology, pause, error, stale = await self.look()
        except DiscoveryError:
            raise
        except Exception as error:  # a library of the source may raise any error; the topology in use must outlive all
            if limit.expired():
                raise DiscoveryError(self.status.source, f"no answer in {self._timeout:g} s") from None
            raise DiscoveryError(self.status.source, str(error) or type(error).__name__) from error
        if error is None:
            self.status.confirm()
        else:
            self.status.fail(error, stale)
        return topology, self._interval if pause is None else pause
