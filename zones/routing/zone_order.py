"""In which order zones are asked. Plain functions over names: no state, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

# Of a zone's nodes, so many may be down by themselves, and at least one: only their own keys go to other zones. With more,
# something is wrong with the zone (its network, a deployment), and the nodes that are left would be next. Envoy gives up
# telling healthy hosts apart, its panic, below a half.
MAX_DOWN_SHARE = 1 / 3


def read_order(local: str | None, names: Sequence[str], seed: bytes) -> tuple[str, ...]:
    """The local zone first, then the others in an order that differs from client to client.

    With one order for all, a zone's death would send all of its reads to the same neighbour. `seed` is drawn once for each
    client. Without a local zone (`local` is None) the whole order is spread.
    """
    others = sorted((name for name in names if name != local), key=lambda name: _hash(seed, name.encode()))
    return (local, *others) if local in names and local is not None else tuple(others)


def coordinator_order(key: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """The zones in the order in which they may decide about a key: the same for every client (rendezvous hashing).

    The first that is healthy decides. By key, so that no zone decides about everything.
    """
    return tuple(sorted(names, key=lambda name: _hash(key, name.encode())))


def is_ejected(down: int, nodes: int) -> bool:
    """Whether a zone as a whole is not to be read first, with so many of its nodes down."""
    return down == nodes or down > max(1, nodes * MAX_DOWN_SHARE)


def is_emergency(out: int, zones: int) -> bool:
    """Whether calls have nowhere to go, with so many of the readable zones out: one is what the others are there for."""
    return out == zones or out > 1


def move_to_end(names: Collection[str], order: Sequence[str]) -> tuple[str, ...]:
    """The same order, but for those names, which come last."""
    return (*(name for name in order if name not in names), *(name for name in order if name in names))


def _hash(key: bytes, name: bytes) -> bytes:
    # The name's length keeps ("ab", "c") and ("a", "bc") apart.
    return blake2b(len(name).to_bytes(2, "big") + name + key, digest_size=8).digest()
