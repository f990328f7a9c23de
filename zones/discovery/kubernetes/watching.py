"""The watch of one opening: it lists, watches, connects again after a failure, and joins events of one update."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from evcache.zones.discovery.base import SourceStatus
from evcache.zones.discovery.kubernetes.nodes import ServiceNodes
from evcache.zones.discovery.kubernetes.slices import ApiProblem, ConnectionCut, Expired, SliceSet
from evcache.zones.errors import DiscoveryError
from evcache.zones.topology.model import Topology
from evcache.zones.validation import positive_seconds

# Share by which each watch is shorter or longer, at random. Processes that were started together must not ask together.
JITTER = 0.2

# Doublings of the pause between attempts. More would overflow a float after days.
MOST_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds."""

    timeout: float = 10.0
    """Limit of a list, and of the beginning of a watch."""
    watch: float = 240.0
    """Duration of a watch. A connection that hangs is noticed at its end. Go clients use 5 to 10 minutes."""
    margin: float = 15.0
    """Additional time until a watch that has not ended is cut."""
    proof: float = 1.0
    """Time after which a watch without events is taken to work. A proxy may accept each watch and end it at once."""
    debounce: float = 0.1
    """Silence after an event before the slices are used. An update of a Service may be several events."""
    longest_burst: float = 1.0
    """Limit of the time for which events in a row delay the use of the slices."""
    first_retry: float = 1.0
    """Longest pause after the first failure. It doubles with each further failure."""
    longest_retry: float = 30.0
    """Limit of the pause between attempts."""

    def __post_init__(self) -> None:
        for one in fields(self):
            positive_seconds(getattr(self, one.name), one.name)


class Stream(Protocol):
    """Events of one watch."""

    async def read(self) -> list[bytes] | None:
        """Return the next events. None means that the server ended the watch."""
        ...

    def release(self) -> None:
        """Return the connection."""
        ...


