"""Handshake on a new connection, with each possible reply."""

import asyncio

import pytest

from evcache.zones.errors import (
    CacheError,
    ConnectionLost,
    NodeError,
    NodeTimeout,
    NodeUnavailable,
    ProtocolError,
    Unsupported,
)
from evcache.zones.nodes.capabilities import DEFAULT_ITEM_BYTES, Capabilities
from evcache.zones.nodes.handshake import HungUp, handshake_meta
from evcache.zones.testing import FakeMemcached
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.pipelined import PipelinedConnection
from tests.support.node_bench import Bench
from tests.support.scripted import Peer
from tests.support.virtual_time import in_virtual_time, now, settle


async def hands_shaken_with(server, auth=None):
    loop = asyncio.get_running_loop()
    _, connection = await server.connect(lambda: PipelinedConnection("node-1", loop, ConnectionLimits(), lambda *_: None))
    try:
        return await handshake_meta(connection, loop.time() + 0.5, auth)
    finally:
        connection.abort()


SERVERS = {
    "current": ({"version": "1.6.38"}, Capabilities("1.6.38", explicit_cas=True, cas=True)),
    "the first that lets clients choose": ({"version": "1.6.27"}, Capabilities("1.6.27", explicit_cas=True, cas=True)),
    "the last that does not": ({"version": "1.6.26"}, Capabilities("1.6.26", explicit_cas=False, cas=True)),
    "oldest": ({"version": "1.6.18"}, Capabilities("1.6.18", explicit_cas=False, cas=True)),
    "without CAS": ({"cas_enabled": False}, Capabilities("1.6.38", explicit_cas=True, cas=False)),
    "small items": ({"item_size_max": 4_096}, Capabilities("1.6.38", explicit_cas=True, cas=True, item_bytes=4_096)),
    "large items": (
        {"item_size_max": 128 * 1024 * 1024},
        Capabilities("1.6.38", explicit_cas=True, cas=True, item_bytes=134_217_728),
    ),
}


@pytest.mark.parametrize("name", SERVERS)
@in_virtual_time
async def test_capabilities_are_seen_on_the_wire(name):
    options, expected = SERVERS[name]
    assert await hands_shaken_with(FakeMemcached(**options)) == expected


@in_virtual_time
async def test_asking_changes_nothing_on_the_server():
    server = FakeMemcached()
    await hands_shaken_with(server)
    assert len(server.store) == 0


@in_virtual_time
async def test_a_login_that_is_accepted():
    server = FakeMemcached(auth=("alice", "s3cret"))
    assert (await hands_shaken_with(server, ("alice", "s3cret"))).server == "1.6.38"


@in_virtual_time
async def test_a_login_that_is_refused_says_so_at_once_and_without_the_password():
    server = FakeMemcached(auth=("alice", "s3cret"))
    with pytest.raises(NodeUnavailable, match="the login was refused.*authentication failure") as caught:
        await hands_shaken_with(server, ("alice", "wr0ng"))
    assert "wr0ng" not in str(caught.value)
    assert caught.value.node == "node-1"
    assert now() == 0


@in_virtual_time
async def test_a_server_that_wants_a_login_and_gets_none_says_so():
    """And not only that time is up: it answers one complaint for all questions."""
    server = FakeMemcached(auth=("alice", "s3cret"))
    with pytest.raises(CacheError, match=r"unauthenticated.*auth=\(user, password\)"):
        await hands_shaken_with(server)


@in_virtual_time
async def test_the_first_question_before_a_login_is_long_enough_for_a_binary_server_to_close():
    """It says nothing before it has read 24 bytes, and the client would wait for the whole connect timeout."""
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), ("a", "b")))
    await settle()
    assert len(peer.sent) == 24
    peer.transport.end(None)
    with pytest.raises(HungUp):
        await hands


@pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])
@pytest.mark.parametrize("transport", ["auto", "meta", "classic"])
@in_virtual_time
async def test_a_login_is_not_sent_to_a_server_that_asks_for_none(caplog, classic_only, transport):
    """It would store the password, under a key that every client can read."""
    server = FakeMemcached(classic_only=classic_only)
    async with Bench(server, transport=transport, auth=("alice", "s3cret")) as bench:
        if classic_only and transport == "meta":
            with pytest.raises(NodeUnavailable, match="does not support the meta protocol"):
                await bench.connected()
        else:
            await bench.connected()
            assert "login not sent: node" in caplog.text
        assert server.commands["set"] == 0
        assert len(server.store) == 0
    assert "s3cret" not in caplog.text


REFUSALS = ["ERROR", "CLIENT_ERROR bad command line format", "SERVER_ERROR not supported", "ERROR unknown command"]
QUESTIONS = {
    # The beginning of the line, the servers that are asked it, and what it changes on a server of the meta protocol.
    "mn": ("mn", ("auto",), {"explicit_cas": False, "transport": "classic"}),
    "the CAS probe": ("mg !", ("auto", "meta"), {"explicit_cas": False}),
    "version": ("version", ("auto", "meta", "classic"), {"server": "unknown"}),
    "stats settings": ("stats settings", ("auto", "meta", "classic"), {"item_bytes": DEFAULT_ITEM_BYTES}),
}
QUESTIONS_TO = [(question, transport) for question in QUESTIONS for transport in QUESTIONS[question][1]]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize(("question", "transport"), QUESTIONS_TO)
@in_virtual_time
async def test_a_server_that_refuses_an_optional_question_is_used_without_the_answer(question, transport, refusal):
    line, _, changes = QUESTIONS[question]
    async with Bench(FakeMemcached(refuse={line: refusal}, item_size_max=4_096), transport=transport) as bench:
        connection = await bench.connected()
        expected = {"server": "1.6.38", "explicit_cas": True, "transport": "meta", "item_bytes": 4_096}
        if transport == "classic":
            expected |= {"explicit_cas": False, "transport": "classic"}
        seen = bench.node.capabilities
        assert {name: getattr(seen, name) for name in expected} == expected | changes
        answer = bench.loop.create_future()
        connection.store(b"k", b"x", 0, 0, answer, bench.loop.time() + 1)
        assert (await answer).status == b"HD"
        assert (await (await bench.ask())).value == b"x"
        assert bench.attempts <= 3  # the refusal has cost no connection that had begun to serve


