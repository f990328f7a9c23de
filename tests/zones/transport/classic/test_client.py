"""Commands of the classic client: whatever happens to a call, the next one gets its own reply, and no call waits forever."""

import asyncio

import pytest
from aiomcache.exceptions import ClientException, ValidationException

from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.classic.client import Refused
from tests.support.classic import client_of, scenario
from tests.support.streams import ScriptedServer, cancelled, closing, dialer, settled

CLOSE = ScriptedServer.CLOSE

# Each call, and the first half of a reply to it.
CALLS = {
    "fetch": (lambda c: c.fetch([b"k", b"l"]), b"VALUE k 0 1 9\r\nv\r\nVAL"),
    "fetch_or_each": (lambda c: c.fetch_or_each([b"k"]), b"VALUE k 0 5 9\r\nva"),
    "set": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"STOR"),
    "append": (lambda c: c.store(b"append", b"k", b"v", 0, 0), b"STORED\r"),
    "cas": (lambda c: c.store(b"cas", b"k", b"v", 0, 0, cas=9), b"EXIS"),
    "delete": (lambda c: c.tell(b"delete", b"k"), b"DEL"),
    "incr": (lambda c: c.tell(b"incr", b"k", 1), b"4"),
    "touch": (lambda c: c.tell(b"touch", b"k", 5), b"TOU"),
    "stats": (lambda c: c.stats(b"settings"), b"STAT pid 1\r\nSTAT ver"),
    "version": (lambda c: c.version(), b"VERSION 1."),
}


@pytest.mark.parametrize("half", [False, True], ids=["before the reply", "within the reply"])
@pytest.mark.parametrize("name", CALLS)
@scenario
async def test_a_server_that_closes_ends_the_call_at_once(name, half):
    """In aiomcache#502, the client reads empty lines without end, and blocks the event loop."""
    call, part = CALLS[name]
    async with ScriptedServer((part, CLOSE) if half else CLOSE) as server, closing(client_of(server.dial)) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await call(client)
        assert client.connections == 0


@pytest.mark.parametrize("half", [False, True], ids=["after the request", "within the reply"])
@pytest.mark.parametrize("name", CALLS)
@scenario
async def test_a_cancelled_call_takes_its_connection_with_it(name, half):
    """In aiomcache#489, the next call reads the rest of this reply."""
    call, part = CALLS[name]
    async with ScriptedServer(part if half else None) as server, closing(client_of(server.dial, connections=1)) as client:
        task = asyncio.create_task(call(client))
        await server.heard.wait()
        if half:
            await settled(lambda: any(socket.unread for socket in client._pool._used))
        await cancelled(task)
        assert task.cancelled()
        assert client.connections == 0
        server.script[:] = [b"VERSION 1.6.38\r\n"] * 2
        server.lines.clear()
        assert await client.version() == b"1.6.38"
        assert server.total == 2


BAD_KEYS = [b"", b"a b", b"a\r\nflush_all", b"a\n", b"\x00", b"a\x7f", b"k" * 251, b"\t", "text", None, 5]


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
@scenario
async def test_a_bad_key_costs_no_connection(key):
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        calls = [
            client.fetch([b"fine", key]),
            client.fetch_or_each([key]),
            client.store(b"set", key, b"v", 0, 0),
            client.tell(b"delete", key),
        ]
        for call in calls:
            with pytest.raises(ValidationException):
                await call
        assert server.connections_total == 0


@pytest.mark.parametrize("key", [b"\xff\xfe", b"k" * 250, b"#", "\u00e9".encode()], ids=repr)
@scenario
async def test_bytes_that_are_not_text_are_keys(key):
    """aiomcache requires UTF-8, and takes keys of 250 characters that are more bytes."""
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        assert await client.store(b"set", key, key, 0, 0) == b"STORED"
        assert (await client.fetch([key]))[key].value == key


@scenario
async def test_duplicate_keys_are_an_argument_error():
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        with pytest.raises(ClientException):
            await client.fetch([b"k", b"k"])


@scenario
async def test_a_cas_token_of_0_is_sent():
    """Without the token, the server refuses the line and runs the value as a command: aiomcache flushes the server here."""
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        await client.store(b"set", b"k", b"v", 0, 0)
        assert await client.store(b"cas", b"k", b"flush_all", 0, 0, cas=0) == b"EXISTS"
        assert server.commands["flush_all"] == 0
        assert (await client.fetch([b"k"]))[b"k"].value == b"v"
        assert server.connections_total == 1


@scenario
async def test_all_commands_share_a_connection():
    async with FakeMemcached(classic_only=True) as server, closing(client_of(dialer(server.address))) as client:
        for verb, value, reply in (
            (b"set", b"v", b"STORED"),
            (b"add", b"w", b"NOT_STORED"),
            (b"append", b"2", b"STORED"),
            (b"prepend", b"1", b"STORED"),
            (b"replace", b"1v2", b"STORED"),
        ):
            assert await client.store(verb, b"k", value, 2**32 - 1, 60) == reply
        item = (await client.fetch([b"none", b"k"]))[b"k"]
        assert (item.value, item.flags) == (b"1v2", 2**32 - 1)
        assert await client.store(b"cas", b"k", b"5", 0, 0, cas=item.cas) == b"STORED"
        assert await client.store(b"cas", b"k", b"6", 0, 0, cas=item.cas) == b"EXISTS"
        assert await client.tell(b"incr", b"k", 2) == b"7"
        assert await client.tell(b"decr", b"k", 1) == b"6"
        assert await client.tell(b"touch", b"k", 5) == b"TOUCHED"
        assert await client.tell(b"delete", b"k") == b"DELETED"
        assert await client.fetch_or_each([b"k"]) == ({}, {})
        assert (await client.version()).startswith(b"1.")
        assert (await client.stats(b"settings"))[b"item_size_max"] == b"1048576"
        assert server.connections_total == 1


