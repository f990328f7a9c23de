"""Judge of proxies: signs that something other than one memcached server answers at an address."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from evcache.admin.doctor.catalog import BUILT_IN_PROXY, CONNECTION_RELAYED, SEVERAL_SERVERS, STATISTICS_REFUSED
from evcache.admin.doctor.facts import Facts, Identity, NodeFacts
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.admin.doctor.judges.texts import count, listed, where

# Seconds by which two looks at the start of one process may differ, since uptime and clock are whole seconds.
START_TOLERANCE = 2


def judge(facts: Facts) -> list[Finding]:
    """Return nodes behind proxies, load balancers and address translation."""
    found: list[Finding] = []
    relayed = [node for node in facts.nodes if is_relayed(node)]
    with_list = [node for node in facts.nodes if node.clients is not None and node.local_address]
    if relayed:
        only = relayed[0] if len(relayed) == 1 else None
        name = "" if only is None else f" {only.local_address}"
        also = "" if only is not None or len(relayed) < len(with_list) else ", which are all nodes"
        found.append(
            CONNECTION_RELAYED.found(
                f"connection relayed: address{name} is not in the client list of {where(relayed, facts)}{also}",
                zone=None if only is None else only.zone,
                node=None if only is None else only.label,
            )
        )
    for node in facts.nodes:
        if (number := processes(node.identities)) > 1:
            text = f"several servers: {number} processes answered {len(node.identities)} connections to {node.name}"
            found.append(SEVERAL_SERVERS.found(text, zone=node.zone, node=node.label))
        if node.settings is not None and node.settings.proxy_enabled:
            text = f"built-in proxy: {node.name} runs memcached's proxy"
            found.append(BUILT_IN_PROXY.found(text, zone=node.zone, node=node.label))
    refusing = facts.grouped(lambda node: node.refusal if node.answers else None)
    found += [
        STATISTICS_REFUSED.found(f"statistics refused: {listed([node.name for node in nodes])}: {reason}")
        for reason, nodes in refusing.items()
    ]
    if found or not with_list:
        return found
    return [ok(Subject.PROXIES, f"{count(len(with_list), 'server')} reached without a proxy")]


def processes(identities: tuple[Identity, ...]) -> int:
    """Return the number of different server processes. Servers in containers all have the process id 1."""
    different: list[Identity] = []
    for one in identities:
        if not any(
            one.pid == other.pid and abs(one.started_at - other.started_at) <= START_TOLERANCE for other in different
        ):
            different.append(one)
    return len(different)


def is_relayed(node: NodeFacts) -> bool:
    """Return True if the server's list of clients lacks the address of this end of the connection."""
    if node.clients is None or not node.local_address:
        return False
    return plain_address(node.local_address) not in {plain_address(client) for client in node.clients}


def plain_address(text: str) -> str:
    """Return an address in one form: without a protocol, and IPv4 also where a server shows it as IPv6."""
    host, _, port = text.removeprefix("tcp6:").removeprefix("tcp:").rpartition(":")
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return f"{address.ipv4_mapped}:{port}"
    return f"{address}:{port}"
