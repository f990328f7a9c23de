"""A server and a client on both sides of a fault proxy."""

import asyncio
import contextlib
import gc

from evcache.zones.testing.fault_proxy.proxy import FaultProxy

AN_HOUR = 3600
LIMIT = 5  # seconds after which a test that hangs is ended


class Echo:
    """The server; it notes what it was sent, all connections together."""

    def __init__(self):
        self.got = bytearray()
        self.ends = 0
        self.writers = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = address_of(self.server.sockets[0])
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.server.wait_closed()
        await until(lambda: not self.writers)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    self.got += data
                    writer.write(data)
                self.ends += 1
        finally:
            writer.close()
            self.writers.discard(writer)


class Client(asyncio.Protocol):
    """Keeps the chunks it received apart, and says how the connection ended."""

    def __init__(self):
        self.chunks = []
        self.ended = None
        self._news = asyncio.Event()

    @classmethod
    async def connect(cls, address):
        host, port = address.split(":")
        transport, client = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        client.transport = transport
        return client

    @property
    def got(self):
        return b"".join(self.chunks)

    def send(self, data):
        self.transport.write(data)

    def data_received(self, data):
        self.chunks.append(data)
        self._news.set()

    def connection_lost(self, exc):
        self.ended = "reset" if isinstance(exc, ConnectionResetError) else exc or "end"
        self._news.set()

    async def receive(self, data):
        """Wait until exactly this has arrived since the last call."""
        while sum(map(len, self.chunks)) < len(data):
            assert self.ended is None, (self.ended, self.got)
            self._news.clear()
            await self._news.wait()
        assert self.got == data
        self.chunks = []

    async def end(self):
        while self.ended is None:
            self._news.clear()
            await self._news.wait()
        return self.ended


def address_of(listener):
    return "{}:{}".format(*listener.getsockname())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def turns_of_the_loop(number=50):
    """Let the loop do all that it can do without time passing."""
    for _ in range(number):
        await asyncio.sleep(0)


def run(scenario, clients=1):
    """Run `scenario(proxy, echo, *clients)`; afterwards no task and no socket may be left."""

    async def main():
        async with asyncio.timeout(LIMIT), Echo() as echo, FaultProxy(echo.address) as proxy:
            connected = [await Client.connect(proxy.address) for _ in range(clients)]
            try:
                await scenario(proxy, echo, *connected)
            finally:
                for client in connected:
                    client.transport.abort()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(main())
    gc.collect()  # an unclosed socket or transport is a ResourceWarning, and so an error