# Complete replies that do not belong to the request, with no bytes behind them.
WRONG = {
    "read, another key": (lambda c: c.fetch([b"k"]), b"VALUE other 0 1 9\r\nv\r\nEND\r\n"),
    "read, twice the same": (lambda c: c.fetch([b"k"]), b"VALUE k 0 1 9\r\nv\r\nVALUE k 0 1 9\r\nv\r\nEND\r\n"),
    "read, no line end behind the value": (lambda c: c.fetch([b"k"]), b"VALUE k 0 1 9\r\nvv\r\nEND\r\n"),
    "read, other bytes for the line end": (lambda c: c.fetch([b"k"]), b"VALUE k 0 1 9\r\nvXXEND\r\n"),
    "read, more than the reply": (lambda c: c.fetch([b"k"]), b"END\r\nEND\r\n"),
    "read, a length that is none": (lambda c: c.fetch([b"k"]), b"VALUE k 0 -1 9\r\n"),
    "read, a length over the limit": (lambda c: c.fetch([b"k"]), b"VALUE k 0 99999999999 9\r\n"),
    "read, a length of many digits": (lambda c: c.fetch([b"k"]), b"VALUE k 0 " + b"9" * 5000 + b" 9\r\n"),
    "read, no length": (lambda c: c.fetch([b"k"]), b"VALUE k\r\n"),
    "read, no token": (lambda c: c.fetch([b"k"]), b"VALUE k 0 1\r\nv\r\nEND\r\n"),
    "read, a store's": (lambda c: c.fetch([b"k"]), b"STORED\r\n"),
    "read, an endless line": (lambda c: c.fetch([b"k"]), b"x" * 200_000),
    "set, a value": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"VALUE k 0 1 9\r\nv\r\nEND\r\n"),
    "set, a number": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"5\r\n"),
    "set, twice": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"STORED\r\nSTORED\r\n"),
    "set, of the meta protocol": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"HD O999\r\n"),
    "delete, stored": (lambda c: c.tell(b"delete", b"k"), b"STORED\r\n"),
    "touch, deleted": (lambda c: c.tell(b"touch", b"k", 1), b"DELETED\r\n"),
    "incr, stored": (lambda c: c.tell(b"incr", b"k", 1), b"STORED\r\n"),
    "incr, not a number": (lambda c: c.tell(b"incr", b"k", 1), b"-5\r\n"),
    "incr, of many digits": (lambda c: c.tell(b"incr", b"k", 1), b"9" * 5000 + b"\r\n"),
    "version, stored": (lambda c: c.version(), b"STORED\r\n"),
    "stats, a value": (lambda c: c.stats(b"settings"), b"VALUE k 0 1 9\r\nv\r\nEND\r\n"),
    "binary rubbish": (lambda c: c.tell(b"delete", b"k"), bytes(range(256)) + b"\r\n"),
    "an error after which the connection is out of sync": (
        lambda c: c.store(b"set", b"k", b"v", 0, 0),
        b"CLIENT_ERROR bad data chunk\r\n",
    ),
    "an unknown command": (lambda c: c.store(b"set", b"k", b"v", 0, 0), b"ERROR\r\n"),
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
        await client.store(b"set", b"text", b"abc", 0, 0)
        answer = await client.store(b"add", b"k", b"x" * 4096, 0, 0)
        assert answer == b"SERVER_ERROR object too large for cache"
        assert (await client.tell(b"incr", b"text", 1)).startswith(b"CLIENT_ERROR cannot increment")
        assert await client.tell(b"incr", b"none", 1) == b"NOT_FOUND"
        assert server.connections_total == 1


@scenario
async def test_a_batch_that_the_server_refuses_is_read_key_by_key():
    script = (b"SERVER_ERROR no backend\r\n", b"VALUE a 0 1 9\r\n1\r\nEND\r\nSERVER_ERROR no backend\r\n")
    async with ScriptedServer(*script) as server, closing(client_of(server.dial)) as client:
        items, failed = await client.fetch_or_each([b"a", b"b"])
        assert {key: item.value for key, item in items.items()} == {b"a": b"1"}
        assert {key: reply.line for key, reply in failed.items()} == {b"b": b"SERVER_ERROR no backend"}


@scenario
async def test_the_error_for_one_key_is_a_complete_reply():
    async with ScriptedServer(b"SERVER_ERROR no backend\r\n") as server, closing(client_of(server.dial)) as client:
        with pytest.raises(Refused):
            await client.fetch([b"k"])
        assert client.connections == 1
