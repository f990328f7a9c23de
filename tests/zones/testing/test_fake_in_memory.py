"""Connections to the fake memcached in memory."""

import asyncio

import pytest

from tests.support.fake_server import Recorder, make_server, settle


def test_memory_pause_and_resume():
    """A paused server takes requests, answers none, and stops the writer when much is waiting."""

    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        fake.pause()
        assert fake.paused
        transport.write(b"mn\r\n")
        await settle()
        assert (protocol.data, transport.get_write_buffer_size(), protocol.events) == (b"", 4, ["made"])
        transport.writelines([b"mg a q\r\n" * 10_000, b"mn\r\n"])
        assert protocol.events == ["made", "pause"]
        fake.resume()
        await settle()
        assert (protocol.data, transport.get_write_buffer_size()) == (b"MN\r\nMN\r\n", 0)
        assert protocol.events == ["made", "pause", "resume"]
        transport.close()
        await settle()
        assert protocol.events[-1] == "lost"
        assert fake.connections == 0

    asyncio.run(main())


def test_memory_requests_of_a_client_that_left_are_still_run():
    async def main():
        fake = make_server()
        fake.pause()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"ms a 1\r\nx\r\n")
        transport.abort()
        await settle()
        assert (protocol.events, fake.connections) == (["made", "lost"], 1)
        fake.resume()
        await settle()
        assert b"a" in fake.store
        assert (protocol.data, fake.connections, fake.connections_total) == (b"", 0, 1)

    asyncio.run(main())


def test_memory_close_delivers_what_was_written():
    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"ms a 1\r\nx\r\n")
        transport.close()
        transport.write(b"ms b 1\r\nx\r\n")
        assert transport.is_closing()
        await settle()
        assert list(fake.store) == [b"a"]
        assert (protocol.events, protocol.data) == (["made", "lost"], b"")

    asyncio.run(main())


def test_memory_quit_ends_the_stream():
    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"mn\r\nquit\r\n")
        await settle()
        assert (protocol.data, protocol.events) == (b"MN\r\n", ["made", "eof", "lost"])
        assert fake.connections == 0

    asyncio.run(main())


def test_memory_client_that_does_not_read_is_not_read_from():
    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"ms a 1000\r\n" + b"v" * 1000 + b"\r\n")
        await settle()
        transport.pause_reading()
        assert not transport.is_reading()
        for _ in range(20):
            transport.write(b"mg a v\r\n" * 1000)
            await settle()
        assert protocol.data == b"HD\r\n"
        assert "pause" in protocol.events
        transport.resume_reading()
        while protocol.events[-1] != "resume":
            await settle()
        transport.abort()
        await settle()
        await fake.stop()

    asyncio.run(main())


def test_memory_write_buffer_limits():
    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=10)
        fake.pause()
        transport.write(b"mn\r\nmn\r\nmn\r\n")
        assert protocol.events == ["made", "pause"]
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)
        with pytest.raises(TypeError):
            transport.write("text")
        await fake.stop()

    asyncio.run(main())


def test_memory_kill_and_revive():
    """kill() resets connections and loses the items; stop() ends them in order and keeps the items."""

    async def main():
        fake = make_server()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"ms a 1\r\nx\r\n")
        await settle()
        await fake.kill()
        assert protocol.events == ["made", "ConnectionResetError"]
        assert (len(fake.store), fake.connections) == (0, 0)
        with pytest.raises(ConnectionRefusedError):
            await fake.connect(Recorder)

        fake.revive()
        transport, protocol = await fake.connect(Recorder)
        transport.write(b"ms a 1\r\nx\r\n")
        await settle()
        await fake.stop()
        await fake.stop()
        assert protocol.events == ["made", "eof", "lost"]
        assert len(fake.store) == 1
        with pytest.raises(ConnectionRefusedError):
            await fake.connect(Recorder)

    asyncio.run(main())


def test_memory_error_in_connection_made_is_the_callers():
    class Broken(asyncio.Protocol):
        def connection_made(self, transport):
            raise KeyError("broken")

    async def main():
        fake = make_server()
        with pytest.raises(KeyError):
            await fake.connect(Broken)
        await settle()
        assert fake.connections == 0

    asyncio.run(main())


def test_memory_works_with_buffered_protocols():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.data = b""
            self.events = []

        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, sizehint):
            self.buffer = bytearray(7)
            return self.buffer

        def buffer_updated(self, nbytes):
            self.data += self.buffer[:nbytes]

        def eof_received(self):
            self.events.append("eof")

        def connection_lost(self, exc):
            self.events.append("lost")

    async def main():
        transport, protocol = await make_server().connect(Buffered)
        transport.write(b"ms a 20\r\n01234567890123456789\r\nmg a v\r\nquit\r\n")
        await settle()
        assert protocol.data == b"HD\r\nVA 20\r\n01234567890123456789\r\n"
        assert protocol.events == ["eof", "lost"]

    asyncio.run(main())


def test_memory_works_with_streams():
    async def main():
        fake = make_server()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await fake.connect(lambda: asyncio.StreamReaderProtocol(reader))
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        writer.write(b"ms a 1\r\nx\r\nmg a v\r\n")
        await writer.drain()
        assert await reader.readexactly(13) == b"HD\r\nVA 1\r\nx\r\n"
        assert writer.get_extra_info("peername") == ("memory", 0)
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
