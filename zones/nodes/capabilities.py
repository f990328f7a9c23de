"""What a server can do, found out by asking it, and what follows from that: data that the docs are made from.

A version string is not proof: proxies and look-alikes carry any. So a node is asked on every connect, and the answer is
kept with the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from evcache.zones.transport.base import TransportName

# memcached's default for the largest item (`-I`), used until a server has said otherwise.
DEFAULT_ITEM_BYTES = 1024 * 1024

# Values up to this size fit any server (the least that `-I` allows is 1 KiB): no need to ask what it takes.
FITS_ANYWHERE_BYTES = 512

# What an item costs beside its value: its header with CAS, the key and a NUL, the value's line end, and client flags
# (seen on 1.6.18 and 1.6.38: the largest value under a 1-byte key is 1,048,516 bytes).
_ITEM_HEADER_BYTES = 56
_ITEM_KEY_END_BYTES = 1
_ITEM_VALUE_END_BYTES = 2
_ITEM_FLAGS_BYTES = 8  # 4 in most builds; 8 where the server was built with large client flags


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server said about itself when it was connected to."""

    server: str
    """Its version string, for people."""
    explicit_cas: bool
    """Whether a client may choose an item's CAS (`E`, memcached 1.6.27 and newer): what versions need."""
    cas: bool
    """Whether items have a CAS at all; not on a server run with `-C`."""
    item_bytes: int = DEFAULT_ITEM_BYTES
    """The largest item, header and key included."""
    transport: TransportName = "meta"
    """How it is talked to."""

    versions: bool = field(init=False)
    """Whether writes can be ordered by version here."""

    leases: bool = field(init=False)
    """True if the server can choose one of all processes to load a key. Without a CAS, a stub looks like any other stub, and
    a store of the loaded value cannot name the stub that it replaces."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self.explicit_cas and self.cas)
        object.__setattr__(self, "leases", self.transport == "meta" and self.cas)

    def largest_value(self, key: bytes) -> int:
        """The bytes that a value under this key may have."""
        overhead = _ITEM_HEADER_BYTES + len(key) + _ITEM_KEY_END_BYTES + _ITEM_VALUE_END_BYTES + _ITEM_FLAGS_BYTES
        return self.item_bytes - overhead


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table of capabilities: something that not every server can do."""

    name: str
    since: str
    """The first memcached that has it, where the meta protocol is spoken."""
    classic: bool
    """Whether the classic text protocol has it, through aiomcache."""
    without: str
    """What happens on a server that does not have it."""
    seen: Callable[[Capabilities], bool] = lambda _: True
    """Whether a server has it that could, from what it has answered."""

    def on(self, server: Capabilities) -> bool:
        """Whether this server has it."""
        return (self.classic or server.transport == "meta") and self.seen(server)


# Older releases spell replies in another way; they are used through the classic protocol.
_META = "1.6.18"

FEATURES = (
    Feature("meta protocol", _META, classic=False, without="the classic protocol is used, unless `transport` forbids it"),
    Feature(
        "versions",
        "1.6.27",
        classic=False,
        without="writes are plain stores in order of arrival; `Item.version` is None; zones may disagree until the next "
        "write",
        seen=lambda server: server.versions,
    ),
    Feature(
        "tombstones",
        "1.6.27",
        classic=False,
        without="a delete removes the item, and nothing stops a late copy from coming back",
        seen=lambda server: server.versions,
    ),
    Feature(
        "newest wins at `QUORUM` and `ALL`",
        "1.6.27",
        classic=False,
        without="the value held by most zones wins, the local one on a tie",
        seen=lambda server: server.versions,
    ),
    Feature(
        "repair, hints, remembered versions",
        "1.6.27",
        classic=False,
        without="off: a zone that missed a write shows the old value until the next one",
        seen=lambda server: server.versions,
    ),
    Feature(
        "`cas` with a version",
        "1.6.27",
        classic=False,
        without="`cas` takes the `Item` that `get_item(key, for_update=True)` returned",
        seen=lambda server: server.versions,
    ),
    Feature(
        "CAS (not run with `-C`)",
        _META,
        classic=True,
        without="`cas`, `replace`, `append` and `prepend` raise `Unsupported`; no versions, no leases",
        seen=lambda server: server.cas,
    ),
    Feature(
        "time to live that is left",
        _META,
        classic=False,
        without="`Item.ttl` is None; the near cache keeps nothing that was read; after `append`, `prepend`, `incr` and "
        "`decr` the copies in other zones live the `ttl` of the call, or of the client",
    ),
    Feature(
        "joining to compressed values",
        _META,
        classic=False,
        without="`append` and `prepend` to a compressed value raise `Unsupported`",
    ),
    Feature(
        "checked replies",
        _META,
        classic=False,
        without="a reply is known by its place and its key, not by a number of its request's own; one request at a time on "
        "a connection, so a node gets a pool of them",
    ),
    Feature("text login (`-Y`)", _META, classic=False, without="a server that asks for a login cannot be used"),
    Feature(
        "leases",
        _META,
        classic=False,
        without="`get_or_load` loads once in each process, not once in each zone",
        seen=lambda server: server.leases,
    ),
    Feature("stale marks, invalidation", _META, classic=False, without="`Unsupported`; nothing read is ever `stale`"),
    Feature(
        "conditional reads",
        "1.6.40",
        classic=False,
        without="the value is sent each time",
        seen=lambda server: _at_least(server.server, (1, 6, 40)),
    ),
)

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


def _at_least(server: str, version: tuple[int, int, int]) -> bool:
    # For what can't be seen on the wire. Where a look-alike says more than it can do, the value comes anyway.
    said = _VERSION.match(server)
    return said is not None and tuple(map(int, said.groups())) >= version


def can_do(server: Capabilities) -> dict[str, bool]:
    """Every feature by name, and whether this server has it."""
    return {feature.name: feature.on(server) for feature in FEATURES}


def features_table() -> str:
    """The features as a Markdown table: the one in the docs."""
    rows = [
        f"| {feature.name} | {feature.since} | {'yes' if feature.classic else 'no'} | {feature.without} |"
        for feature in FEATURES
    ]
    head = ["| Feature | meta: memcached since | classic | Without it |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])
