"""Zones, their nodes and modes at one moment: immutable, compared by value, written down in four forms.

A topology comes from a mapping, a node list (`eu-1a=host:port,host:port;eu-1b=...`), TOML, or code.
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evcache.zones.errors import InvalidTopology

DEFAULT_PORT = 11211  # memcached's own

_MAX_PORT = 65535
# Zone names become attribute values in telemetry and parts of hashes that other clients compute too.
_ZONE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LABEL = re.compile(r"[!-~]{1,255}")  # printable ASCII: a label is hashed as it is written


class Mode(enum.StrEnum):
    """What a zone is used for."""

    READ_WRITE = "read-write"
    WRITE_ONLY = "write-only"
    """Takes every write, is never read and never counts: a zone that is being filled before it serves."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node listens, and the label that places it on the ring.

    The label outlives the address: a node that moves to another host keeps its keys when it keeps its label.
    """

    host: str
    """A host name, an IPv4 or IPv6 address; empty for a unix socket."""
    port: int
    path: str
    """The path of a unix socket; empty otherwise."""
    label: str

    def __post_init__(self) -> None:
        if not all(isinstance(part, str) for part in (self.host, self.path, self.label)):
            raise InvalidTopology(
                "zones", f"host, path and label of a node are texts, not {self.host!r}, {self.path!r}, {self.label!r}"
            )
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise InvalidTopology("zones", f"a port is a number from 1 to {_MAX_PORT}, not {self.port!r}")
        if bool(self.host) == bool(self.path):
            raise InvalidTopology("zones", "a node has a host or the path of a unix socket")
        if not self.path and not 0 < self.port <= _MAX_PORT:
            raise InvalidTopology("zones", f"a port is a number from 1 to {_MAX_PORT}, not {self.port!r}")
        if not _LABEL.fullmatch(self.label) or ("@" in self.label and self.label != self.path):
            raise InvalidTopology("zones", f"label {self.label!r}: 1 to 255 printable ASCII characters without '@'")

    @classmethod
    def parse(cls, text: str, label: str | None = None) -> Endpoint:
        """`host`, `host:port`, `[v6]:port`, `unix:/path` or `/path`, each with an optional `label@` in front.

        Raises `InvalidTopology` for anything else.
        """
        rest = text.strip()
        if "@" in rest and not rest.startswith("unix:/"):
            written, _, rest = rest.partition("@")
            label = written if label is None else label
        host, port, path = _address(rest, text)
        name = label if label is not None else (path or _host_port(host, port))
        if not _LABEL.fullmatch(name) or ("@" in name and name != path):
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
    """A named failure domain with one full copy of the data, spread over its nodes."""

    name: str
    nodes: tuple[Endpoint, ...]
    mode: Mode = Mode.READ_WRITE

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _ZONE_NAME.fullmatch(self.name):
            raise InvalidTopology("zones", f"zone name {self.name!r}: letters, digits, '.', '_' and '-', 63 at most")
        if not isinstance(self.mode, Mode):
            raise InvalidTopology("zones", f"zone {self.name!r}: mode is a Mode, not {self.mode!r}")
        if not isinstance(self.nodes, tuple) or not all(isinstance(node, Endpoint) for node in self.nodes):
            raise InvalidTopology("zones", f"zone {self.name!r}: a tuple of Endpoint is needed, not {self.nodes!r}")
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
    """All zones. At least one of them can be read."""

    zones: tuple[Zone, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.zones, tuple) or not all(isinstance(zone, Zone) for zone in self.zones):
            raise InvalidTopology("zones", f"a tuple of Zone is needed, not {self.zones!r}")
        if not self.zones:
            raise InvalidTopology("zones", "there are none")
        names = [zone.name for zone in self.zones]
        if len(set(names)) < len(names):
            raise InvalidTopology("zones", f"a zone is named twice: {', '.join(sorted(names))}")
        if all(zone.mode is Mode.WRITE_ONLY for zone in self.zones):
            raise InvalidTopology("zones", "every zone is write-only, so nothing could be read")

    @classmethod
    def from_mapping(cls, zones: Mapping[str, Iterable[str | Endpoint] | Zone]) -> Topology:
        """Zone names to nodes, as in `{"eu-1a": ["10.0.1.4:11211"], ...}`."""
        made: list[Zone] = []
        for name, nodes in zones.items():
            if not isinstance(name, str):
                raise InvalidTopology("zones", f"a zone's name is a str, not {name!r}")
            if isinstance(nodes, Zone):
                if nodes.name != name:
                    raise InvalidTopology("zones", f"{name!r} is a zone that calls itself {nodes.name!r}")
                made.append(nodes)
                continue
            if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
                raise InvalidTopology("zones", f"zone {name!r}: a list of nodes is needed, not {nodes!r}")
            made.append(Zone(name, tuple(endpoint_of(name, node) for node in nodes)))
        return cls(tuple(made))

    @classmethod
    def from_node_list(cls, text: str) -> Topology:
        """`eu-1a=host:port,host:port;eu-1b=host:port`, the form for environment variables.

        A zone name followed by `!` is write-only.
        """
        made: list[Zone] = []
        for number, part in enumerate(text.strip().strip(";").split(";"), 1):
            name, equals, nodes = part.partition("=")
            name = name.strip()
            if not equals or not name:
                raise InvalidTopology("zones", f"node list, zone {number}: {part.strip()!r} is not zone=host:port,...")
            mode = Mode.READ_WRITE
            if name.endswith("!"):
                name, mode = name[:-1].strip(), Mode.WRITE_ONLY
            addresses = [address for address in nodes.split(",") if address.strip()]
            made.append(Zone(name, tuple(Endpoint.parse(address) for address in addresses), mode))
        return cls(tuple(made))

    @classmethod
    def from_toml(cls, text: str, source: str = "TOML") -> Topology:
        """A `[zones.NAME]` table for each zone, with `nodes` and optionally `mode`.

        Each node is a string as `Endpoint.parse` reads it, or a table with `address` and `label`.
        `source` names the text in errors, which give the line.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:  # its text has the line and column
            raise InvalidTopology("zones", f"{source}: {error}") from error
        try:
            zones = tuple(_zones_of_toml(document))
        except _TomlProblem as error:
            line = _line_of(text, error.near)
            raise InvalidTopology("zones", f"{source}, line {line}: {error.problem}") from error
        try:
            return cls(zones)
        except InvalidTopology as error:
            raise InvalidTopology("zones", f"{source}: {error.problem}") from error

    def zone(self, name: str) -> Zone | None:
        """The zone of this name, or None."""
        return next((zone for zone in self.zones if zone.name == name), None)

    @property
    def readable(self) -> tuple[Zone, ...]:
        """The zones that are read, and whose acknowledgements count."""
        return tuple(zone for zone in self.zones if zone.mode is Mode.READ_WRITE)


