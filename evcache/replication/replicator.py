"""Replicator: the parts of a client that its replicated writes share, and the start of a write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evcache._helpers.background import BackgroundTasks
from evcache.hooks import HookDispatcher
from evcache.options import Options
from evcache.replication.commands.command import Command
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.handoff.hinted_handoff import HintedHandoff
from evcache.replication.replicated_write import ReplicatedWrite
from evcache.replication.seen_versions import SeenVersions
from evcache.replication.standby_tally import StandbyTally
from evcache.replication.zone_write import ZoneWrite
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool


class Replicator:
    """Factory of the replicated writes of one client."""

    __slots__ = ("background", "handoff", "hooks", "seen_versions")

    def __init__(
        self,
        background: BackgroundTasks,
        hooks: HookDispatcher,
        seen_versions: SeenVersions,
        handoff: HintedHandoff | None = None,
    ) -> None:
        """Bind the parts of one client. `handoff` keeps hints for zones that miss a write. If None, there are no hints."""
        self.background = background
        self.hooks = hooks
        self.seen_versions = seen_versions
        self.handoff = handoff

    def begin(
        self, view: ClusterSnapshot, options: Options, command: Command, follows: ReplicatedWrite | None = None
    ) -> ReplicatedWrite:
        """Return a write that has not been sent to any zone yet.

        Args:
            view: Zones.
            options: Names the number of readable zones that must acknowledge, and with the same rule of standby zones.
            command: Command that the zones get.
            follows: Earlier write of the same call, which this one repeats with a newer version.
        """
        ask = self.hooks.cause
        cause = None if ask is None else ask()
        if follows is not None:
            cause = follows.cause  # the current span is not that of the call
        required = options.consistency.required(len(view.readers))
        standby = StandbyTally(options.consistency.required(len(view.standby))) if view.standby else None
        return ReplicatedWrite(self, command, required, view.loop.create_future(), view.topology, cause, standby)

    def replicate(
        self,
        view: ClusterSnapshot,
        options: Options,
        store: StoreCommand,
        zone: str | None,
        deadline: float,
        since: float | None = None,
        put: Callable[[ZoneWrite], object] | None = None,
    ) -> ReplicatedWrite:
        """Send a store to every zone except the one that has stored it. Returns at once and raises nothing.

        `zone` is that zone. If None, no zone has stored it. `ReplicatedWrite.send` describes the other arguments.
        """
        write = self.begin(view, options, store)
        pools: Sequence[ZonePool] = view.writers
        if zone is not None:
            write.note_stored(zone)
            pools = [pool for pool in pools if pool.name != zone]
        write.send(pools, view.ring_position(store.key), deadline, since, put)
        return write
