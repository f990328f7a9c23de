"""Commands for operators. Each takes the tokens of its line and returns a reply; with `noreply`, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.numbers import read_int32, read_uint32, read_uint64
from evcache.zones.testing.fake_memcached.state import BAD_FORMAT, ERROR

if TYPE_CHECKING:
    from evcache.zones.testing.fake_memcached.state import Caller

_OK = b"OK\r\n"
_MEGABYTE = 1024 * 1024
_LEAST_MEGABYTES = 8
_MOST_MEGABYTES = 1_000_000_000
_CLASSES = 64
_AUTOMOVE_LEVELS = (0, 1, 2)


def cache_memlimit(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `cache_memlimit <megabytes>`: the memory for items from now on. The next store evicts what is too much."""
    megabytes = read_uint64(tokens[1]) if 2 <= len(tokens) <= 3 else None
    if megabytes is None:
        return ERROR
    if megabytes < _LEAST_MEGABYTES:
        reply = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    elif megabytes > _MOST_MEGABYTES:
        reply = b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    else:
        caller.server.store.max_bytes = megabytes * _MEGABYTE
        reply = _OK
    return b"" if tokens[-1] == b"noreply" else reply


def slabs(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `slabs automove <level>` and `slabs reassign <from> <to>`. No page moves: the fake has none."""
    if len(tokens) == 1:
        return ERROR
    reply = _slabs(caller, tokens)
    return b"" if tokens[-1] == b"noreply" else reply


def _slabs(caller: Caller, tokens: list[bytes]) -> bytes:
    match tokens[1:]:
        case [b"automove", b"ratio", _, *_]:
            return _OK
        case [b"automove", level, *_]:
            number = read_uint32(level)
            if number is None:
                return BAD_FORMAT
            if number not in _AUTOMOVE_LEVELS:
                return ERROR
            caller.server.slab_automove = number
            return _OK
        case [b"reassign", source, target, *_]:
            numbers = read_int32(source), read_int32(target)
            if None in numbers:
                return BAD_FORMAT
            same = numbers[0] == numbers[1]
            return b"SAME src and dst class are identical\r\n" if same else b"NOSPARE source class has no spare pages\r\n"
        case _:
            return ERROR


def lru_crawler(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `lru_crawler crawl <classes|all>`: reclaim what has expired. Nothing else of the crawler is imitated."""
    if len(tokens) < 3 or tokens[1] != b"crawl":
        return ERROR
    if tokens[2] != b"all":
        classes = [read_uint32(text) for text in tokens[2].split(b",")]
        if any(number is None or not 0 < number < _CLASSES for number in classes):
            return b"BADCLASS invalid class id\r\n"
    caller.server.store.crawl_all()
    return _OK
