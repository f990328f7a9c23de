"""Stores on the coordinator's node that succeed only while the node holds the item that was seen there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from evcache.interop.settings import Interop
from evcache.replication.commands import node_requests
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.commands.node_requests import Peeked, capabilities_of
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.replication.repair.read_repair import REPAIR_TIMEOUT_SECONDS
from evcache.results import Outcome
from evcache.values.flags import FLAG_INT, FLAG_STR
from evcache.values.ttl import NEVER, exptime_of_copy
from evcache.writes.draft import Draft
from evcache.zones.errors import Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import Reply, unexpected


class Decision(NamedTuple):
    """Result of a conditional write that the coordinator's node has stored."""

    store: StoreCommand | None
    """Write for the other zones. If None, another client's write has followed, and that client replicates it."""
    value: int = 0
    """New value of a counter."""


class CompareAndSet:
    """Compare-and-set stores of one client, and the copies of their results for the other zones."""

    def __init__(self, hlc: HybridLogicalClock, unix_time: Callable[[], float], *, jvm: Interop | None) -> None:
        """Bind the parts of one client.

        Args:
            hlc: Clock that makes versions.
            unix_time: Returns seconds since 1970.
            jvm: Settings of the JVM clients. None if the client is not in interop mode.
        """
        self.hlc = hlc
        self.unix_time = unix_time
        self.versions = jvm is None
        """True if this client's writes have versions."""
        # Other kinds of clients store counters as text. A zone that puts values into envelopes must know them as counters.
        self.counter_flag = FLAG_INT if jvm is None or jvm.translates else FLAG_STR
        """Flags of a new counter."""
        self.counter_flags = frozenset({FLAG_INT} if jvm is None else {FLAG_INT, FLAG_STR})
        """Flags of the items that are counters."""
        self.loses_counters = jvm is not None and jvm.loses_counters
        """True if JVM clients could not find the counters of this client."""

    def is_versioned(self, node: Node) -> bool:
        """Return True if this client's writes to a node have versions."""
        return self.versions and capabilities_of(node).versions

    def version_after(self, cas: int | None) -> int:
        """Return a version newer than all that the client has seen, and newer than the item with this CAS.

        That holds even if the version of the item is too far ahead to be believed.
        """
        return self.hlc.tick(0 if cas is None else self.hlc.observe_stored(cas) or 0)

    async def create(self, node: Node, draft: Draft, seen: Peeked | None, deadline: float) -> Decision | Outcome | None:
        """Store if the node holds no item, or only the absence that was seen. Returns and raises as `replace` does."""
        if seen is not None:
            return await self.replace(node, draft, seen, deadline)
        return await self._store(node, draft, deadline, mode="add")

    async def replace(
        self,
        node: Node,
        draft: Draft,
        seen: Peeked,
        deadline: float,
        *,
        sent: bytes | None = None,
        mode: StoreMode = "set",
    ) -> Decision | Outcome | None:
        """Store over the item that was seen.

        Args:
            node: Node of the coordinator's zone.
            draft: Complete new value, which the other zones get.
            seen: Item that the node must still hold.
            deadline: Time on the loop's clock.
            sent: Bytes that the node gets. If None, the value of the draft. `append` and `prepend` send the
                added bytes.
            mode: Kind of store.

        Returns:
            The decision, or the outcome if the node refused the value. None if the node holds another item now.

        Raises:
            NodeError: The node did not answer. It may have stored the value.
            Unsupported: The server is run without CAS.
        """
        if not capabilities_of(node).cas:
            raise Unsupported("writes that compare (the server is run without CAS)", node.label)
        return await self._store(node, draft, deadline, compare=seen.cas, sent=sent, mode=mode)

    async def _store(
        self,
        node: Node,
        draft: Draft,
        deadline: float,
        *,
        compare: int | None = None,
        sent: bytes | None = None,
        mode: StoreMode,
    ) -> Decision | Outcome | None:
        if len(draft.data) > capabilities_of(node).largest_value(draft.key):
            return Outcome.NOT_STORED  # the server would delete its item of the key, and then refuse
        version = self.version_after(compare) if self.is_versioned(node) else None
        data = draft.data if sent is None else sent
        cas = None if version is None else cas_of(version)
        reply = await node_requests.store(
            node, draft.key, data, draft.flags, draft.ttl, deadline, mode=mode, compare=compare, cas=cas
        )
        if reply.status == b"HD":
            return Decision(self.copy(draft, version))
        if reply.status in (b"EX", b"NF", b"NS"):
            return None
        return refusal(reply)

    def copy(self, draft: Draft, version: int | None) -> StoreCommand:
        """Return the store for the other zones of a value that the coordinator's node holds with this version."""
        return StoreCommand(
            self.hlc,
            draft.key,
            draft.data,
            draft.flags,
            ttl=draft.ttl,
            version=version,
            carried=version is not None,
            believed=version is None or self.hlc.believes(version),
        )

    def exptime_of_copies(self, left: int, asked_at: float, deadline: float) -> int:
        """Return the exptime for the other zones of an item that keeps its TTL.

        An item with two seconds left has no time for a copy. The other zones get it for one second, because their older
        values would otherwise be read for that time. No client copies such a copy, so it ends at most a second late.
        A zone that takes longer than a second to store the copy counts its TTL from then, as for any write.

        Args:
            left: Seconds that the item has left. -1 if it does not expire.
            asked_at: Time on the loop's clock at which the node was asked for `left`.
            deadline: End of the call, on the loop's clock.
        """
        now = asyncio.get_running_loop().time()
        spent = now - asked_at + min(REPAIR_TIMEOUT_SECONDS, max(0.0, deadline - now))
        return exptime_of_copy(left, spent, self.unix_time()) or (NEVER if left < 0 else 1)


def refusal(reply: Reply) -> Outcome:
    """Return the outcome of a store that the server refused with an error. Raises `ProtocolError` for any other reply."""
    if reply.status == b"SERVER_ERROR":
        return Outcome.NOT_STORED
    raise unexpected(reply)
