"""Requests for many keys of one zone: one batch to each node, all at once, and the answers by key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from evcache.reads.context import ReadContext
from evcache.replication.reconcile import Answer
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import AnyReply

# Replies of one node in the order of the keys of a batch. None is a miss.
Replies = list[AnyReply | None]

# Nodes of one zone, each with the keys that it holds.
Batches = list[tuple[Node, Sequence[bytes]]]


async def ask_nodes(
    view: ClusterSnapshot, batches: Batches, fields: Fields, deadline: float, latest: float | None = None
) -> list[tuple[Sequence[bytes], Replies | CacheError]]:
    """Ask nodes for their keys, all at once. Return each batch of keys with the replies, or with the error.

    Args:
        view: Zones of the read.
        batches: Nodes and their keys.
        fields: Fields of an item that the read asks for.
        deadline: End of the attempt, on the event loop's clock.
        latest: End of the call. If None, the nodes get all the time up to the deadline, even if they are silent.
    """
    asked = [ask_node(node, keys, fields, deadline, view.loop, latest) for node, keys in batches]
    if len(asked) == 1:
        keys = batches[0][1]
        try:
            return [(keys, await asked[0])]
        except CacheError as error:
            return [(keys, error)]
    outcomes: list[tuple[Sequence[bytes], Replies | CacheError]] = []
    for (_, keys), outcome in zip(batches, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, CacheError):
            raise outcome
        outcomes.append((keys, outcome))
    return outcomes


def ask_node(
    node: Node,
    keys: Sequence[bytes],
    fields: Fields,
    deadline: float,
    loop: asyncio.AbstractEventLoop,
    latest: float | None = None,
) -> Awaitable[Replies]:
    """Send a batch to one node, and return the awaitable of its replies. An open connection needs no task."""
    connection = node.connection()
    if connection is None:
        return _connect_and_ask(node, keys, fields, deadline, loop)
    answer: asyncio.Future[Replies] = loop.create_future()
    try:
        connection.get_many(keys, fields, answer, deadline, latest)
    except CacheError as error:
        answer.set_exception(error)
    return answer


async def _connect_and_ask(
    node: Node, keys: Sequence[bytes], fields: Fields, deadline: float, loop: asyncio.AbstractEventLoop
) -> Replies:
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Replies] = loop.create_future()
    connection.get_many(keys, fields, answer, deadline)
    return await answer


def answers_of(context: ReadContext, zone: str, keys: Sequence[bytes], outcome: Replies | CacheError) -> dict[bytes, Answer]:
    """Return the zone's answer for each key of a batch."""
    if isinstance(outcome, CacheError):
        return dict.fromkeys(keys, outcome)
    answers: dict[bytes, Answer] = dict.fromkeys(keys)
    for key, reply in zip(keys, outcome, strict=True):
        if reply is None:
            continue
        try:
            answers[key] = context.interpret(zone, reply)
        except CacheError as error:  # of this key alone
            answers[key] = error
    return answers