@in_virtual_time
async def test_a_server_that_refuses_every_question_with_server_error_is_in_trouble_and_not_a_classic_one():
    refuse = dict.fromkeys(("mn", "mg", "version", "stats", "get"), "SERVER_ERROR out of memory")
    async with Bench(FakeMemcached(refuse=refuse)) as bench:
        with pytest.raises(NodeUnavailable, match="SERVER_ERROR out of memory"):
            await bench.connected()


@pytest.mark.parametrize("alive", ["mg !q", "mg !r", "mg !s"])
@in_virtual_time
async def test_a_proxy_whose_backend_of_the_first_probe_is_dead_is_still_seen_to_keep_versions(alive):
    dead = {f"mg !{name}": "SERVER_ERROR connection refused" for name in "pqrs"}
    del dead[alive]
    capabilities = await hands_shaken_with(FakeMemcached(refuse=dead))
    assert capabilities.versions


@in_virtual_time
async def test_a_server_without_the_meta_protocol_is_not_supported():
    with pytest.raises(Unsupported, match="node-1 does not support the meta protocol"):
        await hands_shaken_with(FakeMemcached(classic_only=True))


@in_virtual_time
async def test_a_login_travels_alone_and_the_questions_together():
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), ("a", "b")))
    await settle()
    assert peer.sent.split() == [b"mn"]
    peer.feed(b"CLIENT_ERROR unauthenticated\r\n")
    await settle()
    assert peer.transport.writes[1:] == [b"set auth 0 0 3\r\na b\r\n"]
    peer.feed(b"STORED\r\n")
    await settle()
    assert b"".join(peer.transport.writes[2:]) == b"mn\r\nmg !p E1\r\nversion\r\nstats settings\r\n"
    peer.feed(b"MN\r\nEN\r\nVERSION 1.6.38 extra\r\nSTAT item_size_max 2048\r\nSTAT cas_enabled yes\r\nEND\r\n")
    assert await hands == Capabilities("1.6.38 extra", explicit_cas=True, cas=True, item_bytes=2_048)
    assert peer.connection.is_open


SETTINGS = {
    "nothing": (b"END", True, DEFAULT_ITEM_BYTES),
    "an error in sync": (b"CLIENT_ERROR invalid flag", True, DEFAULT_ITEM_BYTES),
    "no CAS": (b"STAT cas_enabled no\r\nEND", False, DEFAULT_ITEM_BYTES),
    "other settings": (b"STAT maxbytes 1\r\nSTAT verbosity\r\nEND", True, DEFAULT_ITEM_BYTES),
    "a size that is none": (b"STAT item_size_max many\r\nEND", True, DEFAULT_ITEM_BYTES),
    "a size": (b"STAT item_size_max 1024\r\nEND", True, 1_024),
}


@pytest.mark.parametrize("name", SETTINGS)
@in_virtual_time
async def test_settings_that_are_not_shown_are_memcacheds_defaults(name):
    lines, cas, item_bytes = SETTINGS[name]
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(b"MN\r\nEN\r\nVERSION 1\r\n" + lines + b"\r\n")
    assert await hands == Capabilities("1", explicit_cas=True, cas=cas, item_bytes=item_bytes)


WRONG = {
    "no answer to the no-op": (b"VERSION 1\r\n", (NodeError, Unsupported)),
    "garbage": (b"garbage\r\n", (NodeError, Unsupported)),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", (NodeError, Unsupported)),
    "a value for the probe": (b"MN\r\nHD\r\nVERSION 1\r\nEND\r\n", ProtocolError),
    "no version": (b"MN\r\nEN\r\nOK\r\nEND\r\n", ProtocolError),
}


@pytest.mark.parametrize("name", WRONG)
@in_virtual_time
async def test_answers_that_make_no_sense_are_errors(name):
    answer, expected = WRONG[name]
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(answer)
    with pytest.raises(expected):
        await hands


@in_virtual_time
async def test_no_answer_is_a_timeout():
    peer = Peer()
    with pytest.raises(NodeTimeout):
        await handshake_meta(peer.connection, peer.deadline(0.5), None)
    assert now() == pytest.approx(0.5)


@pytest.mark.parametrize("before", [b"", b"MN\r\n", b"MN\r\nEN\r\nVER"])
@in_virtual_time
async def test_an_end_in_the_middle_is_an_error(before):
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(before)
    peer.transport.end(None)
    with pytest.raises(ConnectionLost):
        await hands


@pytest.mark.parametrize("auth", [None, ("a", "b")])
@in_virtual_time
async def test_cancelling_leaves_nothing_behind(auth):
    peer = Peer()
    hands = asyncio.create_task(handshake_meta(peer.connection, peer.deadline(1), auth))
    await settle()
    hands.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hands
    peer.connection.abort()
