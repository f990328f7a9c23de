"""The classic text commands. Each takes the tokens of its line and returns a reply, or a Body.

With `noreply` every answer is left out, errors too, except what follows from a payload that was not understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.dialect import read_int32, read_uint32, read_uint64
from evcache.zones.testing.fake_memcached.meta_commands import MAX_LENGTH
from evcache.zones.testing.fake_memcached.state import (
    BAD_DATA_CHUNK,
    BAD_FORMAT,
    ERROR,
    KEY_MAX_LENGTH,
    NOT_NUMERIC,
    OUT_OF_MEMORY,
    TOO_LARGE,
    Body,
    swallow,
)
from evcache.zones.testing.fake_memcached.store import Item, NotANumberError, StoreMode, StoreResult

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.state import Caller

_BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
_NOT_FOUND = b"NOT_FOUND\r\n"
_STORE_MODES = {
    b"set": StoreMode.SET,
    b"add": StoreMode.ADD,
    b"replace": StoreMode.REPLACE,
    b"append": StoreMode.APPEND,
    b"prepend": StoreMode.PREPEND,
    b"cas": StoreMode.CAS,
}
_STORE_REPLIES = {
    StoreResult.STORED: b"STORED\r\n",
    StoreResult.NOT_STORED: b"NOT_STORED\r\n",
    StoreResult.EXISTS: b"EXISTS\r\n",
    StoreResult.NOT_FOUND: _NOT_FOUND,
}


def _noreply(tokens: list[bytes]) -> bool:
    return tokens[-1] == b"noreply"


def retrieve(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `get|gets <key>*` and `gat|gats <exptime> <key>*`. Stale and win marks neither show nor change."""
    if len(tokens) < 2:
        return ERROR
    store = caller.server.store
    touch = tokens[0].startswith(b"gat")
    with_cas = tokens[0].endswith(b"s")
    keys = tokens[1:]
    ttl = 0
    if touch:
        exptime = read_int32(keys.pop(0))
        if exptime is None:
            return _BAD_EXPTIME
        ttl = exptime
    reply = bytearray()
    for key in keys:
        if len(key) > KEY_MAX_LENGTH:
            return BAD_FORMAT  # in place of the values found so far
        store.counts["cmd_touch" if touch else "cmd_get"] += 1
        item = store.get(key)
        if item is None:
            store.counts["touch_misses" if touch else "get_misses"] += 1
            continue
        store.counts["touch_hits" if touch else "get_hits"] += 1
        store.bump(item)
        if touch:
            item.expires_at = store.expiry(ttl)
        cas = b" %d" % item.cas if with_cas else b""
        reply += b"VALUE %b %d %d%b\r\n%b\r\n" % (item.key, item.flags, len(item.value), cas, item.value)
    return bytes(reply) + b"END\r\n"


def update(caller: Caller, tokens: list[bytes]) -> bytes | Body:
    """Answer `set|add|replace|append|prepend <key> <flags> <exptime> <length>` and `cas ... <cas>` with a value."""
    mode = _STORE_MODES[tokens[0]]
    arguments = 6 if mode is StoreMode.CAS else 5
    if not arguments <= len(tokens) <= arguments + 1:
        return ERROR
    quiet = _noreply(tokens)
    key = tokens[1]
    flags, ttl, length = read_uint32(tokens[2]), read_int32(tokens[3]), read_int32(tokens[4])
    compare = read_uint64(tokens[5]) if mode is StoreMode.CAS else 0
    if (
        len(key) > KEY_MAX_LENGTH
        or flags is None
        or ttl is None
        or length is None
        or compare is None
        or not 0 <= length <= MAX_LENGTH
    ):
        return b"" if quiet else BAD_FORMAT  # the value is not discarded, but read as commands

    store = caller.server.store
    large = not store.fits(key, flags, length)
    if large or not store.has_room(key, flags, length):
        if mode is StoreMode.SET:
            store.delete(key)  # the other modes keep the present item, unlike ms
        refusal = TOO_LARGE if large else OUT_OF_MEMORY
        store.counts["store_too_large" if large else "store_no_memory"] += 1
        return swallow(length + 2, b"" if quiet else refusal)

    def finish(data: bytes) -> bytes:
        store.counts["cmd_set"] += 1
        if not data.endswith(b"\r\n"):
            return b"" if quiet else BAD_DATA_CHUNK
        item = Item(key, data[:-2], flags, store.expiry(ttl))
        result, _ = store.save(item, mode, compare=compare, cas=caller.take_cas())
        return b"" if quiet else _STORE_REPLIES[result]

    return Body(length + 2, finish)


