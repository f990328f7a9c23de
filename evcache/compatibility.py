"""Features of this client that need more than the oldest server, as data. The docs show the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from evcache.zones.nodes.capabilities import Capabilities

# Older releases have other forms of replies. The client uses them through the classic protocol.
_META = "1.6.18"
_VERSIONS = "1.6.27"


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
    proven: Callable[[Capabilities], bool] = lambda _: True
    """Return True if the handshake proved it."""

    def on(self, server: Capabilities) -> bool:
        """Return True if this server has the feature."""
        return (self.classic or server.transport == "meta") and self.proven(server)


def _has_versions(server: Capabilities) -> bool:
    return server.versions


FEATURES = (
    Feature("meta protocol", _META, classic=False, without="the classic protocol is used, unless `transport` forbids it"),
    Feature(
        "versions",
        _VERSIONS,
        classic=False,
        without="writes are plain stores in order of arrival; `Item.version` is None; zones may disagree until the next "
        "write",
        proven=_has_versions,
    ),
    Feature(
        "tombstones",
        _VERSIONS,
        classic=False,
        without="a delete removes the item; a late copy can resurrect the value",
        proven=_has_versions,
    ),
    Feature(
        "latest version wins at `QUORUM` and `ALL`",
        _VERSIONS,
        classic=False,
        without="the value held by most zones wins, the local one on a tie",
        proven=_has_versions,
    ),
    Feature(
        "read repair, hints, session guarantees",
        _VERSIONS,
        classic=False,
        without="off: a zone that missed a write returns the old value until the next write",
        proven=_has_versions,
    ),
    Feature(
        "`cas` with a version",
        _VERSIONS,
        classic=False,
        without="`cas` takes the `Item` that `get_item(key, for_update=True)` returned",
        proven=_has_versions,
    ),
    Feature(
        "CAS (not run with `-C`)",
        _META,
        classic=True,
        without="`cas`, `replace`, `append` and `prepend` raise `Unsupported`; no versions, no leases",
        proven=lambda server: server.cas,
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
        proven=lambda server: server.leases,
    ),
    Feature("stale marks, `invalidate`", _META, classic=False, without="`Unsupported`; no value is ever `stale`"),
    Feature(
        "conditional reads",
        "1.6.40",
        classic=False,
        without="each read transfers the value",
        proven=lambda server: _is_at_least(server.server, (1, 6, 40)),
    ),
)

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


def _is_at_least(server: str, version: tuple[int, int, int]) -> bool:
    # Only for a feature that no reply can prove. On a server with a false version string, the read transfers the value.
    numbers = _VERSION.match(server)
    return numbers is not None and tuple(map(int, numbers.groups())) >= version


def supported(server: Capabilities) -> dict[str, bool]:
    """Return all features by name, with True for each that this server has."""
    return {feature.name: feature.on(server) for feature in FEATURES}


def features_table() -> str:
    """Return the features as the Markdown table of the docs."""
    rows = [
        f"| {feature.name} | {feature.since} | {'yes' if feature.classic else 'no'} | {feature.without} |"
        for feature in FEATURES
    ]
    head = ["| Feature | meta: memcached since | classic | Without it |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])
