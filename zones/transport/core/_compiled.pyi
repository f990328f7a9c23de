from array import array
from collections import deque
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, TypeGuard, TypeVar

from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.operations import EncodedStore
from evcache.zones.protocol.replies import AnyReply, Decoded, Hit
from evcache.zones.transport.core import counts, exchange, store_zones, waiters
from evcache.zones.transport.core.looks import Look
from evcache.zones.transport.in_flight import ExpectReply

_T = TypeVar("_T")

class Decoder:
    @property
    def awaited(self) -> int: ...
    def __init__(self, *, max_line: int = ..., max_value: int = ...) -> None: ...
    @property
    def landing(self) -> memoryview | None: ...
    def feed(self, data: bytes) -> Iterator[Decoded]: ...
    def landed(self, count: int) -> None: ...

def match(decoder: Decoder, waiting: deque[ExpectReply], data: bytes, node: str, timeouts: int) -> bool: ...
def qualifier(
    prefix: bytes, longest: int, mark: str, unusual: Callable[[Any], bytes]
) -> tuple[Callable[[Any], bytes], Callable[[Sequence[Any]], list[bytes]]]: ...
def encode_reads(keys: Sequence[bytes], fields: Fields, first: int) -> tuple[bytes, list[bytes]]: ...
def guarded_store(key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int) -> EncodedStore: ...
def plain_store(key: bytes, data: bytes, flags: int, exptime: int, cas: int) -> EncodedStore: ...
def group_by_owner(
    keys: Sequence[bytes], given: Sequence[_T], points: array[int], owners: array[int]
) -> dict[int, tuple[list[bytes], list[_T]]]: ...
def cas_of_each(versions: Mapping[bytes, int], keys: Sequence[bytes], mirror: int) -> tuple[array[int], list[int]]: ...
def is_same(reply: AnyReply, version: int | None, mirror: int) -> TypeGuard[Hit]: ...
def accept_hits(
    look: Look,
    highest: int,
    zone: str,
    replies: Sequence[AnyReply | bytes | None],
    keys: Sequence[bytes],
    given: Sequence[Any],
    known: array[int],
    plain: int,
    values: MutableMapping[Any, bytes],
    found: MutableMapping[bytes, Any],
) -> tuple[list[int], list[tuple[bytes, int]]]: ...
def decode_values(
    names: Sequence[bytes],
    given: Sequence[Any],
    found: Mapping[bytes, Any],
    start: int,
    budget: int,
    bytes_of_one: int,
    decode: Callable[[bytes, int], Any],
    plain: int,
    special: Container[int],
    values: MutableMapping[Any, Any],
) -> tuple[int, Exception | None]: ...

class Exchange(exchange.Exchange): ...
class Tally(waiters.Tally): ...
class StoreZones(store_zones.StoreZones): ...
class ReadCounts(counts.ReadCounts): ...

class OrdinaryReads:
    def __init__(
        self,
        unusual: Any,
        zones: Any,
        cluster: Any,
        affinity: Any,
        hooks: Any,
        qualify: Callable[[Any], bytes],
        decode: Callable[[bytes, int], Any],
        timeout: float,
        mirror: int,
        plain: int,
        special: frozenset[int],
    ) -> None: ...
    def get(self, key: Any, default: Any) -> Coroutine[object, None, Any]: ...
