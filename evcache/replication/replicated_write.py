"""Replicated write: one command in flight to every zone at once, done when enough zones have acknowledged it.

Slower zones continue after the call has returned. Their requests wait in the queues of the connections, with the deadline
of the call, and take no task. A cancelled caller stops waiting and nothing else. The write continues in every zone, because
half a write makes replicas differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeGuard

from evcache._helpers.background import BackgroundTasks
from evcache.replication.commands.command import Command
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.commands.touch import TouchCommand
from evcache.replication.gutter import GUTTER
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.standby_tally import StandbyTally
from evcache.replication.zone_write import ZoneWrite
from evcache.results import ACKNOWLEDGED, Outcome
from evcache.zones.errors import CacheError, NodeError, NodeTimeout, ServerError
from evcache.zones.topology.model import Mode, Topology
from evcache.zones.transport.core.waiters import Completion
from evcache.zones.zone_pool import ZonePool

if TYPE_CHECKING:
    from evcache.replication.replicator import Replicator


class ReplicatedWrite:
    """One write in flight to its zones."""

    __slots__ = (
        "_acknowledged",
        "_counted",
        "_enough",
        "_failed",
        "_open",
        "_parts",
        "_send_again",
        "_sent_at",
        "_standby",
        "_topology",
        "_undecided",
        "acknowledgements",
        "cause",
        "command",
        "completion",
        "failures",
        "outcomes",
        "required",
    )

    def __init__(
        self,
        parts: Replicator,
        command: Command,
        required: int,
        completion: Completion,
        topology: Topology | None = None,
        cause: object = None,
        standby: StandbyTally | None = None,
    ) -> None:
        """Make a write. `Replicator.begin` describes the arguments. `standby` is None if there are no standby zones."""
        self.command = command
        self.required = required
        """Number of readable zones that must acknowledge."""
        self.acknowledgements = 0
        """Number of readable zones that have acknowledged."""
        self.outcomes: dict[str, Outcome] = {}
        """Outcome in each zone."""
        self.failures: dict[str, CacheError] = {}
        """Error of each zone that did not answer."""
        # Only readable zones count: those of the write, those that may still acknowledge, and those that failed to answer.
        # Standby zones have their own count.
        self._standby = standby
        self._counted = 0
        self._undecided = 0
        self._failed = 0
        self._acknowledged = command.acknowledged
        self._parts = parts
        self._sent_at = 0.0  # start of its TTL, on the loop's clock
        self._topology = topology  # at the start of the write
        self._open = 0  # zone writes that have not ended
        # A recorded version that no zone holds would make every zone look stale. So one acknowledgement is needed even if
        # the caller requires none.
        self._enough = required or 1
        self._send_again: Callable[[], bool] | None = None
        self.cause = cause
        """Name that listeners have for the call of the write."""
        self.completion = completion
        """Done when enough zones have acknowledged, or when that has become impossible. It has no result."""

    @property
    def background(self) -> BackgroundTasks:
        """Owner of the tasks of the write."""
        return self._parts.background

    @property
    def met(self) -> bool:
        """True if enough zones have acknowledged, and enough standby zones, if there are any."""
        return self.acknowledgements >= self.required and (self._standby is None or self._standby.met)

    @property
    def fell_short(self) -> tuple[Mode, ...]:
        """Modes of the sets in which too few zones have acknowledged. Empty if there are no standby zones.

        If the level is out of reach in one set, the write is decided, and the zones of the other set may be under way.
        """
        standby = self._standby
        if standby is None or self.met:
            return ()
        is_out_of_reach = self.acknowledgements + self._undecided < self.required
        if is_out_of_reach or standby.is_out_of_reach:
            sets = ((Mode.READ_WRITE, is_out_of_reach), (Mode.STANDBY, standby.is_out_of_reach))
        else:
            sets = ((Mode.READ_WRITE, self.acknowledgements < self.required), (Mode.STANDBY, not standby.met))
        return tuple(mode for mode, is_short in sets if is_short)

    @property
    def everywhere(self) -> bool:
        """True if every zone has acknowledged by now, write-only zones included."""
        return bool(self.outcomes) and self._acknowledged.issuperset(self.outcomes.values())

    @property
    def unreachable(self) -> bool:
        """True if every readable zone failed to answer, although at least one had to."""
        return self.required > 0 and self._failed == self._counted

    @property
    def unanswered(self) -> bool:
        """True if no readable zone has answered, although at least one had to."""
        return self.required > 0 and self._failed + self._undecided == self._counted

    @property
    def is_lost(self) -> bool:
        """True if no readable zone answered, and the gutter does not hold the write."""
        return self.unreachable and self.outcomes.get(GUTTER) not in ACKNOWLEDGED

    @property
    def age(self) -> float:
        """Seconds since the start of its TTL."""
        return asyncio.get_running_loop().time() - self._sent_at

    @property
    def fence(self) -> int | None:
        """Lowest version that readers may observe after the write (see `Command.fence`)."""
        return self.command.fence

    @property
    def is_readable(self) -> bool:
        """True if a readable zone holds the write."""
        return self.acknowledgements > 0

    @property
    def stored(self) -> StoreCommand | None:
        """Store that enough zones hold by its version. None if they may hold another value."""
        command = self.command
        if isinstance(command, StoreCommand) and command.carried and command.fence is not None:
            # A version that no server received says nothing about their values.
            return command if self.met and Outcome.SUPERSEDED not in self.outcomes.values() else None
        return None

    def resend_with(self, send_again: Callable[[], bool] | None) -> None:
        """Set the function that sends the write again, with a newer version. None ends that.

        It is called at most once, and only before completion, when a zone holds a newer version that the writer had not
        seen. If it returns True, this write completes, and its outcome is not the result of the call. If it returns False
        or is None, such a zone counts as one that has the write.
        """
        self._send_again = send_again

    def send(
        self,
        pools: Sequence[ZonePool],
        place: int,
        deadline: float,
        since: float | None = None,
        put: Callable[[ZoneWrite], object] | None = None,
    ) -> None:
        """Start the write in these zones. Returns at once and raises nothing: failures are outcomes.

        Args:
            pools: Zones.
            place: Place of the key on the rings.
            deadline: Time on the loop's clock.
            since: Start of the TTL, on the loop's clock. If None, it is now.
            put: Takes each zone write, and starts it when it is its turn. If None, all start now.
        """
        self._sent_at = asyncio.get_running_loop().time() if since is None else since
        # All are counted before any is sent, because one zone that fails at once must not complete the write.
        writes: list[ZoneWrite] = []
        outcomes, pending, counted = self.outcomes, Outcome.PENDING, 0
        for pool in pools:
            write = ZoneWrite(self, pool, pool.node(place), deadline)
            writes.append(write)
            outcomes[write.zone] = pending
            counted += write.counts
        self._open += len(writes)
        self._counted += counted
        self._undecided += counted
        if self._standby is not None:
            self._standby.add(sum(write.standby for write in writes))
        put = put or ZoneWrite.start
        for write in writes:
            put(write)
        if not writes:  # the coordinator's zone is the only one
            self._end()
        self._complete_if_decided()

    def adopt(self, outcomes: dict[str, Outcome], acknowledgements: int, counted: int, sent_at: float) -> None:
        """Continue a write that was sent in another way, and has stored a part of the zones.

        Args:
            outcomes: Outcomes by zone, which the write keeps up to date.
            acknowledgements: Number of readable zones that have acknowledged.
            counted: Number of readable zones.
            sent_at: Start of the TTL, on the loop's clock.
        """
        self.outcomes = outcomes
        self.acknowledgements = acknowledgements
        self._counted = counted
        self._undecided = counted - acknowledgements
        self._open = sum(outcome is Outcome.PENDING for outcome in outcomes.values())
        self._sent_at = sent_at

    def note_stored(self, zone: str) -> None:
        """Record that the coordinator's zone has stored the write."""
        self.outcomes[zone] = Outcome.STORED
        self._counted += 1
        self._acknowledge()

    def note_gutter(self, outcome: Outcome) -> None:
        """Record the outcome of the write in the gutter."""
        self.outcomes[GUTTER] = outcome

    def time_out_pending(self) -> dict[str, Outcome]:
        """Record that no zone in flight answered by the deadline of the call. Return the outcomes that the caller gets.

        `outcomes` does not change, because the zones still report the real ones.
        """
        pending = [zone for zone, outcome in self.outcomes.items() if outcome is Outcome.PENDING]
        self.failures.update((zone, NodeTimeout("no reply in time", zone)) for zone in pending)
        return self.outcomes | dict.fromkeys(pending, Outcome.TIMEOUT)

    def _acknowledge(self) -> None:
        self.acknowledgements += 1
        if self.acknowledgements == self._enough:
            self._note_version()

    def _note_version(self) -> None:
        """Remember the version that enough zones hold."""
        store = self.command
        if isinstance(store, StoreCommand) and store.carried and store.believed and store.version is not None:
            self._parts.seen_versions.note(store.key, store.version)

    async def wait_until_decided(self) -> None:
        """Wait until enough zones have acknowledged, or until that has become impossible, at the latest by the deadline."""
        if not self.completion.done():
            await self.completion

    def report(self, write: ZoneWrite, outcome: Outcome, error: CacheError | None = None) -> None:
        """Record the outcome of one zone."""
        self.outcomes[write.zone] = outcome
        acknowledged = outcome in self._acknowledged
        if error is not None:
            self.failures[write.zone] = error
        if write.counts:
            self._undecided -= 1
            if acknowledged:  # `_acknowledge`, without a call for each zone
                self.acknowledgements = count = self.acknowledgements + 1
                if count == self._enough:
                    self._note_version()
            elif error is not None:
                self._failed += 1
        elif write.standby and self._standby is not None:
            self._standby.report(acknowledged=acknowledged)
        handoff = self._parts.handoff
        if handoff is not None and (not acknowledged or handoff.hints.count):
            self._update_hints(handoff, write.zone, error, acknowledged=acknowledged)
        self._open -= 1
        if not self._open:
            self._end()
        hooks = self._parts.hooks
        if hooks.of_writes:
            hooks.zone_wrote(write.zone, outcome, late=self.completion.done())
        if outcome is not Outcome.SUPERSEDED or not self._is_sent_again():
            self._complete_if_decided()

    def _update_hints(self, handoff: HintedHandoff, zone: str, error: CacheError | None, *, acknowledged: bool) -> None:
        """End the hints that a zone does not need any more, or keep one for the write that it missed."""
        if acknowledged:
            self._end_hints(handoff, zone)
        elif _is_missed(error) and isinstance(self.command, StoreCommand):
            handoff.record_write(zone, self.command, self.age, self.cause)

    def _end_hints(self, handoff: HintedHandoff, zone: str) -> None:
        """End the hints that a zone does not need any more, because it has this write."""
        if isinstance(self.command, StoreCommand):
            handoff.end_superseded(zone, self.command)
        elif isinstance(self.command, TouchCommand):
            handoff.end_superseded_touch(zone, self.command.key)

    def _is_sent_again(self) -> bool:
        """Send the write again if a zone refused it for an unseen version and its caller still waits."""
        store, send_again = self.command, self._send_again
        if send_again is None or not isinstance(store, StoreCommand) or not store.unseen or self.completion.done():
            return False
        self._send_again = None
        sent = True
        try:
            sent = send_again()
        finally:  # also after an error, because the caller must not wait for this write
            if sent:
                self.completion.set_result(None)
        return sent

    def _end(self) -> None:
        """Keep hints when every zone write has ended: for zones added since the write began, and for a touch."""
        handoff, command = self._parts.handoff, self.command
        if handoff is None:
            return
        if isinstance(command, StoreCommand):
            if self._topology is not None and command.version is not None:
                handoff.check_new_zones(self._topology, command.key)
        elif isinstance(command, TouchCommand) and command.version is not None:
            for zone, error in self.failures.items():
                if _is_missed(error):
                    handoff.record_touch(zone, command.key, command.version, command.ttl, self.age)

    def _complete_if_decided(self) -> None:
        acknowledgements, required, standby = self.acknowledgements, self.required, self._standby
        is_decided = acknowledgements >= required or acknowledgements + self._undecided < required
        if standby is not None:  # both sets are met, or one of them is out of reach
            is_decided = self.met or acknowledgements + self._undecided < required or standby.is_out_of_reach
        if is_decided:
            completion = self.completion
            if not completion.done():
                completion.set_result(None)


def _is_missed(error: CacheError | None) -> TypeGuard[NodeError]:
    """Return True if a zone did not get the write. A server that refused it did."""
    return isinstance(error, NodeError) and not isinstance(error, ServerError)
