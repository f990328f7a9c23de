"""The least that a pipelined client in Python can do: nothing can be much faster on the same event loop.

Request bytes are made beforehand. Replies are not looked at: they all have the same length, so counting bytes tells how many
there were. There is nothing else, no timeouts, no limits, no errors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from benchmarks.measuring import Run
from benchmarks.peers import TTL_SECONDS
from benchmarks.works import Work

BUFFER_BYTES = 256 * 1024

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]


class Wire(asyncio.BufferedProtocol):
    """One connection, whose replies all have the same length."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.waiting: deque[Waiting] = deque()
        self.out: list[bytes] = []
        self.reply_bytes = 0
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def ask(self, request: bytes, waiting: Waiting) -> None:
        """Send it with all others of this tick."""
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(request)
        self.waiting.append(waiting)

    def flush(self) -> None:
        self.write(b"".join(self.out))
        self.out.clear()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the event loop's
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        while self.received >= self.reply_bytes:
            self.received -= self.reply_bytes
            self.waiting.popleft().answered()


class Waiting:
    """Call that waits for a given number of replies."""

    __slots__ = ("future", "replies")

    def __init__(self, future: asyncio.Future[bool], replies: int) -> None:
        self.future = future
        self.replies = replies

    def answered(self) -> None:
        self.replies -= 1
        if not self.replies:
            self.future.set_result(True)


def variants(work: Work) -> dict[str, Opener] | str:
    """Return the least possible implementation. For a near hit that is a lookup in a dict."""
    if work.kind == "get miss" and work.zones > 1:
        return "asks one zone"
    return {"": _dict if work.kind == "near hit" else _floor}


async def _dict(stack: AsyncExitStack, work: Work, ports: list[int]) -> Run:
    del stack, ports
    store = dict.fromkeys(work.names, work.value)

    async def get(key: str) -> bytes | None:
        return store.get(key)

    return Run("floor", [partial(get, name) for name in work.names], values=lambda answer: [answer])


async def _floor(stack: AsyncExitStack, work: Work, ports: list[int]) -> Run:
    loop = asyncio.get_running_loop()
    wires: list[Wire] = []
    for port in ports[: work.zones * work.nodes]:
        transport, wire = await loop.create_connection(Wire, "127.0.0.1", port)
        stack.callback(transport.close)
        wires.append(wire)
    value, size = work.value, work.size
    keys = [b"floor:" + name.encode() for name in work.names]
    shares = [keys[number :: len(wires)] for number in range(len(wires))] if work.kind == "get_many" else [keys] * len(wires)
    stores = [[b"ms %b %d T%d\r\n%b\r\n" % (key, size, TTL_SECONDS, value) for key in share] for share in shares]
    for wire in wires:
        wire.reply_bytes = len(b"HD\r\n")

    async def ask(requests: list[tuple[Wire, bytes]]) -> bool:
        future = loop.create_future()
        waiting = Waiting(future, len(requests))
        for wire, request in requests:
            wire.ask(request, waiting)
        return await future

    if work.kind == "set":
        calls = [partial(ask, list(zip(wires, requests, strict=True))) for requests in zip(*stores, strict=True)]
        return Run("floor", calls, written=[(port, keys[0]) for port in ports[: work.zones]])
    for wire, requests in zip(wires, stores, strict=True):
        for request in requests:
            await ask([(wire, request)])
    hit = len(b"VA %d\r\n" % size) + size + len(b"\r\n")
    if work.kind == "get_many":
        for wire, share in zip(wires, shares, strict=True):
            wire.reply_bytes = hit * len(share) + len(b"MN\r\n")
        batches = [b"".join(b"mg %b v q\r\n" % key for key in share) + b"mn\r\n" for share in shares]
        return Run("floor", [partial(ask, list(zip(wires, batches, strict=True)))] * work.callers)
    wires[0].reply_bytes = hit if work.kind == "get hit" else len(b"EN\r\n")
    end = b"" if work.kind == "get hit" else b":none"
    return Run("floor", [partial(ask, [(wires[0], b"mg %b%b v\r\n" % (key, end))]) for key in keys])
