"""Large values leave as they are, one after another as the transport takes them, with what is around them in its place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import ConnectionLost, QueueFull
from evcache.zones.transport.pipelined import LARGE_BYTES
from tests.support.operations import store
from tests.support.scripted import Peer, outcome
from tests.support.virtual_time import in_virtual_time, run, settle

pytestmark = pytest.mark.usefixtures("each_core")

LARGE = b"L" * LARGE_BYTES


def stored(number, value):
    return b"ms k %d T0 F0 O%d\r\n%b\r\n" % (len(value), number, value)


def ask(peer, value):
    return peer.ask(store(b"k", value))


class Full:
    """Make the transport pause the connection after each write of a given number of bytes."""

    def __init__(self, peer, above=LARGE_BYTES - 1):
        self.connection = peer.connection
        self.full = False
        write = peer.transport.write

        def write_and_pause(data):
            assert not self.full, "written to a transport that has enough"
            write(data)
            if len(data) > above:
                self.full = True
                self.connection.pause_writing()

        peer.transport.write = write_and_pause

    def drain(self):
        self.full = False
        self.connection.resume_writing()


@in_virtual_time
async def test_a_large_value_is_not_copied_into_a_packet():
    peer = Peer()
    answer = ask(peer, LARGE)
    await settle()
    assert peer.transport.writes == [b"ms k %d T0 F0 O1\r\n" % LARGE_BYTES, LARGE, b"\r\n"]
    peer.feed(b"HD O1\r\n")
    assert outcome(answer).status == b"HD"


@in_virtual_time
async def test_a_value_below_that_is_one_packet_with_what_is_around_it():
    peer = Peer()
    ask(peer, LARGE[1:])
    peer.ask()
    await settle()
    assert peer.transport.writes == [stored(1, LARGE[1:]) + b"mg k v O2\r\n"]


@in_virtual_time
async def test_the_next_one_waits_until_the_transport_has_room():
    """And so do the requests behind it; what is between two of them leaves in one write."""
    peer = Peer()
    room = Full(peer)
    for _ in range(2):
        ask(peer, LARGE)
    for _ in range(3):
        peer.ask()
    await settle()
    assert peer.sent == b"ms k %d T0 F0 O1\r\n" % LARGE_BYTES + LARGE
    peer.ask()
    await settle()
    room.drain()
    assert peer.transport.writes[2:] == [b"\r\nms k %d T0 F0 O2\r\n" % LARGE_BYTES, LARGE]
    room.drain()
    assert peer.transport.writes[4:] == [b"\r\n" + b"".join(b"mg k v O%d\r\n" % number for number in range(3, 7))]


@in_virtual_time
async def test_what_waits_counts_against_the_limit():
    peer = Peer(max_queued_bytes=LARGE_BYTES)
    room = Full(peer)
    ask(peer, LARGE)
    with pytest.raises(QueueFull, match="bytes"):
        peer.ask()
    await settle()
    assert "queued=2B" in repr(peer.connection)
    ask(peer, LARGE)
    with pytest.raises(QueueFull, match="bytes"):
        ask(peer, LARGE)
    room.drain()
    await settle()
    # The one that was refused in between has used up a number, and nothing else.
    assert peer.sent == stored(1, LARGE) + stored(3, LARGE)[:-2]


@in_virtual_time
async def test_a_connection_that_ends_in_the_middle_tells_all_who_wait():
    peer = Peer()
    Full(peer)
    answers = [ask(peer, LARGE) for _ in range(3)]
    await settle()
    peer.transport.end(ConnectionResetError())
    await settle()
    assert [type(outcome(answer)) for answer in answers] == [ConnectionLost] * 3
    assert "queued=0B" in repr(peer.connection)


@in_virtual_time
async def test_a_caller_who_leaves_in_the_middle_changes_nothing_of_what_is_sent():
    peer = Peer()
    room = Full(peer)
    first, second = ask(peer, LARGE), ask(peer, LARGE)
    after = peer.ask()
    await settle()
    first.cancel()
    second.cancel()
    for _ in range(2):
        room.drain()
    assert peer.sent == stored(1, LARGE) + stored(2, LARGE) + b"mg k v O3\r\n"
    peer.feed(b"HD O1\r\nHD O2\r\nEN O3\r\n")
    assert outcome(after).status == b"EN"


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    steps=st.lists(st.sampled_from(["small", "large", "get", "turn", "drain"]), max_size=40),
    above=st.sampled_from([0, 10, LARGE_BYTES - 1, 2 * LARGE_BYTES]),
)
def test_in_any_mixture_all_of_it_leaves_once_and_in_order(steps, above):
    async def main():
        peer = Peer()
        room = Full(peer, above)
        expected = b""
        number = 0
        for step in steps:
            if step == "turn":
                await settle()
            elif step == "drain":
                room.drain()
            else:
                number += 1
                if step == "get":
                    peer.ask()
                    expected += b"mg k v O%d\r\n" % number
                else:
                    value = LARGE if step == "large" else b"small"
                    ask(peer, value)
                    expected += stored(number, value)
        await settle()
        while room.full:
            room.drain()
            await settle()
        assert peer.sent == expected

    run(main())
