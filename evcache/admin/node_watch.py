"""Watch of one node: its statistics over an administration connection, and the round trip of an ordinary connection."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from contextlib import AsyncExitStack

from evcache.admin.load_table import Figures, NodeLoad
from evcache.admin.rates import NO_RATES, Rates, rates_between
from evcache.readiness.check import cause_of
from evcache.zones.admin.session import AdminSession, open_session
from evcache.zones.admin.statistics import ServerStatistics
from evcache.zones.errors import CacheError, ConnectionLost, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings

# Number of the latest round trips whose median is shown.
LATENCIES = 10


class NodeWatch:
    """Repeated samples of one node. The administration connection stays open between them."""

    def __init__(self, node: Node, settings: NodeSettings, timeout: float) -> None:
        """Make a watch that has asked nothing yet.

        Args:
            node: The node.
            settings: Settings of the administration connection. Its `connect_timeout` also limits each reply.
            timeout: Seconds for a probe.
        """
        self._node = node
        self._settings = settings
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._session: AdminSession | None = None
        self._stack = AsyncExitStack()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._last: tuple[float, ServerStatistics] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._began_at = 0.0
        self._fresh: NodeLoad | None = None
        self._error: str | None = None  # of the last sample that ended
        self.is_prompt = True
        """True if the last table had an answer of this node. The next table waits for such nodes."""

    def begin(self) -> asyncio.Task[None]:
        """Begin a sample, and return its task. If the last sample has not ended, return that one's."""
        if self._sampling is None or self._sampling.done():
            self._began_at = self._loop.time()
            self._sampling = self._loop.create_task(self._sample(), name=f"evcache-watch-{self._node.label}")
        return self._sampling

    def take(self) -> NodeLoad:
        """Return the load of the last sample that ended, once. A node without a new one has an error."""
        load, self._fresh = self._fresh, None
        if load is None:
            error = self._error or f"no reply in {self._loop.time() - self._began_at:.1f} s"
            load = self._load(Figures(), NO_RATES, error)
        self.is_prompt = load.has_answer
        return load

    async def close(self) -> None:
        """End the sample and the connection."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.wait([self._sampling])
        await self._close_session()

    async def _sample(self) -> None:
        if self._last is None:
            # The handshake of the first probe is a read, which the rates must not count.
            probed = await self._probe()
            found, error, at = await self._statistics()
        else:
            probed, (found, error, at) = await asyncio.gather(self._probe(), self._statistics())
        rates = NO_RATES
        if found is not None:
            if self._last is not None:
                rates = rates_between(self._last[1], found, at - self._last[0])
            self._last = at, found
        median = statistics.median(self._latencies) if probed is None else None
        self._error = error or probed
        self._fresh = self._load(Figures.of(found, rates, median), rates, self._error)

    async def _probe(self) -> str | None:
        """Measure a round trip. Return the cause if the node does not answer."""
        deadline = self._loop.time() + self._timeout
        try:
            connection = await self._node.connected(deadline)
            began = self._loop.time()
            await connection.probe(deadline)
        except CacheError as error:
            return cause_of(error)
        self._latencies.append(self._loop.time() - began)
        return None

    async def _statistics(self) -> tuple[ServerStatistics | None, str | None, float]:
        """Return the statistics, or the cause if there are none, and the time of the reply."""
        is_reused = self._session is not None
        found, error = None, None
        try:
            try:
                found = await self._ask()
            except ConnectionLost:
                if not is_reused:
                    raise
                found = await self._ask()  # the server restarted, or closed the idle connection
        except ServerError as problem:
            error = f"stats refused: {cause_of(problem)}"
        except CacheError as problem:
            error = cause_of(problem)
        return found, error, self._loop.time()

    async def _ask(self) -> ServerStatistics:
        try:
            if self._session is None:
                session = open_session(self._node.endpoint, self._settings)
                self._session = await self._stack.enter_async_context(session)
            return await self._session.statistics()
        except ServerError:
            raise  # the connection can still be used
        except BaseException:
            await self._close_session()
            raise

    async def _close_session(self) -> None:
        self._session = None
        await self._stack.aclose()

    def _load(self, figures: Figures, rates: Rates, error: str | None) -> NodeLoad:
        node = self._node
        return NodeLoad(node.label, node.endpoint.address, node.state, node.circuit, error, rates, figures)
