"""Flow control of bulk writes: a bounded number of them waits on each node, and the rest follow as replies arrive.

A connection refuses requests when too many wait on it. A single write that meets such a connection fails at once, because
the server is behind by more than a timeout. A bulk write has time, so it waits for room instead. It does so in two places:

- Each node has a *lane*. `WINDOW` writes of the lane are in flight, and the lane sends the next one when one has ended. A
  node without a connection gets one attempt to connect for the whole lane, and not one task for each write.
- The call begins a key only if a zone can take it now, so the fastest zone sets the pace. Slower zones get the key from
  their lane. If a lane holds `MOST_PARTS` writes, the call waits for that zone, too: this bounds the memory.

The lane is shared by all bulk calls of the client. Its task is background work, which `close` awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evcache._background import BackgroundTasks
from evcache.replication.command import Command
from evcache.replication.guarded_store import StoreCommand
from evcache.zones.errors import NodeError, NodeTimeout, NodeUnavailable
from evcache.zones.nodes.node import Node

if TYPE_CHECKING:
    from evcache.replication.zone_write import ZoneWrite

# Writes in flight on one node. One process sends some 25,000 keys a second, so this keeps a node busy across a round trip of
# 20 ms. A single read on the same connection waits behind at most as many, which servers answer within a few milliseconds.
WINDOW = 512

# Bytes of values in flight on one node: some 3 ms of a network of 10 Gbit/s, for the same reason.
WINDOW_BYTES = 4 * 1024 * 1024

# Writes, and bytes of their values, that a lane holds for a node that is slower than the others. These are the limits of a
# connection (`limits`): a zone that hangs holds up the others no sooner than it did when connections held the writes.
MOST_PARTS = 16_384
MOST_BYTES = 64 * 1024 * 1024

# Bytes of a write beside its key and value: its objects.
PART_BYTES = 400

# Writes that are sent, or keys that are begun, before the event loop runs other work: three to four milliseconds.
STEP = 128

NEVER = float("inf")

# Seconds before a lane looks again at a connection that single requests have filled.
RETRY_SECONDS = 0.005

# Seconds that a server has for a write that is sent shortly before the call's deadline; half of the call's timeout if that
# is less. The caller does not wait for it. Without it, each bulk call that runs into its deadline would report as many
# timeouts as it has writes in flight, and healthy nodes would be declared down.
PATIENCE_SECONDS = 0.25


class Lanes:
    """The lanes of one client. True if it has any: if bulk writes are on their way."""

    __slots__ = ("background", "by_node", "waiting")

    def __init__(self, background: BackgroundTasks) -> None:
        self.background = background
        self.by_node: dict[Node, Lane] = {}
        """The lanes that hold writes."""
        self.waiting: list[asyncio.Future[None]] = []
        """Calls that wait for room."""

    def __bool__(self) -> bool:
        return bool(self.by_node)

    def in_order(self, part: ZoneWrite) -> None:
        """Send a single write, behind the queued bulk writes of its node if the server orders writes by arrival."""
        lane = self.by_node.get(part.node)
        if lane is None or not lane.queue or _is_versioned(part):
            part.start()
        else:
            lane.wait(part, size_of(part.command), 0.0)

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
    """The bulk writes of one node: those in flight, and those that wait for their turn."""

    __slots__ = ("_lanes", "_queued_bytes", "_soonest", "_task", "_wake", "bytes", "node", "parts", "queue")

    def __init__(self, lanes: Lanes, node: Node) -> None:
        self.node = node
        self.parts = 0
        """Number of writes, queued and in flight."""
        self.bytes = 0
        """Bytes of them."""
        self.queue: deque[tuple[ZoneWrite, float]] = deque()
        """Writes that wait, each with the seconds that the server has for it at least."""
        self._queued_bytes = 0
        self._soonest = NEVER  # no deadline in the queue is sooner
        self._lanes = lanes
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def takes_one(self) -> bool:
        """True if another write can be sent at once."""
        return self.parts < WINDOW and self.bytes < WINDOW_BYTES

    @property
    def is_full(self) -> bool:
        """True if the node is so far behind that calls wait for it."""
        return self.parts >= MOST_PARTS or self.bytes >= MOST_BYTES

    def wait(self, part: ZoneWrite, size: int, patience: float) -> None:
        """Queue a write. Returns at once and raises nothing: failures are outcomes.

        Args:
            part: The write.
            size: Its bytes.
            patience: Seconds that the server has for it at least, also beyond the deadline of the write.
        """
        part.lane = self
        part.size = size
        self.parts += 1
        self.bytes += size
        self._queued_bytes += size
        self.queue.append((part, patience))
        if part.deadline < self._soonest:
            self._soonest = part.deadline
            self._wake_up()
        if self._task is None:
            self._task = self._lanes.background.spawn(self._run(), limited=False)
            if self._task is None:
                self._fail_all(NodeUnavailable("the client is closing", self.node.label))
            else:
                self._task.add_done_callback(self._ended)

    def ended(self, part: ZoneWrite) -> None:
        """Take note that a write has ended."""
        self.parts -= 1
        self.bytes -= part.size
        lanes = self._lanes
        if self._wake is not None:
            self._wake_up()
        if not self.parts and lanes.by_node.get(self.node) is self:
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
        flying = self.parts - len(self.queue)
        return not flying or (flying < WINDOW and self.bytes - self._queued_bytes + size <= WINDOW_BYTES)

    async def _run(self) -> None:
        """Send the queue, in steps. Ends when the queue is empty."""
        loop = asyncio.get_running_loop()
        step = 0
        try:
            while self.queue:
                part, patience = self.queue[0]
                now = loop.time()
                if self._soonest <= now:
                    self._put_late_first(now)
                elif part.deadline <= now:
                    self._fail(NodeTimeout("not sent in time", self.node.label))
                elif not self._has_room(part.size):
                    await self._ended_part()
                    continue
                else:
                    part.deadline = max(part.deadline, now + patience)
                    self._take()
                    if not part.start():
                        self.queue.appendleft((part, patience))
                        self._queued_bytes += part.size
                        await self._usable(part)
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

    async def _ended_part(self) -> None:
        """Wait until a write has ended, or the deadline of one in the queue has passed."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(self._soonest):
                await self._wake
        except TimeoutError:
            pass
        finally:
            self._wake = None

    async def _usable(self, part: ZoneWrite) -> None:
        """Wait for a connection, or for room on it. If there will be none, fail the write, which is the first."""
        if self.node.state == "ready":  # and filled by single requests
            await asyncio.sleep(RETRY_SECONDS)
            return
        try:
            await self.node.connected(min(part.deadline, self._soonest))
        except NodeTimeout:
            pass  # a deadline has passed
        except NodeError as error:
            if not self.node.is_down:  # otherwise each of them fails when it is started
                self._fail(error)

    def _put_late_first(self, now: float) -> None:
        """Move the writes whose deadline has passed to the front, where they fail."""
        late = [each for each in self.queue if each[0].deadline <= now]
        others = [each for each in self.queue if each[0].deadline > now]
        self.queue = deque([*late, *others])
        self._soonest = min((part.deadline for part, _ in others), default=NEVER)

    def _take(self) -> ZoneWrite:
        part, _ = self.queue.popleft()
        self._queued_bytes -= part.size
        return part

    def _fail(self, error: NodeError) -> None:
        self._take().set_exception(error)

    def _fail_all(self, error: NodeError) -> None:
        while self.queue:
            self._fail(type(error)(error.problem, error.node))


