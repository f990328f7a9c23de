"""Commands of the classic protocol over a pool of connections to one server.

aiomcache's client is not used, because it is unsafe with deadlines, cancellation and servers that close:

- When the server closes, aiomcache reads empty lines without end, and never yields to the event loop
  (aio-libs/aiomcache#502, PR #503). Here the end of the stream is an error at once.
- aiomcache returns a connection to its pool before it judges the reply. Here a reply that does not fit its request costs the
  connection.
- aiomcache takes a value for another key as a miss, and does not check the line end behind a value.
- aiomcache leaves out a CAS token of 0. The server then refuses the line and runs the *value* as commands.
- aiomcache checks a key after it has taken a connection, counts characters, and requires UTF-8. Here keys are bytes of any
  kind but white space and controls.
- aiomcache's pool returns connections of cancelled calls (#489), and has no time limits (#91). See `pool`.

Its exceptions and its pair of streams are used. There is no login, which the classic text protocol has only as an option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiomcache.exceptions import ClientException, ValidationException
from aiomcache.pool import Connection

from evcache.zones.protocol.decoder import MAX_VALUE_BYTES
from evcache.zones.protocol.replies import Reply, leaves_connection_in_sync
from evcache.zones.protocol.requests import PROBE_KEY
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.pool import ClassicPool, Dial, PoolLimits
from evcache.zones.transport.classic.replies import Fetched, refusal
from evcache.zones.transport.classic.wire import OutOfStep

MAX_KEY_BYTES = 250  # memcached's limit
_MAX_DIGITS = 20  # of 2^64-1, the largest number that a server writes

_END = b"\r\n"
_STORES = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")
# Replies that a server may give, by the first word of the request. `_check_fits` also takes digits for `incr` and `decr`.
_REPLIES: dict[bytes, frozenset[bytes]] = {
    **dict.fromkeys(_STORES, frozenset({b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND"})),
    b"delete": frozenset({b"DELETED", b"NOT_FOUND"}),
    b"touch": frozenset({b"TOUCHED", b"NOT_FOUND"}),
    b"incr": frozenset({b"NOT_FOUND"}),
    b"decr": frozenset({b"NOT_FOUND"}),
}


class Refused(ClientException):
    """Error line of a server. It does not tell whether the server has read the whole request."""

    def __init__(self, line: bytes) -> None:
        """Make the error. `line` is the error line without its end."""
        super().__init__("the server refused", line)
        self.line = line


class ClassicClient:
    """Client of one server. Methods raise aiomcache's errors, `OSError`, `EOFError` and `TimeoutError`.

    A request uses a connection alone until its reply is complete. A call that ends in any other way costs the connection.
    """

    def __init__(
        self,
        dial: Dial,
        limits: PoolLimits,
        *,
        connect_timeout: float,
        traffic: ByteCounter,
        on_server_end: Callable[[], None] | None = None,
        name: str = "a server",
    ) -> None:
        """Make a client inside a running event loop. It has no connection. The arguments are those of `ClassicPool`."""
        self._pool = ClassicPool(
            dial,
            limits,
            connect_timeout=connect_timeout,
            greet=_greet,
            traffic=traffic,
            on_server_end=on_server_end,
            name=name,
        )

    @property
    def connections(self) -> int:
        """Number of open connections, in use and idle."""
        return self._pool.size()

    def drop_idle(self) -> None:
        """Close the connections that carry no request."""
        self._pool.drop_idle()

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that its connections go to."""
        return self._pool.peers()

    def abort(self) -> None:
        """Close every connection now. Requests in flight end with an error."""
        self._pool.close()

    async def fetch(self, keys: Sequence[bytes]) -> dict[bytes, Fetched]:
        """Return the items of these keys, all different. A miss is a missing entry."""
        for key in keys:
            _check_key(key)
        if len(set(keys)) < len(keys):
            raise ValidationException("duplicate keys", keys)
        async with self._pool.lend() as streams:
            await _send(streams, b"gets %b\r\n" % b" ".join(keys))
            try:
                return await _read_items(streams, set(keys))
            except Refused as error:
                # For one key, SERVER_ERROR is the whole reply. For several, memcached's proxy continues to the END, and
                # twemproxy does not.
                if len(keys) > 1 or not error.line.startswith(b"SERVER_ERROR"):
                    raise
                refused = error
        raise refused  # outside: the connection stays

    async def fetch_or_each(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Fetched], dict[bytes, Reply]]:
        """Read keys with one request, and again with a request for each if the server answers it with `SERVER_ERROR`.

        Returns:
            The items, and the `SERVER_ERROR` of each key that the server cannot read.
        """
        try:
            return await self.fetch(keys), {}
        except Refused as refused:
            if not refused.line.startswith(b"SERVER_ERROR"):
                raise
        items: dict[bytes, Fetched] = {}
        failed: dict[bytes, Reply] = {}
        async with self._pool.lend() as streams:
            await _send(streams, b"".join([b"gets %b\r\n" % key for key in keys]))
            for key in keys:
                try:
                    items.update(await _read_items(streams, {key}))
                except Refused as refused:
                    reply = refusal(refused.line)
                    if reply is None or reply.status != b"SERVER_ERROR":
                        raise
                    failed[key] = reply
        return items, failed

    async def store(
        self, verb: bytes, key: bytes, value: bytes, flags: int, exptime: int, *, cas: int | None = None
    ) -> bytes:
        """Store in any of the six ways. Return the reply line, which may be an error that leaves the connection in sync."""
        _check_key(key)
        line = b"%b %b %d %d %d" % (verb, key, flags, exptime, len(value))
        if cas is not None:
            line += b" %d" % cas
        return await self._exchange(verb, b"%b\r\n%b\r\n" % (line, value))

    async def tell(self, verb: bytes, key: bytes, *numbers: int) -> bytes:
        """Send `delete`, `touch`, `incr` or `decr`. Return the reply line."""
        _check_key(key)
        return await self._exchange(verb, b" ".join([verb, key, *(b"%d" % number for number in numbers)]) + _END)

    async def version(self) -> bytes:
        """Return the version of the server."""
        return (await self._exchange(b"version", b"version\r\n")).removeprefix(b"VERSION ")

    async def stats(self, group: bytes) -> dict[bytes, bytes]:
        """Return the statistics of a group, such as `settings`. Statistics without a value are left out."""
        known: dict[bytes, bytes] = {}
        async with self._pool.lend() as streams:
            await _send(streams, b"stats %b\r\n" % group)
            while (line := await _read_line(streams)) != b"END":
                word, _, rest = line.partition(b" ")
                if word != b"STAT":
                    raise _complaint(line)
                name, _, value = rest.partition(b" ")
                if value:
                    known[name] = value
        return known

    async def _exchange(self, verb: bytes, request: bytes) -> bytes:
        """Send a request with a reply of one line, and return the line."""
        async with self._pool.lend() as streams:
            await _send(streams, request)
            line = await _read_line(streams)
            _check_fits(verb, line)
        return line


