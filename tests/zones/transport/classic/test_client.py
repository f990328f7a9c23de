"""aiomcache, hardened: whatever happens to a call, the next one gets its own answer, and nobody waits for ever."""

import asyncio
import functools
import gc

import pytest
from aiomcache.exceptions import ClientException, ValidationException

from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.classic.client import ClassicClient, Refused
from evcache.zones.transport.classic.pool import CannotConnect, PoolLimits
from tests.support.streams import SOON, ScriptedServer, cancelled, closing, dialer, settled

CLOSE = ScriptedServer.CLOSE


def client_of(dial, *, connect_timeout=SOON, on_server_end=None, **limits):
    return ClassicClient(dial, PoolLimits(**limits), connect_timeout=connect_timeout, on_server_end=on_server_end)


def scenario(test):
    """Run a coroutine as a test, with a limit that only a failing one reaches, and see that it leaves nothing behind."""

    @functools.wraps(test)
    def run(**fixtures):
        async def main():
            problems = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            async with asyncio.timeout(2 * SOON):
                await test(**fixtures)
            await settled(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            gc.collect()
            assert problems == []

        asyncio.run(main())

    return run


# Every method, as it is called, with a first half of a reply, and what a whole one would be.
CALLS = {
    "get": (lambda c: c.get(b"k"), b"VALUE k 0 5\r\nva"),
    "gets": (lambda c: c.gets(b"k"), b"VALUE k 0 5 9\r\n"),
    "multi_get": (lambda c: c.multi_get(b"k", b"l"), b"VALUE k 0 1 9\r\nv\r\nVAL"),
    "fetch": (lambda c: c.fetch([b"k", b"l"]), b"VALUE k 0 1 9\r\nv\r\n"),
    "set": (lambda c: c.set(b"k", b"v"), b"STOR"),
    "add": (lambda c: c.add(b"k", b"v"), b"STOR"),
    "replace": (lambda c: c.replace(b"k", b"v"), b"NOT_STOR"),
    "append": (lambda c: c.append(b"k", b"v"), b"STORED\r"),
    "prepend": (lambda c: c.prepend(b"k", b"v"), b"S"),
    "cas": (lambda c: c.cas(b"k", b"v", 9), b"EXIS"),
    "store": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"STO"),
    "delete": (lambda c: c.delete(b"k"), b"DEL"),
    "incr": (lambda c: c.incr(b"k"), b"4"),
    "decr": (lambda c: c.decr(b"k"), b"4"),
    "tell": (lambda c: c.tell(b"incr", b"k", 1), b"4"),
    "touch": (lambda c: c.touch(b"k", 5), b"TOU"),
    "stats": (lambda c: c.stats(), b"STAT pid 1\r\nSTAT ver"),
    "version": (lambda c: c.version(), b"VERSION 1."),
    "flush_all": (lambda c: c.flush_all(), b"O"),
}


@pytest.mark.parametrize("half", [False, True], ids=["before the reply", "within the reply"])
@pytest.mark.parametrize("name", CALLS)
@scenario
async def test_a_server_that_closes_ends_the_call_at_once(name, half):
    """aio-libs/aiomcache#502: here plain aiomcache reads an empty line for ever, without a turn for anybody else."""
    call, part = CALLS[name]
    async with ScriptedServer((part, CLOSE) if half else CLOSE) as server, closing(client_of(server.dial)) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await call(client)
        assert client.connections == 0


@pytest.mark.parametrize("half", [False, True], ids=["after the request", "within the reply"])
@pytest.mark.parametrize("name", CALLS)
@scenario
async def test_a_cancelled_call_takes_its_connection_with_it(name, half):
    """aio-libs/aiomcache#489: the next call would read the rest of this one's reply."""
    call, part = CALLS[name]
    async with ScriptedServer(part if half else None) as server, closing(client_of(server.dial, connections=1)) as client:
        task = asyncio.create_task(call(client))
        await server.heard.wait()
        if half:
            await settled(lambda: any(wire.unread for wire in client._pool._used.values()) or name in ("gets", "fetch"))
        await cancelled(task)
        assert task.cancelled()
        assert client.connections == 0
        server.script[:] = [b"VERSION 1.6.38\r\n"] * 2
        server.lines.clear()
        assert await client.version() == b"1.6.38"
        assert server.total == 2