def touch(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `touch <key> <exptime>`."""
    if not 3 <= len(tokens) <= 4:
        return ERROR
    reply = _touch(caller, tokens)
    return b"" if _noreply(tokens) else reply


def _touch(caller: Caller, tokens: list[bytes]) -> bytes:
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    ttl = read_int32(tokens[2])
    if ttl is None:
        return _BAD_EXPTIME
    store = caller.server.store
    store.counts["cmd_touch"] += 1
    item = store.get(tokens[1])
    if item is None:
        store.counts["touch_misses"] += 1
        return _NOT_FOUND
    store.counts["touch_hits"] += 1
    store.bump(item)
    item.expires_at = store.expiry(ttl)
    return b"TOUCHED\r\n"


def delete(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `delete <key> [0]`."""
    if not 2 <= len(tokens) <= 4:
        return ERROR
    extra = tokens[2:]
    if extra not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
        usage = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        return b"" if _noreply(tokens) else usage
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return b"" if extra and _noreply(tokens) else BAD_FORMAT
    store = caller.server.store
    found = store.get(tokens[1]) is not None and store.delete(tokens[1])
    store.counts["delete_hits" if found else "delete_misses"] += 1
    if extra and _noreply(tokens):
        return b""
    return b"DELETED\r\n" if found else _NOT_FOUND


def count(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `incr|decr <key> <delta>`."""
    if not 3 <= len(tokens) <= 4:
        return ERROR
    reply = _count(caller, tokens)
    return b"" if _noreply(tokens) else reply


def _count(caller: Caller, tokens: list[bytes]) -> bytes:
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    delta = read_uint64(tokens[2])
    if delta is None:
        return b"CLIENT_ERROR invalid numeric delta argument\r\n"
    store = caller.server.store
    item = store.get(tokens[1])
    if item is None:
        store.counts[tokens[0].decode() + "_misses"] += 1
        return _NOT_FOUND
    try:
        _, number = store.add_delta(item, delta, up=tokens[0] == b"incr")
    except NotANumberError:
        return NOT_NUMERIC
    store.counts[tokens[0].decode() + "_hits"] += 1
    return number + b"\r\n"


def flush_all(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `flush_all [delay]`."""
    if not 1 <= len(tokens) <= 3:
        return ERROR
    quiet = _noreply(tokens)
    caller.server.store.counts["cmd_flush"] += 1
    delay: int | None = 0
    if len(tokens) != (2 if quiet else 1):
        delay = read_int32(tokens[1])
        if delay is None:
            return b"" if quiet else _BAD_EXPTIME
    if delay and caller.server.dialect.serverless:
        return b"" if quiet else b"CLIENT_ERROR delayed flush_all is not supported\r\n"
    if not caller.server.dialect.cas_taken_with_line:
        caller.server.store.next_cas()  # these releases store the moment of a flush as a number
    caller.server.store.flush(delay or 0)
    return b"" if quiet else b"OK\r\n"


def version(caller: Caller, _tokens: list[bytes]) -> bytes:
    """Answer `version`."""
    return b"VERSION " + caller.server.dialect.version.encode() + b"\r\n"


def verbosity(_caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `verbosity <level>`, which has no effect here."""
    if not 2 <= len(tokens) <= 3:
        return ERROR
    if _noreply(tokens):
        return b""
    return BAD_FORMAT if read_uint32(tokens[1]) is None else b"OK\r\n"


def quit_(caller: Caller, _tokens: list[bytes]) -> bytes:
    """Execute `quit` by closing the connection."""
    caller.closing = True
    return b""


def shutdown(_caller: Caller, _tokens: list[bytes]) -> bytes:
    """Refuse `shutdown`, as a server run without `-A` does."""
    return b"ERROR: shutdown not enabled\r\n"
