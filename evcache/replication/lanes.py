"""Flow control of bulk writes: a bounded number of writes is in flight on each node, and replies let the next ones follow.

A connection refuses requests when too many wait on it. A single write that meets such a connection fails at once, because
the server is behind by more than a timeout. A bulk write has time, so it waits for room instead. It does so in two places:

- Each node has a *lane*. `WINDOW` writes of the lane are in flight, and the lane sends the next one when one has ended. A
  node without a connection gets one attempt to connect for the whole lane, and not one task for each write.
- The call begins a key only if a zone can take it now, so the fastest zone sets the pace. Slower zones get the key from
  their lane. If a lane holds `MAX_WRITES` writes, the call waits for that zone, too. This bounds the memory.

All bulk calls of the client share the lanes. The task of a lane is background work, which `close` awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from evcache._helpers.background import BackgroundTasks
from evcache.replication.commands.command import Command
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.zones.errors import NodeError, NodeTimeout, NodeUnavailable
from evcache.zones.nodes.node import Node

if TYPE_CHECKING:
    from evcache.replication.zone_write import ZoneWrite

# Writes in flight on one node. One process sends about 25,000 keys a second, so this keeps a node busy across a round trip
# of 20 ms. A single read on the same connection waits behind as many writes, which servers answer within a few milliseconds.
WINDOW = 512

# Bytes of values in flight on one node: about 3 ms of a network of 10 Gbit/s, for the same reason.
WINDOW_BYTES = 4 * 1024 * 1024

# Writes, and bytes of their values, that a lane holds for a node that is slower than the others. These are the limits of a
# connection (`limits`), so a zone that hangs delays the others no sooner than it does for single writes.
MAX_WRITES = 16_384
MAX_BYTES = 64 * 1024 * 1024

# Bytes of the objects of a write, without its key and value.
OVERHEAD_BYTES = 400

# Writes that are sent, or keys that are begun, before the event loop runs other work: three to four milliseconds.
STEP = 128

NEVER = float("inf")

# Seconds before a lane looks again at a connection that single requests have filled.
RETRY_SECONDS = 0.005

# Seconds that a server has for a write that is sent shortly before the call's deadline, or half of the call's timeout if
# that is less. The caller does not wait for it. Without it, a bulk call that ends at its deadline would report a timeout
# for each write in flight. Healthy nodes would then count as down.
PATIENCE_SECONDS = 0.25


class Sized(Protocol):
    """Write that has a place in lanes."""

    @property
    def size(self) -> int:
        """Bytes that it takes in each lane."""


class Lanes:
    """Lanes of one client. True if bulk writes are in flight."""

    __slots__ = ("background", "by_node", "waiting")

    def __init__(self, background: BackgroundTasks) -> None:
        self.background = background
        self.by_node: dict[Node, Lane] = {}
        """Lanes that hold writes."""
        self.waiting: list[asyncio.Future[None]] = []
        """Futures of the calls that wait for room."""

    def __bool__(self) -> bool:
        return bool(self.by_node)

    def start_in_order(self, write: ZoneWrite) -> None:
        """Send a single write, behind the queued bulk writes of its node if the server orders writes by arrival."""
        lane = self.by_node.get(write.node)
        if lane is None or not lane.queue or _is_versioned(write):
            write.start()
        else:
            lane.wait(write, size_of(write.command), 0.0)

    def reopen(self) -> None:
        """Forget the lanes of the last opening."""
        self.by_node.clear()
        self.waiting.clear()

    async def progress(self) -> None:
        """Wait until a write has ended, in any lane."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter


