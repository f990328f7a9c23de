"""Deadlines of requests on a pipelined connection, and the end of a connection whose server sends nothing."""

import asyncio
import socket

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout
from evcache.zones.protocol.replies import Reply
from tests.support.operations import get
from tests.support.scripted import VALUE, Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle

pytestmark = pytest.mark.usefixtures("each_core")


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


@in_virtual_time
async def test_a_deadline_fails_only_the_late_one_and_on_time():
    peer = Peer()
    finished = {}

    def note(name):
        return lambda _: finished.__setitem__(name, now())

    late = {name: peer.ask(within=seconds) for name, seconds in {"b": 0.2, "a": 0.1, "c": 0.3}.items()}
    for name, answer in late.items():
        answer.add_done_callback(note(name))
    waits = peer.ask(within=4)
    await asyncio.sleep(0.5)
    assert {type(outcome(answer)) for answer in late.values()} == {NodeTimeout}
    assert finished == {"a": pytest.approx(0.1), "b": pytest.approx(0.2), "c": pytest.approx(0.3)}
    assert not waits.done()
    peer.feed(b"EN O1\r\nEN O2\r\nEN O3\r\nVA 4 O4\r\nmine\r\n")
    assert outcome(waits).value == b"mine"
    assert peer.connection.is_open


@in_virtual_time
async def test_a_timeout_says_which_node_and_leaves_the_connection_open():
    peer = Peer()
    late = peer.ask(within=0.1)
    await asyncio.sleep(0.1001)
    error = outcome(late)
    assert type(error) is NodeTimeout
    assert error.node == "node-1"
    assert peer.connection.is_open
    assert peer.connection.pending == 1


@in_virtual_time
async def test_a_deadline_that_has_passed_fails_at_once():
    peer = Peer()
    late, fine = peer.ask(within=-1), peer.ask(within=1)
    await settle()
    assert type(outcome(late)) is NodeTimeout
    assert not fine.done()
    assert now() == 0


@in_virtual_time
async def test_there_is_one_timer_for_all_deadlines():
    """A timer per call would cost more than the call."""
    peer = Peer()
    set_timers = 0
    call_at = peer.loop.call_at

    def counting(*arguments, **options):
        nonlocal set_timers
        set_timers += 1
        return call_at(*arguments, **options)

    peer.loop.call_at = counting
    for number in range(1_000):
        peer.ask(within=1 + number / 1_000)
    assert set_timers <= 2
    active = [handle for handle in peer.loop._scheduled if not handle.cancelled()]
    assert len(active) == 1


@in_virtual_time
async def test_a_nearer_deadline_moves_the_timer():
    peer = Peer()
    peer.ask(within=3)
    soon = peer.ask(within=0.1)
    await asyncio.sleep(0.11)
    assert type(outcome(soon)) is NodeTimeout


@in_virtual_time
async def test_answers_that_are_here_when_a_busy_loop_gets_to_its_timers_are_delivered():
    """The loop was busy beyond the deadline; the server was not slow."""
    peer = Peer()
    answered, late = peer.ask(within=0.1), peer.ask(within=0.1)

    def busy():
        peer.loop.advance(1.0)  # past the deadline
        peer.loop.call_soon(peer.feed, b"VA 4 O1\r\nmine\r\n")

    peer.loop.call_later(0.05, busy)
    await asyncio.sleep(2)
    assert outcome(answered).value == b"mine"
    assert type(outcome(late)) is NodeTimeout


@in_virtual_time
async def test_the_same_with_a_real_socket():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    peer = Peer(open_it=False)
    with theirs:
        await loop.create_connection(lambda: peer.connection, sock=ours)
        answered, late = peer.ask(within=0.1), peer.ask(within=0.1)

        def busy():
            theirs.send(b"VA 4 O1\r\nmine\r\n")
            loop.advance(1.0)

        loop.call_later(0.05, busy)
        await asyncio.sleep(2)
        assert outcome(answered).value == b"mine"
        assert type(outcome(late)) is NodeTimeout
        assert theirs.recv(100) == b"mg k v O1\r\nmg k v O2\r\n"
        peer.connection.abort()
        await settle()
        assert theirs.recv(100) == b""


@pytest.mark.parametrize("within", [0.1, 4.0, 60.0, float("inf")])
@in_virtual_time
async def test_silence_ends_the_connection(within):
    """However long the calls are ready to wait."""
    peer = Peer(silence=5.0)
    waits = peer.ask(within=within)
    await asyncio.sleep(4.99)
    assert peer.lost == []
    await asyncio.sleep(0.02)
    assert [type(why) for why in peer.lost] == [ConnectionLost]
    assert peer.transport.aborted
    assert type(outcome(waits)) is (NodeTimeout if within < 5 else ConnectionLost)


@in_virtual_time
async def test_silence_is_counted_from_the_last_byte_even_if_nobody_waits_for_it_any_more():
    peer = Peer(silence=5.0)
    given_up, also = peer.ask(within=0.1), peer.ask(within=0.1)
    await asyncio.sleep(3)
    peer.feed(b"V")
    await asyncio.sleep(4.9)
    assert peer.lost == []
    await asyncio.sleep(0.2)
    assert len(peer.lost) == 1
    assert type(outcome(given_up)) is type(outcome(also)) is NodeTimeout


@in_virtual_time
async def test_a_server_that_takes_bytes_is_not_gone():
    peer = Peer(silence=5.0)
    peer.connection.pause_writing()
    late = peer.ask(within=0.1)
    await asyncio.sleep(4)
    peer.connection.resume_writing()
    await asyncio.sleep(4.9)
    assert peer.lost == []
    await asyncio.sleep(0.2)
    assert len(peer.lost) == 1
    assert type(outcome(late)) is NodeTimeout


@in_virtual_time
async def test_an_idle_connection_may_be_silent_for_ever():
    peer = Peer(silence=5.0)
    asked = peer.ask(within=1)
    peer.feed(b"EN O1\r\n")
    assert outcome(asked) == reply(b"EN O1")
    await asyncio.sleep(3_600)
    later = peer.ask(within=1)
    await asyncio.sleep(0.9)
    assert peer.connection.is_open
    assert not later.done()
    peer.feed(b"EN O2\r\n")
    assert outcome(later) == reply(b"EN O2")


@in_virtual_time
async def test_what_a_failed_waiter_asks_next_has_a_deadline_too():
    """A waiter may ask again from within `set_exception`, for example the next of several stores."""
    peer = Peer()
    again = []
    peer.ask(within=0.1, waiter=Notes(on_error=lambda _: again.append(peer.ask(get(b"again", VALUE), within=0.1))))
    peer.ask(within=3)
    await asyncio.sleep(0.15)
    assert len(again) == 1
    assert not again[0].done()
    await asyncio.sleep(0.1)
    assert type(outcome(again[0])) is NodeTimeout


@in_virtual_time
async def test_no_timer_is_left_when_the_connection_has_ended():
    peer = Peer()
    waits = peer.ask(within=50)
    peer.connection.abort()
    assert type(outcome(waits)) is ConnectionLost
    assert [handle for handle in peer.loop._scheduled if not handle.cancelled()] == []


@in_virtual_time
async def test_requests_that_are_held_back_still_have_deadlines():
    peer = Peer()
    peer.connection.pause_writing()
    late = peer.ask(within=0.1)
    await asyncio.sleep(0.11)
    assert type(outcome(late)) is NodeTimeout
