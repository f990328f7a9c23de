"""One zone's part of a replicated write."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from evcache.replication.commands.command import Interpret, Sent, Skipped, execute
from evcache.replication.commands.node_requests import capabilities_of
from evcache.replication.lanes import Lane
from evcache.results import Outcome
from evcache.zones.errors import CacheError, NodeTimeout, QueueFull
from evcache.zones.nodes.node import Node
from evcache.zones.zone_pool import ZonePool

if TYPE_CHECKING:
    from evcache.replication.replicated_write import ReplicatedWrite


class ZoneWrite:
    """Write in one zone. It is the waiter that the connection answers, so that the usual case needs no task."""

    __slots__ = ("_done", "_interpret", "_write", "command", "counts", "deadline", "lane", "node", "size", "standby", "zone")

    size: int
    """Bytes that it takes in its lane."""

    def __init__(self, write: ReplicatedWrite, pool: ZonePool, node: Node, deadline: float) -> None:
        self.zone = pool.name
        self.counts = pool.readable
        self.standby = pool.standby
        self._write = write
        self.node = node
        self.command = write.command
        self.deadline = deadline
        """End of the time that the server has, on the loop's clock."""
        self.lane: Lane | None = None
        """Lane that sends it. None if it is not part of a bulk write, or has ended."""
        self._interpret: Interpret | None = None
        self._done = False

    def resume(self, interpret: Interpret, answer: Any) -> None:
        """Continue a write that was sent with another waiter, which got these replies, or a `CacheError`."""
        self._interpret = interpret
        if isinstance(answer, CacheError):
            self.set_exception(answer)
        else:
            self.set_result(answer)

    def enter(self, lane: Lane, size: int) -> None:
        """Let a lane start the write later. `size`: bytes that it takes there."""
        self.lane = lane
        self.size = size

    def extend_deadline(self, until: float) -> None:
        """Give the server at least until this time on the loop's clock."""
        self.deadline = max(self.deadline, until)

    def start(self, lane: Lane | None = None, size: int = 0) -> bool:
        """Send it. Return False, with nothing sent, if it has a lane and must wait for a connection, or for room on one.

        Args:
            lane: Lane that sends it. If None, the lane that it has entered, if any.
            size: Bytes that it takes in `lane`.
        """
        if lane is not None:
            self.lane = lane
            self.size = size
        node = self.node
        connection = node.connection()
        if connection is None:
            if not node.may_answer:
                self.set_exception(node.unavailable())
            elif self.lane is not None:
                return False
            else:  # to wait for a connection takes a task
                self._spawn(execute(self.command, node, self.deadline))
            return True
        try:
            result = self.command.send(connection, node.capabilities or capabilities_of(node), self, self.deadline)
        except CacheError as error:  # `Unsupported` too: the zones after this one must still get the write
            if self.lane is not None and isinstance(error, QueueFull):
                return False
            self.set_exception(error)
            return True
        if type(result) is Sent:
            self._interpret = result.interpret
        elif isinstance(result, Skipped):
            self._report(result.outcome)
        else:
            self._spawn(self.command.peek_and_apply(self.node, self.deadline))
        return True

    def done(self) -> bool:
        """Return True if the outcome is known."""
        return self._done

    def set_result(self, replies: Any) -> None:
        """Take the server's replies."""
        assert self._interpret is not None
        try:
            outcome = self._interpret(replies)
        except CacheError as error:
            self.set_exception(error)
            return
        if outcome is None:
            self._spawn(self.command.peek_and_apply(self.node, self.deadline))
        elif not self._done:
            self._done = True
            lane = self.lane
            if lane is not None:
                self.lane = None
                lane.ended(self)
            self._write.report(self, outcome)

    def set_exception(self, error: CacheError) -> None:
        """Report that the server did not answer."""
        self._report(Outcome.TIMEOUT if isinstance(error, NodeTimeout) else Outcome.UNAVAILABLE, error)

    def _spawn(self, work: Any) -> None:
        # The lane bounds the tasks of a bulk write. They must not fail because other work has filled the background.
        task = self._write.background.spawn(self._await_outcome(work), limited=self.lane is None)
        if task is None:
            work.close()
            self.set_exception(QueueFull("too much background work, or the client is closing", self.node.label))
        else:
            task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Any, _: asyncio.Task[None]) -> None:
        work.close()  # a task that is cancelled before its first step has not begun to await it
        self.set_exception(NodeTimeout("given up", self.node.label))  # no effect after an outcome

    async def _await_outcome(self, work: Any) -> None:
        try:
            outcome = await work
        except CacheError as error:
            self.set_exception(error)
        except BaseException:
            # Cancelled by close(), or a bug. In both cases the caller must not wait for this zone.
            self.set_exception(NodeTimeout("given up", self.node.label))
            raise
        else:
            self._report(outcome)

    def _report(self, outcome: Outcome, error: CacheError | None = None) -> None:
        if self._done:
            return
        self._done = True
        lane = self.lane
        if lane is not None:
            self.lane = None
            lane.ended(self)
        self._write.report(self, outcome, error)
