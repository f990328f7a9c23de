"""Lists of the keys of a server: the lines that `lru_crawler metadump` and `stats cachedump` print. No I/O.

`metadump` lists all keys. It needs memcached 1.4.31 and is refused by servers run with `-X`, by proxies and by some managed
services. `cachedump` lists at most two megabytes of keys, which is enough for a sample. It lists the COLD part of
the LRU only. Items are there about a second after they were stored, four in five of them (measured on 1.6.18 and 1.6.38).
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from evcache.zones.errors import ProtocolError

METADUMP = b"lru_crawler metadump hash"
"""Request for all keys, in the order of the hash table.

The other order, `all`, walks the LRU lists: under traffic it missed 3 % of 200,000 keys, and repeated some (measured on
1.6.18 and 1.6.38). The order by hash missed and repeated none.
"""
END_OF_LIST = b"END"
_OK = b"OK"  # the first line since 1.6.43
_NEVER = -1


class ListedKey(NamedTuple):
    """A key of a server, with what its list says about the item."""

    key: bytes
    expires_at: int | None
    """Unix time of the expiry, by the server's clock. None if the item does not expire."""
    cas: int
    """CAS of the item."""
    size: int
    """Size of the item in bytes, with its key and a header of about 60 bytes."""
    flags: int | None
    """Client flags. None before memcached 1.6.24."""


def parse_metadump(line: bytes) -> ListedKey | None:
    """Return the key of one line without its end, or None for the line `OK`.

    Raises:
        ProtocolError: The line is no line of the list. A server that refuses to list its keys answers with an error.
    """
    fields = dict(part.partition(b"=")[::2] for part in line.split())
    try:
        expires_at = int(fields[b"exp"])
        return ListedKey(
            unquote_to_bytes(fields[b"key"]),
            None if expires_at == _NEVER else expires_at,
            int(fields[b"cas"]),
            int(fields[b"size"]),
            int(fields[b"flags"]) if b"flags" in fields else None,
        )
    except (KeyError, ValueError):
        if line == _OK:
            return None
        raise ProtocolError(f"invalid list of keys: {line[:100].decode('latin-1')}") from None


def parse_cachedump(line: bytes) -> bytes | None:
    """Return the key of one line `ITEM <key> [<size> b; <expiry> s]`, or None for another line."""
    name, _, rest = line.partition(b" ")
    key, _, _ = rest.rpartition(b" [")
    return key if name == b"ITEM" and key and b" " not in key else None
