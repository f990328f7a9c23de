"""Settings of connections to nodes."""

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
from evcache.zones.validation import an_instance, at_least_one, login, positive_seconds, zero_or_more


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Settings of connections to nodes."""

    transport: TransportChoice = "auto"
    """Protocol: `meta`, `classic` (through aiomcache, for servers without the meta protocol), or `auto`. With `auto` the
    client asks each node on every connect. A proxy that closes on an unknown command needs `classic`."""

    connections: int = 1
    """Connections to each node with the meta protocol. One carries about 100,000 requests a second. More help with large
    values, because a reply of a megabyte delays the replies behind it."""

    connect_timeout: float = 0.5
    """Seconds for connect, TLS, login and handshake. Between zones a TCP connect takes a few milliseconds."""

    auth: tuple[str, str] | None = field(default=None, repr=False)
    """User and password for servers run with `-Y`. The client sends them only to a server that asks. Clear text without
    TLS."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    """Limits of one connection with the meta protocol."""
    classic: PoolLimits = field(default_factory=PoolLimits)
    """Limits of the pool of connections to a node with a classic server."""

    circuit: CircuitLimits = field(default_factory=CircuitLimits)
    """Limits at which the circuit of a node opens, and the pauses between probes."""

    dialer: Dialer = field(default_factory=SocketDialer)
    """Function that opens a socket to an endpoint."""

    lookup_interval: float | None = 30.0
    """Seconds between lookups of a node's host name while it is connected. If two in a row lack the address of a
    connection, the client connects to a new one and retires the old one. If 0 or None, the client looks names up on connects
    only. 30 s is the time to live of names in Kubernetes' CoreDNS."""

    tap: RequestTracer | None = field(default=None, repr=False)
    """Tracer of requests. None disables tracing, without any cost."""

    def __post_init__(self) -> None:
        if self.transport not in get_args(TransportChoice):
            names = ", ".join(map(repr, get_args(TransportChoice)))
            raise InvalidArgument("transport", f"{self.transport!r} is none of {names}")
        at_least_one(self.connections, "connections")
        positive_seconds(self.connect_timeout, "connect_timeout")
        if self.lookup_interval is not None:
            zero_or_more(self.lookup_interval, "lookup_interval")
        login(self.auth, "auth")
        an_instance(self.limits, ConnectionLimits, "limits", optional=False)
        an_instance(self.classic, PoolLimits, "classic", optional=False)
        an_instance(self.circuit, CircuitLimits, "circuit", optional=False)
        an_instance(self.tap, RequestTracer, "tap")
        if not callable(self.dialer):
            raise InvalidArgument("dialer", f"a Dialer is needed, not {self.dialer!r}")

    @property
    def probe_seconds(self) -> float:
        """Seconds for the reply to a probe."""
        timeout = self.circuit.probe_timeout
        return self.connect_timeout if timeout is None else timeout
