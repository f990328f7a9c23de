"""How nodes are connected to, and when they are given up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from evcache.zones.errors import InvalidArgument
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.transport.base import TransportChoice
from evcache.zones.transport.classic.pool import PoolLimits
from evcache.zones.transport.dialer import Dialer, SocketDialer
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.request_tracing import RequestTracer
from evcache.zones.validation import an_instance, at_least_one, login, seconds, zero_or_more


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How nodes are connected to."""

    transport: TransportChoice = "auto"
    """`meta`, `classic` (through aiomcache, for servers that only speak the classic text protocol), or `auto`: each node is
    asked on every connect. A proxy that closes on a command it does not know has to be named `classic`."""

    connections: int = 1
    """Connections to each node with the meta protocol. One carries about 100,000 requests a second; more help where values
    are large, since a reply of a megabyte holds up the ones behind it."""

    connect_timeout: float = 0.5
    """Seconds for connecting, TLS, login and the first questions. Between zones a TCP connect takes a few milliseconds."""

    auth: tuple[str, str] | None = field(default=None, repr=False)
    """User and password for servers run with `-Y`, sent only to a server that asks for it. Clear text unless TLS is on."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    classic: PoolLimits = field(default_factory=PoolLimits)
    """The pool of connections to a node with a classic server."""

    circuit: CircuitLimits = field(default_factory=CircuitLimits)
    """When a node is not asked any more, and when it is looked whether it can be again."""

    dialer: Dialer = field(default_factory=SocketDialer)

    lookup_interval: float | None = 30.0
    """Seconds between look-ups of a node's host name while it is connected. If two in a row lack the address of a
    connection, the client connects to a new one and retires the old one. If 0 or None, the client looks names up on connects
    only. 30 s is the time to live of names in Kubernetes' CoreDNS."""

    tap: RequestTracer | None = field(default=None, repr=False)
    """Where requests can be listened to; None: nowhere, which costs nothing."""

    def __post_init__(self) -> None:
        if self.transport not in get_args(TransportChoice):
            names = ", ".join(map(repr, get_args(TransportChoice)))
            raise InvalidArgument("transport", f"{self.transport!r} is none of {names}")
        at_least_one(self.connections, "connections")
        seconds(self.connect_timeout, "connect_timeout")
        if self.lookup_interval is not None:
            zero_or_more(self.lookup_interval, "lookup_interval")
        login(self.auth, "auth")
        an_instance(self.limits, ConnectionLimits, "limits", optional=False)
        an_instance(self.classic, PoolLimits, "classic", optional=False)
        an_instance(self.circuit, CircuitLimits, "circuit", optional=False)
        an_instance(self.tap, RequestTracer, "tap")
        if not callable(self.dialer):
            raise InvalidArgument("dialer", f"a Dialer is needed, not {self.dialer!r}")
