"""FakeMemcached answers as the contract says, in every way in which it can be reached; and its own controls work."""

import asyncio
import gc
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.testing import FakeMemcached
from evcache.zones.testing.fake_memcached.store import CRAWL_ITEMS, CRAWL_SECONDS
from tests.contracts.memcached_contract import CASES, SocketClient, byte_by_byte, cases_for, run_case
from tests.contracts.operator_cases import check_reclaiming

VERSIONS = ["1.6.18", "1.6.38", "1.6.45"]
# What the fake shows of 1.6.45 is `mg C`; the new parser's other answers are not imitated.
SERVERS = ["plain", "no-cas", "auth", "proxy"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


def make_server(version: str = "1.6.38", server: str = "plain", clock: Clock | None = None) -> FakeMemcached:
    return FakeMemcached(
        version=version,
        cas_enabled=server != "no-cas",
        auth=("alice", "s3cret") if server == "auth" else None,
        dead_backend=(lambda key: key.startswith(b"dead/")) if server == "proxy" else None,
        clock=clock or Clock(),
    )


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


# --- the store, looked at by tests --------------------------------------------------------------------------------


def test_store_shows_items():
    fake = make_server()
    fake.session().receive(b"ms a 3 T30 F7 c\r\nabc\r\nms b 1\r\nx\r\nmd a I\r\n")
    item = fake.store.get(b"a")
    assert (item.value, item.flags, item.stale, item.win_sent) == (b"abc", 7, True, False)
    assert fake.store.ttl_left(item) == 30
    assert list(fake.store) == [b"a", b"b"]
    assert len(fake.store) == 2
    assert b"b" in fake.store
    fake.store.clear()
    assert len(fake.store) == 0
    assert fake.store.get(b"a") is None


def test_ttl_is_exact():
    clock = Clock()
    fake = make_server(clock=clock)
    session = fake.session()
    session.receive(b"ms a 1 T2\r\nx\r\n")
    clock.now += 1.999
    assert session.receive(b"mg a t\r\n") == b"HD t1\r\n"
    clock.now += 0.002
    assert session.receive(b"mg a t\r\n") == b"EN\r\n"
    assert len(fake.store) == 0


def test_only_the_second_fetch_resets_the_time_of_the_last_access():
    clock = Clock()
    session = make_server(clock=clock).session()
    session.receive(b"ms a 1\r\nx\r\n")
    clock.now += 5
    assert session.receive(b"mg a l\r\n" * 3) == b"HD l5\r\nHD l5\r\nHD l0\r\n"
    clock.now += 5
    assert session.receive(b"mg a l\r\n" * 2) == b"HD l5\r\nHD l5\r\n"
    assert session.receive(b"ms a 1 ME\r\nx\r\nmg a l\r\n") == b"NS\r\nHD l0\r\n"  # a refused add counts too


def test_evict():
    fake = make_server()
    fake.session().receive(b"ms a 1\r\nx\r\n")
    assert fake.store.evict(b"a")
    assert not fake.store.evict(b"a")
    assert b"STAT evictions 1\r\n" in fake.session().receive(b"stats\r\n")


def test_least_recently_used_item_makes_room():
    fake = FakeMemcached(max_bytes=350, clock=Clock())
    session = fake.session()
    session.receive(b"".join(b"ms %d 50 q\r\n%b\r\n" % (number, b"v" * 50) for number in range(3)))
    assert list(fake.store) == [b"0", b"1", b"2"]
    session.receive(b"mg 0\r\n")
    session.receive(b"ms 3 50\r\n" + b"v" * 50 + b"\r\n")
    assert list(fake.store) == [b"2", b"0", b"3"]
    assert fake.store.bytes_used <= 350


def test_item_larger_than_memory_is_refused_and_the_old_one_deleted():
    fake = FakeMemcached(max_bytes=200, clock=Clock())
    session = fake.session()
    session.receive(b"ms a 1\r\nx\r\n")
    reply = session.receive(b"ms a 500\r\n" + b"v" * 500 + b"\r\nmg a\r\n")
    assert reply == b"SERVER_ERROR out of memory storing object\r\nEN\r\n"


def test_item_that_is_kept_in_chunks_and_larger_than_memory_is_refused_and_the_old_one_kept():
    """As a server with `-M` does. The one-copy store then leaves its stub, which goes by itself."""
    fake = FakeMemcached(max_bytes=600_000, clock=Clock())
    session = fake.session()
    session.receive(b"ms a 1\r\nx\r\n")
    reply = session.receive(b"ms a 700000\r\n" + b"v" * 700_000 + b"\r\nmg a v\r\n")
    assert reply == b"SERVER_ERROR Out of memory during read\r\nVA 1\r\nx\r\n"


def test_item_size_limit_is_configurable():
    session = FakeMemcached(item_size_max=1024).session()
    assert session.receive(b"ms a 1000\r\n" + b"v" * 1000 + b"\r\n") == b"SERVER_ERROR object too large for cache\r\n"
    assert b"STAT item_size_max 1024\r\n" in session.receive(b"stats settings\r\n")


def test_classic_only_server_does_not_know_meta_commands():
    session = FakeMemcached(version="1.4.39", classic_only=True).session()
    assert session.receive(b"mn\r\nmg a v\r\n") == b"ERROR\r\nERROR\r\n"
    assert session.receive(b"ms a 4\r\nquit\r\n") == b"ERROR\r\n"
    assert session.closed  # the payload was run as a command
    session = FakeMemcached(classic_only=True).session()
    assert session.receive(b"set a 0 0 1\r\nx\r\nget a\r\n") == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"


def test_commands_are_counted():
    fake = make_server()
    fake.session().receive(b"mg a\r\nmg b\r\nms a 1\r\nx\r\nget a\r\nnonsense\r\n")
    assert fake.commands == {"mg": 2, "ms": 1, "get": 1, "nonsense": 1}


def test_absolute_ttl_follows_the_wall_clock():
    session = FakeMemcached(clock=Clock(), wall_clock=lambda: 1_700_000_000.0).session()
    assert session.receive(b"ms a 1 T1700000100\r\nx\r\nmg a t\r\n") == b"HD\r\nHD t100\r\n"
    assert session.receive(b"ms a 1 T1699999999\r\nx\r\nmg a t\r\n") == b"HD\r\nEN\r\n"


def test_version_must_be_a_version():
    with pytest.raises(ValueError, match="not a memcached version"):
        FakeMemcached(version="new")


def test_endless_numbers_are_no_numbers():
    session = make_server().session()
    digits = b"9" * 10_000
    assert session.receive(b"ma a D" + digits + b"\r\n") == b"CLIENT_ERROR invalid or duplicate flag\r\n"
    session.receive(b"ms a 10000\r\n" + digits + b"\r\n")
    assert session.receive(b"incr a 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert session.receive(b"incr a 1" + b"0" * 10_000 + b"\r\n").startswith(b"CLIENT_ERROR invalid numeric delta")
    session.receive(b"ms a 1\r\n1\r\n")
    assert session.receive(b"incr a " + b"0" * 10_000 + b"1\r\n") == b"2\r\n"


@given(chunks=st.lists(st.binary(max_size=40) | st.sampled_from([b"\r\n", b"ms a ", b"mg a ", b"ma a ", b"set a 0 0 "])))
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_session_survives_junk_and_does_not_care_how_it_is_cut(chunks):
    """No bytes make it raise; one line too long is the only thing whose answer depends on the cut."""
    whole, pieces = make_server().session(), make_server().session()
    data = b"".join(chunks)
    replies = b"".join(pieces.receive(data[start : start + 1]) for start in range(len(data)))
    assert whole.receive(data) == replies
    assert whole.closed == pieces.closed


def test_closed_session_ignores_everything():
    session = make_server().session()
    assert session.receive(b"quit\r\nmn\r\n") == b""
    assert session.closed
    assert session.receive(b"mn\r\n") == b""


def test_replies_before_the_login_melt_into_one():
    fake = make_server(server="auth")
    session = fake.session()
    assert session.receive(b"version\r\nmn\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    assert session.receive(b"mn\r\nset a 0 0 12\r\nalice s3cret\r\nmn\r\n") == b"STORED\r\nMN\r\n"


def test_junk_before_the_login_is_hung_up_on():
    session = make_server(server="auth").session()
    assert session.receive(b"x" * 2049) == b""
    assert session.closed


# --- in memory ----------------------------------------------------------------------------------------------------


class Recorder(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self) -> None:
        self.events = []
        self.data = b""

    def connection_made(self, transport):
        self.events.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(type(exc).__name__ if exc else "lost")


async def settle():
    """Let all callbacks run that are due, and those that they make due."""
    for _ in range(20):
        await asyncio.sleep(0)


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
