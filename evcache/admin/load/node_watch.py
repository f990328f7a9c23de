"""Watch of one node: its statistics over an administration connection, and the round trip of an ordinary connection."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from contextlib import AsyncExitStack

from evcache.admin.load.rates import NO_RATES, Rates, rates_between
from evcache.admin.load.table import Figures, NodeLoad
from evcache.readiness.check import cause_of
from evcache.zones.admin.session import AdminSession, open_session
from evcache.zones.admin.statistics import ServerStatistics
from evcache.zones.errors import CacheError, ConnectionLost, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings

# Number of the latest round trips whose median is shown.
LATENCIES = 10

# Seconds after which statistics are asked for although some probes have no reply yet.
PROBES_FIRST_SECONDS = 0.1


class SampleRound:
    """Samples that begin together. The statistics of all nodes are asked for after the probes.

    A reply with statistics has a hundred lines. Reading those of other nodes would count as the round trip of a probe.
    """

    def __init__(self, nodes: int) -> None:
        """Begin a round of this number of nodes."""
        self._left = nodes
        self.is_probed = asyncio.Event()
        """Set after the last probe, or after `PROBES_FIRST_SECONDS`."""
        self._timer = asyncio.get_running_loop().call_later(PROBES_FIRST_SECONDS, self.is_probed.set)

    def end_probe(self) -> None:
        """Count a probe that has ended."""
        self._left -= 1
        if self._left <= 0:
            self._timer.cancel()
            self.is_probed.set()


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

    @property
    def sampling(self) -> asyncio.Task[None] | None:
        """Task of the sample that runs. None if none does."""
        return None if self._sampling is None or self._sampling.done() else self._sampling

    def begin(self, together: SampleRound) -> asyncio.Task[None]:
        """Begin a sample, and return its task. The last one has ended."""
        self._began_at = self._loop.time()
        self._sampling = self._loop.create_task(self._sample(together), name=f"evcache-watch-{self._node.label}")
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

    async def _sample(self, together: SampleRound) -> None:
        async with asyncio.TaskGroup() as group:
            probe = group.create_task(self._probe(together))
            asked = group.create_task(self._statistics_after(together, probe))
        probed, (found, error, at) = probe.result(), asked.result()
        rates = NO_RATES
        if found is not None:
            if self._last is not None:
                rates = rates_between(self._last[1], found, at - self._last[0])
            self._last = at, found
        median = statistics.median(self._latencies) if probed is None else None
        self._error = error or probed
        self._fresh = self._load(Figures.of(found, rates, median), rates, self._error)

    async def _probe(self, together: SampleRound) -> str | None:
        """Measure a round trip. Return the cause if the node does not answer."""
        try:
            return await self._measure()
        finally:
            together.end_probe()

    async def _measure(self) -> str | None:
        deadline = self._loop.time() + self._timeout
        try:
            connection = await self._node.connected(deadline)
            began = self._loop.time()
            await connection.probe(deadline)
        except CacheError as error:
            return cause_of(error)
        self._latencies.append(self._loop.time() - began)
        return None

    async def _statistics_after(
        self, together: SampleRound, probe: asyncio.Task[str | None]
    ) -> tuple[ServerStatistics | None, str | None, float]:
        await together.is_probed.wait()
        if self._last is None:
            await asyncio.wait([probe])  # its handshake is a read, which the rates must not count
        return await self._statistics()

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
