"""Limits of the servers of a group, in terms of canonical keys and encoded values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from evcache.interop.forms.chunks import largest_value
from evcache.interop.forms.group_rules import GroupRules
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node

# Bytes of an item beside its value: 67 of the server, and the longest key. A chunk counts its key in UTF-16 units, which may
# be fewer than its bytes.
_ITEM_AND_KEY_BYTES = 320


def least_of(nodes: Iterable[Node]) -> Capabilities | None:
    """Return the capabilities of the server with the lowest item limit. None before the first handshake."""
    known = [node.capabilities for node in nodes if node.capabilities is not None]
    return min(known, key=lambda one: one.item_bytes, default=None)


def chunk_bytes_of(chunk_bytes: int, nodes: Iterable[Node]) -> int:
    """Return the size of a chunk that the servers of a group take. See `_within`."""
    least = least_of(nodes)
    return chunk_bytes if least is None else _within(chunk_bytes, least.item_bytes)


def _within(chunk_bytes: int, item_bytes: int) -> int:
    """Return the size of a chunk that fits the item limit with any key. JVM clients read chunks of any size."""
    return min(chunk_bytes, item_bytes - _ITEM_AND_KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCapabilities(Capabilities):
    """Capabilities of a group. There are no versions."""

    rules: GroupRules
    """Forms of its keys and values."""

    def largest_value(self, key: bytes) -> int:
        """Return the size limit of an encoded value under this canonical key, in bytes."""
        rules = self.rules
        wire = rules.wire_key(key).key
        if rules.chunk_bytes is None:
            limit = Capabilities.largest_value(self, wire)
        else:
            limit = largest_value(wire, _within(rules.chunk_bytes, self.item_bytes))
        return limit - rules.envelope_bytes(key)
