"""State that the commands of a server share, and the three results of a command."""

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
    """State of one server, shared by all connections."""

    store: Store
    dialect: Dialect
    auth: tuple[str, str] | None = None
    refuse: Mapping[str, str] = field(default_factory=dict)
    wall_clock: Callable[[], float] = field(kw_only=True)
    commands: Counter[str] = field(default_factory=Counter)
    dead_backend: Callable[[bytes], bool] | None = None
    max_connections: int | None = None
    may_list_keys: bool = True
    """False as with the option `-X`."""
    detail: bool = False
    """Setting of `stats detail`."""
    slab_automove: int = 1
    """Setting of `slabs automove`."""
    connections: int = 0
    connections_total: int = 0
    connections_most: int = 0
    """Highest number of open connections so far."""
    connections_rejected: int = 0


@dataclass(slots=True)
class Caller:
    """State of one connection, for its commands."""

    server: ServerState
    closing: bool = False  # the server closes the connection after its replies
    # CAS of an `ms ... E<cas>` that ended in an error after its flags were parsed. The next classic store of the connection
    # uses it. The real server has this fault, so a client must close the connection after such an error.
    leftover_cas: int = 0

    def take_cas(self) -> Callable[[], int]:
        """Return the source of a store's CAS: the number in its line, or else the next number of the server."""
        cas, self.leftover_cas = self.leftover_cas, 0
        store = self.server.store
        if cas == 0 and self.server.dialect.cas_taken_with_line:
            cas = store.next_cas()
        return lambda: cas or store.next_cas()


@dataclass(slots=True)
class Body:
    """Command that needs `size` more bytes, with CR and LF, before its reply."""

    size: int
    finish: Callable[[bytes], bytes]  # returns the reply to the bytes
    discard: bool = False  # the bytes are discarded after an error; `finish` gets b""


def swallow(size: int, reply: bytes) -> Body:
    """Return an error whose payload is discarded, so that the connection stays in sync."""
    return Body(size, lambda _: reply, discard=True)
