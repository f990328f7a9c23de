"""What the commands of a server share, and the three ways in which a command can end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evcache.zones.testing.fake_memcached.dialect import Dialect
    from evcache.zones.testing.fake_memcached.store import Store

KEY_MAX_LENGTH = 250

ERROR = b"ERROR\r\n"
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_DATA_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
NOT_NUMERIC = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
OUT_OF_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
TOO_MANY_CONNECTIONS = b"ERROR Too many open connections\r\n"
OUT_OF_CHUNKS = b"SERVER_ERROR Out of memory during read\r\n"


@dataclass(slots=True)
class ServerState:
    """One server, seen by all its connections."""

    store: Store
    dialect: Dialect
    auth: tuple[str, str] | None = None
    refuse: Mapping[str, str] = field(default_factory=dict)
    wall_clock: Callable[[], float] = field(kw_only=True)
    commands: Counter[str] = field(default_factory=Counter)
    dead_backend: Callable[[bytes], bool] | None = None
    max_connections: int | None = None
    detail: bool = False
    """As set by `stats detail`."""
    slab_automove: int = 1
    """As set by `slabs automove`."""
    connections: int = 0
    connections_total: int = 0
    connections_most: int = 0
    """Most that were ever open at once."""
    connections_rejected: int = 0


@dataclass(slots=True)
class Caller:
    """One connection, seen by the commands that arrive on it."""

    server: ServerState
    closing: bool = False  # the server wants the connection closed once its replies are out
    # The CAS of an `ms ... E<cas>` that ended in an error after its flags were read. The next classic store of the
    # connection uses it up: a fault of the real server that shows why a client must close after such an error.
    leftover_cas: int = 0

    def take_cas(self) -> Callable[[], int]:
        """Where a store gets its CAS: what its line asked for, else the next number of the server."""
        cas, self.leftover_cas = self.leftover_cas, 0
        store = self.server.store
        if cas == 0 and self.server.dialect.cas_taken_with_line:
            cas = store.next_cas()
        return lambda: cas or store.next_cas()


@dataclass(slots=True)
class Body:
    """A command that needs `size` more bytes, CR and LF included, before it can answer."""

    size: int
    finish: Callable[[bytes], bytes]  # the bytes -> the reply
    discard: bool = False  # the bytes are swallowed after an error; `finish` gets b""


def swallow(size: int, reply: bytes) -> Body:
    """An error whose payload is thrown away, so that the connection stays in sync."""
    return Body(size, lambda _: reply, discard=True)
