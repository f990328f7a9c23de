"""Zones whose servers keep no versions: the list of them, and the warning about each.

Without versions the client cannot tell which of two writes is newer. So it orders writes by arrival in such a zone, and it
turns off what depends on versions. A caller sees none of this in the result of a call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Endpoint

_log = logging.getLogger("evcache.replication")


def zones_without_versions(nodes: Mapping[tuple[str, Endpoint], Node]) -> tuple[str, ...]:
    """Return the zones, sorted, in which at least one node keeps no versions.

    A node counts by its last handshake. A node that the client never connected to does not count.
    """
    return tuple(sorted({zone for (zone, _), node in nodes.items() if _keeps_none(node.capabilities)}))


class VersionSupport:
    """Logs one warning for each zone in which a node keeps no versions."""

    def __init__(self, *, is_needed: bool) -> None:
        """Make it for one client.

        Args:
            is_needed: False if the client orders writes by arrival or stores no versions. It then loses nothing that its
                settings promise, and logs nothing.
        """
        self._is_needed = is_needed
        self._warned: set[str] = set()

    def check(self, zone: str, node: Node) -> None:
        """Log the warning if this node keeps no versions, unless this client has logged one for the zone."""
        capabilities = node.capabilities
        if not self._is_needed or capabilities is None or capabilities.versions or zone in self._warned:
            return
        self._warned.add(zone)
        reason, remedy = _explained(capabilities)
        _log.warning(
            "zone %s keeps no versions: node %s %s. Off in this zone: latest write wins, tombstones, repair, hints, "
            'monotonic reads. Remedy: %s; or ordering="arrival", if writes may be ordered by arrival',
            zone,
            node.label,
            reason,
            remedy,
        )


def _keeps_none(capabilities: Capabilities | None) -> bool:
    return capabilities is not None and not capabilities.versions


def _explained(capabilities: Capabilities) -> tuple[str, str]:
    """Return why a server keeps no versions, and the remedy."""
    server = f"runs memcached {capabilities.server}"
    if capabilities.transport == "classic":
        return f"{server} over the classic protocol", "memcached 1.6.27 or newer over the meta protocol"
    if not capabilities.explicit_cas:
        return server, "memcached 1.6.27 or newer"
    return f"{server} without CAS (-C)", "memcached without -C"
