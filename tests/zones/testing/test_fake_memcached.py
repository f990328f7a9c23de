"""FakeMemcached answers as the contract says, in every way in which it can be reached; and its own controls work."""

import asyncio
import re

import pytest

from evcache.zones.testing import FakeMemcached
from evcache.zones.testing.fake_memcached.store import CRAWL_ITEMS, CRAWL_SECONDS
from tests.contracts.memcached_contract import CASES, SocketClient, byte_by_byte, cases_for, run_case
from tests.contracts.operator_cases import check_reclaiming
from tests.support.fake_server import Clock, make_server

VERSIONS = ["1.6.18", "1.6.38", "1.6.45"]


# What the fake shows of 1.6.45 is `mg C`; the new parser's other answers are not imitated.
SERVERS = ["plain", "no-cas", "auth", "proxy"]


# Commands that Amazon ElastiCache Serverless does not have, by how they begin, and its answers.
NOT_SERVERLESS = {
    b"stats settings": b"ERROR\r\n",
    b"stats items": b"ERROR\r\n",
    b"stats nonsense": b"ERROR\r\n",
    b"me k": b"ERROR\r\n",
    b"verbosity 1": b"ERROR\r\n",
    b"lru_crawler metadump all": b"ERROR\r\n",
    b"lru_crawler crawl all": b"ERROR\r\n",
    b"slabs automove 1": b"ERROR\r\n",
    b"cache_memlimit 64": b"ERROR\r\n",
    b"watch fetchers": b"ERROR\r\n",
    b"flush_all 2": b"CLIENT_ERROR delayed flush_all is not supported\r\n",
}


@pytest.mark.parametrize("command", NOT_SERVERLESS)
def test_serverless_refuses_what_its_documentation_says(command):
    session = FakeMemcached(serverless=True).session()
    assert session.receive(command + b"\r\nmn\r\n") == NOT_SERVERLESS[command] + b"MN\r\n"


def test_serverless_has_the_plain_statistics():
    session = FakeMemcached(serverless=True).session()
    assert session.receive(b"stats\r\n").endswith(b"END\r\n")
    assert session.receive(b"stats reset\r\n") == b"RESET\r\n"
    assert session.receive(b"flush_all\r\n") == b"OK\r\n"


@pytest.mark.parametrize(("command", "keys", "taken"), [(b"get", 65, True), (b"gets", 65, True), (b"get", 66, False)])
def test_serverless_takes_16_kib_of_keys(command, keys, taken):
    session = FakeMemcached(serverless=True).session()
    answer = session.receive(b" ".join([command, *[b"k" * 250] * keys]) + b"\r\n")
    assert (answer, session.closed) == ((b"END\r\n", False) if taken else (b"CLIENT_ERROR line too long\r\n", True))


def test_refused_commands_are_answered_in_the_given_words_and_nothing_else_is():
    session = FakeMemcached(refuse={"stats settings": "SERVER_ERROR no"}).session()
    assert session.receive(b"stats settings\r\nmn\r\nstats reset\r\n") == b"SERVER_ERROR no\r\nMN\r\nRESET\r\n"


def serverless_cases():
    restricted = re.compile(rb"(^|\n)(me|stats \w+|verbosity|shutdown|flush_all 2|slabs|cache_memlimit|lru_crawler)\b")

    def sent(case):
        return b"".join(step[0] for step in case.steps if isinstance(step, tuple))

    return [
        pytest.param(case, id=case.name) for case in cases_for("1.6.38", "plain") if restricted.search(sent(case)) is None
    ]


@pytest.mark.parametrize("case", serverless_cases())
def test_serverless_is_a_memcached_in_all_else(case):
    clock = Clock()
    client = SessionClient(FakeMemcached(serverless=True, clock=clock))
    asyncio.run(run_case(case, client, wait=clock.advance))


