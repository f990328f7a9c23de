"""Choice of the core: the compiled one where it is installed, unless the environment has `EVCACHE_PURE=1`."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, TypeVar

from evcache.zones.protocol import decoder as pure_decoder
from evcache.zones.protocol import operations
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.replies import AnyReply, Decoded, Hit
from evcache.zones.transport.core import encoding, looks, matching, placement
from evcache.zones.transport.core.counts import ReadCounts
from evcache.zones.transport.core.exchange import Exchange
from evcache.zones.transport.core.store_zones import StoreZones
from evcache.zones.transport.core.waiters import Tally
from evcache.zones.transport.in_flight import ExpectReply

CoreName = Literal["compiled", "pure"]

T = TypeVar("T")


class ReplyDecoder(Protocol):
    """Decoder of one connection. See `evcache.zones.protocol.decoder.Decoder`."""

    @property
    def awaited(self) -> int:
        """Bytes of the incomplete value, with its line end. 0 between replies."""
        ...

    @property
    def landing(self) -> memoryview | None:
        """Memory for the next bytes of a large value."""
        ...

    def landed(self, count: int) -> None:
        """Take bytes that were written to `landing`."""
        ...

    def feed(self, data: bytes) -> Iterable[Decoded]:
        """Iterate over the replies that `data` completes."""
        ...


class OrdinaryReads(Protocol):
    """Ordinary reads of one client."""

    def get(self, key: Any, default: Any, /) -> Coroutine[object, None, Any]:
        """Return a coroutine that reads a key with the client's defaults."""
        ...


class Core(NamedTuple):
    """Core in one of its two forms."""

    name: CoreName
    new_decoder: Callable[..., ReplyDecoder]
    match: Callable[[Any, deque[ExpectReply], bytes, str, int], bool]
    """See `matching.match`. Its decoder is one of the same core."""
    encode_reads: Callable[[Sequence[bytes], Fields, int], tuple[bytes, list[bytes]]]
    """See `encoding.encode_reads`."""
    qualifier: Callable[..., tuple[Callable[[Any], bytes], Callable[[Sequence[Any]], list[bytes]]]]
    """See `encoding.qualifier`."""
    guarded_store: Callable[[bytes, bytes, int, int, int, int], EncodedStore]
    """See `evcache.zones.protocol.operations.guarded_store`."""
    plain_store: Callable[[bytes, bytes, int, int, int], EncodedStore]
    """See `evcache.zones.protocol.operations.plain_store`."""
    group_by_owner: Callable[[Sequence[bytes], Sequence[T], array[int], array[int]], dict[int, tuple[list[bytes], list[T]]]]
    """See `placement.group_by_owner`."""
    new_exchange: Callable[..., Exchange]
    """See `exchange.Exchange`."""
    tally: type[Tally]
    """See `waiters.Tally`."""
    store_zones: type[StoreZones]
    """See `store_zones.StoreZones`."""
    is_same: Callable[[AnyReply, int | None, int], TypeGuard[Hit]]
    """See `looks.is_same`."""
    cas_of_each: Callable[[Mapping[bytes, int], Sequence[bytes], int], tuple[array[int], list[int]]]
    """See `looks.cas_of_each`."""
    accept_hits: Callable[..., tuple[list[int], list[tuple[bytes, int]]]]
    """See `looks.accept_hits`."""
    decode_values: Callable[..., tuple[int, Exception | None]]
    """See `looks.decode_values`."""
    new_read_counts: type[ReadCounts]
    """See `counts.ReadCounts`."""
    ordinary_reads: Callable[..., OrdinaryReads] | None
    """Makes the ordinary reads of one client. None if they take the way of all reads."""


PURE = Core(
    "pure",
    pure_decoder.Decoder,
    matching.match,
    encoding.encode_reads,
    encoding.qualifier,
    operations.guarded_store,
    operations.plain_store,
    placement.group_by_owner,
    Exchange,
    Tally,
    StoreZones,
    looks.is_same,
    looks.cas_of_each,
    looks.accept_hits,
    looks.decode_values,
    ReadCounts,
    None,
)

COMPILED: Core | None
"""Compiled core. None if evcache was built without a compiler."""
try:
    from evcache.zones.transport.core import _compiled
except ImportError:
    COMPILED = None
else:
    COMPILED = Core(
        "compiled",
        _compiled.Decoder,
        _compiled.match,
        _compiled.encode_reads,
        _compiled.qualifier,
        _compiled.guarded_store,
        _compiled.plain_store,
        _compiled.group_by_owner,
        _compiled.Exchange,
        _compiled.Tally,
        _compiled.StoreZones,
        _compiled.is_same,
        _compiled.cas_of_each,
        _compiled.accept_hits,
        _compiled.decode_values,
        _compiled.ReadCounts,
        _compiled.OrdinaryReads,
    )


def select(pure: str | None) -> Core:
    """Return the core that runs.

    Args:
        pure: The environment's `EVCACHE_PURE`. With any text but "" and "0", the core in Python runs.
    """
    return PURE if COMPILED is None or (pure or "0") != "0" else COMPILED


SELECTED = select(os.environ.get("EVCACHE_PURE"))
