"""Facts about zones at one moment, as plain values. `gather` collects them, and the judges read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from evcache.zones.admin.statistics import ServerSettings, ServerStatistics
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.topology.model import Mode

T = TypeVar("T")


class SampledKey(NamedTuple):
    """A key that a node lists."""

    key: bytes
    owner: str
    """Label of the node of the same zone to which the ring assigns the key."""
    cas: int | None
    """CAS of the item. None if the server does not report it."""


class Identity(NamedTuple):
    """Marks of one server process."""

    pid: int
    started_at: int
    """Unix time of its start, by its clock. It may differ by a second between two looks."""


@dataclass(frozen=True, slots=True)
class TlsProbe:
    """Replies of a node that failed, to connections of other kinds."""

    answers_tls: bool = False
    """True if the node does a TLS handshake with a client that accepts any certificate."""
    answers_plain: bool = False
    """True if the node answers without TLS."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts about one node. A field is None if the node did not answer that question."""

    zone: str
    label: str
    address: str
    error: str | None = None
    """Reason for which the node has no usable connection. None if it has one."""
    tls: TlsProbe = TlsProbe()
    """Replies to other kinds of connections. Asked only if the node failed."""
    capabilities: Capabilities | None = None
    is_complete: bool = True
    """False if the deadline came before the last question."""
    statistics: ServerStatistics | None = None
    settings: ServerSettings | None = None
    refusal: str | None = None
    """Reply of a server that refuses its statistics."""
    clock_offset: float | None = None
    """Seconds by which the server's clock is ahead of this host's. Servers report whole seconds."""
    peers: frozenset[tuple[str, int]] = frozenset()
    """IP address and port to which the host name led."""
    local_address: str = ""
    """Address of this end of the connection. Empty for a unix socket."""
    clients: tuple[str, ...] | None = None
    """Addresses of the server's clients, by its own list. None if it has no such list."""
    own_descriptors: int | None = None
    """Number of file descriptors that the server opened before its first client. None if unknown."""
    identities: tuple[Identity, ...] = ()
    """Server process of each of several connections."""
    sample: tuple[SampledKey, ...] = ()
    sample_refusal: str | None = None
    """Reply of a server that refuses to list keys."""

    @property
    def answers(self) -> bool:
        """True if the node has a usable connection."""
        return self.error is None

    @property
    def name(self) -> str:
        """Name of the node in texts: its label, its address if it has another one, and its zone."""
        place = self.label if self.label == self.address else f"{self.label} at {self.address}"
        return f"{place} in {self.zone}"


@dataclass(frozen=True, slots=True)
class ZoneFacts:
    """Facts about one zone."""

    name: str
    nodes: tuple[NodeFacts, ...]
    mode: Mode = Mode.READ_WRITE

    @property
    def answering(self) -> tuple[NodeFacts, ...]:
        """Nodes with a usable connection."""
        return tuple(node for node in self.nodes if node.answers)


@dataclass(frozen=True, slots=True)
class HintsDisk:
    """State of the file system and the file of a service's hints."""

    path: str
    has_folder: bool = True
    """True if the folder of the file exists."""
    is_read_only: bool = False
    """True if the file system is mounted read-only."""
    free_bytes: int | None = None
    """Free bytes for users without privileges. None if unknown."""
    write_error: str | None = None
    """Reason for which a small file cannot be written next to it, or the file cannot be opened for writing."""
    is_full: bool = False
    """True if that reason is a full disk or quota."""
    is_foreign: bool = False
    """True if the path holds something else than an SQLite file."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of one examination."""

    zones: tuple[ZoneFacts, ...]
    now_ms: int
    """Time of this host, in milliseconds since 1970."""
    uses_tls: bool = False
    """True if the connections were encrypted."""
    namespace: str | None = None
    """Namespace that the zones should hold. None if unknown."""
    local_zone: str | None = None
    """Zone that clients on this host are configured to read first. None without one."""
    needs_versions: bool = True
    """True if clients order writes by version."""
    hints: HintsDisk | None = None
    """State of the disk for hints. None if no file was named."""
    seconds: float = 0.0
    """Seconds that the questions were allowed to take."""
    nodes: tuple[NodeFacts, ...] = field(init=False)
    """Nodes of all zones."""
    answering: tuple[NodeFacts, ...] = field(init=False)
    """Nodes with a usable connection."""

    def __post_init__(self) -> None:
        nodes = tuple(node for zone in self.zones for node in zone.nodes)
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "answering", tuple(node for node in nodes if node.answers))

    def with_statistics(self) -> Iterator[tuple[NodeFacts, ServerStatistics]]:
        """Yield the nodes that reported statistics."""
        return ((node, node.statistics) for node in self.nodes if node.statistics is not None)

    def with_settings(self) -> Iterator[tuple[NodeFacts, ServerSettings]]:
        """Yield the nodes that reported settings."""
        return ((node, node.settings) for node in self.nodes if node.settings is not None)

    def grouped(self, value_of: Callable[[NodeFacts], T | None]) -> dict[T, list[NodeFacts]]:
        """Return the nodes by a value, without those for which it is None."""
        groups: dict[T, list[NodeFacts]] = {}
        for node in self.nodes:
            value = value_of(node)
            if value is not None:
                groups.setdefault(value, []).append(node)
        return groups