@scenario
async def test_a_call_that_takes_too_long_takes_its_connection_with_it():
    """aio-libs/aiomcache#91."""
    async with (
        ScriptedServer(None, b"VERSION 1\r\n") as server,
        closing(client_of(server.dial, operation=0.01)) as client,
    ):
        with pytest.raises(TimeoutError):
            await client.get(b"k")
        assert client.connections == 0
        assert await client.version() == b"1"


@scenario
async def test_connecting_has_its_time():
    async def never(_factory):
        await asyncio.get_running_loop().create_future()

    async with closing(client_of(never, connect_timeout=0.01)) as client:
        with pytest.raises(CannotConnect, match=r"no connection in 0\.01 s"):
            await client.get(b"k")


@scenario
async def test_waiting_for_a_turn_has_its_time():
    async with (
        ScriptedServer(None) as server,
        closing(client_of(server.dial, connections=1, acquire=0.01)) as client,
    ):
        first = asyncio.create_task(client.get(b"a"))
        await server.heard.wait()
        with pytest.raises(TimeoutError):
            await client.get(b"b")
        assert server.lines == [b"get a\r\n"]
        await cancelled(first)


@scenario
async def test_a_refused_connect_is_told_to_each_who_waits():
    """Nobody sleeps on until somebody else happens to call."""
    async with ScriptedServer() as server:
        dial = server.dial
    async with closing(client_of(dial, connections=1)) as client:
        told = await asyncio.gather(*(client.get(b"k") for _ in range(20)), return_exceptions=True)
        assert [type(error) for error in told] == [CannotConnect] * 20


@pytest.mark.parametrize("how", ["cancelled", "closed", "timed out"])
@scenario
async def test_whoever_waits_is_woken_when_a_connection_is_lost(how):
    """In aiomcache a lost connection is not put back into the queue that waiters sleep on."""
    script = {"cancelled": [None], "closed": [CLOSE], "timed out": [None]}[how]
    async with (
        ScriptedServer(*script, *[b"END\r\n"] * 10) as server,
        closing(client_of(server.dial, connections=1, operation=0.02 if how == "timed out" else SOON)) as client,
    ):
        first = asyncio.create_task(client.get(b"first"))
        await server.heard.wait()
        others = [asyncio.create_task(client.get(b"other")) for _ in range(5)]
        if how == "cancelled":
            first.cancel()
        assert await asyncio.gather(*others) == [None] * 5
        await asyncio.wait([first])
        assert first.cancelled() or first.exception() is not None


@scenario
async def test_cancelling_who_waits_for_a_turn_costs_nothing_and_starves_nobody():
    async with (
        ScriptedServer(*[None], *[b"END\r\n"] * 10) as server,
        closing(client_of(server.dial, connections=1)) as client,
    ):
        first = asyncio.create_task(client.get(b"first"))
        await server.heard.wait()
        waiting = [asyncio.create_task(client.get(b"w")) for _ in range(6)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        first.cancel()
        assert await asyncio.gather(*waiting[1::2]) == [None] * 3
        assert server.total == 2
        assert len(server.lines) == 1 + 3


@scenario
async def test_turns_are_given_in_order():
    async with ScriptedServer(*[b"END\r\n"] * 8) as server, closing(client_of(server.dial, connections=1)) as client:
        await asyncio.gather(*(client.get(b"%d" % number) for number in range(8)))
        assert server.lines == [b"get %d\r\n" % number for number in range(8)]


@scenario
async def test_the_pool_grows_to_its_bound_and_no_further():
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=4)) as client,
    ):
        assert client.connections == 0
        await client.get(b"k")
        assert client.connections == server.connections_total == 1
        server.pause()
        calls = [asyncio.create_task(client.get(b"k")) for _ in range(40)]
        await settled(lambda: server.connections == 4)
        server.resume()
        assert await asyncio.gather(*calls) == [None] * 40
        assert client.connections == server.connections_total == 4


