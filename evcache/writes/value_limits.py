"""Check of values against the item limits of the servers, before anything is sent.

A server that refuses a value over its limit also deletes its present item of the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from evcache.options import Options
from evcache.writes.draft import Draft
from evcache.zones.errors import NodeError, ValueTooLarge
from evcache.zones.nodes.capabilities import DEFAULT_ITEM_BYTES, FITS_ANYWHERE_BYTES
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot


async def check_size(view: ClusterSnapshot, draft: Draft, options: Options) -> Options:
    """Check that the server of each zone takes a value.

    The limit is that of an open connection. If the value seems too large for a node without one, the client connects and
    asks again. The server may have been restarted with another limit.

    Returns:
        The options, with the time that is left.

    Raises:
        ValueTooLarge: A server would not take the value.
    """
    if len(draft.data) <= FITS_ANYWHERE_BYTES:
        return options
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.timeout
    await check_sizes(view, [draft], deadline)
    return options._replace(timeout=max(0.0, deadline - loop.time()))


async def check_sizes(view: ClusterSnapshot, drafts: Iterable[Draft], deadline: float) -> None:
    """Check several values as `check_size` does.

    All servers are connected to at once. They have half of the time until `deadline`, on the loop's clock. A server that
    does not answer must not take the time of the write itself.

    Raises:
        ValueTooLarge: A server would not take one of the values.
    """
    loop = asyncio.get_running_loop()
    large: list[tuple[Draft, Node]] = []
    for draft in drafts:
        if len(draft.data) > FITS_ANYWHERE_BYTES:
            place = view.ring_position(draft.key)
            large += [(draft, pool.node(place)) for pool in view.writers]
    doubtful = {node for draft, node in large if _is_doubtful(node, len(draft.data), draft.key)}
    if doubtful:
        now = loop.time()
        half = now + (deadline - now) / 2
        # The write will meet the same error, and report it.
        for result in await asyncio.gather(*(node.connected(half) for node in doubtful), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, NodeError):
                raise result
    for draft, node in large:
        if node in doubtful and node.state != "ready":
            continue  # its server may have been restarted with another limit
        if node.capabilities is not None:
            size, limit = len(draft.data), node.capabilities.largest_value(draft.key)
            if size > limit:
                raise ValueTooLarge("value", f"{size} bytes when encoded, over the {limit} that {node.label} takes")


def _is_doubtful(node: Node, size: int, key: bytes) -> bool:
    """Return True if a value seems too large for a node, or may be, and the node can be connected to and asked."""
    known = node.capabilities
    limit = DEFAULT_ITEM_BYTES // 2 if known is None else known.largest_value(key)
    return size > limit and node.state != "ready" and not node.is_down
