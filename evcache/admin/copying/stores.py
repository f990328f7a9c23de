"""Stores of copies in one node of the target, and changes of copies that are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from evcache.admin.copying.decision import Change, Copy, Skip
from evcache.replication.commands.guarded_store import StoreCommand, interpret_store
from evcache.replication.commands.node_requests import capabilities_of, delete, peek
from evcache.replication.commands.touch import remove_version, touch_version
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.results import Outcome
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import ERROR_STATUSES, Reply

# Seconds for each step of a batch. No caller waits for it.
STEP_TIMEOUT_SECONDS = 5.0


async def store_on(node: Node, copies: Sequence[Copy], hlc: HybridLogicalClock) -> dict[bytes, Outcome | Skip]:
    """Store copies in one node, all at once.

    A copy is stored only over the item that the target held when it was looked at, or where it held nothing. So it cannot
    shorten the life of an item of its own version that a client has stored since.

    Args:
        node: The node.
        copies: Copies of different keys.
        hlc: Clock that observes the versions on servers.

    Returns:
        The outcomes, without the keys for which the node did not answer. They may have been stored.
    """
    loop = asyncio.get_running_loop()
    outcomes: dict[bytes, Outcome | Skip] = {}
    try:
        connection, deadline = await node.connected_by(loop.time() + STEP_TIMEOUT_SECONDS)
    except CacheError:
        return outcomes
    capabilities = capabilities_of(node)
    begun: list[tuple[Copy, asyncio.Future[Reply]]] = []
    for copy in copies:
        if len(copy.data) > capabilities.largest_value(copy.key):  # the server has restarted with a lower limit
            outcomes[copy.key] = Skip.TOO_LARGE
            continue
        is_versioned = copy.version is not None and capabilities.versions
        compare = copy.replaced_cas if is_versioned else None
        cas = cas_of(copy.version) if copy.version is not None and is_versioned else None
        reply: asyncio.Future[Reply] = loop.create_future()
        with suppress(CacheError):
            connection.store(
                copy.key,
                copy.data,
                copy.flags,
                copy.exptime,
                reply,
                deadline,
                mode="add" if compare is None else "set",
                compare=compare,
                cas=cas,
            )
            begun.append((copy, reply))
    changed: list[Copy] = []
    replies = await asyncio.gather(*(reply for _, reply in begun), return_exceptions=True)
    for (copy, _), found in zip(begun, replies, strict=True):
        if isinstance(found, CacheError):
            continue
        if isinstance(found, BaseException):
            raise found
        outcome = interpret_store(found)
        if outcome is Outcome.STORED or found.status in ERROR_STATUSES:
            outcomes[copy.key] = outcome
        elif copy.version is None or not capabilities.versions:
            outcomes[copy.key] = Skip.PRESENT
        else:
            changed.append(copy)
    late = await asyncio.gather(*(_store_over(node, copy, hlc, deadline) for copy in changed))
    return outcomes | {copy.key: one for copy, one in zip(changed, late, strict=True) if one is not None}


async def _store_over(node: Node, copy: Copy, hlc: HybridLogicalClock, deadline: float) -> Outcome | None:
    """Store a copy although the target has changed since the look, unless its item is as new. None without an answer."""
    store = StoreCommand(hlc, copy.key, copy.data, copy.flags, ttl=copy.exptime, version=copy.version)
    try:
        return await store.peek_and_apply(node, deadline, over_equal=False)
    except CacheError:
        return None


async def adjust(node: Node, copy: Copy, change: Change) -> None:
    """Change exactly this copy. A newer item stays, and so does the copy if the node does not answer."""
    deadline = asyncio.get_running_loop().time() + STEP_TIMEOUT_SECONDS
    with suppress(CacheError):
        if copy.version is not None and capabilities_of(node).versions:
            if change.exptime is None:
                await remove_version(node, copy.key, copy.version, deadline)
            else:
                await touch_version(node, copy.key, copy.version, change.exptime, deadline)
            return
        # Without a version, the copy is known by its content. An equal item of a client is a miss then, and no wrong value.
        held = await peek(node, copy.key, deadline, value=True)
        if held is not None and (held.flags, held.value) == (copy.flags, copy.data):
            await delete(node, copy.key, deadline, held.cas)
