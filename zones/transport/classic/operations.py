"""Operations on a classic server: each sends commands over the client and returns what the pipelined transport would.

The seconds that an item has left are missing in replies to reads, because no classic command shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evcache.zones.protocol.fields import FIELDS_WITH_VALUE, Fields
from evcache.zones.protocol.replies import AnyReply, Hit, Reply
from evcache.zones.transport.classic import replies
from evcache.zones.transport.classic.client import ClassicClient
from evcache.zones.transport.classic.replies import Fetched

# Keys in one `gets`. A batch occupies a connection until its last value is read. With values of 1 kB that is 100 kB, about a
# millisecond of a fast network. More keys take several commands, one after another.
KEYS_PER_GET = 100

# Bytes of the line of one `gets`: Amazon ElastiCache Serverless takes no longer ones.
BYTES_PER_GET = 16 * 1024


async def get(client: ClassicClient, key: bytes, fields: Fields) -> AnyReply:
    """Read an item with `gets`."""
    item = (await client.fetch([key])).get(key)
    return Reply(b"EN", [], None) if item is None else _shown(item, fields)


async def get_many(client: ClassicClient, keys: Sequence[bytes], fields: Fields) -> list[AnyReply | None]:
    """Read several items with as few `gets` as the limits allow. Return hits and errors, and None for a miss."""
    items: dict[bytes, Fetched] = {}
    failed: dict[bytes, Reply] = {}
    for some in _batches(list(dict.fromkeys(keys))):
        found, unserved = await client.fetch_or_each(some)
        items.update(found)
        failed.update(unserved)
    return [failed.get(key) or (_shown(items[key], fields) if key in items else None) for key in keys]


async def store(
    client: ClassicClient, verb: bytes, key: bytes, data: bytes, flags: int, exptime: int, compare: int | None
) -> Reply:
    """Store with one of the six commands. `compare` is the token of `cas`, None for the others."""
    return replies.stored(await client.store(verb, key, data, flags, exptime, cas=compare))


async def delete(client: ClassicClient, key: bytes) -> Reply:
    """Delete an item."""
    return replies.deleted(await client.tell(b"delete", key))


async def touch(client: ClassicClient, key: bytes, exptime: int) -> Reply:
    """Set the TTL of an item. The reply does not show the item, because no classic command does both."""
    return replies.touched(await client.tell(b"touch", key, exptime))


async def count(client: ClassicClient, key: bytes, delta: int, *, decrement: bool) -> Reply:
    """Add to a counter with `incr`, or subtract with `decr`."""
    return replies.counted(await client.tell(b"decr" if decrement else b"incr", key, delta))


def _shown(item: Fetched, fields: Fields) -> AnyReply:
    if fields in FIELDS_WITH_VALUE:
        return Hit(item.value, item.flags, item.cas, None, stale=False, leased=False)
    return Reply(b"HD", [b"f%d" % item.flags, b"c%d" % item.cas], None)


def _batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the keys in groups, each for one `gets`."""
    first, size = 0, len(b"gets\r\n")
    for index, key in enumerate(keys):
        size += 1 + len(key)
        if index > first and (index - first == KEYS_PER_GET or size > BYTES_PER_GET):
            yield keys[first:index]
            first, size = index, len(b"gets\r\n") + 1 + len(key)
    if keys:
        yield keys[first:]
