"""Nodes of a zone by their names in DNS: `dns+host:port`, `dnssrv+service` and `dnssrvnoa+service`.

The prefixes are those of Thanos, Mimir and Loki. Needs `pip install 'evcache[dns]'`.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from evcache.zones.discovery.lookup import FoundNodes
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Endpoint
from evcache.zones.topology.parsing import DEFAULT_PORT, MAX_PORT

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

    from evcache.zones.discovery.lookups.dns_queries import DnsQueries, FoundAddresses, Target

# Concurrent queries of one lookup. Name servers and firewalls drop bursts of datagrams.
MAX_QUERIES = 10

MAX_NAME = 253

FORMS = "dns+host:port, dnssrv+_service._tcp.host or dnssrvnoa+_service._tcp.host is required"

# A misspelled prefix is an error, and no host name. So is a label in front.
_PREFIX = re.compile(r"(^|@)dns[a-z]*\+", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


class Records(enum.StrEnum):
    """Records that a lookup asks for, by the prefix of its text."""

    ADDRESSES = "dns"
    """All addresses of a host. Each is a node, labelled `address:port`."""
    SERVICE = "dnssrv"
    """Targets of a service, each with its address. A node is labelled with the name and port of its target."""
    SERVICE_NAMES = "dnssrvnoa"
    """Targets of a service by name. The node looks the address up on each connect."""


class _Form(NamedTuple):
    """Parts of a text."""

    records: Records
    name: str
    port: int | None


class DnsLookup:
    """Lookup of the nodes of a zone in DNS. It belongs to no event loop."""

    def __init__(self, text: str, *, resolver: Resolver | None = None) -> None:
        """Make a lookup.

        Args:
            text: `dns+host:port`, `dnssrv+service` or `dnssrvnoa+service`. A name without a period at its end is completed
                with the search list of the system. Without a port, `dns+` uses 11211. A port behind a service replaces
                that of its records.
            resolver: Resolver of dnspython with the name servers to ask. If None, the name servers of the system.

        Raises:
            InvalidTopology: The text has another form.
            InvalidArgument: dnspython is not installed, or the resolver has a wrong type.
        """
        self.text = text
        """The text of the constructor."""
        self._form = _parse(text)
        try:
            from evcache.zones.discovery.lookups.dns_queries import DnsQueries, check_resolver  # noqa: PLC0415  # the extra `dns`
        except ImportError as error:
            raise InvalidArgument("zones", f"{text!r} needs the package dnspython: pip install 'evcache[dns]'") from error
        check_resolver(resolver)
        self._make_queries = DnsQueries
        self._resolver = resolver

    def __repr__(self) -> str:
        return f"DnsLookup({self.text!r})"

    async def nodes(self) -> FoundNodes:
        """Look the nodes up.

        Returns:
            The nodes, at least one, with the shortest TTL of the records used.

        Raises:
            DiscoveryError: A name does not exist or has no records, no name server answered, or a record is unusable. The
                addresses of all targets are needed, because the keys of a node without one would move to other nodes.
        """
        queries = self._make_queries(self._resolver)
        records, name, port = self._form
        if records is Records.ADDRESSES:
            found = await queries.addresses(name)
            written = [f"[{address}]" if ":" in address else address for address in found.addresses]
            return FoundNodes(_unique(Endpoint.parse(f"{address}:{port}") for address in written), found.ttl)
        uses_names = records is Records.SERVICE_NAMES
        targets, ttl = await queries.targets(name, use_added=not uses_names)
        if port is not None:
            targets = tuple(target._replace(port=port) for target in targets)
        if uses_names:
            return FoundNodes(_unique(_node(target, target.host) for target in targets), ttl)
        missing = sorted({target.host for target in targets if target.address is None})
        found_by_host = await _addresses(queries, missing)
        nodes = (_node(target, target.address or found_by_host[target.host].addresses[0]) for target in targets)
        return FoundNodes(_unique(nodes), min([ttl, *(found.ttl for found in found_by_host.values())]))


def dns_lookup_of(text: str, *, resolver: Resolver | None = None) -> DnsLookup | None:
    """Return the lookup of a node's text, or None if the text has no prefix of DNS.

    Args:
        text: Text of a node in a node list or a mapping.
        resolver: Resolver of dnspython with the name servers to ask. If None, the name servers of the system.

    Raises:
        InvalidTopology: The text begins with `dns`, letters and `+`, and is malformed.
        InvalidArgument: dnspython is not installed, or the resolver has a wrong type.
    """
    return DnsLookup(text, resolver=resolver) if _PREFIX.search(text.strip()) else None


async def _addresses(queries: DnsQueries, hosts: list[str]) -> dict[str, FoundAddresses]:
    """Return one address of each host. If one query fails, the other queries are cancelled."""
    turns = asyncio.Semaphore(MAX_QUERIES)

    async def query(host: str) -> FoundAddresses:
        async with turns:
            return await queries.address(host)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {host: group.create_task(query(host), name=f"evcache-dns-{host}") for host in hosts}
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {host: task.result() for host, task in tasks.items()}


def _node(target: Target, host: str) -> Endpoint:
    # The name without the period at its end, because a certificate has none.
    return Endpoint(host, target.port, "", f"{target.host}:{target.port}")


def _unique(nodes: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return the nodes without repetitions. A service has several records for a target if it has several priorities."""
    return tuple(dict.fromkeys(nodes))


def _parse(text: str) -> _Form:
    """Return the parts of a text. Raises `InvalidTopology`."""
    if not isinstance(text, str):
        raise InvalidTopology("zones", f"{FORMS}, not {text!r}")
    prefix, plus, rest = text.strip().partition("+")
    if not plus or prefix not in list(Records):
        raise InvalidTopology("zones", f"{FORMS}, not {text!r}")
    records = Records(prefix)
    if "@" in rest:
        raise InvalidTopology("zones", f"node {text!r}: a lookup finds nodes with labels of their own, so none is given")
    name, colon, port = rest.partition(":")
    if _is_address(rest) or _is_address(name) or rest.startswith("["):
        raise InvalidTopology("zones", f"node {text!r}: an address is written without {prefix}+")
    if not _NAME.fullmatch(name) or len(name.rstrip(".")) > MAX_NAME:
        raise InvalidTopology("zones", f"node {text!r}: a host name has letters, digits, '-', '_' and '.'")
    if not colon:
        return _Form(records, name, DEFAULT_PORT if records is Records.ADDRESSES else None)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= MAX_PORT:
        raise InvalidTopology("zones", f"node {text!r}: a port is a number from 1 to {MAX_PORT}")
    return _Form(records, name, int(port))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
