"""aiomcache's client, made safe to use with deadlines, cancellation and servers that go away.

What is inherited is aiomcache's shape: one request on one connection at a time, its commands, its exceptions. What is
overridden, and why, so that an override can go when a release fixes its reason:

- `_execute_simple_command`: when the server closed, aiomcache reads an empty line for ever, without giving the event loop
  a turn (aio-libs/aiomcache#502, PR #503). And a reply that does not fit the request is an error while the connection
  can still be thrown away, not after it has gone back.
- `_multi_get`: aiomcache takes a value for a key that was not asked for as a miss, and never looks for the line end behind
  a value. EOF is an error here at once (#502).
- `_storage_command`: aiomcache leaves out a CAS token of 0. The server then refuses the line and runs the *value* as
  commands.
- `stats`: limits (#91), and EOF.
- Every method that takes a key checks it before it takes a connection: aiomcache checks later, so that each bad key costs
  a connection. Keys are bytes of any kind but white space and controls; aiomcache wants UTF-8, and counts characters.
- The pool, for cancelled calls (#489) and the lack of limits (#91): see `evcache.zones.transport.classic.pool`.

Values with client flags other than 0 are `(value, flags)`: aiomcache can't read those of other clients at all.
There is no login: aiomcache has none.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiomcache
from aiomcache.client import acquire
from aiomcache.exceptions import ClientException, ValidationException
from aiomcache.pool import Connection

from evcache.zones.protocol.decoder import MAX_VALUE_BYTES
from evcache.zones.protocol.replies import Reply, leaves_connection_in_sync
from evcache.zones.protocol.requests import PROBE_KEY
from evcache.zones.transport.classic.pool import ClassicPool, Dial, PoolLimits
from evcache.zones.transport.classic.replies import Fetched, refusal
from evcache.zones.transport.classic.wire import OutOfStep

MAX_KEY_BYTES = 250  # memcached's limit
_MAX_DIGITS = 20  # of 2^64-1, the largest number that a server writes

_END = b"\r\n"
_STORES = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")
_STORE_REPLIES = frozenset({b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND"})
# What a server may answer, by the first word of the request; digits for `incr` and `decr`, see `_check_fits`.
_REPLIES: dict[bytes, frozenset[bytes]] = {
    **dict.fromkeys(_STORES, _STORE_REPLIES),
    b"delete": frozenset({b"DELETED", b"NOT_FOUND"}),
    b"touch": frozenset({b"TOUCHED", b"NOT_FOUND"}),
    b"incr": frozenset({b"NOT_FOUND"}),
    b"decr": frozenset({b"NOT_FOUND"}),
    b"flush_all": frozenset({b"OK"}),
}


class Refused(ClientException):
    """The server complained, in words after which nobody knows what it will read next. `line` has them."""

    def __init__(self, line: bytes) -> None:
        super().__init__("the server refused", line)
        self.line = line


class ClassicClient(aiomcache.FlagClient[tuple[bytes, int]]):
    """A client of one server (aiomcache knows no others, aio-libs/aiomcache#195). Made inside a running loop."""

    def __init__(
        self,
        dial: Dial,
        limits: PoolLimits,
        *,
        connect_timeout: float,
        on_server_end: Callable[[], None] | None = None,
        name: str = "a server",
    ) -> None:
        """`dial` opens a connection, of whichever kind: TCP, TLS, a unix socket. The rest as for `ClassicPool`."""
        super().__init__("", get_flag_handler=_with_flags, set_flag_handler=_with_its_flags)
        self._pool: ClassicPool = ClassicPool(
            dial, limits, connect_timeout=connect_timeout, greet=self._greet, on_server_end=on_server_end, name=name
        )

    @property
    def connections(self) -> int:
        """Open connections, in use and idle."""
        return self._pool.size()

    def drop_idle(self) -> None:
        """Close the connections that carry no request."""
        self._pool.drop_idle()

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        return self._pool.peers()

    def abort(self) -> None:
        """Close every connection now."""
        self._pool.close()

    # What aiomcache's own methods do not tell: the server's own words, and flags and CAS of several keys.

    async def fetch(self, keys: Sequence[bytes]) -> dict[bytes, Fetched]:
        """The items of these keys, all different, that there are. Raises aiomcache's errors and those of streams."""
        for key in keys:
            self._validate_key(key)
        if len(set(keys)) < len(keys):
            raise ValidationException("duplicate keys", keys)
        found = await self._fetch(keys)
        if isinstance(found, Refused):
            raise found
        return found

    @acquire
    async def _fetch(self, conn: Connection, keys: Sequence[bytes]) -> dict[bytes, Fetched] | Refused:
        # An error that is raised here costs the connection.
        async with self._pool.exchange(conn):
            conn.writer.write(b"gets %b\r\n" % b" ".join(keys))
            await conn.writer.drain()
            try:
                return await _read_items(conn, set(keys))
            except Refused as refused:
                # Of one key, SERVER_ERROR is the whole answer. Of several, memcached's proxy goes on to the END, and
                # twemproxy does not.
                if len(keys) > 1 or not refused.line.startswith(b"SERVER_ERROR"):
                    raise
                return refused

    async def fetch_or_each(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Fetched], dict[bytes, Reply]]:
        """Read keys with one request, and again with a request for each if the server answers it with `SERVER_ERROR`.

        Returns:
            The items that there are, and the `SERVER_ERROR` of each key that the server can't read.
        """
        try:
            return await self.fetch(keys), {}
        except Refused as refused:
            if not refused.line.startswith(b"SERVER_ERROR"):
                raise
        return await self.fetch_each(keys)

    async def fetch_each(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Fetched], dict[bytes, Reply]]:
        """Read keys with a request for each, all sent at once. Returns as `fetch_or_each`."""
        for key in keys:
            self._validate_key(key)
        return await self._fetch_each(keys)

    @acquire
    async def _fetch_each(self, conn: Connection, keys: Sequence[bytes]) -> tuple[dict[bytes, Fetched], dict[bytes, Reply]]:
        items: dict[bytes, Fetched] = {}
        failed: dict[bytes, Reply] = {}
        async with self._pool.exchange(conn):
            conn.writer.write(b"".join([b"gets %b\r\n" % key for key in keys]))
            await conn.writer.drain()
            for key in keys:
                try:
                    items.update(await _read_items(conn, {key}))
                except Refused as refused:
                    reply = refusal(refused.line)
                    if reply is None or reply.status != b"SERVER_ERROR":
                        raise
                    failed[key] = reply
        return items, failed

    async def _greet(self, conn: Connection) -> None:
        """Ask for something, and take any answer of a memcached or a proxy."""
        async with self._pool.exchange(conn):
            conn.writer.write(b"gets %b\r\n" % PROBE_KEY)
            await conn.writer.drain()
            try:
                await _read_items(conn, {PROBE_KEY})
            except Refused as refused:
                if not refused.line.startswith(b"SERVER_ERROR"):
                    raise

    async def store(
        self, verb: bytes, key: bytes, value: bytes, flags: int, exptime: int, *, cas: int | None = None
    ) -> bytes:
        """Store in any of the six ways; the server's answer, a refusal after which it is in step among them."""
        self._validate_key(key)
        return await self._store(verb, key, value, flags, exptime, cas)

    @acquire
    async def _store(
        self, conn: Connection, verb: bytes, key: bytes, value: bytes, flags: int, exptime: int, cas: int | None
    ) -> bytes:
        line = b"%b %b %d %d %d" % (verb, key, flags, exptime, len(value))
        if cas is not None:
            line += b" %d" % cas
        return await self._execute_simple_command(conn, b"%b\r\n%b\r\n" % (line, value))

    async def tell(self, verb: bytes, key: bytes, *numbers: int) -> bytes:
        """`delete`, `touch`, `incr` or `decr`; the server's answer."""
        self._validate_key(key)
        return await self._tell(b" ".join([verb, key, *(b"%d" % number for number in numbers)]))

    @acquire
    async def _tell(self, conn: Connection, line: bytes) -> bytes:
        return await self._execute_simple_command(conn, line + _END)

    # Overrides.

    def _validate_key(self, key: bytes) -> bytes:
        if not isinstance(key, bytes):
            raise ValidationException("key must be bytes", key)
        if not 0 < len(key) <= MAX_KEY_BYTES or any(byte <= 0x20 or byte == 0x7F for byte in key):
            raise ValidationException("invalid key", key)
        return key

    async def _execute_simple_command(self, conn: Connection, raw_command: bytes) -> bytes:
        async with self._pool.exchange(conn):
            conn.writer.write(raw_command)
            await conn.writer.drain()
            line = (await conn.reader.readuntil(_END))[: -len(_END)]
            _check_fits(raw_command[: raw_command.index(_END)].partition(b" ")[0], line)
        return line

    async def _multi_get(self, conn: Connection, *keys: bytes, with_cas: bool = True) -> Any:
        if not keys:
            return {}, {}
        wanted = set(keys)
        if len(wanted) < len(keys):
            raise ValidationException("duplicate keys", keys)
        async with self._pool.exchange(conn):
            conn.writer.write(b"%b %b\r\n" % (b"gets" if with_cas else b"get", b" ".join(keys)))
            await conn.writer.drain()
            items = await _read_items(conn, wanted, with_cas=with_cas)
        values = {key: (item.value, item.flags) if item.flags else item.value for key, item in items.items()}
        return values, {key: item.cas if with_cas else None for key, item in items.items()}

    async def _storage_command(
        self,
        conn: Connection,
        command: bytes,
        key: bytes,
        value: bytes | tuple[bytes, int],
        exptime: int = 0,
        cas: int | None = None,
    ) -> bool:
        if isinstance(exptime, bool) or not isinstance(exptime, int) or exptime < 0:
            raise ValidationException("exptime is not a number of seconds from 0", exptime)
        data, flags = _pair(value)
        line = b"%b %b %d %d %d" % (command, key, flags, exptime, len(data))
        if cas is not None:
            line += b" %d" % cas
        answer = await self._execute_simple_command(conn, b"%b\r\n%b\r\n" % (line, data))
        if answer not in _STORE_REPLIES:
            raise Refused(answer)
        return answer == b"STORED"

    @acquire
    async def stats(self, conn: Connection, args: bytes | None = None) -> dict[bytes, bytes | None]:
        """Statistics: of the whole server, or the group that `args` names."""
        known: dict[bytes, bytes | None] = {}
        async with self._pool.exchange(conn):
            conn.writer.write(b"stats\r\n" if args is None else b"stats %b\r\n" % args)
            await conn.writer.drain()
            while (line := await conn.reader.readuntil(_END)) != b"END\r\n":
                word, _, rest = line[: -len(_END)].partition(b" ")
                if word != b"STAT":
                    raise _complaint(line[: -len(_END)])
                name, _, value = rest.partition(b" ")
                known[name] = value or None
        return known