class SessionClient:
    """A RawClient on a session, without any event loop business."""

    def __init__(self, fake: FakeMemcached) -> None:
        self._session = fake.session()
        self._data = b""

    async def send(self, data: bytes) -> None:
        self._data += self._session.receive(data)

    async def read(self, enough) -> bytes:
        data, self._data = self._data, b""
        return data

    def closed(self) -> bool:
        return self._session.closed


def case_params():
    return [
        pytest.param(version, case, id=f"{version}-{case.name}")
        for version in VERSIONS
        for server in SERVERS
        for case in cases_for(version, server)
    ]


@pytest.mark.parametrize(("version", "case"), case_params())
def test_session_fulfils_the_contract(version, case):
    """Given whole packets, and given the same byte by byte."""
    for slices in (lambda data: [data], byte_by_byte):
        clock = Clock()
        client = SessionClient(make_server(version, case.server, clock))
        asyncio.run(run_case(case, client, wait=clock.advance, slices=slices))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server", SERVERS)
def test_connection_in_memory_fulfils_the_contract(version, server):
    async def main():
        clock = Clock()
        fake = make_server(version, server, clock)
        for slices in (lambda data: [data], byte_by_byte):
            for case in cases_for(version, server):
                _, client = await fake.connect(SocketClient)
                await run_case(case, client, wait=clock.advance, slices=slices)
                await client.close()
        await fake.stop()

    asyncio.run(main())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server", SERVERS)
def test_socket_fulfils_the_contract(version, server):
    async def main():
        clock = Clock()
        loop = asyncio.get_running_loop()
        async with make_server(version, server, clock) as fake:
            for case in cases_for(version, server):
                _, client = await loop.create_connection(SocketClient, "127.0.0.1", fake.port)
                await run_case(case, client, wait=clock.advance)
                await client.close()

    asyncio.run(main())


def test_contract_is_large_enough_to_mean_something():
    assert len(CASES) >= 80
    assert {case.server for case in CASES} == set(SERVERS)


def test_expired_items_are_reclaimed_by_the_crawler():
    clock = Clock()
    asyncio.run(check_reclaiming(SessionClient(make_server(clock=clock)), wait=clock.advance))


def figures(fake: FakeMemcached) -> dict[str, str]:
    """What `stats` shows."""
    session = fake.session()
    if fake._state.auth is not None:
        session.receive(b"set auth 0 0 12\r\nalice s3cret\r\n")
    lines = session.receive(b"stats\r\n").decode().splitlines()[:-1]
    return {name: value for _, name, value in (line.split(" ", 2) for line in lines)}


def test_each_pass_of_the_crawler_looks_at_a_bounded_number_of_items():
    """No command has to wait for all of a large store."""
    clock = Clock()
    fake = make_server(clock=clock)
    items = 3 * CRAWL_ITEMS - 10
    fake.session().receive(b"".join(b"ms %d 1 T5 q\r\nx\r\n" % number for number in range(items)))
    clock.now += 6
    assert len(fake.store) == 0
    seen = []
    for _ in range(4):
        for _ in range(5):
            fake.session().receive(b"mg other\r\n")
        seen.append((fake.store.linked, fake.store.counts["crawler_items_checked"]))
        clock.now += CRAWL_SECONDS
    left = [items - CRAWL_ITEMS, items - 2 * CRAWL_ITEMS, 0, 0]
    assert seen == [(linked, items - linked) for linked in left]
    assert fake.store.bytes_used == 0
    assert figures(fake)["crawler_reclaimed"] == str(items)


def test_the_crawler_leaves_what_lives_and_comes_again():
    clock = Clock()
    fake = make_server(clock=clock)
    session = fake.session()
    session.receive(
        b"ms never 1\r\nx\r\nms late 1 T10\r\nx\r\nms soon 1 T3\r\nx\r\nms touched 1 T3\r\nx\r\nmg touched T60\r\n"
    )
    for _ in range(20):
        clock.now += 1
        session.receive(b"mn\r\n")
    assert fake.store.linked == len(fake.store) == 2
    assert set(fake.store) == {b"never", b"touched"}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("first", [b"\x80", b"\x80\x0b" + bytes(22)])
