"""Administration of a server over a connection of its own, on servers of the tests."""

import asyncio
import time

import pytest

from evcache.zones.admin import session as session_module
from evcache.zones.admin.key_list import ListedKey, parse_metadump
from evcache.zones.admin.session import AdminSession, open_session
from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable, ProtocolError, ServerError, Unsupported
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from tests.support.virtual_time import in_virtual_time, now

SETTINGS = NodeSettings(connect_timeout=5.0)


def run(work, *, settings=SETTINGS, **options):
    """Run `work(session, server)` on a session with a server of these options, and return its result."""

    async def main():
        server = FakeMemcached(**options)
        await server.start()
        try:
            async with open_session(Endpoint.parse(server.address), settings) as session:
                return await work(session, server)
        finally:
            await server.stop()

    return asyncio.run(main())


def items(server, number, *, size=1):
    for place in range(number):
        server.session().receive(b"set ns:%d 5 100 %d\r\n%b\r\n" % (place, size, b"x" * size))


async def keys_of(session):
    chunks = []
    await session.list_keys(chunks.append)
    lines = b"".join(chunks).split(b"\n")
    assert lines.pop().rstrip() in (b"", b"END")
    return [parse_metadump(line) for line in lines if line.rstrip() != b"END"]


def test_statistics_and_settings_are_numbers():
    async def work(session, server):
        items(server, 3)
        return await session.version(), await session.statistics(), await session.settings()

    version, statistics, settings = run(work, item_size_max=4096, max_connections=77, max_bytes=64 << 20)
    assert version == "1.6.38"
    assert (statistics.curr_items, statistics.max_connections, statistics.limit_maxbytes) == (3, 77, 64 << 20)
    assert abs(statistics.time - time.time()) < 60
    assert (settings.item_size_max, settings.maxconns, settings.dump_enabled, settings.ssl_enabled) == (
        4096,
        77,
        True,
        False,
    )


def test_statistics_that_a_server_lacks_are_none():
    async def work(session, _):
        return await session.settings(), (await session.statistics()).hit_ratio

    settings, ratio = run(work, version="1.6.18")
    assert settings.proxy_enabled is None
    assert ratio is None


@pytest.mark.parametrize("number", [0, 1, 5_000])
def test_the_list_of_keys_has_each_key_once(number):
    async def work(session, server):
        items(server, number)
        return await keys_of(session), await session.version()

    found, version = run(work)
    assert sorted(item.key for item in found) == sorted(b"ns:%d" % place for place in range(number))
    assert all(item.flags == 5 and 0 <= item.expires_at - time.time() <= 101 for item in found)
    assert version == "1.6.38", "the session answers after a list"


LIST = b"key=a exp=-1 la=1 cas=1 fetch=no cls=1 size=64\nkey=b exp=-1 la=1 cas=2 fetch=no cls=1 size=64\nEND\r\n"


class Wire:
    """Transport that drops what is written."""

    def write(self, data):
        pass


@pytest.mark.parametrize("place", range(len(LIST)))
def test_the_list_of_keys_may_arrive_in_any_pieces(place):
    async def main():
        reader = asyncio.StreamReader()
        session = AdminSession("node", reader, Wire(), 5.0)
        pieces = []
        listing = asyncio.create_task(session.list_keys(pieces.append))
        reader.feed_data(LIST[:place])
        for _ in range(5):
            await asyncio.sleep(0)
        assert not listing.done()
        reader.feed_data(LIST[place:])
        await listing
        assert b"".join(pieces) == LIST

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"may_list_keys": False}, Unsupported),
        ({"serverless": True}, Unsupported),
        ({"refuse": {"lru_crawler": "BUSY currently processing crawler request"}}, ServerError),
    ],
    ids=["option -X", "serverless", "busy"],
)
def test_a_refused_list_of_keys_raises_and_passes_nothing_on(options, error):
    passed = []

    async def work(session, _):
        with pytest.raises(error):
            await session.list_keys(passed.append)

    run(work, **options)
    assert passed == []


def test_a_sample_has_the_keys_used_last():
    async def work(session, server):
        items(server, 100)
        return await session.sample_keys(10), await session.sample_keys(1000)

    some, every = run(work)
    assert some == [b"ns:%d" % place for place in range(99, 89, -1)]
    assert len(every) == 100


@pytest.mark.parametrize("version", ["1.6.18", "1.6.38"])
def test_cas_numbers_are_those_of_present_items_and_no_read_is_counted(version):
    async def work(session, server):
        items(server, 2)
        found = await session.cas_numbers([b"ns:1", b"ns:7", b"ns:0"])
        return found, await session.statistics()

    found, statistics = run(work, version=version)
    assert found == {b"ns:1": 2, b"ns:0": 1}
    assert (statistics.get_hits, statistics.get_misses) == (0, 0)


def test_refused_cas_numbers_are_an_error_and_the_session_answers_afterwards():
    async def work(session, _):
        with pytest.raises(ServerError):
            await session.cas_numbers([b"a", b"b"])
        return await session.version()

    assert run(work, serverless=True) == "1.6.38"


def test_a_login_is_sent_to_a_server_that_asks_for_it():
    async def work(session, _):
        return (await session.statistics()).curr_items

    assert run(work, auth=("ada", "secret"), settings=NodeSettings(auth=("ada", "secret"))) == 0