def _key_first(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The method, with its keys checked before it takes a connection."""

    @functools.wraps(method)
    async def checked(self: ClassicClient, *args: Any, **kwargs: Any) -> Any:
        keys: Sequence[Any] = args if method.__name__ == "multi_get" else args[:1] or (kwargs.get("key"),)
        for key in keys:
            self._validate_key(key)
        return await method(self, *args, **kwargs)

    return checked


_READERS = ("get", "gets", "multi_get")
_WRITERS = ("set", "add", "replace", "append", "prepend", "cas", "delete", "touch", "incr", "decr")
for _name in _READERS + _WRITERS:
    setattr(ClassicClient, _name, _key_first(getattr(aiomcache.FlagClient, _name)))


async def _with_flags(value: bytes, flags: int) -> tuple[bytes, int]:
    return value, flags


async def _with_its_flags(value: tuple[bytes, int]) -> tuple[bytes, int]:
    return value


def _pair(value: bytes | tuple[bytes, int]) -> tuple[bytes, int]:
    return (value, 0) if isinstance(value, bytes) else value


def _check_fits(verb: bytes, line: bytes) -> None:
    """Raise unless `line` is an answer to such a request, after which the server waits for the next."""
    if line in _REPLIES.get(verb, ()):
        return
    if verb in (b"incr", b"decr") and line.rstrip(b" ").isdigit() and len(line) <= _MAX_DIGITS:
        return
    if verb == b"version" and line.startswith(b"VERSION "):
        return
    complaint = refusal(line)
    if complaint is None or not leaves_connection_in_sync(complaint, payload=verb in _STORES):
        raise _complaint(line)


def _complaint(line: bytes) -> ClientException:
    return OutOfStep("not a reply to what was asked", line) if refusal(line) is None else Refused(line)


async def _read_items(conn: Connection, wanted: set[bytes], *, with_cas: bool = True) -> dict[bytes, Fetched]:
    """Read the answer to a `get` or `gets`, and take each key that has an item from `wanted`."""
    items: dict[bytes, Fetched] = {}
    while (line := await conn.reader.readuntil(_END)) != b"END\r\n":
        key, flags, size, cas = _value_line(line[: -len(_END)], with_cas=with_cas)
        if key not in wanted:
            raise OutOfStep("a value that was not asked for", line)
        wanted.discard(key)
        data = await conn.reader.readexactly(size + len(_END))
        if not data.endswith(_END):
            raise OutOfStep("no line end behind a value", line)
        items[key] = Fetched(data[: -len(_END)], flags, cas)
    return items


def _value_line(line: bytes, *, with_cas: bool) -> tuple[bytes, int, int, int]:
    """Return key, flags, size and CAS of a `VALUE` line; 0 for a CAS that was not asked for."""
    word, *rest = line.split(b" ")
    if word != b"VALUE" or len(rest) < (4 if with_cas else 3) or not all(map(_is_number, rest[1:])):
        raise _complaint(line)
    size = int(rest[2])
    if size > MAX_VALUE_BYTES:
        raise OutOfStep("a value over the limit", line)
    return rest[0], int(rest[1]), size, int(rest[3]) if with_cas else 0


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _MAX_DIGITS  # no more, or int() would work on a megabyte of digits
