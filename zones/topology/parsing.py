"""Text forms of nodes and zones, parsed to plain tuples: addresses, node lists and TOML.

The functions check the syntax. `evcache.zones.topology.model` checks the meaning.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

from evcache.zones.errors import InvalidTopology

DEFAULT_PORT = 11211  # memcached's own
MAX_PORT = 65535

READ_WRITE = "read-write"
WRITE_ONLY = "write-only"
STANDBY = "standby"

# Marks behind the name of a zone in a node list.
_MARKS = {"!": WRITE_ONLY, "?": STANDBY}

IPV6_FORM = "an IPv6 address is written [address]:port"


class Address(NamedTuple):
    """Parts of the address of a node. Either `host` or `path` is empty."""

    host: str
    port: int
    path: str
    label: str | None = None


class NodeText(NamedTuple):
    """A node as a text form gives it."""

    address: str
    label: str | None = None


class ZoneText(NamedTuple):
    """A zone as a text form gives it."""

    name: str
    mode: str
    nodes: list[NodeText]
    location: str | None = None


def parse_address(text: str) -> Address:
    """Return the parts of `host`, `host:port`, `[v6]:port`, `unix:/path` or `/path`, with an optional `label@` in front.

    The form of EVCache for the JVM, `name/address:port`, has the label that this client gives the node.

    Raises:
        InvalidTopology: The text has another form.
    """
    rest, label = text.strip(), None
    if "@" in rest and not rest.startswith("unix:/"):
        label, _, rest = rest.partition("@")
    path = rest.removeprefix("unix:")
    if path.startswith("/"):
        return Address("", 0, path, label)
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise InvalidTopology("zones", f"node {text!r}: {IPV6_FORM}")
        port = tail[1:] if tail else str(DEFAULT_PORT)
    elif rest.count(":") > 1:
        raise InvalidTopology("zones", f"node {text!r}: {IPV6_FORM}")
    else:
        host, colon, port = rest.partition(":")
        port = port if colon else str(DEFAULT_PORT)
        name, slash, address = host.partition("/")
        if slash and name and is_ip_address(address):
            host = address
            label = jvm_label(name, address) if label is None else label
    if not host or any(character.isspace() or character in ",;=/" for character in host):
        raise InvalidTopology("zones", f"node {text!r} has no host")
    if "+" in host:
        raise InvalidTopology("zones", f"node {text!r}: unknown lookup, or one that belongs in a node list or a mapping")
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(MAX_PORT)) and 0 < int(port) <= MAX_PORT):
        raise InvalidTopology("zones", f"node {text!r}: a port is a number from 1 to {MAX_PORT}")
    return Address(host, int(port), "", label)


def is_ip_address(text: str) -> bool:
    """Return True if a text is an IPv4 or IPv6 address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def jvm_label(name: str, address: str) -> str:
    """Return the label that EVCache for the JVM gives a node. It has memcached's port, whatever the port of the node.

    Source: EVCacheKetamaNodeLocatorConfiguration of the JVM client.
    """
    return f"{name}/{address}:{DEFAULT_PORT}"


def parse_node_list(text: str) -> Iterator[ZoneText]:
    """Yield the zones of `eu-1a=host:port,host:port;eu-1b!=host:port`.

    A `!` behind the name marks a write-only zone, and a `?` a standby zone.

    Raises:
        InvalidTopology: A part of the list has another form.
    """
    for number, part in enumerate(text.strip().strip(";").split(";"), 1):
        name, equals, nodes = part.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidTopology("zones", f"node list, zone {number}: {part.strip()!r} is not zone=host:port,...")
        mode = _MARKS.get(name[-1], READ_WRITE)
        if mode != READ_WRITE:
            name = name[:-1].strip()
        yield ZoneText(name, mode, [NodeText(address) for address in nodes.split(",") if address.strip()])


def parse_toml(text: str, source: str) -> Iterator[ZoneText]:
    """Yield the zones of a TOML document: a table `[zones.NAME]` for each, with `nodes`, optional `mode` and `location`.

    A node is an address, or a table with `address` and `label`.

    Args:
        text: The document.
        source: Name of the document, for errors.

    Raises:
        InvalidTopology: The document has another form. The error names the line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its text has the line and column
        raise InvalidTopology("zones", f"{source}: {error}") from error
    zones = document.get("zones")
    if not isinstance(zones, dict):
        raise toml_error(text, source, "zones", "there is no [zones.NAME] table")
    for name, table in zones.items():
        if not isinstance(table, dict):
            raise toml_error(text, source, name, f"zone {name!r} is not a table")
        unknown = table.keys() - {"nodes", "mode", "location"}
        if unknown:
            raise toml_error(text, source, min(unknown), f"zone {name!r} has no setting {min(unknown)!r}")
        nodes = table.get("nodes")
        if not isinstance(nodes, list):
            raise toml_error(text, source, name, f"zone {name!r}: nodes is a list of 'host:port'")
        mode = table.get("mode", READ_WRITE)
        if mode not in (READ_WRITE, WRITE_ONLY, STANDBY):
            known = f"{READ_WRITE!r}, {WRITE_ONLY!r} or {STANDBY!r}"
            raise toml_error(text, source, "mode", f"zone {name!r}: mode is {known}")
        parsed = [_node_of_toml(node) for node in nodes]
        if None in parsed:
            wrong = nodes[parsed.index(None)]
            problem = f"zone {name!r}: a node is 'host:port' or {{address=..., label=...}}, not {wrong!r}"
            raise toml_error(text, source, name, problem)
        location = table.get("location")
        if not isinstance(location, str | None):
            raise toml_error(text, source, "location", f"zone {name!r}: location is the name of an availability zone")
        yield ZoneText(name, mode, [node for node in parsed if node is not None], location)


def toml_error(text: str, source: str, near: str, problem: str) -> InvalidTopology:
    """Return an error that names the line of `near`, the key or zone that is wrong."""
    return InvalidTopology("zones", f"{source}, line {_line_of(text, near)}: {problem}")


def _node_of_toml(node: Any) -> NodeText | None:
    """Return the parsed node, or None for anything else."""
    if isinstance(node, str):
        return NodeText(node)
    if not isinstance(node, dict) or not node.keys() <= {"address", "label"}:
        return None
    address, label = node.get("address"), node.get("label")
    if not isinstance(address, str) or not isinstance(label, str | None):
        return None
    return NodeText(address, label)


def _line_of(text: str, near: str) -> int:
    # tomllib keeps no positions. The first line with a matching header, or else with the word, is the best guess.
    word = re.compile(rf"(?<![\w.\"-]){re.escape(near)}(?![\w-])" if near else '""')
    header = re.compile(rf"^\s*\[\s*zones\s*\.\s*[\"']?{re.escape(near)}[\"']?\s*\]")
    lines = [line.partition("#")[0] for line in text.splitlines()]
    for pattern in (header, word):
        for number, line in enumerate(lines, 1):
            if pattern.search(line):
                return number
    return 1
