"""Command: the form in which one node receives a write. The client makes it once, and sends it to every zone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

from evcache.replication.commands.node_requests import capabilities_of
from evcache.results import Outcome
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.transport.base import Transport
from evcache.zones.transport.in_flight import Waiter

Interpret = Callable[[Any], Outcome | None]
"""Turns the replies to a command into its outcome. None if they do not prove one: then `peek_and_apply` finds it."""


class Sent(NamedTuple):
    """Result of `send`: a request is in flight, and the waiter gets its replies."""

    interpret: Interpret
    """Reads the replies."""


class Skipped(NamedTuple):
    """Result of `send`: nothing was sent, because the outcome is known."""

    outcome: Outcome


class NeedsPeek:
    """Result of `send`: nothing was sent, because the command takes several exchanges (see `peek_and_apply`)."""


NEEDS_PEEK = NeedsPeek()

SendResult = Sent | Skipped | NeedsPeek


class Command(Protocol):
    """Write as one node receives it. It is made once, and sent to every zone."""

    acknowledged: ClassVar[frozenset[Outcome]]
    """Outcomes that count as an acknowledgement."""

    @property
    def fence(self) -> int | None:
        """Lowest version that readers may observe once the write has begun. If None, the zones do not order it by version.

        `NOTHING_NEWER` if the write makes no version.
        """

    def send(self, connection: Transport, capabilities: Capabilities, waiter: Waiter, deadline: float) -> SendResult:
        """Send the command.

        Args:
            connection: Connection to the node.
            capabilities: Features of its server.
            waiter: Receives the replies, in the form that the returned `interpret` reads.
            deadline: Time on the loop's clock.

        Raises:
            NodeUnavailable: The request cannot be sent.
        """
        ...

    async def peek_and_apply(self, node: Node, deadline: float) -> Outcome:
        """Look at the item that the node holds, and then apply the command to it. Raises a `NodeError`."""
        ...


async def execute(command: Command, node: Node, deadline: float) -> Outcome:
    """Send a command to one node, and return its outcome. The client connects first if it must. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    replies: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    result = command.send(connection, capabilities_of(node), replies, deadline)
    if isinstance(result, Skipped):
        return result.outcome
    if isinstance(result, Sent):
        outcome = result.interpret(await replies)
        if outcome is not None:
            return outcome
    return await command.peek_and_apply(node, deadline)
