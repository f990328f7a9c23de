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

# Replies of one node, each with the index of its key in the batch. A key without a reply is a miss.
Hits = list[tuple[int, AnyReply]]

# Nodes of one zone, each with the keys that it holds.
Batches = list[tuple[Node, Sequence[bytes]]]


async def ask_nodes(
    view: ClusterSnapshot, batches: Batches, fields: Fields, deadline: float, latest: float | None = None
) -> list[tuple[Sequence[bytes], Hits | CacheError]]:
    """Ask nodes for their keys, all at once. Return each batch of keys with the hits, or with the error.

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
    outcomes: list[tuple[Sequence[bytes], Hits | CacheError]] = []
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
) -> Awaitable[Hits]:
    """Send a batch to one node, and return the awaitable of its hits. An open connection needs no task."""
    connection = node.connection()
    if connection is None:
        return _connect_and_ask(node, keys, fields, deadline, loop)
    answer: asyncio.Future[Hits] = loop.create_future()
    try:
        connection.get_many(keys, fields, answer, deadline, latest)
    except CacheError as error:
        answer.set_exception(error)
    return answer


async def _connect_and_ask(
    node: Node, keys: Sequence[bytes], fields: Fields, deadline: float, loop: asyncio.AbstractEventLoop
) -> Hits:
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Hits] = loop.create_future()
    connection.get_many(keys, fields, answer, deadline)
    return await answer


def answers_of(context: ReadContext, zone: str, keys: Sequence[bytes], outcome: Hits | CacheError) -> dict[bytes, Answer]:
    """Return the zone's answer for each key of a batch."""
    if isinstance(outcome, CacheError):
        return dict.fromkeys(keys, outcome)
    answers: dict[bytes, Answer] = dict.fromkeys(keys)
    for index, reply in outcome:
        try:
            answers[keys[index]] = context.interpret(zone, reply)
        except CacheError as error:  # of this key alone
            answers[keys[index]] = error
    return answers
