"""Order in which clients ask zones. Plain functions over names, without state and I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

# Share of a zone's nodes that may be down, and at least one, before the zone is ejected. Up to this share only the keys of
# those nodes go to other zones. Above it the cause is probably the zone, such as its network or a deployment, and the other
# nodes would follow. Envoy's panic threshold is a half.
MAX_DOWN_SHARE = 1 / 3


def read_order(local: str | None, names: Sequence[str], seed: bytes) -> tuple[str, ...]:
    """Return the zones with the local one first, and the rest in an order that differs between clients.

    With one order for all clients, the loss of a zone would send all of its reads to the same neighbour.

    Args:
        local: Local zone. If None, or not among the names, the whole order differs between clients.
        names: Readable zones.
        seed: Random bytes of this client.
    """
    others = sorted((name for name in names if name != local), key=lambda name: _hash(seed, name.encode()))
    return (local, *others) if local in names and local is not None else tuple(others)


def coordinator_order(key: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """Return the zones in the order in which they may coordinate writes of a key, by rendezvous hashing.

    The order is equal for all clients, and differs between keys, so that no zone coordinates all writes. The first healthy
    zone is the coordinator.
    """
    return tuple(sorted(names, key=lambda name: _hash(key, name.encode())))


def is_ejected(down: int, nodes: int) -> bool:
    """Return True if a zone with this number of nodes down is ejected."""
    return down == nodes or down > max(1, nodes * MAX_DOWN_SHARE)


def is_emergency(out: int, zones: int) -> bool:
    """Return True if too many of the readable zones are ejected for failover. The loss of one zone is planned for."""
    return out == zones or out > 1


def move_to_end(names: Collection[str], order: Sequence[str]) -> tuple[str, ...]:
    """Return the order with these names moved to its end."""
    return (*(name for name in order if name not in names), *(name for name in order if name in names))


def _hash(key: bytes, name: bytes) -> bytes:
    # The length of the name gives ("ab", "c") and ("a", "bc") different inputs.
    return blake2b(len(name).to_bytes(2, "big") + name + key, digest_size=8).digest()