async def _greet(streams: Connection) -> None:
    """Read a key on a new connection. Any answer of a memcached or a proxy is good."""
    await _send(streams, b"gets %b\r\n" % PROBE_KEY)
    try:
        await _read_items(streams, {PROBE_KEY})
    except Refused as refused:
        if not refused.line.startswith(b"SERVER_ERROR"):
            raise


async def _send(streams: Connection, request: bytes) -> None:
    streams.writer.write(request)
    await streams.writer.drain()


async def _read_line(streams: Connection) -> bytes:
    return (await streams.reader.readuntil(_END))[: -len(_END)]


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes):
        raise ValidationException("key must be bytes", key)
    if not 0 < len(key) <= MAX_KEY_BYTES or any(byte <= 0x20 or byte == 0x7F for byte in key):
        raise ValidationException("invalid key", key)


def _check_fits(verb: bytes, line: bytes) -> None:
    """Raise unless `line` answers such a request, and the server then waits for the next one."""
    if line in _REPLIES.get(verb, ()):
        return
    if verb in (b"incr", b"decr") and line.rstrip(b" ").isdigit() and len(line) <= _MAX_DIGITS:
        return
    if verb == b"version" and line.startswith(b"VERSION "):
        return
    complaint = refusal(line)
    if complaint is None or not leaves_connection_in_sync(complaint, payload=verb in _STORES) or verb == b"version":
        raise _complaint(line)


def _complaint(line: bytes) -> ClientException:
    return OutOfStep("not a reply to the request", line) if refusal(line) is None else Refused(line)


async def _read_items(streams: Connection, wanted: set[bytes]) -> dict[bytes, Fetched]:
    """Read the reply to a `gets`, and remove each key that has an item from `wanted`."""
    items: dict[bytes, Fetched] = {}
    while (line := await _read_line(streams)) != b"END":
        key, flags, size, cas = _value_line(line)
        if key not in wanted:
            raise OutOfStep("a value of another key", line)
        wanted.discard(key)
        data = await streams.reader.readexactly(size + len(_END))
        if not data.endswith(_END):
            raise OutOfStep("no line end behind a value", line)
        items[key] = Fetched(data[: -len(_END)], flags, cas)
    return items


def _value_line(line: bytes) -> tuple[bytes, int, int, int]:
    """Return key, flags, size and CAS of a `VALUE` line."""
    word, *rest = line.split(b" ")
    if word != b"VALUE" or len(rest) < 4 or not all(map(_is_number, rest[1:])):
        raise _complaint(line)
    key, flags, size, cas = rest[0], int(rest[1]), int(rest[2]), int(rest[3])
    if size > MAX_VALUE_BYTES:
        raise OutOfStep("a value over the limit", line)
    return key, flags, size, cas


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _MAX_DIGITS  # int() of a megabyte of digits would block the event loop