@dataclass(frozen=True, slots=True)
class TopologyChange:
    """What it takes to get from one topology to the next: which nodes to open, keep and retire, by zone."""

    added: tuple[tuple[str, Endpoint], ...]
    kept: tuple[tuple[str, Endpoint], ...]
    removed: tuple[tuple[str, Endpoint], ...]

    @property
    def nothing(self) -> bool:
        """Whether the nodes are the same (modes may differ)."""
        return not self.added and not self.removed


def difference(old: Topology | None, new: Topology) -> TopologyChange:
    """The nodes to open, keep and retire. A node with another address or label is another node."""
    before = [] if old is None else [(zone.name, node) for zone in old.zones for node in zone.nodes]
    after = [(zone.name, node) for zone in new.zones for node in zone.nodes]
    known, wanted = set(before), set(after)
    return TopologyChange(
        added=tuple(place for place in after if place not in known),
        kept=tuple(place for place in after if place in known),
        removed=tuple(place for place in before if place not in wanted),
    )


def endpoint_of(zone: str, node: object) -> Endpoint:
    """Return a node as given in a list of a zone. Raises `InvalidTopology` for what is neither a text nor an `Endpoint`."""
    if isinstance(node, Endpoint):
        return node
    if isinstance(node, str):
        return Endpoint.parse(node)
    raise InvalidTopology("zones", f"zone {zone!r}: a node is a 'host:port' string, not {node!r}")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(rest: str, text: str) -> tuple[str, int, str]:
    path = rest.removeprefix("unix:") if rest.startswith("unix:") else rest
    if path.startswith("/"):
        return "", 0, path
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise InvalidTopology("zones", f"node {text!r}: an IPv6 address is written [address]:port")
        port = tail[1:] if tail else str(DEFAULT_PORT)
    elif rest.count(":") > 1:
        raise InvalidTopology("zones", f"node {text!r}: an IPv6 address is written [address]:port")
    else:
        host, colon, port = rest.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or any(character.isspace() or character in ",;=/" for character in host):
        raise InvalidTopology("zones", f"node {text!r} has no host")
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)) and 0 < int(port) <= _MAX_PORT):
        raise InvalidTopology("zones", f"node {text!r}: a port is a number from 1 to {_MAX_PORT}")
    return host, int(port), ""


class _TomlProblem(Exception):  # an intermediate step: it becomes InvalidTopology once the line is known
    def __init__(self, near: str, problem: str) -> None:
        self.near = near
        self.problem = problem


def _zones_of_toml(document: dict[str, Any]) -> Iterable[Zone]:
    zones = document.get("zones")
    if not isinstance(zones, dict):
        raise _TomlProblem("zones", "there is no [zones.NAME] table")
    for name, table in zones.items():
        if not isinstance(table, dict):
            raise _TomlProblem(name, f"zone {name!r} is not a table")
        unknown = table.keys() - {"nodes", "mode"}
        if unknown:
            raise _TomlProblem(min(unknown), f"zone {name!r} has no setting {min(unknown)!r}")
        nodes = table.get("nodes")
        if not isinstance(nodes, list):
            raise _TomlProblem(name, f"zone {name!r}: nodes is a list of 'host:port'")
        try:
            mode = Mode(table.get("mode", Mode.READ_WRITE))
        except ValueError:
            raise _TomlProblem("mode", f"zone {name!r}: mode is 'read-write' or 'write-only'") from None
        try:
            yield Zone(name, tuple(_node_of_toml(name, node) for node in nodes), mode)
        except InvalidTopology as error:
            raise _TomlProblem(name, error.problem) from error


def _node_of_toml(zone: str, node: object) -> Endpoint:
    if isinstance(node, str):
        return Endpoint.parse(node)
    if (
        isinstance(node, dict)
        and node.keys() <= {"address", "label"}
        and isinstance(node.get("address"), str)
        and isinstance(node.get("label", ""), str)
    ):
        return Endpoint.parse(node["address"], node.get("label"))
    raise _TomlProblem(zone, f"zone {zone!r}: a node is 'host:port' or {{address=..., label=...}}, not {node!r}")


def _line_of(text: str, near: str) -> int:
    # tomllib keeps no positions, so the first line that mentions the culprit has to do.
    word = re.compile(rf"(?<![\w.\"-]){re.escape(near)}(?![\w-])" if near else '""')
    header = re.compile(rf"^\s*\[\s*zones\s*\.\s*[\"']?{re.escape(near)}[\"']?\s*\]")
    lines = [line.partition("#")[0] for line in text.splitlines()]
    for pattern in (header, word):
        for number, line in enumerate(lines, 1):
            if pattern.search(line):
                return number
    return 1