def test_client_of_the_binary_protocol_is_closed(server, first):
    session = make_server(server=server).session()
    assert (session.receive(first), session.closed) == (b"", True)
    assert session.receive(b"mn\r\n") == b""


def test_the_first_byte_of_the_binary_protocol_means_nothing_later():
    session = make_server().session()
    assert session.receive(b"mn\r\n\x80x\r\nmn\r\n") == b"MN\r\nERROR\r\nMN\r\n"


def test_binary_client_on_a_socket_is_closed():
    async def main():
        async with make_server() as fake:
            reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
            writer.write(b"\x80\x0a" + bytes(22))
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_logins_are_counted():
    fake = make_server(server="auth")
    session = fake.session()
    session.receive(b"set auth 0 0 11\r\nalice wrong\r\n")
    session.receive(b"set auth 0 0 12\r\nalice s3cret\r\n")
    assert (fake.store.counts["auth_cmds"], fake.store.counts["auth_errors"]) == (2, 1)


def test_cachedump_lists_items_the_newest_first():
    clock = Clock()
    fake = FakeMemcached(clock=clock, wall_clock=lambda: 1_700_000_000.0)
    session = fake.session()
    session.receive(b"set a 0 0 1\r\nx\r\nset b 0 100 2\r\nxx\r\nset gone 0 -1 1\r\nx\r\n")
    every = b"ITEM b [2 b; 1700000100 s]\r\nITEM a [1 b; 0 s]\r\nEND\r\n"
    assert session.receive(b"stats cachedump 1 0\r\n") == every
    assert session.receive(b"stats cachedump 1 1\r\n") == every.splitlines(keepends=True)[0] + b"END\r\n"


def test_a_lower_memory_limit_evicts_at_the_next_store():
    fake = make_server()
    session = fake.session()
    value = b"v" * 1_000_000
    session.receive(b"".join(b"ms %d 1000000 q\r\n%b\r\n" % (number, value) for number in range(12)))
    session.receive(b"mg 0\r\nmg 0\r\n")
    assert session.receive(b"cache_memlimit 8\r\n") == b"OK\r\n"
    session.receive(b"ms last 1\r\nx\r\n")
    assert fake.store.bytes_used <= 8 * 1024 * 1024
    shown = figures(fake)
    assert (shown["limit_maxbytes"], shown["evictions"], shown["evicted_unfetched"]) == ("8388608", "4", "4")
    assert int(shown["curr_items"]) == len(fake.store)


@pytest.mark.parametrize("where", ["memory", "socket"])
def test_connections_over_the_limit_are_refused(where):
    async def main():
        async with FakeMemcached(max_connections=2) as fake:
            loop = asyncio.get_running_loop()

            async def connect():
                if where == "memory":
                    return (await fake.connect(SocketClient))[1]
                return (await loop.create_connection(SocketClient, "127.0.0.1", fake.port))[1]

            first, second = await connect(), await connect()
            await second.send(b"mn\r\n")
            assert await second.read(lambda data: data.endswith(b"\r\n")) == b"MN\r\n"
            third = await connect()
            assert await third.read(lambda _: third.closed()) == b"ERROR Too many open connections\r\n"
            assert third.closed()
            shown = figures(fake)
            names = ("max_connections", "curr_connections", "total_connections", "rejected_connections")
            assert [shown[name] for name in names] == ["2", "2", "2", "1"]
            await first.close()
            while fake.connections > 1:
                await asyncio.sleep(0)
            fourth = await connect()
            await fourth.send(b"mn\r\n")
            assert await fourth.read(lambda data: data.endswith(b"\r\n")) == b"MN\r\n"
            await fourth.close()
            await second.close()

    asyncio.run(main())
