"""Capabilities of a server: the features that it proved in the handshake.

A version string is no proof, because proxies and other servers can send any. The client therefore asks on every connect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from evcache.zones.transport.base import TransportName

# Name of a server that does not report its version.
UNKNOWN_SERVER = "unknown"

# memcached's default for the largest item (`-I`), used until a server reports its own.
DEFAULT_ITEM_BYTES = 1024 * 1024

# Values up to this size fit any server, because the smallest `-I` is 1 KiB. They are sent without a look at the limit.
FITS_ANYWHERE_BYTES = 512

# Size of an item without its value: header with CAS, key and NUL, line end of the value, client flags. Measured on 1.6.18
# and 1.6.38: the largest value under a 1-byte key has 1,048,516 bytes.
_ITEM_HEADER_BYTES = 56
_ITEM_KEY_END_BYTES = 1
_ITEM_VALUE_END_BYTES = 2
_ITEM_FLAGS_BYTES = 8  # 4 in most builds; 8 in builds with large client flags


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Result of one handshake."""

    server: str
    """Version string, for logs and reports."""
    explicit_cas: bool
    """True if a client may choose the CAS of an item (`E`, memcached 1.6.27 and newer). Versions need it."""
    cas: bool
    """True if items have a CAS. A server run with `-C` has none."""
    item_bytes: int = DEFAULT_ITEM_BYTES
    """Size limit of an item in bytes, with header and key."""
    transport: TransportName = "meta"
    """Transport that the server understands."""

    versions: bool = field(init=False)
    """True if writes on this server can be ordered by version."""

    leases: bool = field(init=False)
    """True if the server can choose one of all processes to load a key. Without a CAS, a stub looks like any other stub, and
    a store of the loaded value cannot name the stub that it replaces."""

    versioned_bytes: int = field(init=False)
    """Size limit of key and value together, for an item with a version. -1 if the server keeps no versions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self.explicit_cas and self.cas)
        object.__setattr__(self, "versioned_bytes", self.largest_value(b"") if self.versions else -1)
        object.__setattr__(self, "leases", self.transport == "meta" and self.cas)

    def largest_value(self, key: bytes) -> int:
        """Return the size limit of a value under this key, in bytes."""
        overhead = _ITEM_HEADER_BYTES + len(key) + _ITEM_KEY_END_BYTES + _ITEM_VALUE_END_BYTES + _ITEM_FLAGS_BYTES
        return self.item_bytes - overhead
