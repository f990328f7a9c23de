"""What a server can do, found out by asking it, and what follows from that: data that the docs are made from.

A version string is not proof: proxies and look-alikes carry any. So a node is asked on every connect, and the answer is
kept with the connection.
"""

from __future__ import annotations

from dataclasses import dataclass

# memcached's default for the largest item (`-I`), used until a server has said otherwise.
DEFAULT_ITEM_BYTES = 1024 * 1024

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

    @property
    def versions(self) -> bool:
        """Whether writes can be ordered by version here."""
        return self.explicit_cas and self.cas

    def largest_value(self, key: bytes) -> int:
        """The bytes that a value under this key may have."""
        overhead = _ITEM_HEADER_BYTES + len(key) + _ITEM_KEY_END_BYTES + _ITEM_VALUE_END_BYTES + _ITEM_FLAGS_BYTES
        return self.item_bytes - overhead


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table of capabilities."""

    name: str
    since: str
    """The first memcached that has it."""
    without: str
    """What happens on a server that does not."""


FEATURES = (
    Feature("meta protocol", "1.6.18", "the connection is refused"),
    Feature(
        "versions",
        "1.6.27",
        "writes are plain stores in order of arrival; `Item.version` is None; zones may disagree until the next write",
    ),
    Feature("tombstones", "1.6.27", "a delete removes the item, and nothing stops a late copy from coming back"),
    Feature(
        "newest wins at `QUORUM` and `ALL`",
        "1.6.27",
        "the value held by most zones wins, the local one on a tie",
    ),
    Feature("read repair", "1.6.27", "off"),
    Feature(
        "`cas` with a version",
        "1.6.27",
        "`cas` takes the `Item` that `get_item(key, for_update=True)` returned",
    ),
    Feature("CAS (not run with `-C`)", "1.6.18", "`cas`, `replace`, `append` and `prepend` raise `Unsupported`"),
)


def features_table() -> str:
    """The features as a Markdown table: the one in the docs."""
    rows = [f"| {feature.name} | {feature.since} | {feature.without} |" for feature in FEATURES]
    return "\n".join(["| Feature | memcached since | Without it |", "| --- | --- | --- |", *rows])
