"""One write on its way: sent to every zone at once, done when enough of them have it.

The zones that are slower go on after the call has returned: their requests wait in the connections' queues, with the call's
deadline, and cost no task. A caller that is cancelled stops waiting, and nothing else: the write goes on, in every zone,
since half a write is what makes zones differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from evcache._background import BackgroundTasks
from evcache.hooks import HookDispatcher
from evcache.replication.guarded_store import Command, Judge, StoreCommand, execute
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.lanes import Lane
from evcache.replication.node_requests import capabilities_of
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.touch import TouchCommand
from evcache.results import ACKNOWLEDGED, Outcome
from evcache.zones.errors import CacheError, NodeError, NodeTimeout, QueueFull, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Topology
from evcache.zones.zone_pool import ZonePool


class ReplicatedWrite:
    """One write on its way to its zones."""

    __slots__ = (
        "_acknowledged",
        "_began",
        "_counted",
        "_enough",
        "_failed",
        "_hooks",
        "_open",
        "_remembered",
        "_replay",
        "_store",
        "_topology",
        "_touch",
        "_undecided",
        "answered",
        "background",
        "decision",
        "failures",
        "outcomes",
        "required",
        "send_again",
    )

    def __init__(
        self,
        background: BackgroundTasks,
        hooks: HookDispatcher,
        required: int,
        acknowledged: frozenset[Outcome] = ACKNOWLEDGED,
        *,
        replay: HintedHandoff | None = None,
        store: StoreCommand | None = None,
        remembered: SeenVersions | None = None,
        touch: TouchCommand | None = None,
        topology: Topology | None = None,
        decided: asyncio.Future[None] | None = None,
    ) -> None:
        """`decided`: what becomes done when it is decided; None: it is made here.

        `replay` keeps the write for zones that miss it, a `store` or a `touch`; a `store`'s version is remembered once
        enough zones have it.
        """
        self.required = required
        """How many readable zones must acknowledge."""
        self.answered = 0
        """How many have."""
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, CacheError] = {}
        # Of the readable zones, which alone count: how many there are, may still acknowledge, and failed to answer.
        self._counted = 0
        self._undecided = 0
        self._failed = 0
        self._acknowledged = acknowledged
        self._replay = replay
        self._store = store
        self._touch = touch
        self._remembered = remembered
        self._began = 0.0  # when its time to live began, on the loop's clock
        self._topology = topology  # that the write began with
        self._open = 0  # parts that have not ended
        # A write that no zone has taken would make every zone look behind, though none has been asked for.
        self._enough = max(1, required)
        self.send_again: Callable[[], bool] | None = None
        """Sends the write in a second round. Called at most once, before this round is decided, when a zone holds a newer
        version that the writer had not seen. If it returns True, this round is decided, and its outcome is not the result.
        If it returns False or is None, such a zone counts as one that has the write."""
        self.background = background
        self._hooks = hooks
        self.decision = decided or asyncio.get_running_loop().create_future()
        """Done when the round is decided. It has no result."""

    @property
    def met(self) -> bool:
        """Whether enough zones have it."""
        return self.answered >= self.required

    @property
    def everywhere(self) -> bool:
        """Whether every zone has it by now, those that do not count too."""
        return bool(self.outcomes) and self._acknowledged.issuperset(self.outcomes.values())

    @property
    def unreachable(self) -> bool:
        """Whether every readable zone failed to answer, though at least one had to."""
        return self.required > 0 and self._failed == self._counted

    @property
    def unanswered(self) -> bool:
        """True if no readable zone has answered, though at least one had to."""
        return self.required > 0 and self._failed + self._undecided == self._counted

    @property
    def is_open(self) -> bool:
        """True while a part has not ended, so that `outcomes` may change."""
        return self._open > 0

    @property
    def age(self) -> float:
        """Seconds since its time to live began."""
        return asyncio.get_running_loop().time() - self._began

    def send(
        self,
        command: Command,
        pools: Iterable[ZonePool],
        place: int,
        deadline: float,
        since: float | None = None,
        put: Callable[[ZoneWrite], object] | None = None,
    ) -> None:
        """Start the write in these zones. Returns at once; nothing is raised: what goes wrong is an outcome.

        `since`: when its time to live began, on the loop's clock; None: now. `put` takes each part and starts it when it is
        its turn; if None, all parts start now.
        """
        self._began = asyncio.get_running_loop().time() if since is None else since
        parts = [ZoneWrite(self, pool, pool.node(place), command, deadline) for pool in pools]
        self._open += len(parts)
        # All are counted before any is sent: a zone that fails at once must not decide the round by itself.
        counted = 0
        for part in parts:
            self.outcomes[part.zone] = Outcome.PENDING
            counted += part.counts
        self._counted += counted
        self._undecided += counted
        put = put or ZoneWrite.start
        for part in parts:
            put(part)
        if not parts:  # the only zone has decided
            self._ended()
        self._decide()

    def count(self, zone: str, outcome: Outcome) -> None:
        """Enter what a readable zone has done already."""
        self.outcomes[zone] = outcome
        self._counted += 1
        if outcome in self._acknowledged:
            self._acknowledge()

    def _acknowledge(self) -> None:
        self.answered += 1
        store = self._store
        if self.answered == self._enough and store is not None and store.carried and store.believed:
            assert self._remembered is not None
            assert store.version is not None
            self._remembered.note(store.key, store.version)

    async def decided(self) -> None:
        """Wait until enough zones have it, or until that has become impossible; the deadline makes it so at the latest."""
        if not self.decision.done():
            await self.decision

    def report(self, part: ZoneWrite, outcome: Outcome, error: CacheError | None = None) -> None:
        """What became of one zone's part."""
        self.outcomes[part.zone] = outcome
        if error is not None:
            self.failures[part.zone] = error
        acknowledged = outcome in self._acknowledged
        if part.counts:
            self._undecided -= 1
            if acknowledged:
                self._acknowledge()
            elif error is not None:
                self._failed += 1
        replay = self._replay
        if replay is not None:
            if acknowledged:
                if replay.book.count:
                    if isinstance(part.command, StoreCommand):
                        replay.reached(part.zone, part.command)
                    elif self._touch is not None:
                        replay.touched(part.zone, self._touch.key)
            elif (
                isinstance(error, NodeError)
                and not isinstance(error, ServerError)  # not what it refused
                and isinstance(part.command, StoreCommand)
            ):
                replay.missed(part.zone, part.command, self.age)
        self._open -= 1
        if not self._open:
            self._ended()
        if self._hooks.of_writes:
            self._hooks.zone_wrote(part.zone, outcome, late=self.decision.done())
        if outcome is not Outcome.SUPERSEDED or not self._is_sent_again():
            self._decide()

    def _is_sent_again(self) -> bool:
        """Send the write again if it was refused for a version that its client had not seen, and the caller still waits."""
        store, send_again = self._store, self.send_again
        if send_again is None or store is None or not store.unseen or self.decision.done():
            return False
        self.send_again = None
        sent = True
        try:
            sent = send_again()
        finally:  # also after an error, because the caller must not wait for this round
            if sent:
                self.decision.set_result(None)
        return sent

    def _ended(self) -> None:
        """Keep hints when every part has ended: for zones that were added since the round began, and for a touch."""
        replay, store, touch = self._replay, self._store, self._touch
        if replay is None:
            return
        if store is not None:
            if self._topology is not None and store.version is not None:
                replay.ended(self._topology, store.key)
        elif touch is not None and touch.version is not None:
            for zone, error in self.failures.items():
                if isinstance(error, NodeError) and not isinstance(error, ServerError):
                    replay.missed_touch(zone, touch.key, touch.version, touch.ttl, self.age)

    def _decide(self) -> None:
        required = self.required
        if (self.answered >= required or self.answered + self._undecided < required) and not self.decision.done():
            self.decision.set_result(None)


