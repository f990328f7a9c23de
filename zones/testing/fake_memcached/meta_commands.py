"""The meta commands: mg, ms, md, ma, mn, me. Each takes the tokens of its line and returns a reply, or a Body.

Flags act and report in the order of the request, as on the real server. For example, `t` before `N` shows the TTL from
before the creation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.dialect import read_int32
from evcache.zones.testing.fake_memcached.meta_flags import (
    MAX_TOKENS,
    MetaFlags,
    RefusedError,
    decode_base64,
    key_token,
    parse_flags,
)
from evcache.zones.testing.fake_memcached.state import (
    BAD_DATA_CHUNK,
    BAD_FORMAT,
    ERROR,
    KEY_MAX_LENGTH,
    NOT_NUMERIC,
    OUT_OF_CHUNKS,
    OUT_OF_MEMORY,
    TOO_LARGE,
    Body,
    swallow,
)
from evcache.zones.testing.fake_memcached.store import Item, NotANumberError, Store, StoreMode, StoreResult

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.state import Caller

CHUNKED_BYTES = 512 * 1024  # a larger item gets its memory while its value is read
MAX_LENGTH = (1 << 31) - 1 - 2  # of a value, because the server counts in 32 bits and adds CR LF

_OPTIONS_TOO_LONG = b"CLIENT_ERROR options flags too long\r\n"
_BAD_FLAG = b"CLIENT_ERROR invalid or duplicate flag\r\n"
_STORE_MODES = {
    b"": StoreMode.SET,
    b"S": StoreMode.SET,
    b"E": StoreMode.ADD,
    b"A": StoreMode.APPEND,
    b"P": StoreMode.PREPEND,
    b"R": StoreMode.REPLACE,
}
_COUNT_UP = {b"": True, b"I": True, b"+": True, b"D": False, b"-": False}


def meta_noop(_caller: Caller, _tokens: list[bytes]) -> bytes:
    """Answer `mn`, whose reply follows those of all earlier requests. It ignores arguments, with `O`."""
    return b"MN\r\n"


def meta_get(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `mg <key> <flags>`."""
    if len(tokens) < 2:
        return ERROR
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    if len(tokens) >= MAX_TOKENS:
        return b"CLIENT_ERROR options flags are too long\r\n"  # one word more than in other commands
    store = caller.server.store
    try:
        flags = parse_flags(tokens[1], tokens[2:], caller.server.dialect)
        item = store.get(flags.key)
        created = item is None and flags.create_ttl is not None
        if created:
            item = Item(flags.key, b"")  # without the mark of a base64 key, even if it was one
            store.link(item, store.next_cas() if flags.new_cas is None else flags.new_cas)
        store.counts["cmd_touch" if flags.ttl is not None and item else "cmd_get"] += 1
        if item is None:
            store.counts["get_misses"] += 1
            reply = _line(b"EN", flags.echoes())
            return b"" if flags.quiet else reply
        return _hit(caller, flags, item, created=created)
    except RefusedError as refused:
        return refused.reply


def _hit(caller: Caller, flags: MetaFlags, item: Item, *, created: bool) -> bytes:
    store = caller.server.store
    if not flags.fetch_facts and not flags.no_bump:
        store.bump(item)
    won = False
    parts: list[bytes] = []
    for token in flags.tokens:
        match token[:1]:
            case b"T":
                item.expires_at = store.expiry(flags.ttl or 0)
            case b"N" if created:
                item.expires_at = store.expiry(flags.create_ttl or 0)
                won = True
            case b"R":
                left, horizon = store.ttl_left(item), store.seconds_until(flags.recache_ttl)
                if not item.win_sent and not created and left is not None and left < horizon:
                    won = True
            case b"s":
                parts.append(b"s%d" % len(item.value))
            case b"t":
                parts.append(_ttl_token(store, item))
            case b"c":
                parts.append(b"c%d" % item.cas)
            case b"f":
                parts.append(b"f%d" % item.flags)
            case b"l":
                parts.append(b"l%d" % store.idle_seconds(item))
            case b"h":
                parts.append(b"h1" if item.fetched else b"h0")
            case b"O":
                parts.append(flags.opaque(token))
            case b"k":
                parts.append(key_token(item.key, base64_key=item.base64_key))
    if item.win_sent:
        parts.append(b"Z")
    if item.stale:
        parts.append(b"X")
        won = won or not item.win_sent  # every reader of a stale item asks for the win
    if won:
        parts.append(b"W")
        item.win_sent = True
    if flags.fetch_facts and not flags.no_bump:
        store.bump(item)
    store.counts["touch_hits" if flags.ttl is not None else "get_hits"] += 1

    unchanged = caller.server.dialect.conditional_get and flags.compare == item.cas
    if flags.value and not unchanged:
        return _line(b"VA %d" % len(item.value), parts) + item.value + b"\r\n"
    return _line(b"HD", parts)