class Lane:
    """Bulk writes of one node: those in flight, and those that wait for their turn."""

    __slots__ = ("_lanes", "_queued_bytes", "_soonest", "_task", "_wake", "bytes", "count", "node", "queue")

    def __init__(self, lanes: Lanes, node: Node) -> None:
        self.node = node
        self.count = 0
        """Number of writes, queued and in flight."""
        self.bytes = 0
        """Bytes of the writes."""
        self.queue: deque[tuple[ZoneWrite, float]] = deque()
        """Writes that wait, each with the minimum time in seconds that the server has for it."""
        self._queued_bytes = 0
        self._soonest = NEVER  # earliest deadline in the queue
        self._lanes = lanes
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def takes_one(self) -> bool:
        """True if another write can be sent at once."""
        return self.count < WINDOW and self.bytes < WINDOW_BYTES

    @property
    def is_full(self) -> bool:
        """True if the node is so far behind that calls wait for it."""
        return self.count >= MAX_WRITES or self.bytes >= MAX_BYTES

    def wait(self, write: ZoneWrite, size: int, patience: float) -> None:
        """Queue a write. Returns at once and raises nothing: failures are outcomes.

        Args:
            write: The write.
            size: Its bytes.
            patience: Minimum time in seconds that the server has for it, also beyond the deadline of the write.
        """
        write.enter(self, size)
        self.count += 1
        self.bytes += size
        self._queued_bytes += size
        self.queue.append((write, patience))
        if write.deadline < self._soonest:
            self._soonest = write.deadline
            self._wake_up()
        if self._task is None:
            self._task = self._lanes.background.spawn(self._run(), limited=False)
            if self._task is None:
                self._fail_all(NodeUnavailable("the client is closing", self.node.label))
            else:
                self._task.add_done_callback(self._ended)

    def wait_again(self, write: ZoneWrite, size: int, patience: float) -> None:
        """Queue a write that was counted, and not sent. See `wait`."""
        self.count -= 1
        self.bytes -= size
        self.wait(write, size, patience)

    def ended(self, write: Sized) -> None:
        """Record that a write has ended."""
        self.count -= 1
        self.bytes -= write.size
        lanes = self._lanes
        if self._wake is not None:
            self._wake_up()
        if not self.count and lanes.by_node.get(self.node) is self:
            del lanes.by_node[self.node]
        if lanes.waiting:
            waiting, lanes.waiting = lanes.waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _has_room(self, size: int) -> bool:
        flying = self.count - len(self.queue)
        return not flying or (flying < WINDOW and self.bytes - self._queued_bytes + size <= WINDOW_BYTES)

    async def _run(self) -> None:
        """Send the queue, in steps. Ends when the queue is empty."""
        loop = asyncio.get_running_loop()
        step = 0
        try:
            while self.queue:
                write, patience = self.queue[0]
                now = loop.time()
                if self._soonest <= now:
                    self._move_late_first(now)
                elif write.deadline <= now:
                    self._fail(NodeTimeout("not sent in time", self.node.label))
                elif not self._has_room(write.size):
                    await self._any_ended()
                    continue
                else:
                    write.extend_deadline(now + patience)
                    self._take()
                    if not write.start():
                        self.queue.appendleft((write, patience))
                        self._queued_bytes += write.size
                        await self._usable(write)
                        continue
                step += 1
                if not step % STEP:
                    await asyncio.sleep(0)
        except GeneratorExit:  # the event loop is closed
            self.queue.clear()
            raise
        finally:
            self._task = None

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Fail what is left if the task was cancelled, perhaps before its first step."""
        if self._task is None or self._task.done():
            self._task = None
            self._fail_all(NodeTimeout("given up", self.node.label))

    async def _any_ended(self) -> None:
        """Wait until a write in flight has ended, or the deadline of one in the queue has passed."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(self._soonest):
                await self._wake
        except TimeoutError:
            pass
        finally:
            self._wake = None

    async def _usable(self, write: ZoneWrite) -> None:
        """Wait for a connection, or for room on it. If there will be none, fail `write`, which is the first in the queue."""
        if self.node.state == "ready":  # and filled by single requests
            await asyncio.sleep(RETRY_SECONDS)
            return
        try:
            await self.node.connected(min(write.deadline, self._soonest))
        except NodeTimeout:
            pass  # a deadline has passed
        except NodeError as error:
            if not self.node.is_down:  # a node that is down fails each write when it is started
                self._fail(error)

    def _move_late_first(self, now: float) -> None:
        """Move the writes whose deadline has passed to the front, where they fail."""
        late = [each for each in self.queue if each[0].deadline <= now]
        others = [each for each in self.queue if each[0].deadline > now]
        self.queue = deque([*late, *others])
        self._soonest = min((write.deadline for write, _ in others), default=NEVER)

    def _take(self) -> ZoneWrite:
        write, _ = self.queue.popleft()
        self._queued_bytes -= write.size
        return write

    def _fail(self, error: NodeError) -> None:
        self._take().set_exception(error)

    def _fail_all(self, error: NodeError) -> None:
        while self.queue:
            self._fail(type(error)(error.problem, error.node))


