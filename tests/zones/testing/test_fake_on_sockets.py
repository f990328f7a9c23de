"""Connections to the fake memcached through sockets."""

import asyncio
import gc

import pytest

from tests.support.fake_server import Recorder, make_server, settle

# --- on sockets ---------------------------------------------------------------------------------------------------


async def ask(reader, writer, request: bytes, reply: bytes) -> None:
    writer.write(request)
    async with asyncio.timeout(5):
        assert await reader.readexactly(len(reply)) == reply


def test_socket_stop_and_start_on_the_same_port():
    async def main():
        fake = make_server()
        await fake.start()
        address, port = fake.address, fake.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(reader, writer, b"ms a 1\r\nx\r\n", b"HD\r\n")
        assert (fake.connections, fake.connections_total) == (1, 1)
        with pytest.raises(RuntimeError, match="already"):
            await fake.start()
        await fake.stop()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

        await fake.start(port=port)
        assert fake.address == address
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(reader, writer, b"mg a v\r\n", b"VA 1\r\nx\r\n")
        await fake.stop()
        await fake.stop()
        writer.close()

    asyncio.run(main())
    gc.collect()  # a forgotten socket would warn here


def test_socket_kill_resets():
    async def main():
        fake = make_server()
        await fake.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
        await ask(reader, writer, b"ms a 1\r\nx\r\n", b"HD\r\n")
        await fake.kill()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert (len(fake.store), fake.connections) == (0, 0)
        await fake.start(port=fake.port)
        await fake.stop()

    asyncio.run(main())


def test_socket_that_is_accepted_while_the_server_stops_is_closed():
    async def main():
        for _ in range(20):
            fake = make_server()
            await fake.start()
            connecting = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", fake.port))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await fake.kill()
            try:
                async with asyncio.timeout(5):
                    reader, writer = await connecting
                    writer.write(b"mn\r\n")
                    assert await reader.read() == b""
                    writer.close()
            except ConnectionError:
                pass
            assert fake.connections == 0

    asyncio.run(main())


def test_socket_pause_and_resume():
    async def main():
        async with make_server() as fake:
            reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
            await ask(reader, writer, b"mn\r\n", b"MN\r\n")
            fake.pause()
            writer.write(b"ms a 1\r\nx\r\nmn\r\n")
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", fake.port)
            other_writer.write(b"ms b 1\r\nx\r\n")
            await other_writer.drain()
            other_writer.close()
            await other_writer.wait_closed()
            while fake.connections_total < 2:
                await asyncio.sleep(0)
            assert len(fake.store) == 0
            fake.resume()
            async with asyncio.timeout(5):
                assert await reader.readexactly(8) == b"HD\r\nMN\r\n"
                while b"b" not in fake.store or fake.connections > 1:
                    await asyncio.sleep(0)
            writer.close()

    asyncio.run(main())


def test_socket_paused_server_takes_only_so_much():
    """The client's own buffer fills up behind a server that does not answer, as behind a stopped process."""

    async def main():
        async with make_server() as fake:
            reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
            await ask(reader, writer, b"mn\r\n", b"MN\r\n")
            fake.pause()
            writer.write(b"ms a 1000000 q\r\n%b\r\n" % (b"v" * 1_000_000) * 20 + b"mn\r\n")
            drained = asyncio.ensure_future(writer.drain())
            await settle()
            assert not drained.done()
            fake.resume()
            async with asyncio.timeout(30):
                assert await reader.readexactly(4) == b"MN\r\n"
                await drained
            writer.close()

    asyncio.run(main())


def test_unix_socket(tmp_path):
    async def main():
        fake = make_server()
        path = str(tmp_path / "fake.sock")
        for _ in range(2):
            await fake.start_unix(path)
            assert fake.address == f"unix:{path}"
            reader, writer = await asyncio.open_unix_connection(path)
            await ask(reader, writer, b"mn\r\n", b"MN\r\n")
            await fake.kill()
            writer.close()
            with pytest.raises(OSError):
                await asyncio.open_unix_connection(path)

    asyncio.run(main())


def test_stop_closes_connections_whose_client_does_not_read():
    async def main():
        fake = make_server()
        await fake.start()
        _, writer = await asyncio.open_connection("127.0.0.1", fake.port, limit=1)
        writer.write(b"ms a 1000000\r\n" + b"v" * 1_000_000 + b"\r\n" + b"mg a v\r\n" * 50)
        while fake.commands["mg"] < 50:
            await asyncio.sleep(0)
        await fake.stop()
        assert fake.connections == 0
        writer.transport.abort()

    asyncio.run(main())


def test_nothing_is_left_behind():
    async def main():
        before = asyncio.all_tasks()
        async with make_server() as fake:
            await fake.connect(Recorder)
            _, writer = await asyncio.open_connection("127.0.0.1", fake.port)
            writer.close()
        assert asyncio.all_tasks() == before

    asyncio.run(main())
    gc.collect()


def test_address_is_known_after_start():
    with pytest.raises(RuntimeError, match="not been started"):
        _ = make_server().address
