"""Bytes that a pipelined connection counts: those that its socket transport took, and those that arrived."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.packet import LARGE_BYTES
from tests.support.operations import count, delete, lease, store, touch
from tests.support.scripted import Peer, outcome
from tests.support.virtual_time import in_virtual_time, run, settle

pytestmark = pytest.mark.usefixtures("each_core")

LARGE = b"L" * LARGE_BYTES
REQUEST, REPLY = b"mg k v O1\r\n", b"VA 1 O1\r\nx\r\n"


def counted(peer):
    return peer.traffic.sent, peer.traffic.received


OPERATIONS = {
    "get": (lambda peer: peer.ask(), REPLY),
    "miss": (lambda peer: peer.ask(), b"EN O1\r\n"),
    "get of a large value": (lambda peer: peer.ask(), b"VA %d O1\r\n%b\r\n" % (len(LARGE), LARGE)),
    "get_many": (lambda peer: peer.ask_many([b"k", b"l"]), b"VA 1 kk O1\r\nx\r\nMN\r\n"),
    "get_many with CAS": (
        lambda peer: peer.ask_many([b"k", b"l"], fields=READ_FIELDS),
        b"VALUE k 0 1 7\r\nx\r\nEND\r\nMN\r\n",
    ),
    "store": (lambda peer: peer.ask(store(b"k", b"value")), b"HD O1\r\n"),
    "store of a large value": (lambda peer: peer.ask(store(b"k", LARGE)), b"HD O1\r\n"),
    "packet": (lambda peer: peer.ask_all([b"ms k 1 MR", b"ms k 1 ME"]), b"HD O1\r\nNS O1\r\n"),
    "packet of large values": (lambda peer: peer.ask_all([b"ms k %d" % len(LARGE)] * 2, LARGE), b"HD O1\r\nNS O1\r\n"),
    "delete": (lambda peer: peer.ask(delete()), b"HD O1\r\n"),
    "touch": (lambda peer: peer.ask(touch()), b"HD O1\r\n"),
    "count": (lambda peer: peer.ask(count()), b"VA 1 O1\r\n5\r\n"),
    "lease": (lambda peer: peer.ask(lease()), b"EN O1\r\n"),
    "question of the handshake": (lambda peer: peer.ask_text(), b"VERSION 1.6.38\r\n"),
    "login": (lambda peer: peer.ask_text(b"set auth 0 0 3", data=b"a b"), b"STORED\r\n"),
}


@pytest.mark.parametrize("name", OPERATIONS)
@in_virtual_time
async def test_an_operation_counts_its_request_and_its_reply(name):
    ask, reply = OPERATIONS[name]
    peer = Peer()
    answer = ask(peer)
    assert counted(peer) == (0, 0), "the request waits for the end of the iteration"
    await settle()
    assert counted(peer) == (len(peer.sent), 0)
    assert len(peer.sent) > 0
    peer.feed(reply)
    assert answer.done()
    assert counted(peer) == (len(peer.sent), len(reply))


@pytest.mark.parametrize("callers", [1, 7, 8, 9, 40])
@in_virtual_time
async def test_requests_of_several_iterations_count_once_each(callers):
    """A sole caller is written for at once, the first requests of many leave early, and the rest leave in one write."""
    peer = Peer()
    replies = 0
    for _ in range(4):
        first = peer.connection.requests + 1
        answers = [peer.ask() for _ in range(callers)]
        await settle()
        for number in range(first, first + callers):
            reply = b"EN O%d\r\n" % number
            peer.feed(reply)
            replies += len(reply)
        assert all(answer.done() for answer in answers)
        assert counted(peer) == (len(peer.sent), replies)


@in_virtual_time
async def test_bytes_in_any_slices_are_counted_as_they_arrive():
    peer = Peer()
    peer.ask()
    await settle()
    for number, byte in enumerate(REPLY):
        assert peer.traffic.received == number
        peer.feed(bytes([byte]))
    assert counted(peer) == (len(REQUEST), len(REPLY))


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=12))
def test_bytes_that_the_event_loop_reads_into_a_buffer_are_counted(sizes):
    """It fills the shared buffer, or the memory of a large value."""

    async def scenario():
        peer = Peer()
        answer = peer.ask()
        await settle()
        data = reply = b"VA 200000 O1\r\n%b\r\n" % bytes(200_000)
        while data:
            size = sizes[len(data) % len(sizes)]
            buffer = peer.connection.get_buffer(-1)
            size = min(size, len(buffer), len(data))
            buffer[:size], data = data[:size], data[size:]
            peer.connection.buffer_updated(size)
            assert peer.traffic.received == len(reply) - len(data)
        assert answer.done()

    run(scenario())


@in_virtual_time
async def test_the_reply_to_a_cancelled_caller_counts():
    peer = Peer()
    answer = peer.ask()
    await settle()
    answer.cancel()
    peer.feed(REPLY)
    assert counted(peer) == (len(REQUEST), len(REPLY))


@in_virtual_time
async def test_bytes_that_close_the_connection_count():
    peer = Peer()
    answer = peer.ask()
    await settle()
    peer.feed(b"nonsense\r\n")
    assert isinstance(outcome(answer), Exception)
    assert counted(peer) == (len(REQUEST), len(b"nonsense\r\n"))


@in_virtual_time
async def test_requests_that_the_connection_drops_do_not_count():
    peer = Peer()
    answers = [peer.ask(), peer.ask(store(b"k", LARGE))]
    peer.connection.abort()
    await settle()
    assert all(isinstance(outcome(answer), Exception) for answer in answers)
    assert counted(peer) == (0, 0)


@pytest.mark.parametrize("value", [b"small", LARGE], ids=["small", "large"])
@in_virtual_time
async def test_requests_that_wait_for_a_slow_server_do_not_count_yet(value):
    peer = Peer()
    peer.connection.pause_writing()
    peer.ask(store(b"k", value))
    await settle()
    assert counted(peer) == (0, 0)
    peer.connection.resume_writing()
    assert counted(peer) == (len(peer.sent), 0)
    assert len(peer.sent) > len(value)


@in_virtual_time
async def test_large_values_count_as_the_socket_takes_them():
    peer = Peer()
    write = peer.transport.write

    def write_and_pause(data):
        write(data)
        peer.connection.pause_writing()

    peer.transport.write = write_and_pause
    for _ in range(3):
        peer.ask(store(b"k", LARGE))
    await settle()
    seen = [peer.traffic.sent]
    for _ in range(10):
        assert seen[-1] == len(peer.sent)
        peer.connection.resume_writing()
        seen.append(peer.traffic.sent)
    assert seen == sorted(seen)
    assert seen[0] < len(LARGE) < 3 * len(LARGE) < seen[-1] == len(peer.sent)
    assert len(set(seen)) > 3
