"""Questions to one node: its handshake, its statistics, a sample of its keys. Each answer is stored as it arrives.

The questions only read. A sample is a list of keys with their CAS, which counts as no use of the items.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from evcache.admin.doctor.facts import Identity, NodeFacts, SampledKey, TlsProbe
from evcache.readiness.check import ask, cause_of
from evcache.zones.admin.session import AdminSession, connect_session, open_session
from evcache.zones.admin.statistics import ServerStatistics, integer
from evcache.zones.errors import CacheError, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.routing.ketama import ring_position
from evcache.zones.transport.dialer import SocketDialer
from evcache.zones.zone_pool import ZonePool

# Keys of each node. A share of 2 % has four of them, and their list takes a server well under a millisecond.
SAMPLE_KEYS = 200

# Connections to each node whose server process is compared. A load balancer in front of two servers gives both of them
# with a chance of three in four.
COMPARED_CONNECTIONS = 3

# Above this number of clients, the list of them would take megabytes.
MOST_LISTED_CLIENTS = 5_000

# Share of the time for the connection. The rest is for the questions, or for connections of other kinds.
CONNECT_SHARE = 0.5

# A server reports the second that has begun, so it is half a second late on average.
_HALF_A_SECOND = 0.5


@dataclass(frozen=True, slots=True)
class Questioning:
    """Settings of the questions to all nodes."""

    settings: NodeSettings
    """Settings of connections. Their `connect_timeout` also limits each reply."""
    uses_tls: bool
    deadline: float
    """End of all questions, on the loop's clock."""
    connect_deadline: float
    """End of the first connect, on the loop's clock."""
    connect_limit: float
    """Seconds for the first connect, for errors."""
    wall_clock: Callable[[], float] = time.time


class NodeExamination:
    """Questions to one node."""

    def __init__(self, pool: ZonePool, node: Node, questioning: Questioning) -> None:
        self.facts = NodeFacts(pool.name, node.label, node.endpoint.address, error="no answer", is_complete=False)
        """Facts so far."""
        self._pool = pool
        self._node = node
        self._questioning = questioning

    def _store(self, **facts: object) -> None:
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]  # by the names of the fields

    async def run(self) -> None:
        """Ask all questions until the deadline. Cancellation closes the connections of the examination."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._questioning.deadline):
                self._store(is_complete=await self._ask_all())

    async def _ask_all(self) -> bool:
        """Ask all questions. Return False if the server stopped answering after some of them."""
        check = await ask(self._node, self._questioning.connect_deadline, self._questioning.connect_limit)
        self._store(error=check.error, capabilities=self._node.capabilities)
        if check.error is not None:
            await self._try_other_kinds()
            return True
        try:
            async with open_session(self._node.endpoint, self._questioning.settings) as session:
                await self._ask_session(session)
        except CacheError as error:
            if self.facts.statistics is not None:
                return False
            self._store(refusal=cause_of(error))
        return True

    async def _ask_session(self, session: AdminSession) -> None:
        self._store(local_address=session.local_address, peers=session.peers)
        before = self._questioning.wall_clock()
        statistics = await session.statistics()
        after = self._questioning.wall_clock()
        self._store(statistics=statistics)
        if statistics.time is not None:
            self._store(clock_offset=statistics.time + _HALF_A_SECOND - (before + after) / 2)
        with suppress(ServerError):
            self._store(settings=await session.settings())
        if (statistics.curr_connections or 0) <= MOST_LISTED_CLIENTS:
            with suppress(ServerError):
                connections = await session.stats("conns")
                self._store(clients=clients_of(connections), own_descriptors=own_descriptors(connections))
        await self._sample(session)
        await self._compare(statistics)

    async def _sample(self, session: AdminSession) -> None:
        try:
            keys = await session.sample_keys(SAMPLE_KEYS)
        except ServerError as error:
            self._store(sample_refusal=cause_of(error))
            return
        numbers: dict[bytes, int] = {}
        with suppress(ServerError):
            numbers = await session.cas_numbers(keys)
        self._store(sample=tuple(SampledKey(key, self._owner(key), numbers.get(key)) for key in keys))

    def _owner(self, key: bytes) -> str:
        return self._pool.node(ring_position(key)).label

    async def _compare(self, first: ServerStatistics) -> None:
        """Store the server process of this connection and of further ones. A refused one is no finding of its own."""
        seen = [first]
        with suppress(CacheError):
            for _ in range(COMPARED_CONNECTIONS - 1):
                async with open_session(self._node.endpoint, self._questioning.settings) as session:
                    seen.append(await session.statistics())
        self._store(
            identities=tuple(
                Identity(one.pid, one.time - one.uptime)
                for one in seen
                if one.pid is not None and one.time is not None and one.uptime is not None
            )
        )

    async def _try_other_kinds(self) -> None:
        """Store the answers of a failed node to connections with another use of TLS."""
        settings, uses_tls = self._questioning.settings, self._questioning.uses_tls
        if uses_tls and await self._connects(settings):
            return  # TLS works, so the failure has another cause
        name = self._node.endpoint.host or "localhost"
        if await self._connects(replace(settings, dialer=SocketDialer(_any_certificate(), name))):
            self._store(tls=TlsProbe(answers_tls=True))
        elif uses_tls:
            self._store(tls=TlsProbe(answers_plain=await self._answers(replace(settings, dialer=SocketDialer()))))

    async def _connects(self, settings: NodeSettings) -> bool:
        """Return True if the node can be connected to. With TLS, a handshake is part of it."""
        with suppress(CacheError):
            async with connect_session(self._node.endpoint, settings):
                return True
        return False

    async def _answers(self, settings: NodeSettings) -> bool:
        """Return True if the node answers a request. Its answer may be a refusal."""
        with suppress(CacheError):
            async with connect_session(self._node.endpoint, settings) as session:
                await session.version()
                return True
        return False


def clients_of(connections: dict[str, str]) -> tuple[str, ...] | None:
    """Return the addresses of the clients in a reply to `stats conns`. None if the list is empty.

    A listening socket has no field `listen_addr`. A server that lists no client lacks this one, too, so it has no list.
    """
    found = tuple(
        address
        for name, address in connections.items()
        if name.endswith(":addr") and f"{name.removesuffix('addr')}listen_addr" in connections
    )
    return found or None


def own_descriptors(connections: dict[str, str]) -> int | None:
    """Return the number of descriptors of the server's own in a reply to `stats conns`. None without a listener.

    Each line begins with a descriptor. Listeners are the last ones that a server opens before its first client.
    """
    numbers = [integer(name.partition(":")[0]) for name, value in connections.items() if value == "conn_listening"]
    listeners = [number for number in numbers if number is not None]
    return max(listeners) + 1 if listeners else None


def _any_certificate() -> ssl.SSLContext:
    """Return a context that accepts any certificate. Nothing is sent over such a connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
