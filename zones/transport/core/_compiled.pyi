from array import array
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, TypeGuard

from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import AnyReply, Decoded, Hit
from evcache.zones.transport.core import exchange, waiters
from evcache.zones.transport.in_flight import ExpectReply

class Decoder:
    @property
    def awaited(self) -> int: ...
    def __init__(self, *, max_line: int = ..., max_value: int = ...) -> None: ...
    def feed(self, data: bytes) -> Iterator[Decoded]: ...

def match(decoder: Decoder, waiting: deque[ExpectReply], data: bytes, node: str, timeouts: int) -> bool: ...
def qualifier(prefix: bytes, longest: int, mark: str, unusual: Callable[[Any], bytes]) -> Callable[[Any], bytes]: ...
def encode_reads(keys: Sequence[bytes], fields: Fields, first: int) -> tuple[bytes, list[bytes]]: ...
def group_by_owner(keys: Iterable[bytes], points: array[int], owners: array[int]) -> dict[int, list[bytes]]: ...
def is_same(reply: AnyReply, version: int | None, mirror: int) -> TypeGuard[Hit]: ...
def accept_hits(
    replies: Sequence[AnyReply | None],
    keys: Sequence[bytes],
    known: Mapping[bytes, int],
    highest: int,
    lowest: int,
    mirror: int,
    new_item: Any,
    zone: str,
    special: int,
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
