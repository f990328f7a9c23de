"""One client connection of the fake server, without I/O: bytes in, bytes out.

The parser follows the real server. It shares no code with the client, so that both cannot have the same mistake. The replies
do not depend on how the bytes are divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evcache.zones.testing.fake_memcached import classic_commands as classic
from evcache.zones.testing.fake_memcached import meta_commands as meta
from evcache.zones.testing.fake_memcached import operator_commands as operator
from evcache.zones.testing.fake_memcached.dialect import read_uint32
from evcache.zones.testing.fake_memcached.proxy import answer_for_dead
from evcache.zones.testing.fake_memcached.state import ERROR, Body, Caller, ServerState

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[Caller, list[bytes]], bytes | Body]

# Number of bytes without a newline after which the server closes the connection. Lines of get and gets may be longer.
MAX_LINE: Final = 2048

# Documented limits of Amazon ElastiCache Serverless: the longest line of `get` and `gets`, and missing commands.
SERVERLESS_MAX_GET: Final = 16 * 1024
_NOT_SERVERLESS: Final = frozenset({b"me", b"verbosity", b"shutdown", b"cache_memlimit", b"slabs", b"lru_crawler"})

_BINARY_MAGIC: Final = 0x80  # the first byte of a client of the binary protocol

_META: Final[dict[bytes, Command]] = {
    b"mg": meta.meta_get,
    b"ms": meta.meta_set,
    b"md": meta.meta_delete,
    b"ma": meta.meta_arithmetic,
    b"mn": meta.meta_noop,
    b"me": meta.meta_debug,
}
_CLASSIC: Final[dict[bytes, Command]] = {
    **dict.fromkeys((b"get", b"gets", b"gat", b"gats"), classic.retrieve),
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), classic.update),
    **dict.fromkeys((b"incr", b"decr"), classic.count),
    b"delete": classic.delete,
    b"touch": classic.touch,
    b"flush_all": classic.flush_all,
    b"version": classic.version,
    b"verbosity": classic.verbosity,
    b"stats": operator.stats,
    b"quit": classic.quit_,
    b"shutdown": classic.shutdown,
    b"cache_memlimit": operator.cache_memlimit,
    b"slabs": operator.slabs,
    b"lru_crawler": operator.lru_crawler,
}


_TWEMPROXY: Final[dict[bytes, Command]] = {
    name: _CLASSIC[name] for name in b"get gets set add replace append prepend cas delete incr decr quit".split()
}


class Session:
    """One connection. The caller passes bytes to `receive`, sends the replies, and then closes if `closed` is True."""

    def __init__(self, server: ServerState) -> None:
        self._caller = Caller(server)
        self._commands = _commands(server)
        self._login = None if server.auth is None else Login(*server.auth)
        self._buffer = bytearray()
        self._has_begun = False
        self._body: Body | None = None  # the command that waits for its payload
        self._missing = 0  # bytes of a payload that are still to be discarded
        self._no_newline_before = 0  # position from which the search for the end of the line continues

    @property
    def closed(self) -> bool:
        """True if the server has closed the connection. It ignores further bytes."""
        return self._caller.closing

    def receive(self, data: bytes) -> bytes:
        """Process bytes and return all replies that are due. Accepts any bytes without raising."""
        self._buffer += data
        if data and not self._has_begun:
            self._has_begun = True
            self._caller.closing = data[0] == _BINARY_MAGIC
        replies = bytearray()
        store = self._caller.server.store
        store.counts["bytes_read"] += len(data)
        store.crawl_if_due()
        if self._login is not None and not self.closed:
            replies += self._authenticate(self._login)
        while not self.closed and self._login is None:
            reply = self._read_body() if self._body is not None else self._read_line()
            if reply is None:
                break
            replies += reply
        store.counts["bytes_written"] += len(replies)
        return bytes(replies)

    def _authenticate(self, login: Login) -> bytes:
        """Return the last reply only, as the real server does for all requests of one read before the login."""
        last = b""
        while not login.done:
            reply = login.read(self._buffer)
            if reply is None:
                self._caller.closing = login.hung_up
                return last
            if login.tried:
                self._caller.server.store.counts["auth_cmds"] += 1
                self._caller.server.store.counts["auth_errors"] += not login.done
            last = reply
        self._login = None
        return last

    def _read_line(self) -> bytes | None:
        """Run the next command line. Returns None if it is not complete."""
        end = self._buffer.find(b"\n", self._no_newline_before)
        if end < 0:
            self._no_newline_before = len(self._buffer)
            self._caller.closing = len(self._buffer) > MAX_LINE and not self._may_be_long()
            return None
        # An empty line keeps its CR, and is then an unknown command of one byte.
        length = end - 1 if end > 1 and self._buffer[end - 1] == ord("\r") else end
        line = bytes(self._buffer[:length])
        del self._buffer[: end + 1]
        self._no_newline_before = 0
        return self._run(line)

    def _may_be_long(self) -> bool:
        start = self._buffer[:MAX_LINE].lstrip(b" ")
        indent = min(len(self._buffer), MAX_LINE) - len(start)
        return indent <= 100 and start.startswith((b"get ", b"gets "))

    def _run(self, line: bytes) -> bytes:
        tokens = [token for token in line.split(b"\0", 1)[0].split(b" ") if token]  # a NUL cuts the line
        if not tokens or len(tokens[0]) < 2:
            return ERROR
        name = tokens[0]
        self._caller.server.commands[name.decode("ascii", "replace")] += 1
        if (refusal := self._refusal(line)) is not None:
            return refusal
        command = self._commands.get(name)
        if command is None:
            self._caller.closing = self._caller.server.dialect.twemproxy or _is_http(tokens)
            return b"" if self.closed else ERROR
        outcome = self._outcome(command, tokens)
        if isinstance(outcome, bytes):
            return outcome
        self._body = outcome
        self._missing = outcome.size if outcome.discard else 0
        return b""

    def _refusal(self, line: bytes) -> bytes | None:
        """Return the reply to a command that this server refuses and memcached has. None if it is not refused."""
        server = self._caller.server
        for beginning, answer in server.refuse.items():
            if line.startswith(beginning.encode()):
                return answer.encode() + b"\r\n"
        if server.dialect.serverless and line.startswith((b"get ", b"gets ")) and len(line) > SERVERLESS_MAX_GET:
            self._caller.closing = True
            return b"CLIENT_ERROR line too long\r\n"
        return None

    def _outcome(self, command: Command, tokens: list[bytes]) -> bytes | Body:
        is_dead = self._caller.server.dead_backend
        answer = None if is_dead is None else answer_for_dead(self._caller, tokens, is_dead)
        return command(self._caller, tokens) if answer is None else answer

    def _read_body(self) -> bytes | None:
        """Finish the command whose payload is complete. Returns None if it is not."""
        body = self._body
        assert body is not None
        if body.discard:
            skipped = min(self._missing, len(self._buffer))
            del self._buffer[:skipped]
            self._missing -= skipped
            if self._missing:
                return None
            data = b""
        else:
            if len(self._buffer) < body.size:
                return None
            data = bytes(self._buffer[: body.size])
            del self._buffer[: body.size]
        self._body = None
        return body.finish(data)


def _commands(server: ServerState) -> dict[bytes, Command]:
    dialect = server.dialect
    if dialect.twemproxy:
        return _TWEMPROXY
    known = _CLASSIC if dialect.classic_only else _CLASSIC | _META
    if dialect.serverless:
        return {name: command for name, command in known.items() if name not in _NOT_SERVERLESS}
    return known


def _is_http(tokens: list[bytes]) -> bool:
    """Return True for a request of a browser. The server closes such a connection instead of sending an ERROR per line.

    The server checks this last, after the first letters and the length of its own commands.
    """
    name = tokens[0]
    own = name[:1] in {b"g", b"s", b"a", b"c", b"i", b"d", b"t"} or (name[:1] == b"m" and len(name) == 2)
    return not own and tokens[-1].startswith(b"HTTP/")


class Login:
    """Login of a server run with `-Y`: a `set` of any key whose value is `user password`."""

    def __init__(self, user: str, password: str) -> None:
        self.done = False
        self.tried = False
        """True if the last line or value was a login, right or wrong."""
        self.hung_up = False
        self._credentials = [user.encode(), password.encode()]
        self._missing: int | None = None  # bytes of the value with CR and LF, once its line is read

    def read(self, buffer: bytearray) -> bytes | None:
        """Take one line or value from the buffer and return the reply. None if more bytes are needed."""
        self.tried = False
        if self._missing is None:
            end = buffer.find(b"\n")
            if end < 0:
                self.hung_up = len(buffer) > MAX_LINE
                return None
            tokens = [token for token in bytes(buffer[:end]).split(b" ") if token]
            del buffer[: end + 1]
            size = read_uint32(tokens[4]) if len(tokens) > 4 and tokens[0] == b"set" else None
            if size is None:
                return b"CLIENT_ERROR unauthenticated\r\n"
            self._missing = size + 2
        if len(buffer) < self._missing:
            return None
        value = bytes(buffer[: self._missing])
        del buffer[: self._missing]
        self._missing = None
        if not value.endswith(b"\r\n"):
            return b"CLIENT_ERROR bad command line termination\r\n"
        credentials = [token for token in value[:-2].split(b" ") if token]
        if len(credentials) < 2:
            return b"CLIENT_ERROR bad authentication token format\r\n"
        self.tried = True
        self.done = credentials[:2] == self._credentials
        return b"STORED\r\n" if self.done else b"CLIENT_ERROR authentication failure\r\n"