@scenario
async def test_the_pool_shrinks_when_nobody_needs_it():
    """One connection stays, so that a server that goes is noticed."""
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=4, idle=0.01)) as client,
    ):
        await asyncio.gather(*(client.get(b"k") for _ in range(40)))
        assert client.connections > 1
        await settled(lambda: server.connections == 1)
        assert client.connections == 1


@scenario
async def test_a_cold_pool_opens_no_more_than_it_may():
    """Plain aiomcache opens one for each who waits, to keep a few."""
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), connections=3)) as client,
    ):
        await asyncio.gather(*(client.get(b"k") for _ in range(40)))
        assert server.connections_total <= 3


BAD_KEYS = [b"", b"a b", b"a\r\nflush_all", b"a\n", b"\x00", b"a\x7f", b"k" * 251, b"\t", "text", None, 5]


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
@scenario
async def test_a_bad_key_costs_no_connection(key):
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        calls = [
            *(getattr(client, name)(key) for name in ("get", "gets", "delete", "incr", "decr")),
            *(getattr(client, name)(key, b"v") for name in ("set", "add", "replace", "append", "prepend")),
            client.get(key=key),
            client.cas(key, b"v", 1),
            client.touch(key, 1),
            client.multi_get(b"fine", key),
            client.fetch([b"fine", key]),
            client.store(b"set", key, b"v", 0, 0),
            client.tell(b"delete", key),
        ]
        for call in calls:
            with pytest.raises(ValidationException):
                await call
        assert server.connections_total == 0


@scenario
async def test_any_other_key_is_a_key():
    """aiomcache wants UTF-8, and takes keys of 250 characters that are more bytes."""
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        for key in (b"\xff\xfe", b"k" * 250, b"#", "\u00e9".encode()):
            assert await client.set(key, key)
            assert await client.get(key) == key
        with pytest.raises(ValidationException):
            await client.get("\u00e9".encode() * 126)


@scenario
async def test_a_cas_token_of_0_does_not_drop_out_of_the_command():
    """Without it the server refuses the line, and runs the value as a command: plain aiomcache flushes the server here."""
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        await client.set(b"k", b"v")
        assert await client.cas(b"k", b"flush_all", 0) is False
        assert await client.store(b"cas", b"k", b"flush_all", 0, 0, cas=0) == b"EXISTS"
        assert server.commands["flush_all"] == 0
        assert await client.get(b"k") == b"v"
        assert server.connections_total == 1


@scenario
async def test_flags_of_other_clients_are_readable():
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        server.session().receive(b"set k 4294967295 0 5\r\nvalue\r\nset plain 0 0 1\r\nv\r\n")
        assert await client.get(b"k") == (b"value", 2**32 - 1)
        assert (await client.gets(b"k"))[0] == (b"value", 2**32 - 1)
        assert await client.multi_get(b"k", b"plain", b"none") == ((b"value", 2**32 - 1), b"v", None)
        assert await client.set(b"mine", (b"value", 7))
        assert (await client.fetch([b"mine"]))[b"mine"].flags == 7


