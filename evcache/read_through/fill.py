"""Storing what a loader has returned: in the zone that holds the lease first, and then in the others.

A loaded value has the version of the moment in which its load began. Whoever has written or deleted the key since is
newer, and wins, in every zone; a value that was loaded before a change never hides it. Where there is a lease, its zone
decides that exactly, and not by clocks: the value goes only over what was there when the lease was given. When that has
been written over or deleted, nothing is stored anywhere; when it has ended by itself, the version decides as elsewhere.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from evcache.options import Options
from evcache.read_through.leases import Lease
from evcache.replication.guarded_store import StoreCommand, interpret_store
from evcache.replication.hlc import cas_of
from evcache.replication.lanes import Flow
from evcache.replication.node_requests import send_request
from evcache.results import Outcome
from evcache.writes.draft import Draft
from evcache.writes.value_limits import check_size
from evcache.writes.writer import Writer
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, ServerError
from evcache.zones.protocol import requests


class Filled(NamedTuple):
    """What became of a loaded value."""

    stored: bool
    """Whether the zones hold it."""
    unreachable: bool = False
    """Whether there was no zone to be asked."""


class Fill:
    """How one client stores what it loads."""

    def __init__(self, writes: Writer) -> None:
        self._writes = writes

    def flow(self, options: Options) -> Flow:
        """Return the flow control for storing many values."""
        return self._writes.flow(options)

    async def store(
        self,
        view: ClusterSnapshot,
        draft: Draft,
        version: int | None,
        lease: Lease | None,
        options: Options,
        *,
        written: bool = False,
        flow: Flow | None = None,
    ) -> Filled:
        """Bring a loaded value to every zone. Raises `ValueTooLarge` when a server would not take it.

        `written`: the key is known to have been written since the load began. `flow`: what the store waits for before its
        time begins, if it is one of many.
        """
        if written:
            return Filled(stored=False)  # what was written may be gone by now, and then no server would tell
        if flow is not None:
            place = view.ring_position(draft.key)
            await flow.room(pool.node(place) for pool in view.writers)
        deadline = asyncio.get_running_loop().time() + options.timeout
        options = await check_size(view, draft, options)
        store = self._writes.store_at(draft, version)
        zone = None
        if lease is not None and lease.over is not None:
            asked_at = asyncio.get_running_loop().time()
            outcome = await self._over(lease, lease.over, store, deadline)
            if outcome is Outcome.STORED:
                zone = lease.pool.name
            elif outcome is Outcome.EXISTS:
                return Filled(stored=False)  # it was written, or deleted, meanwhile
            elif outcome is Outcome.NOT_FOUND and (not store.carried or asked_at < lease.over_until):
                return Filled(stored=False)  # the same, and that is gone by now
            # Otherwise what was there has ended, or its server can't be reached: the version says what is newer.
        round_ = await self._writes.replicate(view, store, zone, deadline, options, flow)
        superseded = Outcome.SUPERSEDED in round_.outcomes.values()
        return Filled(round_.met and not superseded, unreachable=round_.unreachable)

    async def _over(self, lease: Lease, seen: int, store: StoreCommand, deadline: float) -> Outcome | None:
        """Store over exactly what was there. None: not known."""
        capabilities = lease.node.capabilities
        store.note_sent(versioned=capabilities is not None and capabilities.versions)
        cas = cas_of(store.version) if store.carried and store.version is not None else None
        line = requests.meta_set(store.key, len(store.data), ttl=store.ttl, flags=store.flags, compare=seen, cas=cas)
        try:
            return interpret_store(await send_request(lease.node, line, deadline, store.data))
        except ServerError:
            return Outcome.NOT_STORED
        except CacheError:
            return None
