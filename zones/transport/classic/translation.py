"""Request lines of the meta protocol to commands of the classic one, and classic answers to replies. No I/O, no clock.

What has no classic form raises `Unsupported` naming the feature, before anything is sent. The seconds that an item has
left (`t`) are the one thing that is left out of the reply instead: whoever asks for them can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evcache.zones.errors import Unsupported
from evcache.zones.protocol.replies import Reply
from evcache.zones.transport.classic.replies import Fetched

# What a classic server can show of an item (`gets`), and what it can't but callers can do without.
_SHOWN = frozenset({b"v", b"f", b"c", b"s"})
_ANSWERED = _SHOWN | {b"t", b"u"}  # seconds left; and "not a use", which only matters to eviction

_VERBS = {b"": b"set", b"E": b"add", b"R": b"replace", b"A": b"append", b"P": b"prepend"}

# Flags that no classic command has, by the command they stand in, and what a caller would miss.
_MISSING = {
    (b"mg", b"N"): "leases",
    (b"mg", b"R"): "leases",
    (b"mg", b"E"): "versions",
    (b"mg", b"C"): "conditional reads",
    (b"mg", b"h"): "item details",
    (b"mg", b"l"): "item details",
    (b"ms", b"E"): "versions",
    (b"ms", b"I"): "versions",
    (b"ms", b"N"): "appending to what is not there",
    (b"md", b"C"): "deletes that compare",
    (b"md", b"I"): "invalidation",
    (b"md", b"x"): "invalidation",
    (b"ma", b"E"): "versions",
    (b"ma", b"C"): "counters that compare",
    (b"ma", b"T"): "a time to live for counters that exist",
}


@dataclass(frozen=True, slots=True)
class Get:
    """Read an item (`gets`). `shows`: what of it goes into the reply, in this order."""

    key: bytes
    shows: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """`set`, `add`, `replace`, `append` or `prepend`; the last two keep the item's flags and time to live."""

    verb: bytes
    key: bytes
    flags: int
    exptime: int


@dataclass(frozen=True, slots=True)
class CompareAndStore:
    """`cas`. A token of 0 is a token."""

    key: bytes
    flags: int
    exptime: int
    cas: int


@dataclass(frozen=True, slots=True)
class Delete:
    """`delete`."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Touch:
    """`touch`. What was touched is not shown: no classic command does both."""

    key: bytes
    exptime: int


@dataclass(frozen=True, slots=True)
class Count:
    """`incr` or `decr`; with `initial`, an `add` where there is no counter."""

    key: bytes
    delta: int
    decrement: bool
    initial: int | None
    exptime: int
    """Seconds that a counter made from `initial` lives."""


Command = Get | Store | CompareAndStore | Delete | Touch | Count


def translate(line: bytes, node: str) -> Command:
    """The classic command that does what a meta request asks for.

    Raises `Unsupported` naming the feature and `node` (a label) when there is none.
    """
    name, key, *rest = line.split(b" ")
    if name == b"mg":
        return _get(key, rest, node)
    if name == b"ms":
        return _store(key, rest[1:], node)  # the length is that of the value that travels with it
    if name == b"md":
        _arguments(name, rest, b"", node)
        return Delete(key)
    if name == b"ma":
        return _count(key, rest, node)
    raise Unsupported(f"the command {name.decode('ascii', 'backslashreplace')}", node)


def _get(key: bytes, flags: list[bytes], node: str) -> Get | Touch:
    shows = tuple(flag for flag in flags if flag in _SHOWN)
    rest = [flag for flag in flags if flag not in _ANSWERED]
    if not rest:
        return Get(key, shows)
    touch = _arguments(b"mg", rest, b"T", node)[b"T"]
    if b"v" in shows:
        raise Unsupported("reading and touching in one command", node)
    return Touch(key, int(touch))


def _store(key: bytes, flags: list[bytes], node: str) -> Store | CompareAndStore:
    given = _arguments(b"ms", flags, b"TFCM", node)
    exptime, client_flags, mode = int(given.get(b"T", 0)), int(given.get(b"F", 0)), given.get(b"M", b"")
    if b"C" in given:
        return CompareAndStore(key, client_flags, exptime, int(given[b"C"]))
    return Store(_VERBS[mode], key, client_flags, exptime)


def _count(key: bytes, flags: list[bytes], node: str) -> Count:
    given = _arguments(b"ma", [flag for flag in flags if flag not in (b"v", b"c", b"t")], b"DMNJ", node)
    initial = None if b"N" not in given else int(given.get(b"J", 0))
    return Count(key, int(given.get(b"D", 1)), given.get(b"M") == b"D", initial, int(given.get(b"N", 0)))


def _arguments(name: bytes, flags: list[bytes], known: bytes, node: str) -> dict[bytes, bytes]:
    """The flags by letter. Raises `Unsupported` for one that is not among `known`: nothing is dropped in silence."""
    given = {flag[:1]: flag[1:] for flag in flags}
    for letter in given:
        if letter not in known:
            feature = _MISSING.get((name, letter), f"the flag {letter.decode('ascii', 'backslashreplace')}")
            raise Unsupported(feature, node)
    return given


# Answers.


def found(command: Get, item: Fetched | None) -> Reply:
    """What `gets` found, or did not."""
    if item is None:
        return Reply(b"EN", [], None)
    shown: Mapping[bytes, int] = {b"f": item.flags, b"c": item.cas, b"s": len(item.value)}
    tokens = [b"%b%d" % (flag, shown[flag]) for flag in command.shows if flag != b"v"]
    return Reply(b"VA", tokens, item.value) if b"v" in command.shows else Reply(b"HD", tokens, None)