def meta_set(caller: Caller, tokens: list[bytes]) -> bytes | Body:
    """Answer `ms <key> <length> <flags>` with a value.

    After an error in the key or before the length is parsed, the value is read as commands. The real server does the same up
    to 1.6.38.
    """
    if len(tokens) < 2:
        return ERROR
    if len(tokens[1]) > KEY_MAX_LENGTH or len(tokens) == 2:
        return BAD_FORMAT
    if len(tokens) >= MAX_TOKENS:
        return _OPTIONS_TOO_LONG
    length = read_int32(tokens[2])
    if length is None or not 0 <= length <= MAX_LENGTH:
        return BAD_FORMAT
    store, dialect = caller.server.store, caller.server.dialect
    try:
        flags = parse_flags(tokens[1], tokens[3:], dialect)
        cas = flags.new_cas
        if cas is None and dialect.cas_taken_with_line:
            cas = store.next_cas()
        caller.leftover_cas = cas or 0
        mode = _store_mode(flags)
        for token in flags.tokens:
            if token[:1] == b"O":
                flags.opaque(token)
    except RefusedError as refused:
        return swallow(length + 2, refused.reply)

    refusal = _no_room(store, flags, length)
    if refusal is not None:
        store.counts["store_too_large" if refusal is TOO_LARGE else "store_no_memory"] += 1
    if refusal is OUT_OF_MEMORY and length > CHUNKED_BYTES:
        return swallow(length + 2, OUT_OF_CHUNKS)  # the present item stays
    if refusal is not None:
        store.delete(flags.key)  # at once, in every mode, because the server prefers a miss to an outdated value
        return swallow(length + 2, refusal)
    return Body(length + 2, lambda data: _finish_set(caller, flags, mode, data))


def _store_mode(flags: MetaFlags) -> StoreMode:
    mode = _STORE_MODES.get(flags.mode)
    if mode is None:
        raise RefusedError(b"CLIENT_ERROR invalid mode for ms M token\r\n")
    return mode


def _no_room(store: Store, flags: MetaFlags, length: int) -> bytes | None:
    if not store.fits(flags.key, flags.client_flags, length):
        return TOO_LARGE
    return None if store.has_room(flags.key, flags.client_flags, length) else OUT_OF_MEMORY


def _finish_set(caller: Caller, flags: MetaFlags, mode: StoreMode, data: bytes) -> bytes:
    store, dialect = caller.server.store, caller.server.dialect
    store.counts["cmd_set"] += 1
    if not data.endswith(b"\r\n"):
        return BAD_DATA_CHUNK
    append = mode in (StoreMode.APPEND, StoreMode.PREPEND)
    create = append and flags.create_ttl is not None and dialect.append_creates
    ttl = flags.create_ttl if create else flags.ttl
    if flags.compare is not None and mode in (StoreMode.SET, StoreMode.REPLACE):
        mode = StoreMode.CAS
    item = Item(flags.key, data[:-2], flags.client_flags, store.expiry(ttl or 0), base64_key=flags.base64_key)
    result, holder = store.save(
        item,
        mode,
        compare=flags.compare or 0,
        accept_older=flags.stale,
        create=create,
        cas=caller.take_cas(),
    )
    stored = result is StoreResult.STORED
    if stored and flags.quiet:
        return b""
    parts: list[bytes] = []
    for token in flags.tokens:
        match token[:1]:
            case b"O":
                parts.append(token)
            case b"k":
                parts.append(flags.shown_key())
            case b"c":
                parts.append(b"c%d" % (holder.cas if stored else 0))
            case b"s" if dialect.reports_stored_size:
                parts.append(b"s%d" % len(holder.value))
    return _line(result.value, parts)


