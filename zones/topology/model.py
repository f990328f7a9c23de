"""Zones, their nodes and modes at one moment. The objects are immutable and compared by value.

A topology comes from a mapping, a node list (`eu-1a=host:port,host:port;eu-1b=...`), TOML, or code.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evcache.zones.errors import InvalidTopology
from evcache.zones.topology import parsing
from evcache.zones.topology.parsing import MAX_PORT, ZoneText

# Zone names become attribute values in telemetry, and parts of hashes that other clients compute too.
_ZONE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LABEL = re.compile(r"[!-~]{1,255}")  # printable ASCII, because clients hash the label as it is written


class Mode(enum.StrEnum):
    """Use of a zone."""

    READ_WRITE = parsing.READ_WRITE
    """The zone receives all writes and serves reads."""
    WRITE_ONLY = parsing.WRITE_ONLY
    """The zone receives all writes, serves no reads, and never counts. A zone that is being filled has this mode."""
    STANDBY = parsing.STANDBY
    """The zone belongs to the second of two sets of zones, between which a cache migrates.

    It receives all writes. A write is acknowledged only if enough read-write zones and, counted separately, enough standby
    zones have it. So it survives when the two sets exchange their modes. Reads ask standby zones if no read-write zone has
    the key.
    """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a node, and the label that places it on the ring.

    A node that moves to another host keeps its keys if it keeps its label.
    """

    host: str
    """Host name, IPv4 or IPv6 address. Empty for a unix socket."""
    port: int
    """Port. 0 for a unix socket."""
    path: str
    """Path of a unix socket. Empty otherwise."""
    label: str
    """Name that places the keys of the node on the ring. Unique within its zone."""

    def __post_init__(self) -> None:
        if not all(isinstance(part, str) for part in (self.host, self.path, self.label)):
            raise InvalidTopology(
                "zones", f"host, path and label of a node are texts, not {self.host!r}, {self.path!r}, {self.label!r}"
            )
        is_number = isinstance(self.port, int) and not isinstance(self.port, bool)
        if not is_number or not (self.path or 0 < self.port <= MAX_PORT):
            raise InvalidTopology("zones", f"a port is a number from 1 to {MAX_PORT}, not {self.port!r}")
        if bool(self.host) == bool(self.path):
            raise InvalidTopology("zones", "a node has a host or the path of a unix socket")
        if not _is_label(self.label, self.path):
            raise InvalidTopology("zones", f"label {self.label!r}: 1 to 255 printable ASCII characters without '@'")

    @classmethod
    def parse(cls, text: str, label: str | None = None) -> Endpoint:
        """Return the endpoint of a text.

        Args:
            text: `host`, `host:port`, `name/address:port`, `[v6]:port`, `unix:/path` or `/path`, each with an optional
                `label@` in front.
            label: Label of the node. If None, the label in the text applies, or else the address.

        Raises:
            InvalidTopology: The text has another form, or the label is not printable ASCII.
        """
        host, port, path, written = parsing.parse_address(text)
        name = label if label is not None else written
        if name is None:
            name = path or _host_port(host, port)
        if not _is_label(name, path):
            raise InvalidTopology("zones", f"node {text!r}: a label is 1 to 255 printable ASCII characters without '@'")
        return cls(host, port, path, name)

    @property
    def address(self) -> str:
        """The address as `parse` reads it, without the label."""
        return f"unix:{self.path}" if self.path else _host_port(self.host, self.port)

    def __str__(self) -> str:
        plain = self.path or _host_port(self.host, self.port)
        return self.address if self.label == plain else f"{self.label}@{self.address}"


