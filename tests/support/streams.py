"""Servers that do as a test says, on loopback sockets, and ways to dial them."""

import asyncio
from contextlib import asynccontextmanager

from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.dialer import SocketDialer

SOON = 5.0  # seconds: a deadline that only a failing test reaches


class ScriptedServer:
    """Says what `script` has for each request line, in turn; a `bytes` is sent, CLOSE ends the connection, None is silence.

    Values that follow a line are lines too: a script for a store has two entries, or the first one answers it all.
    """

    CLOSE = object()

    def __init__(self, *script):
        self.script = list(script)
        self.lines = []
        self.heard = asyncio.Event()
        self.total = 0
        self.writers = set()
        self.gate = None  # an asyncio.Event that every new connection waits for

    async def serve(self, reader, writer):
        self.total += 1
        self.writers.add(writer)
        try:
            while line := await reader.readline():
                self.lines.append(line)
                self.heard.set()
                answer = self.script.pop(0) if self.script else None
                for part in answer if isinstance(answer, tuple) else (answer,):
                    if part is self.CLOSE:
                        return
                    if part is not None:
                        writer.write(part)
                        await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    @property
    def address(self):
        return "{}:{}".format(*self._listener.sockets[0].getsockname())

    @property
    def dial(self):
        return dialer(self.address)

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._listener.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await self._listener.wait_closed()
        await settled(lambda: not self.writers)


def dialer(address):
    """What a pool dials with."""
    endpoint = Endpoint.parse(address)

    async def dial(factory):
        return await SocketDialer()(endpoint, factory)

    return dial


async def settled(condition):
    """Turn the loop until it is so; the deadline is for a failing test only."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SOON
    while not condition():
        assert loop.time() < deadline, "it never came to that"
        await asyncio.sleep(0)


async def cancelled(task):
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def closing(client):
    """The client, closed at the end."""
    try:
        yield client
    finally:
        client.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