@scenario
async def test_what_aiomcache_does_still_works():
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        assert await client.set(b"k", b"v", 60)
        assert not await client.add(b"k", b"w")
        assert await client.append(b"k", b"2")
        assert await client.prepend(b"k", b"1")
        assert await client.replace(b"k", b"1v2")
        value, token = await client.gets(b"k")
        assert value == b"1v2"
        assert await client.cas(b"k", b"5", token)
        assert not await client.cas(b"k", b"6", token)
        assert await client.incr(b"k", 2) == 7
        assert await client.decr(b"k") == 6
        assert await client.touch(b"k", 5)
        assert not await client.touch(b"none", 5)
        assert await client.delete(b"k")
        assert not await client.delete(b"k")
        assert await client.get(b"k", b"default") == b"default"
        assert await client.multi_get() == ()
        assert (await client.version()).startswith(b"1.")
        assert int((await client.stats())[b"curr_items"]) == 0
        assert (await client.stats(b"settings"))[b"item_size_max"] == b"1048576"
        await client.flush_all()
        assert server.connections_total == 1
        with pytest.raises(ClientException):
            await client.incr(b"none")


# A reply that does not belong to the request, whole, with nothing behind it that would give it away.
WRONG = {
    "get, another key": (lambda c: c.get(b"k"), b"VALUE other 0 1\r\nv\r\nEND\r\n"),
    "get, twice the same": (lambda c: c.get(b"k"), b"VALUE k 0 1\r\nv\r\nVALUE k 0 1\r\nv\r\nEND\r\n"),
    "get, no line end behind the value": (lambda c: c.get(b"k"), b"VALUE k 0 1\r\nvv\r\nEND\r\n"),
    "get, other bytes for the line end": (lambda c: c.get(b"k"), b"VALUE k 0 1\r\nvXXEND\r\n"),
    "get, more than the reply": (lambda c: c.get(b"k"), b"END\r\nEND\r\n"),
    "get, a length that is none": (lambda c: c.get(b"k"), b"VALUE k 0 -1\r\n"),
    "get, a length over the limit": (lambda c: c.get(b"k"), b"VALUE k 0 99999999999\r\n"),
    "get, a length of many digits": (lambda c: c.get(b"k"), b"VALUE k 0 " + b"9" * 5000 + b"\r\n"),
    "get, no length": (lambda c: c.get(b"k"), b"VALUE k\r\n"),
    "gets, no token": (lambda c: c.gets(b"k"), b"VALUE k 0 1\r\nv\r\nEND\r\n"),
    "get, a store's": (lambda c: c.get(b"k"), b"STORED\r\n"),
    "get, an endless line": (lambda c: c.get(b"k"), b"x" * 200_000),
    "set, a value": (lambda c: c.set(b"k", b"v"), b"VALUE k 0 1\r\nv\r\nEND\r\n"),
    "set, a number": (lambda c: c.set(b"k", b"v"), b"5\r\n"),
    "set, twice": (lambda c: c.set(b"k", b"v"), b"STORED\r\nSTORED\r\n"),
    "set, of the meta protocol": (lambda c: c.set(b"k", b"v"), b"HD O999\r\n"),
    "delete, stored": (lambda c: c.delete(b"k"), b"STORED\r\n"),
    "touch, deleted": (lambda c: c.touch(b"k", 1), b"DELETED\r\n"),
    "incr, stored": (lambda c: c.incr(b"k"), b"STORED\r\n"),
    "incr, not a number": (lambda c: c.incr(b"k"), b"-5\r\n"),
    "incr, of many digits": (lambda c: c.incr(b"k"), b"9" * 5000 + b"\r\n"),
    "version, stored": (lambda c: c.version(), b"STORED\r\n"),
    "flush_all, deleted": (lambda c: c.flush_all(), b"DELETED\r\n"),
    "stats, a value": (lambda c: c.stats(), b"VALUE k 0 1\r\nv\r\nEND\r\n"),
    "binary rubbish": (lambda c: c.delete(b"k"), bytes(range(256)) + b"\r\n"),
    "an error that loses the thread": (lambda c: c.set(b"k", b"v"), b"CLIENT_ERROR bad data chunk\r\n"),
    "an unknown command": (lambda c: c.set(b"k", b"v"), b"ERROR\r\n"),
    "a proxy's error": (lambda c: c.get(b"k"), b"SERVER_ERROR no backend\r\n"),
}


