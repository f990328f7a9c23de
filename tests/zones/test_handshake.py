"""What is asked on a new connection, and what becomes of each answer."""

import asyncio

import pytest

from tests.virtual_time import in_virtual_time, now, settle
from tests.zones.scripted import Peer
from zones.capabilities import DEFAULT_ITEM_BYTES, Capabilities
from zones.connection import Connection
from zones.errors import CacheError, ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, ProtocolError, Unsupported
from zones.handshake import shake_hands
from zones.limits import ConnectionLimits
from zones.testing import FakeMemcached


async def hands_shaken_with(server, auth=None):
    loop = asyncio.get_running_loop()
    _, connection = await server.connect(lambda: Connection("node-1", loop, ConnectionLimits(), lambda *_: None))
    try:
        return await shake_hands(connection, loop.time() + 0.5, auth)
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
    with pytest.raises(CacheError, match="unauthenticated"):
        await hands_shaken_with(server)


@in_virtual_time
async def test_a_server_without_the_meta_protocol_is_not_supported():
    with pytest.raises(Unsupported, match="node-1 does not support the meta protocol"):
        await hands_shaken_with(FakeMemcached(classic_only=True))


@in_virtual_time
async def test_a_login_travels_alone_and_the_questions_together():
    peer = Peer()
    hands = asyncio.create_task(shake_hands(peer.connection, peer.deadline(1), ("a", "b")))
    await settle()
    assert peer.transport.writes == [b"set auth 0 0 3\r\na b\r\n"]
    peer.feed(b"STORED\r\n")
    await settle()
    assert b"".join(peer.transport.writes[1:]) == b"mn\r\nmg !p E1 O1\r\nversion\r\nstats settings\r\n"
    peer.feed(b"MN\r\nEN O1\r\nVERSION 1.6.38 extra\r\nSTAT item_size_max 2048\r\nSTAT cas_enabled yes\r\nEND\r\n")
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
    hands = asyncio.create_task(shake_hands(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(b"MN\r\nEN O1\r\nVERSION 1\r\n" + lines + b"\r\n")
    assert await hands == Capabilities("1", explicit_cas=True, cas=cas, item_bytes=item_bytes)


WRONG = {
    "no answer to the no-op": (b"VERSION 1\r\n", (NodeError, Unsupported)),
    "garbage": (b"garbage\r\n", (NodeError, Unsupported)),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", (NodeError, Unsupported)),
    "a value for the probe": (b"MN\r\nHD O1\r\nVERSION 1\r\nEND\r\n", ProtocolError),
    "no version": (b"MN\r\nEN O1\r\nOK\r\nEND\r\n", ProtocolError),
}


@pytest.mark.parametrize("name", WRONG)
@in_virtual_time
async def test_answers_that_make_no_sense_are_errors(name):
    answer, expected = WRONG[name]
    peer = Peer()
    hands = asyncio.create_task(shake_hands(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(answer)
    with pytest.raises(expected):
        await hands


@in_virtual_time
async def test_no_answer_is_a_timeout():
    peer = Peer()
    with pytest.raises(NodeTimeout):
        await shake_hands(peer.connection, peer.deadline(0.5), None)
    assert now() == pytest.approx(0.5)


@pytest.mark.parametrize("before", [b"", b"MN\r\n", b"MN\r\nEN O1\r\nVER"])
@in_virtual_time
async def test_an_end_in_the_middle_is_an_error(before):
    peer = Peer()
    hands = asyncio.create_task(shake_hands(peer.connection, peer.deadline(1), None))
    await settle()
    peer.feed(before)
    peer.transport.end(None)
    with pytest.raises(ConnectionLost):
        await hands


@pytest.mark.parametrize("auth", [None, ("a", "b")])
@in_virtual_time
async def test_cancelling_leaves_nothing_behind(auth):
    peer = Peer()
    hands = asyncio.create_task(shake_hands(peer.connection, peer.deadline(1), auth))
    await settle()
    hands.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hands
    peer.connection.abort()
