"""Packets of several commands: the exact bytes, which opaque stands where, and large payloads that are not copied."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import ConnectionLost, NodeTimeout, QueueFull
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES, guarded_store
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.protocol.replies import Reply
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.request_tracing import RequestTracer
from tests.support.packets import packet_of, parts_of
from tests.support.scripted import Encoded, Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, run, settle

LARGE = b"L" * LARGE_BYTES
SMALL = LARGE[1:]

# Of one packet: commands, and the bytes with the opaque O7.
BYTES = {
    "one command without payload": ([(b"mg k", None)], b"mg k O7\r\n"),
    "an empty payload is one": ([(b"ms k 0", b"")], b"ms k 0 O7\r\n\r\n"),
    "stores of one value": ([(b"ms k 1 ME", b"v"), (b"ms k 1 I", b"v")], b"ms k 1 ME O7\r\nv\r\nms k 1 I O7\r\nv\r\n"),
    "some with a payload, some without": (
        [(b"mg k N2", None), (b"ms k 2 I", b"vv"), (b"md k I", None), (b"ms k 0 MA", b"")],
        b"mg k N2 O7\r\nms k 2 I O7\r\nvv\r\nmd k I O7\r\nms k 0 MA O7\r\n\r\n",
    ),
    "a payload that looks like a command": ([(b"ms k 9", b"mg k O7\r\n")], b"ms k 9 O7\r\nmg k O7\r\n\r\n"),
    "large first": ([(b"ms k 9", LARGE), (b"mg k", None)], b"ms k 9 O7\r\n" + LARGE + b"\r\nmg k O7\r\n"),
    "large last": ([(b"mg k", None), (b"ms k 9", LARGE)], b"mg k O7\r\nms k 9 O7\r\n" + LARGE + b"\r\n"),
    "large ones next to each other": ([(b"ms k 9", LARGE)] * 2, (b"ms k 9 O7\r\n" + LARGE + b"\r\n") * 2),
    "just below large": ([(b"ms k 9", SMALL), (b"mg k", None)], b"ms k 9 O7\r\n" + SMALL + b"\r\nmg k O7\r\n"),
}


@pytest.mark.parametrize("name", BYTES)
def test_packet_has_these_bytes_whatever_is_large(name):
    commands, expected = BYTES[name]
    assert b"".join(parts_of(packet_of(commands))) == expected


@pytest.mark.parametrize("name", BYTES)
def test_large_payloads_are_views_and_nothing_else_is(name):
    commands, _ = BYTES[name]
    first, *rest = parts_of(packet_of(commands))
    assert isinstance(first, bytes)
    views = [part for part in rest if isinstance(part, memoryview)]
    large = [payload for _, payload in commands if payload is not None and len(payload) >= LARGE_BYTES]
    assert [view.obj for view in views] == large
    assert all(view.obj is payload for view, payload in zip(views, large, strict=True))


@in_virtual_time
async def test_one_packet_is_sent_on_many_connections_with_their_own_opaques():
    packet = packet_of([(b"mg k N2", None), (b"ms k 1 I", b"v")])
    peers = [Peer(), Peer()]
    peers[1].ask()
    for peer in peers:
        peer.connection.send_store(Encoded(packet), Notes(), peer.deadline(1))
    await settle()
    assert peers[0].sent == b"mg k N2 O1\r\nms k 1 I O1\r\nv\r\n"
    assert peers[1].sent == b"mg k v O1\r\nmg k N2 O2\r\nms k 1 I O2\r\nv\r\n"


@in_virtual_time
async def test_waiter_gets_all_replies_when_the_last_is_here():
    peer = Peer()
    answer = peer.ask_packet([(b"mg k N2", None), (b"ms k 1 I", b"v"), (b"md k I", None), (b"ms k 0 MA", b"")])
    await settle()
    assert peer.connection.pending == 1
    peer.feed(b"HD O1 W\r\nSERVER_ERROR out of memory storing object\r\nNF O1\r\n")
    assert not answer.done()
    peer.feed(b"NS O1\r\n")
    assert [found.status for found in outcome(answer)] == [b"HD", b"SERVER_ERROR", b"NF", b"NS"]
    assert outcome(answer)[0] == Reply(b"HD", [b"O1", b"W"], None)
    assert peer.connection.pending == 0


@in_virtual_time
async def test_large_value_is_handed_to_the_transport_as_it_is_between_the_commands_around_it():
    peer = Peer()
    peer.ask_packet([(b"mg k N2", None), (b"ms k 9 I", LARGE), (b"md k I", None), (b"ms k 0 MA", b"")])
    peer.ask()
    await settle()
    assert peer.transport.writes == [
        b"mg k N2 O1\r\nms k 9 I O1\r\n",
        LARGE,
        b"\r\nmd k I O1\r\nms k 0 MA O1\r\n\r\nmg k v O2\r\n",
    ]


@in_virtual_time
async def test_rest_of_a_packet_waits_while_the_transport_has_enough_and_counts_against_the_limit():
    peer = Peer(max_queued_bytes=LARGE_BYTES)
    write = peer.transport.write

    def write_and_pause(data):
        write(data)
        if len(data) == LARGE_BYTES:
            peer.connection.pause_writing()

    peer.transport.write = write_and_pause
    commands = [(b"ms k 9 I", LARGE), (b"md k I", None)]
    peer.ask_packet(commands)
    with pytest.raises(QueueFull, match="bytes"):
        peer.ask_packet(commands)
    await settle()
    tail = b"\r\nmd k I O1\r\n"
    assert peer.sent == b"ms k 9 I O1\r\n" + LARGE
    assert f"queued={len(tail)}B" in repr(peer.connection)
    peer.connection.resume_writing()
    assert peer.sent.endswith(LARGE + tail)


@in_virtual_time
async def test_packet_that_is_late_is_one_timeout_and_its_replies_are_dropped():
    peer = Peer()
    late = peer.ask_packet([(b"mg k N2", None), (b"ms k 1 I", b"v")], within=1)
    after = peer.ask()
    await settle()
    peer.feed(b"HD O1\r\n")
    peer.connection._expire()
    late.cancel()
    peer.feed(b"HD O1\r\nEN O2\r\n")
    assert outcome(after).status == b"EN"
    assert peer.connection.is_open


@pytest.mark.parametrize("answered", [0, 1, 3])
@in_virtual_time
async def test_connection_that_ends_inside_a_packet_fails_its_waiter(answered):
    peer = Peer()
    answer = peer.ask_packet([(b"mg k N2", None), (b"ms k 1 I", b"v"), (b"md k I", None), (b"ms k 0 MA", b"")])
    await settle()
    peer.feed(b"HD O1\r\n" * answered)
    peer.transport.end(None)
    await settle()
    assert type(outcome(answer)) is ConnectionLost


def test_a_timeout_reaches_the_waiter_once():
    async def main():
        peer = Peer()
        answer = peer.ask_packet([(b"mg k N2", None), (b"ms k 1 I", b"v")], within=0.5)
        peer.feed(b"HD O1\r\n")
        with pytest.raises(NodeTimeout):
            await answer
        assert peer.late == [(1, 1)]

    run(main())


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(
    commands=st.lists(
        st.tuples(st.sampled_from([b"mg k", b"ms k 1", b"md k"]), st.sampled_from([None, b"", b"v", SMALL, LARGE])),
        min_size=1,
        max_size=6,
    ),
    opaque=st.integers(1, 10**12).map(lambda number: b"O%d" % number),
)
def test_any_packet_is_the_bytes_of_its_commands(commands, opaque):
    expected = b""
    for line, payload in commands:
        expected += line + b" " + opaque + b"\r\n" + (b"" if payload is None else payload + b"\r\n")
    assert b"".join(parts_of(packet_of(commands), opaque)) == expected


@pytest.mark.parametrize("size", [THREE_COPIES_MAX_BYTES + 1, LARGE_BYTES])
def test_tap_sees_a_packet_as_one_request_named_by_its_store(size):
    async def main():
        seen, ended = [], []
        tap = RequestTracer()
        tap.subscribe(lambda endpoint, command, requests: seen.append((command, requests)) or ended.append)
        peer = Peer()
        tapped = tap.wrap(peer.connection, Endpoint.parse("a:11211"))
        answer = peer.loop.create_future()
        tapped.send_store(guarded_store(b"k", b"v" * size, 0, 60, cas=9, stub=99), answer, peer.deadline(1))
        await settle()
        assert b"mg k" in peer.sent
        assert (seen, ended) == ([("ms", 1)], [])
        peer.feed(b"HD O1\r\n" * 4)
        assert len(await answer) == 4
        assert ended == [None]

    run(main())
