"""Requests for many keys of one zone: one batch to each node, all at once, and the answers by key."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from evcache.reads.context import ReadContext
from evcache.replication.reconcile import Answer
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import NO_FLAGS, Fields
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.snapshot import ClusterSnapshot

# Replies of one node in the order of the keys of a batch. None is a miss. See `Transport.get_many` for a value alone.
Replies = list[AnyReply | bytes | None]

_NO_CAS = array("Q")


class Batch(NamedTuple):
    """Node of a zone with the keys that it holds."""

    node: Node
    keys: Sequence[bytes]
    given: Sequence[Any] = ()
    """Names of the keys for the result of the call, in the same order."""
    cas: array[int] = _NO_CAS
    """See `Transport.get_many`."""
    flags: int = NO_FLAGS
    """See `Transport.get_many`."""


async def ask_nodes(
    view: ClusterSnapshot, batches: Sequence[Batch], fields: Fields, deadline: float, latest: float | None = None
) -> list[Replies | CacheError]:
    """Ask nodes for their keys, all at once. Return the replies of each batch, or its error.

    Args:
        view: Zones of the read.
        batches: Nodes and their keys.
        fields: Fields of an item that the read asks for.
        deadline: End of the attempt, on the event loop's clock.
        latest: End of the call. If None, the nodes get all the time up to the deadline, even if they are silent.
    """
    asked = [ask_node(batch, fields, deadline, view.loop, latest) for batch in batches]
    if len(asked) == 1:
        try:
            return [await asked[0]]
        except CacheError as error:
            return [error]
    outcomes: list[Replies | CacheError] = []
    for outcome in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, CacheError):
            raise outcome
        outcomes.append(outcome)
    return outcomes


def ask_node(
    batch: Batch, fields: Fields, deadline: float, loop: asyncio.AbstractEventLoop, latest: float | None = None
) -> Awaitable[Replies]:
    """Send a batch to its node, and return the awaitable of its replies. An open connection needs no task."""
    node = batch.node
    connection = node.connections.sole or node.connection()
    if connection is None:
        return _connect_and_ask(batch, fields, deadline, loop)
    answer: asyncio.Future[Replies] = loop.create_future()
    try:
        connection.get_many(batch.keys, fields, answer, deadline, latest, batch.cas, batch.flags)
    except CacheError as error:
        answer.set_exception(error)
    return answer


async def _connect_and_ask(batch: Batch, fields: Fields, deadline: float, loop: asyncio.AbstractEventLoop) -> Replies:
    connection, deadline = await batch.node.connected_by(deadline)
    answer: asyncio.Future[Replies] = loop.create_future()
    connection.get_many(batch.keys, fields, answer, deadline, None, batch.cas, batch.flags)
    return await answer


def answers_of(context: ReadContext, zone: str, keys: Sequence[bytes], outcome: Replies | CacheError) -> dict[bytes, Answer]:
    """Return the zone's answer for each key of a batch."""
    if isinstance(outcome, CacheError):
        return dict.fromkeys(keys, outcome)
    answers: dict[bytes, Answer] = dict.fromkeys(keys)
    for key, reply in zip(keys, outcome, strict=True):
        if reply is None:
            continue
        assert not isinstance(reply, bytes)  # these reads name no CAS
        try:
            answers[key] = context.interpret(zone, reply)
        except CacheError as error:  # of this key alone
            answers[key] = error
    return answers