class Flow:
    """Flow control of one bulk call."""

    __slots__ = ("_by_node", "_lanes", "is_crowded", "patience")

    def __init__(self, lanes: Lanes, timeout: float) -> None:
        """Make it for one call. `timeout`: seconds of the whole call."""
        self.patience = min(PATIENCE_SECONDS, timeout / 2)
        """Minimum time in seconds that a server has for a write."""
        self.is_crowded = False
        """True if a node takes no other write at once. Then the call awaits `room`."""
        self._lanes = lanes
        self._by_node = lanes.by_node

    def put(self, write: ZoneWrite) -> None:
        """Send a write to one node, when it is its turn. Returns at once and raises nothing: failures are outcomes."""
        node, size = write.node, size_of(write.command)
        lanes = self.lanes((node,), size)
        if lanes is None:
            self.is_crowded = True
            self._by_node[node].wait(write, size, self.patience)
            return
        self.enter(lanes, size)
        (lane,) = lanes
        if not write.start(lane, size):
            lane.wait_again(write, size, self.patience)

    def lanes(self, nodes: Iterable[Node], size: int) -> list[Lane] | None:
        """Return the lanes of nodes that take a write of this size at once. None if it has to wait for one of them."""
        by_node = self._by_node
        lanes: list[Lane] = []
        for node in nodes:
            lane = by_node.get(node)
            if lane is None:
                lane = Lane(self._lanes, node)  # which `enter` adds to the others if every node takes the write
            elif lane.queue or lane.count >= WINDOW or (lane.count and lane.bytes + size > WINDOW_BYTES):
                return None
            lanes.append(lane)
        return lanes

    def enter(self, lanes: Iterable[Lane], size: int) -> None:
        """Count a write in its lanes, which are those of `lanes`. It is sent next."""
        for lane in lanes:
            if not lane.count:
                self._by_node[lane.node] = lane
            count = lane.count = lane.count + 1
            in_lane = lane.bytes = lane.bytes + size
            if count >= WINDOW or in_lane >= WINDOW_BYTES:
                self.is_crowded = True

    async def room(self, nodes: Iterable[Node]) -> None:
        """Wait until one of a key's nodes takes another write, and none of them is too far behind. May be cancelled."""
        nodes = list(nodes)
        self.is_crowded = False
        while True:
            lanes = [self._by_node.get(node) for node in nodes]  # None if no bulk write is in flight to the node
            takes_one = not lanes or any(lane is None or lane.takes_one for lane in lanes)
            if takes_one and not any(lane is not None and lane.is_full for lane in lanes):
                return
            await self._lanes.progress()


def size_of(command: Command) -> int:
    """Return the bytes that a write takes in a lane."""
    return OVERHEAD_BYTES + (len(command.data) if isinstance(command, StoreCommand) else 0)


def _is_versioned(write: ZoneWrite) -> bool:
    """Return True if the server keeps the latest of two writes, in any order of arrival."""
    command, capabilities = write.command, write.node.capabilities
    ordered = isinstance(command, StoreCommand) and command.newest_wins and command.version is not None
    return ordered and capabilities is not None and capabilities.versions
