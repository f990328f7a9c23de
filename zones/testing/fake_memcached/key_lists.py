"""Lists of keys: `stats items`, `stats cachedump` and `lru_crawler metadump`. Every item is in slab class 1."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from evcache.zones.testing.fake_memcached.dialect import read_uint32
from evcache.zones.testing.fake_memcached.state import BAD_FORMAT, ERROR, ServerState

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.store import Item

_END = b"END\r\n"
_SLAB_CLASSES = 64
_THE_CLASS = 1  # as `me` shows it

# The lines of `stats items` for one class. Those of an idle server are 0.
_ITEMS = """
    number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted evicted_nonzero evicted_time
    outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched evicted_active crawler_reclaimed
    crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims hits_to_hot
    hits_to_warm hits_to_cold hits_to_temp
""".split()  # noqa: SIM905  # a list of strings would take a line for each


def stats_items(server: ServerState) -> bytes:
    """Answer `stats items`."""
    store = server.store
    if not store.linked:
        return _END
    known = {"number": store.linked, "number_cold": store.linked, "mem_requested": store.bytes_used}
    lines = (f"STAT items:{_THE_CLASS}:{name} {known.get(name, 0)}\r\n" for name in _ITEMS)
    return "".join(lines).encode() + _END


def cachedump(server: ServerState, tokens: list[bytes]) -> bytes:
    """Answer `stats cachedump <class> <limit>`: the most recently used items."""
    if not server.may_list_keys:
        return b"CLIENT_ERROR stats cachedump not allowed\r\n"
    if len(tokens) < 4:
        return b"CLIENT_ERROR bad command line\r\n"
    slab_class, limit = read_uint32(tokens[2]), read_uint32(tokens[3])
    if slab_class is None or limit is None:
        return BAD_FORMAT
    if slab_class >= _SLAB_CLASSES:
        return b"CLIENT_ERROR Illegal slab id\r\n"
    store = server.store
    keys = list(store)[::-1] if slab_class == _THE_CLASS else []
    reply = bytearray()
    for key in keys[: limit or None]:
        item = store.get(key)
        if item is not None:
            reply += b"ITEM %b [%d b; %d s]\r\n" % (key, len(item.value), _expires_at(server, item) or 0)
    return bytes(reply) + _END


def metadump(server: ServerState, tokens: list[bytes]) -> bytes:
    """Answer `lru_crawler metadump <all|hash|classes>`. The order is that of use. A line ends in a bare newline."""
    if not server.may_list_keys:
        return b"ERROR metadump not allowed\r\n"
    if len(tokens) < 3:
        return ERROR
    classes = tokens[2].split(b",")
    if tokens[2] not in (b"all", b"hash") and not all(0 < (read_uint32(name) or 0) < _SLAB_CLASSES for name in classes):
        return b"BADCLASS invalid class id\r\n"
    store = server.store
    is_shown = tokens[2] in (b"all", b"hash") or b"%d" % _THE_CLASS in classes
    lines: list[str] = []
    for key in list(store) if is_shown else []:
        item = store.get(key)
        if item is not None:
            expires_at = _expires_at(server, item)
            lines.append(
                f"key={quote_from_bytes(key, safe='')} exp={-1 if expires_at is None else expires_at}"
                f" la={int(server.wall_clock()) - store.idle_seconds(item)} cas={item.cas}"
                f" fetch={'yes' if item.fetched else 'no'} cls={_THE_CLASS} size={store.size(item)}"
                f"{f' flags={item.flags}' if server.dialect.dump_shows_flags else ''}\n"
            )
    return "".join(lines).encode() + _END


def _expires_at(server: ServerState, item: Item) -> int | None:
    left = server.store.ttl_left(item)
    return None if left is None else int(server.wall_clock()) + left
