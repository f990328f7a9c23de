"""Configuration endpoint of a managed memcached: ElastiCache and Memorystore auto discovery.

An endpoint names the nodes of one cluster, and not their zones. The model is therefore one cluster for each zone.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import cast

from evcache.zones.discovery.lookup import FoundNodes
from evcache.zones.discovery.lookups.cluster_config import ClusterConfig, NewestConfig, config_length, parse_config
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.dialer import Dialer, SocketDialer
from evcache.zones.validation import an_instance, positive_seconds

# Seconds for one look: connect, TLS and both commands. It is shorter than the timeout of the lookup of a zone, so that the
# error names the endpoint.
REPLY_TIMEOUT_SECONDS = 4.0

# Text forms in node lists. Both services have the same command.
PREFIXES = ("elasticache+", "memorystore+")

# ElastiCache before memcached 1.4.14 has the configuration under a key. AWS's clients try the commands in this order, too.
_COMMANDS = (b"config get cluster\r\n", b"get AmazonElastiCache:cluster\r\n")

_END = b"\r\nEND\r\n"

# Bytes of the first line of a reply. memcached's own error texts are shorter than 100 bytes.
_MAX_LINE_BYTES = 4096

_log = logging.getLogger("evcache.zones.discovery")


class ConfigEndpoint:
    """Source of the nodes of one zone: the configuration endpoint of an ElastiCache cluster or a Memorystore instance.

    The client asks the endpoint for node lists only, never for data. Each look opens a connection, because the name of the
    endpoint may lead to another server.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        timeout: float = REPLY_TIMEOUT_SECONDS,
        dialer: Dialer | None = None,
    ) -> None:
        """Make a source. No I/O happens here.

        Args:
            address: `host:port` of the endpoint.
            tls: TLS context. If None, the connection is not encrypted. The certificate must have the name of the endpoint.
            timeout: Seconds for one look.
            dialer: Function that opens a socket. If None, `SocketDialer(tls)`.

        Raises:
            InvalidArgument: An argument has a wrong type or value.
        """
        an_instance(address, str, "address", optional=False)
        an_instance(tls, ssl.SSLContext, "tls")
        if dialer is not None and not callable(dialer):
            raise InvalidArgument("dialer", f"a function or None is required, not {dialer!r}")
        if tls is not None and dialer is not None:
            raise InvalidArgument("tls", "the dialer has the TLS context, so only one of the two can be given")
        try:
            self._endpoint = Endpoint.parse(address)
        except InvalidTopology as error:
            raise InvalidArgument("address", error.problem) from error
        if self._endpoint.label != self._endpoint.address:  # a written label, or a path
            raise InvalidArgument("address", f"host:port is required, not {address!r}")
        self._timeout = positive_seconds(timeout, "timeout")
        self._dialer: Dialer = SocketDialer(tls) if dialer is None else dialer
        self._source = f"configuration endpoint {self._endpoint.address}"
        self._newest = NewestConfig()

    def __repr__(self) -> str:
        return f"ConfigEndpoint({self._endpoint.address!r})"

    async def nodes(self) -> FoundNodes:
        """Return the nodes that the endpoint names.

        A node has its host name as address and label, because names stay the same while nodes are replaced. If a node has no
        name, its IP address stands in. Cancellation closes the connection.

        Raises:
            DiscoveryError: The endpoint did not answer in time, its answer is malformed or names no nodes, or the answer is
                older than the one before.
        """
        found = await self._ask()
        before = self._newest.config
        reason = self._newest.update(found, asyncio.get_running_loop().time())
        if reason is not None:
            raise DiscoveryError(self._source, reason)
        if before is not None and self._newest.config is found and found.version < before.version:
            _log.info(
                "configuration version went back: %s sends version %d after version %d",
                self._source,
                found.version,
                before.version,
            )
        return FoundNodes(found.nodes)

    async def _ask(self) -> ClusterConfig:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                connection = await self._dialer(self._endpoint, _Connection)
                try:
                    return await self._exchange(connection)
                finally:
                    # Nothing waits to be sent. `close` would wait up to 30 s for the end of TLS.
                    connection.transport.abort()
        except asyncio.IncompleteReadError:
            raise DiscoveryError(self._source, "the connection ended before the reply was complete") from None
        except OSError as error:
            if limit.expired():
                raise DiscoveryError(self._source, f"no reply in {self._timeout:g} s") from None
            raise DiscoveryError(self._source, f"connection failed: {str(error) or type(error).__name__}") from error

    async def _exchange(self, connection: _Connection) -> ClusterConfig:
        for command in _COMMANDS:
            connection.transport.write(command)
            data = await self._read(connection.reader)
            if data is not None:
                return parse_config(data, self._source)
        raise DiscoveryError(self._source, "the server has no cluster configuration, so it is no configuration endpoint")

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the configuration of the next reply. None if the server has none."""
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise DiscoveryError(self._source, f"unexpected reply: a line of more than {_MAX_LINE_BYTES} bytes") from None
        length = config_length(line, self._source)
        if length is None:
            return None
        data = await reader.readexactly(length + len(_END))
        # Without this check, a length that is too small would cut the port of the last node.
        if not data.endswith(_END):
            raise DiscoveryError(self._source, f"malformed configuration: it does not end after {length} bytes")
        return data.removesuffix(_END)


class _Connection(asyncio.StreamReaderProtocol):
    """Connection with its reader and transport. A dialer makes protocols."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(_MAX_LINE_BYTES)
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass
        super().connection_made(transport)


def config_endpoint_of(node: str) -> ConfigEndpoint | None:
    """Return the source that a text of a node list names.

    Args:
        node: `elasticache+host:port` or `memorystore+host:port`.

    Returns:
        The source, without TLS. None if the text has no such prefix.

    Raises:
        InvalidTopology: The text has such a prefix, and no address follows.
    """
    address = node.strip()
    if address.partition("@")[2].startswith(PREFIXES):
        raise InvalidTopology("zones", f"node {node!r}: a configuration endpoint has no label, but its nodes have")
    if not address.startswith(PREFIXES):
        return None
    try:
        return ConfigEndpoint(address.partition("+")[2])
    except InvalidArgument as error:
        raise InvalidTopology("zones", f"node {node!r}: {error.problem}") from error
