"""Replies of memcached's built-in proxy and of twemproxy for keys whose backend is dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached.classic_commands import retrieve
from evcache.zones.testing.fake_memcached.dialect import read_int32
from evcache.zones.testing.fake_memcached.state import Body, swallow

if TYPE_CHECKING:
    from collections.abc import Callable

    from evcache.zones.testing.fake_memcached.state import Caller

BACKEND_FAILURE = b"SERVER_ERROR backend failure\r\n"
CONNECTION_REFUSED = b"SERVER_ERROR Connection refused\r\n"

_END = b"END\r\n"
_KEYED = frozenset({b"mg", b"md", b"ma", b"me", b"delete", b"touch", b"incr", b"decr"})
# Position of the value's length, by command.
_STORES = {b"ms": 2, **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), 4)}
_FIRST_KEY = {b"get": 1, b"gets": 1, b"gat": 2, b"gats": 2}


def answer_for_dead(caller: Caller, tokens: list[bytes], is_dead: Callable[[bytes], bool]) -> bytes | Body | None:
    """Return the proxy's reply to a command with keys of the dead backend. None if the command has none.

    The proxy reads a value before it routes the request, and hides an error neither with `q` nor with `noreply`. Of several
    keys of one `get`, each of the dead backend has an error line in its place, and the answer ends with END. Of one, the
    error line is the whole answer. twemproxy answers with one error line for all keys.
    """
    name = tokens[0]
    twemproxy = caller.server.dialect.twemproxy
    failure = CONNECTION_REFUSED if twemproxy else BACKEND_FAILURE
    if len(tokens) > 1 and name in _KEYED:
        return failure if is_dead(tokens[1]) else None
    if name in _STORES and len(tokens) > _STORES[name] and is_dead(tokens[1]):
        length = read_int32(tokens[_STORES[name]])
        return None if length is None or length < 0 else swallow(length + 2, failure)
    if name in _FIRST_KEY:
        head, keys = tokens[: _FIRST_KEY[name]], tokens[_FIRST_KEY[name] :]
        if any(map(is_dead, keys)):
            if twemproxy or len(keys) == 1:
                return failure
            found = (failure if is_dead(key) else retrieve(caller, [*head, key]) for key in keys)
            return b"".join(answer.removesuffix(_END) for answer in found) + _END
    return None