def test_a_login_is_not_sent_to_a_server_that_asks_for_none():
    async def work(session, server):
        return await session.version(), list(server.commands)

    assert run(work, settings=NodeSettings(auth=("ada", "secret"))) == ("1.6.38", ["version"])


@pytest.mark.parametrize("auth", [None, ("ada", "wrong")])
def test_a_missing_or_wrong_login_is_an_error(auth):
    async def work(_session, _server):
        raise AssertionError("the session must not open")

    with pytest.raises(NodeUnavailable, match="login"):
        run(work, auth=("ada", "secret"), settings=NodeSettings(auth=auth))


def test_nothing_listens_is_an_error_of_the_node():
    async def main():
        async with open_session(Endpoint.parse("127.0.0.1:1"), SETTINGS):
            raise AssertionError("the session must not open")

    with pytest.raises(NodeUnavailable):
        asyncio.run(main())


@pytest.mark.parametrize("reply", [b"", b"STAT pid 1\r\nSTAT upt"])
def test_a_server_that_closes_in_a_reply_is_an_error(reply):
    async def main():
        async def serve(reader, writer):
            await reader.readline()
            writer.write(b"VERSION 1.6.38\r\n")
            await reader.readline()
            writer.write(reply)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with open_session(Endpoint.parse(f"127.0.0.1:{port}"), SETTINGS) as session:
                with pytest.raises(ConnectionLost):
                    await session.stats()
        finally:
            server.close()

    asyncio.run(main())


def test_a_server_without_a_reply_times_out_and_the_connection_is_closed():
    async def main():
        ended = asyncio.Event()

        async def serve(reader, writer):
            await reader.read()
            writer.close()
            ended.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(NodeTimeout):
                async with open_session(Endpoint.parse(f"127.0.0.1:{port}"), NodeSettings(connect_timeout=0.05)):
                    raise AssertionError("the session must not open")
            await asyncio.wait_for(ended.wait(), 5)
        finally:
            server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b"key=a%3Ab exp=-1 la=5 cas=7 fetch=no cls=1 size=64", ListedKey(b"a:b", None, 7, 64, None)),
        (b"key=a exp=1795984489 la=5 cas=2 fetch=no cls=1 size=68 flags=7 \r", ListedKey(b"a", 1795984489, 2, 68, 7)),
        (b"OK", None),
    ],
)
def test_a_line_of_each_release_is_read(line, item):
    assert parse_metadump(line) == item


@pytest.mark.parametrize("version", ["1.6.38", "1.4.39"])
def test_a_ping_is_answered_by_each_protocol_and_the_session_goes_on(version):
    async def work(session, _):
        await session.ping()
        await session.ping()
        return await session.version()

    assert run(work, version=version) == version


def test_a_ping_without_an_answer_ends_with_its_time():
    async def work(session, server):
        server.pause()
        await session.ping()

    with pytest.raises(NodeTimeout, match=r"no reply in 0\.2 s"):
        run(work, settings=NodeSettings(connect_timeout=0.2))


def run_scripted(work, reply, *, timeout=0.3):
    """Run `work(session)` on a session with a server that answers each request with the next bytes of `reply(request)`."""

    async def main():
        async def serve(reader, writer):
            try:
                while line := await reader.readline():
                    async for piece in reply(line):
                        writer.write(piece)
                        await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            endpoint = Endpoint.parse(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with open_session(endpoint, NodeSettings(connect_timeout=timeout)) as session:
                return await work(session)
        finally:
            server.close()

    return asyncio.run(main())


def answers(**replies):
    """Return a function for `run_scripted`: an answer to each first word, and `VERSION 1.6.38`."""

    async def reply(line):
        yield replies.get(line.split()[0].decode(), b"VERSION 1.6.38\r\n")

    return reply


def test_a_line_without_an_end_in_place_of_a_list_of_keys_is_an_error_of_the_protocol():
    async def work(session):
        await session.list_keys(lambda _: None)

    with pytest.raises(ProtocolError, match="256 KiB"):
        run_scripted(work, answers(lru_crawler=b"x" * 300_000))


@pytest.mark.parametrize("ask", [AdminSession.stats, lambda session: session.cas_numbers([b"a"] * 1_000)])
@in_virtual_time
async def test_the_timeout_limits_the_whole_reply(ask):
    reader = asyncio.StreamReader()

    async def drip():
        for number in range(100):
            reader.feed_data(b"STAT s%d 1\r\n" % number)
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    began = now()
    with pytest.raises(NodeTimeout, match="no reply in 0.3 s"):
        await ask(AdminSession("node", reader, Wire(), 0.3))
    assert now() - began == pytest.approx(0.3)
    dripping.cancel()


def test_a_reply_without_an_end_is_an_error_of_the_protocol(monkeypatch):
    monkeypatch.setattr(session_module, "MOST_LINES", 100)
    with pytest.raises(ProtocolError, match="over 100 lines"):
        run_scripted(AdminSession.stats, answers(stats=b"STAT a 1\r\n" * 1_000))


def test_statistics_of_size_classes_that_are_no_numbers_are_ignored():
    reply = b"STAT items:x:number 1\r\nSTAT items::number 2\r\nSTAT items:1:number x\r\nSTAT :number\r\nEND\r\n"
    assert run_scripted(lambda session: session.sample_keys(10), answers(stats=reply)) == []