class Flow:
    """The flow control of one bulk call."""

    __slots__ = ("_by_node", "_lanes", "is_crowded", "patience", "size")

    def __init__(self, lanes: Lanes, timeout: float) -> None:
        """`timeout`: seconds of the whole call."""
        self.patience = min(PATIENCE_SECONDS, timeout / 2)
        """Seconds that a server has for a write at least."""
        self.size = 0
        """Bytes of the write that is sent next."""
        self.is_crowded = False
        """True if a node takes no other write at once. Then `room` is to be awaited."""
        self._lanes = lanes
        self._by_node = lanes.by_node

    def put(self, part: ZoneWrite) -> None:
        """Send a write to one node, when it is its turn. Returns at once and raises nothing: failures are outcomes."""
        lane = self._by_node.get(part.node)
        if lane is None:
            lane = self._by_node[part.node] = Lane(self._lanes, part.node)
        parts, size = lane.parts, lane.bytes + self.size
        if lane.queue or parts >= WINDOW or (size > WINDOW_BYTES and parts):
            self.is_crowded = True
            lane.wait(part, self.size, self.patience)
            return
        lane.parts = parts + 1
        lane.bytes = size
        part.size = self.size
        part.lane = lane
        if not part.start():
            lane.parts -= 1
            lane.bytes -= self.size
            lane.wait(part, self.size, self.patience)
        if parts + 1 >= WINDOW or size >= WINDOW_BYTES:
            self.is_crowded = True

    async def room(self, nodes: Iterable[Node]) -> None:
        """Wait until one of a key's nodes takes another write, and none of them is too far behind. May be cancelled."""
        nodes = list(nodes)
        self.is_crowded = False
        while True:
            lanes = [self._by_node.get(node) for node in nodes]  # None: nothing is on its way to it
            takes_one = not lanes or any(lane is None or lane.takes_one for lane in lanes)
            if takes_one and not any(lane is not None and lane.is_full for lane in lanes):
                return
            await self._lanes.progress()


def size_of(command: Command) -> int:
    """Return the bytes that a write takes in a lane."""
    return PART_BYTES + (len(command.data) if isinstance(command, StoreCommand) else 0)


def _is_versioned(part: ZoneWrite) -> bool:
    """Return True if the server keeps the newest of two writes, in any order of arrival."""
    command, capabilities = part.command, part.node.capabilities
    ordered = isinstance(command, StoreCommand) and command.newest_wins and command.version is not None
    return ordered and capabilities is not None and capabilities.versions
