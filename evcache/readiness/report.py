"""Report of a check, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evcache.zones.topology.model import Mode
from evcache.zones.transport.base import TransportName


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """Reply of one node to a check."""

    node: str
    """Label of the node, which places its keys."""
    address: str
    """Address of the node."""
    ok: bool
    """True if the node replied in time."""
    error: str | None
    """Reason for which the node did not reply in time. None if it did."""
    seconds: float
    """Seconds from the question to the reply or the error. A new connection and its handshake are included."""
    server: str | None
    """Version string of the last handshake. None if there was none."""
    transport: TransportName | None
    """Protocol of the last handshake, `meta` or `classic`. None if there was none."""


@dataclass(frozen=True, slots=True)
class ZoneCheck:
    """State of one zone, with the replies of its nodes."""

    name: str
    """Name of the zone."""
    mode: Mode
    """Use of the zone."""
    is_local: bool
    """True if this process runs in the zone."""
    is_ejected: bool
    """True if calls of this client read the zone last. A write-only zone is not read and never ejected."""
    is_usable: bool
    """True if enough nodes replied: at least one, and all but one node or all but a third.

    The client ejects zones by this rule.
    """
    nodes: tuple[NodeCheck, ...]
    """Replies of its nodes."""
    missing: Mapping[str, str]
    """Features that at least one node lacks, by name, with the reason. Nodes without a handshake have no part in it."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a check. It is true if the client is ready."""

    ready: bool
    """True if at least one readable zone is usable. It is the truth value of the result."""
    local_zone: str | None
    """Zone that the client is configured to read first. None without a local zone."""
    zones: tuple[ZoneCheck, ...]
    """All zones, in the order of the topology. Empty if the topology is unknown."""
    missing_zones: tuple[str, ...]
    """Zones that the client is configured with and the topology lacks. Only the local zone can be one."""
    gutter: tuple[NodeCheck, ...]
    """Replies of the gutter's nodes. Empty without a gutter."""
    problems: tuple[str, ...]
    """Lines for an operator, each with the form `<what failed>: <cause>`. Empty if nothing failed.

    A missing feature is no problem, with one exception: a zone without versions, for a client that orders writes by version.
    """

    def __bool__(self) -> bool:
        return self.ready