class ZoneWrite:
    """One zone's part of a round. It is what the connection answers to, so that the usual case needs no task."""

    __slots__ = ("_done", "_judge", "_round", "command", "counts", "deadline", "lane", "node", "size", "zone")

    size: int
    """Bytes that it takes in its lane, which sets this."""

    def __init__(self, round_: ReplicatedWrite, pool: ZonePool, node: Node, command: Command, deadline: float) -> None:
        self.zone = pool.name
        self.counts = pool.readable
        self._round = round_
        self.node = node
        self.command = command
        self.deadline = deadline
        """When the server's time is over, on the loop's clock."""
        self.lane: Lane | None = None
        """The lane that sends it; None if it is not part of a bulk write, or has ended."""
        self._judge: Judge | None = None
        self._done = False

    def start(self) -> bool:
        """Send it. Return False, with nothing sent, if it has a lane and needs a connection, or room on it, first."""
        connection = self.node.connection()
        if connection is None:
            if not self.node.may_answer:
                self.set_exception(self.node.unavailable())
            elif self.lane is not None:
                return False
            else:  # it has to be connected first, and waiting for that takes a task
                self._spawn(execute(self.command, self.node, self.deadline))
            return True
        try:
            judge = self.command.send(connection, capabilities_of(self.node), self, self.deadline)
        except CacheError as error:  # `Unsupported` too: the zones after this one must be sent theirs
            if self.lane is not None and isinstance(error, QueueFull):
                return False
            self.set_exception(error)
            return True
        if isinstance(judge, Outcome):
            self._report(judge)
        elif judge is None:
            self._spawn(self.command.settle(self.node, self.deadline))
        else:
            self._judge = judge
        return True

    def done(self) -> bool:
        """Return True if the outcome is known."""
        return self._done

    def set_result(self, answer: Any) -> None:
        """Take the server's answer."""
        assert self._judge is not None
        try:
            outcome = self._judge(answer)
        except CacheError as error:
            self.set_exception(error)
            return
        if outcome is None:
            self._spawn(self.command.settle(self.node, self.deadline))
        elif not self._done:
            self._done = True
            lane = self.lane
            if lane is not None:
                self.lane = None
                lane.ended(self)
            self._round.report(self, outcome)

    def set_exception(self, error: CacheError) -> None:
        """Report that there is no answer."""
        self._report(Outcome.TIMEOUT if isinstance(error, NodeTimeout) else Outcome.UNAVAILABLE, error)

    def _spawn(self, work: Any) -> None:
        # The lane bounds the tasks of a bulk write. They must not fail because other work has filled the background.
        task = self._round.background.spawn(self._see_through(work), limited=self.lane is None)
        if task is None:
            work.close()
            self.set_exception(QueueFull("too much background work, or the client is closing", self.node.label))
        else:
            task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Any, _: asyncio.Task[None]) -> None:
        work.close()  # a task that is cancelled before its first step has not begun to await it
        self.set_exception(NodeTimeout("given up", self.node.label))  # no effect after an outcome

    async def _see_through(self, work: Any) -> None:
        try:
            outcome = await work
        except CacheError as error:
            self.set_exception(error)
        except BaseException:
            # Cancelled by close(), or a bug: either way the caller must not wait for this zone.
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
        self._round.report(self, outcome, error)