def meta_delete(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `md <key> <flags>`: delete the item, mark it stale (`I`), or empty it (`x`)."""
    if len(tokens) < 2:
        return ERROR
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    if len(tokens) >= MAX_TOKENS:
        return _OPTIONS_TOO_LONG
    try:
        flags = parse_flags(tokens[1], tokens[2:], caller.server.dialect)
    except RefusedError:
        return _BAD_FLAG
    try:
        echoes = flags.echoes()
    except RefusedError as refused:
        return refused.reply
    store = caller.server.store
    item = store.get(flags.key)
    if item is None or (flags.compare is not None and flags.compare != item.cas):
        store.counts["delete_misses"] += 1
        return _line(b"NF" if item is None else b"EX", echoes)

    if flags.drop_value:
        # Only the CAS of the old item remains. Without T the empty item never expires.
        cas = item.cas if flags.new_cas is None else flags.new_cas
        item = Item(flags.key, b"", flags.client_flags, store.expiry(flags.ttl or 0))
        store.link(item, cas)
    if flags.stale:
        if flags.ttl is not None:
            item.expires_at = store.expiry(flags.ttl)
        item.stale = True
        item.win_sent = False
        store.set_cas(item, store.next_cas() if flags.new_cas is None else flags.new_cas)
    else:
        store.counts["delete_hits"] += 1
        if not flags.drop_value:
            store.delete(flags.key)
    return b"" if flags.quiet else _line(b"HD", echoes)


def meta_arithmetic(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `ma <key> <flags>`: increment, decrement, or create a counter (`N`)."""
    if len(tokens) < 2:
        return ERROR
    if len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    if len(tokens) >= MAX_TOKENS:
        return _OPTIONS_TOO_LONG
    try:
        flags = parse_flags(tokens[1], tokens[2:], caller.server.dialect)
    except RefusedError:
        return _BAD_FLAG
    up = _COUNT_UP.get(flags.mode)
    if up is None:
        return b"CLIENT_ERROR invalid mode for ma M token\r\n"
    store = caller.server.store
    item = store.get(flags.key)
    created = False
    try:
        if item is None:
            if flags.create_ttl is None:
                store.counts["incr_misses" if up else "decr_misses"] += 1
                return _line(b"NF", flags.echoes())
            item = Item(flags.key, b"%d" % flags.initial)
            store.link(item, store.next_cas() if flags.new_cas is None else flags.new_cas)
            created = True
            number = item.value
        else:
            if not item.value:
                return NOT_NUMERIC
            if flags.compare and flags.compare != item.cas:  # C0 compares nothing
                return _line(b"EX", flags.echoes())
            item, number = store.add_delta(item, flags.delta, up=up)
            store.counts["incr_hits" if up else "decr_hits"] += 1
            if flags.new_cas is not None:
                store.set_cas(item, flags.new_cas)
        reply = _counted(store, flags, item, number, created=created)
    except NotANumberError:
        return NOT_NUMERIC
    except RefusedError as refused:
        return refused.reply
    return b"" if flags.quiet and not created else reply


def _counted(store: Store, flags: MetaFlags, item: Item, number: bytes, *, created: bool) -> bytes:
    parts: list[bytes] = []
    for token in flags.tokens:
        match token[:1]:
            case b"c":
                parts.append(b"c%d" % item.cas)
            case b"t":
                parts.append(_ttl_token(store, item))
            case b"T":
                item.expires_at = store.expiry(flags.ttl or 0)
            case b"N" if created:
                item.expires_at = store.expiry(flags.create_ttl or 0)
            case b"O":
                parts.append(flags.opaque(token))
            case b"k":
                parts.append(flags.shown_key())
    if flags.value:
        return _line(b"VA %d" % len(number), parts) + number + b"\r\n"
    return _line(b"HD", parts)


def meta_debug(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `me <key> [b]` with the metadata of an item. It does not count as a fetch."""
    if len(tokens) < 2 or len(tokens[1]) > KEY_MAX_LENGTH:
        return BAD_FORMAT
    key = tokens[1]
    if tokens[2:3] == [b"b"]:
        key = decode_base64(key)
        if not key:
            return BAD_FORMAT
    store = caller.server.store
    store.counts["cmd_meta"] += 1
    item = store.get(key)
    if item is None:
        return b"EN\r\n"
    left = store.ttl_left(item)
    if left is None:
        left = -1
    elif not caller.server.dialect.signed_me_expiry:
        left = -left
    shown = key_token(key, base64_key=True)[1:-2] if item.base64_key else key
    facts = b"exp=%d la=%d cas=%d fetch=%s cls=1 size=%d" % (
        left,
        store.idle_seconds(item),
        item.cas,
        b"yes" if item.fetched else b"no",
        store.size(item),
    )
    return b"ME " + shown + b" " + facts + b"\r\n"


def _ttl_token(store: Store, item: Item) -> bytes:
    left = store.ttl_left(item)
    return b"t-1" if left is None else b"t%d" % (left & 0xFFFFFFFF)


def _line(code: bytes, parts: list[bytes]) -> bytes:
    return b" ".join([code, *parts]) + b"\r\n"