@dataclass(frozen=True, slots=True)
class Zone:
    """A failure domain with one full copy of the data, spread over its nodes."""

    name: str
    """Name of the zone. Clients of one cache use the same names."""
    nodes: tuple[Endpoint, ...]
    """Nodes that share the keys, at least one."""
    mode: Mode = Mode.READ_WRITE
    """Use of the zone."""
    location: str | None = None
    """Name of the availability zone, if the zone has another name. Two sets of zones in the same places need two names."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_zone_name(self.name):
            raise InvalidTopology("zones", f"zone name {self.name!r}: letters, digits, '.', '_' and '-', 63 at most")
        if self.location is not None and not (isinstance(self.location, str) and is_zone_name(self.location)):
            raise InvalidTopology("zones", f"zone {self.name!r}: location is the name of a zone, not {self.location!r}")
        if not isinstance(self.mode, Mode):
            raise InvalidTopology("zones", f"zone {self.name!r}: mode is a Mode, not {self.mode!r}")
        if not isinstance(self.nodes, tuple) or not all(isinstance(node, Endpoint) for node in self.nodes):
            raise InvalidTopology("zones", f"zone {self.name!r}: a tuple of Endpoint is required, not {self.nodes!r}")
        if not self.nodes:
            raise InvalidTopology("zones", f"zone {self.name!r} has no nodes")
        labels: set[str] = set()
        for node in self.nodes:
            # Two nodes with one label have the same points on the ring, and one of them would get all the keys.
            if node.label in labels:
                raise InvalidTopology("zones", f"zone {self.name!r} has two nodes labelled {node.label!r}")
            labels.add(node.label)


@dataclass(frozen=True, slots=True)
class Topology:
    """All zones of a cache. Clients can read at least one of them."""

    zones: tuple[Zone, ...]
    """Zones, at least one of which is read-write."""

    def __post_init__(self) -> None:
        if not isinstance(self.zones, tuple) or not all(isinstance(zone, Zone) for zone in self.zones):
            raise InvalidTopology("zones", f"a tuple of Zone is required, not {self.zones!r}")
        if not self.zones:
            raise InvalidTopology("zones", "there are none")
        names = [zone.name for zone in self.zones]
        if len(set(names)) < len(names):
            raise InvalidTopology("zones", f"a zone is named twice: {', '.join(sorted(names))}")
        if not self.readable:
            modes = " or ".join(sorted({str(zone.mode) for zone in self.zones}, reverse=True))
            raise InvalidTopology("zones", f"all zones are {modes}, so none can be read")

    @classmethod
    def from_mapping(cls, zones: Mapping[str, Iterable[str | Endpoint] | Zone]) -> Topology:
        """Return the topology of a mapping.

        Args:
            zones: Zone names to nodes, as in `{"eu-1a": ["10.0.1.4:11211"], ...}`, or to a `Zone` of that name.

        Raises:
            InvalidTopology: A name or a node has another form.
        """
        return cls(tuple(zone_of(name, nodes) for name, nodes in zones.items()))

    @classmethod
    def from_node_list(cls, text: str) -> Topology:
        """Return the topology of a node list, the form for environment variables.

        Args:
            text: `eu-1a=host:port,host:port;eu-1b=host:port`. A `!` behind a zone name marks a write-only zone, and a `?` a
                standby zone.

        Raises:
            InvalidTopology: The text has another form.
        """
        return cls(tuple(_zone_of(parsed) for parsed in parsing.parse_node_list(text)))

    @classmethod
    def from_toml(cls, text: str, source: str = "TOML") -> Topology:
        """Return the topology of a TOML document.

        Args:
            text: A table `[zones.NAME]` for each zone, with `nodes` and an optional `mode` and `location`. A node is a
                string, as `Endpoint.parse` reads it, or a table with `address` and `label`.
            source: Name of the text, for errors.

        Raises:
            InvalidTopology: The text has another form. The error names the line.
        """
        zones: list[Zone] = []
        for parsed in parsing.parse_toml(text, source):
            try:
                zones.append(_zone_of(parsed))
            except InvalidTopology as error:
                raise parsing.toml_error(text, source, parsed.name, error.problem) from error
        try:
            return cls(tuple(zones))
        except InvalidTopology as error:
            raise InvalidTopology("zones", f"{source}: {error.problem}") from error

    def zone(self, name: str) -> Zone | None:
        """Return the zone of a name, or None if there is none.

        Args:
            name: Name of the zone.
        """
        return next((zone for zone in self.zones if zone.name == name), None)

    @property
    def readable(self) -> tuple[Zone, ...]:
        """Zones that clients read first, and that consistency levels count: the read-write zones."""
        return tuple(zone for zone in self.zones if zone.mode is Mode.READ_WRITE)

    @property
    def standby(self) -> tuple[Zone, ...]:
        """Zones of the second set (see `Mode.STANDBY`)."""
        return tuple(zone for zone in self.zones if zone.mode is Mode.STANDBY)

    @property
    def names_and_modes(self) -> str:
        """Names of the zones as a text for logs, with the mode of each zone that is not read-write."""
        return ", ".join(zone.name if zone.mode is Mode.READ_WRITE else f"{zone.name} ({zone.mode})" for zone in self.zones)


@dataclass(frozen=True, slots=True)
class TopologyChange:
    """Nodes to open and to retire between two topologies, each with the name of its zone."""

    added: tuple[tuple[str, Endpoint], ...]
    removed: tuple[tuple[str, Endpoint], ...]


def difference(old: Topology | None, new: Topology) -> TopologyChange:
    """Return the nodes to open and to retire. A node with another address or label is another node."""
    before = [] if old is None else [(zone.name, node) for zone in old.zones for node in zone.nodes]
    after = [(zone.name, node) for zone in new.zones for node in zone.nodes]
    known, wanted = set(before), set(after)
    return TopologyChange(
        added=tuple(node for node in after if node not in known),
        removed=tuple(node for node in before if node not in wanted),
    )


def is_zone_name(text: str) -> bool:
    """Return True if a zone may have this name: letters, digits, `.`, `_` and `-`, at most 63, the first no sign."""
    return _ZONE_NAME.fullmatch(text) is not None


def zone_of(name: object, nodes: object) -> Zone:
    """Return the zone of an item of a mapping, see `Topology.from_mapping`.

    Raises:
        InvalidTopology: The name or a node has another form.
    """
    if not isinstance(name, str):
        raise InvalidTopology("zones", f"a zone's name is a str, not {name!r}")
    if isinstance(nodes, Zone):
        if nodes.name != name:
            raise InvalidTopology("zones", f"zone {name!r} has a Zone with the name {nodes.name!r}")
        return nodes
    if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
        raise InvalidTopology("zones", f"zone {name!r}: a list of nodes is required, not {nodes!r}")
    return Zone(name, tuple(endpoint_of(name, node) for node in nodes))


def endpoint_of(zone: str, node: object) -> Endpoint:
    """Return the endpoint of a node in a list.

    Raises:
        InvalidTopology: The node is neither a str nor an `Endpoint`, or its text has another form.
    """
    if isinstance(node, Endpoint):
        return node
    if isinstance(node, str):
        return Endpoint.parse(node)
    raise InvalidTopology("zones", f"zone {zone!r}: a node is a 'host:port' string, not {node!r}")


def _zone_of(parsed: ZoneText) -> Zone:
    nodes = tuple(Endpoint.parse(node.address, node.label) for node in parsed.nodes)
    return Zone(parsed.name, nodes, Mode(parsed.mode), parsed.location)


def _is_label(label: str, path: str) -> bool:
    """Return True if a node may have this label. A path may contain an `@`."""
    return _LABEL.fullmatch(label) is not None and ("@" not in label or label == path)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# Node of a zone that was not found yet. Its path cannot exist, because `/dev/null` is no directory. So the zone is down, and
# each connect fails without traffic.
NOT_FOUND = Endpoint("", 0, "/dev/null/zone-not-found", "not-found")
