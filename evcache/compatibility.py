"""Features of this client that need more than the oldest server, as data. The docs show the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evcache.zones.nodes.capabilities import UNKNOWN_SERVER, Capabilities

VERSIONS = "versions"
"""Name of the feature that orders writes."""

# Older releases have other forms of replies. The client uses them through the classic protocol.
_META = "1.6.18"
_VERSIONS = "1.6.27"
_CONDITIONAL_READS = "1.6.40"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that some servers lack."""

    name: str
    since: str
    """First release of memcached that has it through the meta protocol."""
    classic: bool
    """True if the classic text protocol has it, through aiomcache."""
    without: str
    """Effect on a server that lacks it."""
    examine: Callable[[Capabilities], str | None] = lambda _: None
    """Return the reason for which this server lacks it whatever its protocol, or None if the handshake proved it."""

    @property
    def plain_name(self) -> str:
        """Name without the marks of Markdown."""
        return self.name.replace("`", "")

    def missing_because(self, server: Capabilities) -> str | None:
        """Return the reason for which this server lacks the feature, or None if it has it."""
        if server.transport == "classic" and not self.classic:
            return f"{_named(server)} is used over the classic protocol"
        return self.examine(server)


_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


def _numbers(version: str) -> tuple[int, ...] | None:
    found = _VERSION.match(version)
    return None if found is None else tuple(map(int, found.groups()))


def _named(server: Capabilities) -> str:
    return "the server" if server.server == UNKNOWN_SERVER else f"memcached {server.server}"


def _no_cas(server: Capabilities) -> str | None:
    return None if server.cas else f"{_named(server)} runs without CAS (-C)"


def _no_versions(server: Capabilities) -> str | None:
    if server.explicit_cas:
        return _no_cas(server)
    # The refusal is the proof. The version string only explains it, unless a proxy has put in a false one.
    return _older(server, _VERSIONS) or f"{_named(server)} refuses a CAS that a client chose"


def _no_conditional_reads(server: Capabilities) -> str | None:
    # Only for a feature that no reply can prove. On a server with a false version string, the read transfers the value.
    if _numbers(server.server) is None:
        return "the server reports no release of memcached"
    return _older(server, _CONDITIONAL_READS)


def _older(server: Capabilities, release: str) -> str | None:
    """Return the reason that the server is older than a release. None if it is not, or reports no version."""
    version, least = _numbers(server.server), _numbers(release)
    is_older = version is not None and least is not None and version < least
    return f"{_named(server)} is older than {release}" if is_older else None


FEATURES = (
    Feature("meta protocol", _META, classic=False, without="the classic protocol is used, unless `transport` forbids it"),
    Feature(
        VERSIONS,
        _VERSIONS,
        classic=False,
        without="writes are plain stores in order of arrival; `Item.version` is None; zones may disagree until the next "
        "write",
        examine=_no_versions,
    ),
    Feature(
        "tombstones",
        _VERSIONS,
        classic=False,
        without="a delete removes the item; a late copy can resurrect the value",
        examine=_no_versions,
    ),
    Feature(
        "latest version wins at `QUORUM` and `ALL`",
        _VERSIONS,
        classic=False,
        without="the value held by most zones wins, the local one on a tie",
        examine=_no_versions,
    ),
    Feature(
        "read repair, hints, session guarantees",
        _VERSIONS,
        classic=False,
        without="off: a zone that missed a write returns the old value until the next write",
        examine=_no_versions,
    ),
    Feature(
        "`cas` with a version",
        _VERSIONS,
        classic=False,
        without="`cas` takes the `Item` that `get_item(key, for_update=True)` returned",
        examine=_no_versions,
    ),
    Feature(
        "CAS (not run with `-C`)",
        _META,
        classic=True,
        without="`cas`, `replace`, `append` and `prepend` raise `Unsupported`; no versions, no leases",
        examine=_no_cas,
    ),
    Feature(
        "remaining TTL",
        _META,
        classic=False,
        without="`Item.ttl` is None. The near cache stores no value that was read. After `append`, `prepend`, `incr` and "
        "`decr`, the copies in other zones have the `ttl` of the call, or of the client",
    ),
    Feature(
        "append to compressed values",
        _META,
        classic=False,
        without="`append` and `prepend` to a compressed value raise `Unsupported`",
    ),
    Feature(
        "numbered replies",
        _META,
        classic=False,
        without="the client matches a reply by order and key, not by the number of its request; a connection carries one "
        "request at a time, so a node has a pool of them",
    ),
    Feature("text login (`-Y`)", _META, classic=False, without="a server that asks for a login cannot be used"),
    Feature(
        "leases",
        _META,
        classic=False,
        without="`get_or_load` loads once in each process, not once in each zone",
        examine=_no_cas,
    ),
    Feature("stale marks, `invalidate`", _META, classic=False, without="`Unsupported`; no value is ever `stale`"),
    Feature(
        "conditional reads",
        _CONDITIONAL_READS,
        classic=False,
        without="each read transfers the value",
        examine=_no_conditional_reads,
    ),
)


def supported(server: Capabilities) -> dict[str, bool]:
    """Return all features by plain name, with True for each that this server has."""
    return {feature.plain_name: feature.missing_because(server) is None for feature in FEATURES}


def missing(servers: Iterable[Capabilities]) -> dict[str, str]:
    """Return the features that at least one of these servers lacks, by plain name, each with the reason.

    Servers may lack a feature for different reasons. The text then has each of them once.
    """
    known = tuple(servers)
    reasons = {feature.plain_name: [feature.missing_because(server) for server in known] for feature in FEATURES}
    found = {name: dict.fromkeys(reason for reason in each if reason is not None) for name, each in reasons.items()}
    return {name: "; ".join(each) for name, each in found.items() if each}


def features_table() -> str:
    """Return the features as the Markdown table of the docs."""
    rows = [
        f"| {feature.name} | {feature.since} | {'yes' if feature.classic else 'no'} | {feature.without} |"
        for feature in FEATURES
    ]
    head = ["| Feature | meta: memcached since | classic | Without it |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])
