"""Node list of a cluster, as ElastiCache and Memorystore send it, and the decision which of two lists is newer.

Plain functions of bytes and times, without I/O. A reply to `config get cluster`:

    CONFIG cluster 0 147
    12
    cache.abc.0001.euw1.cache.amazonaws.com|10.0.1.4|11211 cache.abc.0002.euw1.cache.amazonaws.com|10.0.1.5|11211

    END

The first number after the 0 counts the bytes between the first line and the empty one. The second line has the version of
the list, which grows with each change. The address of a node may be empty. Memorystore sends it in place of the name, too.

https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html
https://docs.cloud.google.com/memorystore/docs/memcached/about-auto-discovery
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from evcache.zones.errors import DiscoveryError, InvalidTopology
from evcache.zones.topology.model import Endpoint

# A node takes about 70 bytes, so this is the list of 10,000 nodes.
MAX_CONFIG_BYTES = 1024 * 1024

# Seconds after which a list that contradicts the newest one is believed. A cluster that was deleted and created again counts
# its versions from the beginning. A node that lags behind does so for seconds, as Google documents.
CONTRADICTION_SECONDS = 300.0

# Characters of a reply that an error shows.
_SHOWN = 60

_HEADER = re.compile(rb"(?:CONFIG cluster|VALUE AmazonElastiCache:cluster) [0-9]+ ([0-9]{1,10})")
_VERSION = re.compile(rb"[0-9]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


class ClusterConfig(NamedTuple):
    """Node list of a cluster."""

    version: int
    """Number that grows with each change of the list."""
    nodes: tuple[Endpoint, ...]
    """Nodes in the order of the list, at least one."""


def config_length(line: bytes, source: str) -> int | None:
    """Return the length of the configuration that follows the first line of a reply.

    Args:
        line: The line.
        source: Name of the server, for errors.

    Returns:
        The length in bytes. None if the server does not know the command, or has no configuration.

    Raises:
        DiscoveryError: The line is something else.
    """
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if text in (b"ERROR", b"END"):
        return None
    header = _HEADER.fullmatch(text)
    if header is None:
        raise DiscoveryError(source, f"unexpected reply: {_shown(text)}")
    length = int(header[1])
    if length > MAX_CONFIG_BYTES:
        raise DiscoveryError(source, f"unexpected reply: a configuration of {length} bytes, above {MAX_CONFIG_BYTES}")
    return length


def parse_config(data: bytes, source: str) -> ClusterConfig:
    """Return the node list of a configuration.

    Args:
        data: The configuration: the version, a line feed, and the nodes with spaces between them.
        source: Name of the server, for errors.

    Raises:
        DiscoveryError: The configuration has another form, or names no nodes.
    """
    number, _, rest = data.partition(b"\n")
    number = number.removesuffix(b"\r")
    if _VERSION.fullmatch(number) is None:
        raise DiscoveryError(source, f"malformed configuration: {_shown(number)} is no version")
    # One malformed node makes the list unusable, because the keys of a node that is left out would move to other nodes.
    nodes = dict.fromkeys(_node(text, source) for text in rest.split())
    if not nodes:
        raise DiscoveryError(source, f"version {int(number)} of the configuration names no nodes")
    return ClusterConfig(int(number), tuple(nodes))


def _node(data: bytes, source: str) -> Endpoint:
    """Return the node of `host|ip|port`.

    The host name is preferred, because it stays when the node is replaced and its address changes. Certificates are issued
    for the name. The node's connections follow it.
    """
    try:
        name, address, port = data.decode("ascii").split("|")
        return Endpoint.parse(_host_port(name or address, port))
    except (ValueError, InvalidTopology) as error:
        raise DiscoveryError(source, f"malformed configuration: {_shown(data)} is not host|ip|port") from error


def _host_port(host: str, port: str) -> str:
    if _HOST.fullmatch(host) is None:  # `Endpoint.parse` would read a label in front of an `@`, or a path
        raise ValueError("no host name and no address")
    if ":" not in host:
        return f"{host}:{port}"
    ipaddress.IPv6Address(host)  # only checked: the address is part of the label, and clients hash it as it is written
    return f"[{host}]:{port}"


def _shown(data: bytes) -> str:
    """Return the beginning of bytes that a server sent, in printable characters."""
    return repr(data[:_SHOWN])[1:] + ("..." if len(data) > _SHOWN else "")


class NewestConfig:
    """Newest configuration of one endpoint.

    An endpoint may answer with an older configuration than before. Its name may lead to several servers, and the service
    updates them one after another.
    """

    def __init__(self) -> None:
        self.config: ClusterConfig | None = None
        """The newest configuration. None before the first one."""
        self._contradicted_since: float | None = None

    def update(self, config: ClusterConfig, now: float) -> str | None:
        """Take over a configuration if it is the newest one.

        A configuration contradicts the newest one if it names other nodes and its version is not higher. It is taken over
        when the endpoint has sent only such ones for `CONTRADICTION_SECONDS`.

        Args:
            config: Configuration that the endpoint has just sent.
            now: Time in seconds, on any clock that does not go backwards.

        Returns:
            None if its nodes are those to use, otherwise the reason for which they are not.
        """
        newest, since = self.config, self._contradicted_since
        if newest is not None and config.version <= newest.version:
            if set(config.nodes) == set(newest.nodes):
                self._contradicted_since = None
                return None  # the higher version stays, because a version between the two may have had other nodes
            if since is None or since > now:  # the time of an event loop that has ended
                self._contradicted_since = since = now
            if now - since < CONTRADICTION_SECONDS:
                if config.version == newest.version:
                    return f"stale configuration: version {config.version} names other nodes than before"
                return f"stale configuration: version {config.version} after version {newest.version}"
        self.config, self._contradicted_since = config, None
        return None
