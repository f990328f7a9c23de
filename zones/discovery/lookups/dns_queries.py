"""Queries of addresses and services in DNS, by dnspython. Imported only if the extra `dns` is installed.

dnspython sends queries on the event loop, with a socket for each, and falls back to TCP for a truncated reply. It uses no
thread and no executor. An answer that cannot be meant for a client fails the whole query.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Coroutine
from typing import Any, NamedTuple

from dns.asyncbackend import get_backend
from dns.asyncresolver import Resolver
from dns.exception import DNSException, Timeout
from dns.flags import TC
from dns.name import Name, from_text, root
from dns.rdataclass import IN
from dns.rdatatype import AAAA, SRV, A, RdataType
from dns.resolver import NXDOMAIN, Answer, LifetimeTimeout, NoNameservers
from dns.rrset import RRset

from evcache.zones._tasks import unattended
from evcache.zones.errors import DiscoveryError
from evcache.zones.validation import an_instance

# Seconds until a query is sent again, to the next name server. With the two seconds of dnspython, one dead name server would
# use up the timeout of a zone, because a search list takes several queries.
TRY_SECONDS = 1.0

# Seconds for one query with its repetitions. It ends before the timeout of a zone, because its error names the servers.
QUERY_SECONDS = 4.0

# Any other target is an error of the zone file. A node's label may not contain it either.
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FoundAddresses(NamedTuple):
    """Addresses of a name, at least one."""

    addresses: tuple[str, ...]
    ttl: int
    """Seconds for which all records of the answer may be used."""


class Target(NamedTuple):
    """Server that provides a service."""

    host: str
    """Name in lower case, without the period at its end."""
    port: int
    address: str | None
    """Address that came with the answer. None if none came, or if it is not used."""


class FoundTargets(NamedTuple):
    """Servers that provide a service, at least one."""

    targets: tuple[Target, ...]
    ttl: int
    """Seconds for which all records of the answer may be used."""


class DnsQueries:
    """Queries of one lookup, all to the same name servers."""

    def __init__(self, resolver: Resolver | None) -> None:
        """Prepare queries.

        Args:
            resolver: Resolver with the name servers to ask. If None, the name servers and the search list of the system,
                which are read here, because they change with the network.

        Raises:
            DiscoveryError: The configuration of the system is missing or malformed.
        """
        self._resolver = _system_resolver() if resolver is None else resolver

    async def addresses(self, host: str) -> FoundAddresses:
        """Return all IPv4 and IPv6 addresses of a name, at least one.

        Raises:
            DiscoveryError: The name does not exist or has no addresses, no server answered, or the answer is unusable.
        """
        first = await self._ask(host, A)
        answers = [first]
        try:
            # The name that the search list led to. A search of its own could lead to the name of another host.
            answers.append(await self._ask(first.qname, AAAA))
        except DiscoveryError as error:
            # Some name servers deny a name that has addresses of the other family only.
            if not isinstance(error.__cause__, NXDOMAIN):
                raise
        used = [(answer.rrset, answer.chaining_result.minimum_ttl) for answer in answers if answer.rrset is not None]
        if not used:
            raise DiscoveryError(_described(host, A), "the name has no addresses")
        addresses = [str(address) for rrset, _ in used for address in _addresses(rrset)]
        return FoundAddresses(tuple(addresses), min(ttl for _, ttl in used))

    async def address(self, host: str) -> FoundAddresses:
        """Return one address of an absolute name: the lowest IPv4 address, or else the lowest IPv6 address.

        Raises:
            DiscoveryError: The name does not exist or has no addresses, no server answered, or the answer is unusable.
        """
        for family in (A, AAAA):
            answer = await self._ask(from_text(host), family)
            if answer.rrset is not None:
                return FoundAddresses((str(_addresses(answer.rrset)[0]),), answer.chaining_result.minimum_ttl)
        raise DiscoveryError(_described(host, A), "the name has no addresses")

    async def targets(self, service: str, *, use_added: bool) -> FoundTargets:
        """Return the servers of a service: the targets of all SRV records, of any priority and weight.

        Args:
            service: Name of the service.
            use_added: True if the addresses that come with the answer are used.

        Raises:
            DiscoveryError: The name does not exist or has no SRV records, no server answered, or the answer is unusable.
        """
        answer = await self._ask(service, SRV)
        if answer.rrset is None:
            raise DiscoveryError(_described(service, SRV), "the name has no SRV records")
        targets: list[Target] = []
        lifetimes = [answer.chaining_result.minimum_ttl]
        for record in answer.rrset:
            if record.target == root:  # RFC 2782: the service is decidedly not available
                raise DiscoveryError(_described(service, SRV), "the service is not available: the target is '.'")
            host = record.target.to_text(omit_final_dot=True).lower()
            if not record.port or not _HOST_NAME.fullmatch(host):
                raise DiscoveryError(_described(service, SRV), f"unusable target: {host!r} port {record.port}")
            address = None
            # Kubernetes adds the addresses, which spares the name server one query for each node.
            added = answer.response.get_rrset(answer.response.additional, record.target, IN, A) if use_added else None
            if added is not None:
                address = str(_addresses(added)[0])
                lifetimes.append(added.ttl)
            targets.append(Target(host, record.port, address))
        return FoundTargets(tuple(targets), min(lifetimes))

    async def _ask(self, name: str | Name, kind: RdataType) -> Answer:
        """Return the answer to a query. Its `rrset` is None if the name has no records of this kind."""
        # The backend is named, because dnspython would use the library of the first caller in the process.
        backend = get_backend("asyncio")
        try:
            answer = await _end_with_caller(
                self._resolver.resolve(name, kind, search=True, raise_on_no_answer=False, backend=backend)
            )
        except DNSException as error:
            raise DiscoveryError(_described(name, kind), _problem(error)) from error
        if answer.response.flags & TC:
            raise DiscoveryError(_described(name, kind), "the answer is truncated over TCP too")
        return answer


def check_resolver(resolver: object) -> None:
    """Check that the value is a resolver of dnspython for asyncio, or None. Raises `InvalidArgument`."""
    an_instance(resolver, Resolver, "resolver")


def _system_resolver() -> Resolver:
    try:
        resolver = Resolver()
    except Exception as error:  # DNSException, ValueError, UnicodeError, OSError: the file has any content
        raise DiscoveryError("name servers of the system", str(error) or type(error).__name__) from error
    resolver.timeout = min(resolver.timeout, TRY_SECONDS)
    resolver.lifetime = QUERY_SECONDS
    return resolver


async def _end_with_caller(query: Coroutine[Any, Any, Answer]) -> Answer:
    """Return the answer to a query. Cancellation ends the query.

    Before Python 3.12, `asyncio.wait_for` in dnspython loses a cancellation that arrives as its work ends. The query would
    then go on for seconds. A second cancellation reaches it.
    """
    task = unattended(asyncio.create_task(query, name="evcache-dns-query"))
    task.add_done_callback(_retrieve)
    try:
        await asyncio.wait([task])
    finally:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    return task.result()


def _retrieve(task: asyncio.Task[Answer]) -> None:
    """Take the exception of a task, which asyncio would report if its caller was cancelled."""
    if not task.cancelled():
        task.exception()


def _described(name: str | Name, kind: RdataType) -> str:
    return f"{kind.name} records of {str(name).rstrip('.')}"


def _problem(error: DNSException) -> str:
    """Return the reason for which a query has no answer."""
    if isinstance(error, NXDOMAIN):
        return "the name does not exist"
    if isinstance(error, LifetimeTimeout | NoNameservers):
        # Repetitions mostly fail for the same reason.
        tries = [f"{server.removeprefix('Do53:')}: {_cause(cause)}" for server, _, _, cause, _ in error.kwargs["errors"]]
        return f"no name server answered ({'; '.join(dict.fromkeys(tries))})"
    return str(error) or type(error).__name__


def _cause(cause: Exception | str) -> str:
    return "no reply" if isinstance(cause, Timeout) else str(cause) or type(cause).__name__


def _addresses(rrset: RRset) -> list[_Address]:
    """Return the addresses of records in ascending order. Raises `DiscoveryError` for one that no server can have."""
    addresses: list[_Address] = []
    for record in rrset:
        address = ipaddress.ip_address(record.address)
        address = getattr(address, "ipv4_mapped", None) or address
        needs_scope = address.version == 6 and address.is_link_local  # DNS has no scopes
        if address.is_unspecified or address.is_multicast or address == _BROADCAST or needs_scope:
            raise DiscoveryError(_described(rrset.name, rrset.rdtype), f"unusable address: {address}")
        addresses.append(address)
    return sorted(addresses, key=int)