@pytest.mark.parametrize("name", WRONG)
@scenario
async def test_a_reply_that_does_not_fit_is_an_error_and_the_end_of_its_connection(name):
    call, answer = WRONG[name]
    async with ScriptedServer(answer) as server, closing(client_of(server.dial)) as client:
        with pytest.raises((ClientException, asyncio.LimitOverrunError)) as caught:
            await call(client)
        assert client.connections == 0
        assert isinstance(caught.value, Refused) == ("error" in name or "unknown" in name)


@scenario
async def test_a_refusal_in_step_is_an_answer_and_costs_nothing():
    async with (
        FakeMemcached(classic_only=True, item_size_max=2048) as server,
        closing(client_of(dialer(server.address))) as client,
    ):
        await client.set(b"text", b"abc")
        answer = await client.store(b"add", b"k", b"x" * 4096, 0, 0)
        assert answer == b"SERVER_ERROR object too large for cache"
        assert (await client.tell(b"incr", b"text", 1)).startswith(b"CLIENT_ERROR cannot increment")
        assert await client.tell(b"incr", b"none", 1) == b"NOT_FOUND"
        assert server.connections_total == 1


@scenario
async def test_words_that_nobody_asked_for_end_an_idle_connection():
    """They would be the answer to the next request."""
    ends = []
    async with (
        ScriptedServer(b"END\r\n", b"VERSION 2\r\n") as server,
        closing(client_of(server.dial, on_server_end=lambda: ends.append(1))) as client,
    ):
        assert await client.get(b"k") is None
        assert client.connections == 1
        for writer in server.writers:
            writer.write(b"VERSION 1\r\n")
        await settled(lambda: ends)
        assert client.connections == 0
        assert await client.version() == b"2"


@scenario
async def test_an_idle_connection_that_the_server_closes_is_not_used():
    ends = []
    async with (
        FakeMemcached(classic_only=True) as server,
        closing(client_of(dialer(server.address), on_server_end=lambda: ends.append(1))) as client,
    ):
        await asyncio.gather(*(client.get(b"k") for _ in range(3)))
        port = server.port
        await server.stop()
        await settled(lambda: client.connections == 0)
        assert ends
        await server.start(port=port)
        assert await client.get(b"k") is None


@scenario
async def test_closing_ends_calls_and_is_for_good():
    async with ScriptedServer(None) as server:
        client = client_of(server.dial, connections=1)
        call = asyncio.create_task(client.get(b"a"))
        waits = asyncio.create_task(client.get(b"b"))
        await server.heard.wait()
        await client.close()
        for task in (call, waits):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await task
        with pytest.raises(ConnectionError):
            await client.get(b"c")
        await client.close()
        await settled(lambda: not server.writers)
        assert client.connections == 0


@scenario
async def test_cancelling_while_it_connects_leaves_no_connection():
    async with FakeMemcached(classic_only=True) as server:
        gate = asyncio.Event()

        async def slow(factory):
            wire = await dialer(server.address)(factory)
            gate.set()
            await asyncio.get_running_loop().create_future()
            return wire

        async with closing(client_of(slow)) as client:
            call = asyncio.create_task(client.get(b"k"))
            await gate.wait()
            await cancelled(call)
            await settled(lambda: server.connections == 0)
            assert client.connections == 0


@scenario
async def test_a_unix_socket(tmp_path):
    server = FakeMemcached(classic_only=True)
    await server.start_unix(str(tmp_path / "socket"))
    try:
        async with closing(client_of(dialer(server.address))) as client:
            assert await client.set(b"k", b"v")
            assert await client.get(b"k") == b"v"
    finally:
        await server.stop()


@scenario
async def test_duplicate_keys_are_an_argument_error():
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        with pytest.raises(ClientException):
            await client.multi_get(b"k", b"k")
        with pytest.raises(ClientException):
            await client.fetch([b"k", b"k"])
