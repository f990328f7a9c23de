"""Encoded value that waits for its version."""

from __future__ import annotations

from typing import NamedTuple


class Draft(NamedTuple):
    """Value that is ready to be stored, except for its version.

    An unconditional write gets its version from the clock. The version of a conditional write also depends on the item that
    the coordinator's node holds.
    """

    key: bytes
    data: bytes
    flags: int
    ttl: int
    """Exptime: the TTL in the form that memcached takes."""
