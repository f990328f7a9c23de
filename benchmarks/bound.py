"""Bound of a client on this event loop: what the loop and the socket cost, and nothing else.

Callers are divided into groups, and each group has its own connection to each node. The callers of a group that call within
one turn of the loop share one write of prepared bytes. They also share one future, so that one result wakes all of them.
Replies are only counted: the bound knows their number of bytes, and wakes a group when the last byte has arrived. Each run
tries several numbers of groups, because one group can use the time in which another waits for the server.

The bound leaves out everything that a client does for a call:

- It builds no request, and matches no reply with its caller.
- It neither reads a reply nor copies or decodes the value, and callers receive no value.
- It has neither a future nor a coroutine for each call.
- It has no timeouts, no limits and no errors.

Each caller's task, its wake-up and the system calls remain, because every client on this loop pays for them. A client whose
replies are resolved in C has these costs too. It can therefore approach the bound, and not pass it.

Values of 1 MB travel one at a time on each connection, because all of them do not fit into the processor's cache. Then all
callers of a group write the same key. They send the same bytes, as callers of other clients do.

Three things limit the claim. The server's time is part of each row, so a request that is cheaper for the server can win.
Bulk reads therefore ask with the classic `get`, which memcached answers 1.3 to 2.7 times as fast as `mg`. A row of its own
asks with `mg`, for clients that need more than a value. With one caller, the round trip prevails: the bound and the fastest
peers differ by less than noise. With values of 10 kB and more, the cost of copying between processes prevails. There another
order of writes and another number of connections may reach a little more than the bound.

Before a run of reads, the bound stores the values, asks once and compares each reply byte by byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial

from benchmarks.measuring import BOUND, BOUND_META, Run, WrongAnswerError
from benchmarks.peers import TTL_SECONDS
from benchmarks.works import LARGE, Work

BUFFER_BYTES = 1024 * 1024
GROUPS = {1: (1,), 32: (1, 2, 8, 32), 256: (1, 2, 4, 8)}
"""Numbers of groups that a run tries, by callers."""

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]


class Wire(asyncio.BufferedProtocol):
    """Connection that counts the bytes of replies.

    Args:
        requests: Requests of the callers of the group, or one request that all of them send.
        request_bytes: Length of the request of one caller.
        reply_bytes: Length of the replies to one caller.
        at_once: Callers whose requests are sent before the connection waits for their replies.
    """

    def __init__(self, requests: bytes, request_bytes: int, reply_bytes: int, at_once: int) -> None:
        self.requests = memoryview(requests)
        self.request_bytes, self.reply_bytes, self.at_once = request_bytes, reply_bytes, at_once
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.callers = 0
        self.sent = 0
        self.missing = 0
        self.group: Group | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def send(self, callers: int) -> None:
        """Send the requests of this number of callers."""
        self.callers, self.sent = callers, 0
        self.go_on()

    def go_on(self) -> None:
        """Send the next part of them."""
        first, self.sent = self.sent, min(self.sent + self.at_once, self.callers)
        callers = self.sent - first
        self.missing = callers * self.reply_bytes
        start = first * self.request_bytes % len(self.requests)
        self.write(self.requests[start : start + callers * self.request_bytes])

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the event loop's
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.missing -= nbytes
        if self.missing > 0:
            return
        if self.sent < self.callers and not self.missing:
            self.go_on()
        elif self.group is not None:
            self.group.finish(right=not self.missing)


class Group:
    """Callers that travel together."""

    def __init__(self, wires: list[Wire]) -> None:
        self.wires = wires
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bool] = self.loop.create_future()
        self.in_flight = self.future
        self.asked = 0
        self.missing = 0
        self.flushes = False
        for wire in wires:
            wire.group = self

    def ask(self) -> asyncio.Future[bool]:
        """Return the future of the next replies."""
        self.asked += 1
        if not self.flushes:
            self.flushes = True
            self.loop.call_soon(self.flush)
        return self.future

    def flush(self) -> None:
        """Send the requests of all callers that have asked."""
        asked, self.asked = self.asked, 0
        if not asked:
            self.flushes = False
            return
        self.in_flight, self.future = self.future, self.loop.create_future()
        self.missing = len(self.wires)
        for wire in self.wires:
            wire.send(asked)

    def finish(self, *, right: bool) -> None:
        """Wake the callers when each connection has all of its replies."""
        if not right:
            self.in_flight.set_exception(WrongAnswerError(BOUND))
            return
        self.missing -= 1
        if not self.missing:
            self.in_flight.set_result(True)
            # It runs behind the callers that wake up, in the same turn of the loop, and sends what they ask.
            self.loop.call_soon(self.flush)


def variants(work: Work, *, meta: bool = False) -> dict[str, Opener] | str:
    """With several numbers of groups. The bound of a near hit is a lookup in a dict. `meta`: bulk reads ask with `mg`."""
    if meta and work.kind != "get_many":
        return "differs in bulk reads alone"
    if work.kind == "near hit":
        return {"": _dict}
    if work.kind == "get miss" and work.zones > 1:
        return "asks one zone"
    return {
        f"{groups} group{'' if groups == 1 else 's'}": partial(_bound, groups=groups, meta=meta)
        for groups in GROUPS[work.callers]
    }


async def _dict(stack: AsyncExitStack, work: Work, ports: list[int]) -> Run:
    del stack, ports
    store = dict.fromkeys(work.names, work.value)

    async def get(key: str) -> bytes | None:
        return store.get(key)

    return Run(BOUND, [partial(get, name) for name in work.names], values=lambda answer: [answer])


async def _bound(stack: AsyncExitStack, work: Work, ports: list[int], *, groups: int, meta: bool) -> Run:
    loop = asyncio.get_running_loop()
    ports = ports[: work.zones * work.nodes]
    keys = [b"bound:" + name.encode() for name in work.names]
    calls: list[Callable[[], Awaitable[bool]]] = []
    for number in range(groups):
        callers = len(range(number, work.callers, groups))
        wires: list[Wire] = []
        for index, port in enumerate(ports):
            share = keys[index % work.nodes :: work.nodes] if work.is_bulk else keys[number::groups]
            requests, replies = _of_many(work, share, callers, meta) if work.is_bulk else _of_one_each(work, share)
            request_bytes, reply_bytes = len(requests) // callers, len(replies) // callers
            if not work.is_write:
                await _compare(port, _stores(work, share), b"HD\r\n" * len(share))
                await _compare(port, requests, replies)
            elif work.size == LARGE:
                requests = requests[:request_bytes]
            opener = partial(Wire, requests, request_bytes, reply_bytes, 1 if work.size == LARGE else callers)
            transport, wire = await loop.create_connection(opener, "127.0.0.1", port)
            stack.callback(transport.close)
            wires.append(wire)
        calls += [Group(wires).ask] * callers
    written = [(port, keys[0]) for port in ports[:: work.nodes]] if work.is_write else []
    return Run(BOUND_META if meta else BOUND, calls, written=written)


async def _compare(port: int, requests: bytes, expected: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(requests)
        received = 0
        while received < len(expected):
            part = await reader.read(len(expected) - received)
            if not part or part != expected[received : received + len(part)]:
                raise WrongAnswerError(f"{BOUND}: another reply")
            received += len(part)
    finally:
        writer.close()


def _of_one_each(work: Work, keys: list[bytes]) -> tuple[bytes, bytes]:
    """Return the requests of callers with one key each, and the replies."""
    if work.kind == "set":
        return _stores(work, keys), b"HD\r\n" * len(keys)
    if work.kind == "get miss":
        return b"".join(b"mg %b:none v\r\n" % key for key in keys), b"EN\r\n" * len(keys)
    return b"".join(b"mg %b v\r\n" % key for key in keys), _hit(work) * len(keys)


def _of_many(work: Work, keys: list[bytes], callers: int, meta: bool) -> tuple[bytes, bytes]:  # noqa: FBT001  # private
    """Return the requests of callers that all have these keys, and the replies."""
    if work.kind == "set_many":
        return (_stores(work, keys, b" q") + b"mn\r\n") * callers, b"MN\r\n" * callers
    if meta:
        request = b"".join(b"mg %b v q\r\n" % key for key in keys) + b"mn\r\n"
        return request * callers, (_hit(work) * len(keys) + b"MN\r\n") * callers
    reply = b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, work.size, work.value) for key in keys) + b"END\r\n"
    return (b"get %b\r\n" % b" ".join(keys)) * callers, reply * callers


def _stores(work: Work, keys: Iterable[bytes], flags: bytes = b"") -> bytes:
    return b"".join(b"ms %b %d T%d%b\r\n%b\r\n" % (key, work.size, TTL_SECONDS, flags, work.value) for key in keys)


def _hit(work: Work) -> bytes:
    return b"VA %d\r\n%b\r\n" % (work.size, work.value)