class Requests(Protocol):
    """Requests to the API server."""

    async def list(self) -> SliceSet:
        """Return the present slices."""
        ...

    async def watch(self, version: str, seconds: float) -> Stream:
        """Return the events after a version."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class SliceWatch:
    """Watch of one Service. `next_topology` does all its work, so it has no task and no timer."""

    def __init__(
        self,
        open_requests: Callable[[], Requests],
        nodes: ServiceNodes,
        status: SourceStatus,
        timing: Timing,
        draw: Callable[[], float],
    ) -> None:
        """Make a watch that has not begun.

        Args:
            open_requests: Return requests with a session of their own. It raises `ApiProblem` if the settings are missing.
            nodes: Nodes of the Service.
            status: Freshness of the source.
            timing: Times.
            draw: Return a random number from 0 to 1.
        """
        self._open = open_requests
        self._nodes = nodes
        self._status = status
        self._timing = timing
        self._draw = draw
        self._loop = asyncio.get_running_loop()
        self._requests: Requests | None = None
        self._stream: Stream | None = None
        self._slices: SliceSet | None = None
        self._listed = False  # no event since the list
        self._began = self._ends = 0.0
        self._proven = False  # the present watch works
        self._burst: float | None = None  # time of the first event that is not in use
        self._due = self._again_at = float("inf")
        self._problem: str | None = None
        self._has_nodes = False
        self._failures = 0
        self._last: Topology | None = None

    def start(self, slices: SliceSet) -> Topology | None:
        """Continue from slices that were listed before. Return their topology, or None if there is none."""
        self._slices, self._listed = slices, True
        return self._evaluate()

    async def next_topology(self) -> Topology:
        """Return the next topology that differs from the last one. No failure of the API server ends the wait."""
        while True:
            topology = None
            try:
                topology = await self._step()
            except ApiProblem as problem:
                await self._recover(problem)
            except Exception as error:  # of the HTTP library; the topology in use must outlive all
                await self._recover(ApiProblem(str(error) or type(error).__name__))
            if topology is not None:
                return topology

    async def close(self) -> None:
        """Close all connections. May be called again."""
        requests, self._requests, self._stream = self._requests, None, None
        if requests is not None:
            await requests.close()

    async def _step(self) -> Topology | None:
        """List, begin a watch, or read events. Return a topology that differs from the last one."""
        if self._requests is None:
            self._requests = self._open()
        try:
            if self._slices is None:
                async with asyncio.timeout(self._timing.timeout):
                    self._slices = await self._requests.list()
                self._listed = True
                return self._evaluate()
            if self._stream is None:
                seconds = self._timing.watch * (1 + JITTER * (2 * self._draw() - 1))
                async with asyncio.timeout(self._timing.timeout):
                    self._stream = await self._requests.watch(self._slices.version, seconds)
                self._began, self._proven = self._loop.time(), False
                self._ends = self._began + seconds + self._timing.margin
        except TimeoutError:
            raise ApiProblem(f"no answer in {self._timing.timeout:g} s") from None
        return await self._read(self._stream, self._slices)

    async def _read(self, stream: Stream, slices: SliceSet) -> Topology | None:
        lines: Sequence[bytes] | None = ()
        try:
            async with asyncio.timeout_at(min(self._ends, self._due, self._again_at, self._proof_at())):
                lines = await stream.read()
        except TimeoutError:
            if self._loop.time() >= self._ends:
                raise ApiProblem(f"watch hangs: no end after {self._ends - self._began:.0f} s") from None
        for line in lines or ():
            changed = slices.apply(line)
            self._listed = False
            if changed:
                self._delay()
        if lines is None:
            self._end(stream)
        elif lines or self._loop.time() >= self._proof_at():
            self._proven = True
            self._report()
        if self._loop.time() >= min(self._due, self._again_at):
            return self._evaluate()
        return None

    def _delay(self) -> None:
        """Use the slices after a silence, because further events may belong to the same update."""
        now = self._loop.time()
        self._burst = now if self._burst is None else self._burst
        self._due = min(now + self._timing.debounce, self._burst + self._timing.longest_burst)

    def _end(self, stream: Stream) -> None:
        """Begin another watch, because the server ended this one in order."""
        if not self._is_proven():
            raise ApiProblem("watch ended by the API server at once")
        self._failures = 0
        stream.release()
        self._stream = None

    def _proof_at(self) -> float:
        """Return the time at which the present watch is taken to work. Infinite if it has proved that."""
        return float("inf") if self._proven else self._began + self._timing.proof

    def _is_proven(self) -> bool:
        return self._proven or (self._stream is not None and self._loop.time() >= self._proof_at())

    def _evaluate(self) -> Topology | None:
        assert self._slices is not None
        self._burst, self._due = None, float("inf")
        view = self._nodes.update(self._slices.slices, self._loop.time())
        self._again_at = float("inf") if view.again_at is None else view.again_at
        self._problem = view.problem
        self._has_nodes = view.topology is not None
        if self._proven or not self._failures:  # after a failure, a list alone does not show that watches work
            self._report()
        if view.topology is None or view.topology == self._last:
            return None
        self._last = view.topology
        return view.topology

    def _report(self) -> None:
        """Note that the API server answered. Endpoints that are ignored count as a failure."""
        if self._problem is None:
            self._status.confirm()
        else:
            self._status.fail(DiscoveryError(self._status.source, self._problem), () if self._has_nodes else None)

    async def _recover(self, problem: ApiProblem) -> None:
        """Close the connections, report the failure, and wait for the time of the next attempt."""
        if self._is_proven():
            self._failures = 0
        # Servers and load balancers cut connections in normal operation, and the server compacts its history.
        is_cut = isinstance(problem, ConnectionCut) and self._failures == 0
        is_compacted = isinstance(problem, Expired) and self._slices is not None and not self._listed
        if problem.needs_list:
            self._slices = None
        self._proven = False
        await self.close()  # the next session reads the CA certificate again
        if is_compacted:
            return
        if not is_cut:
            self._status.fail(DiscoveryError(self._status.source, str(problem)))
        pause = min(self._timing.first_retry * 2.0**self._failures, self._timing.longest_retry)
        self._failures = min(self._failures + 1, MOST_DOUBLINGS)
        await asyncio.sleep(pause * (1 + self._draw()) / 2)
