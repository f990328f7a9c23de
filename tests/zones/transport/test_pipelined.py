"""Every caller gets its own reply or an error, on time, whatever the server, other callers and the clock do."""

import asyncio
import random
import socket

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable, ProtocolError, QueueFull
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.protocol.replies import Reply
from evcache.zones.transport.write_queue import EAGER_REQUESTS
from tests.support import virtual_time
from tests.support.operations import get, store
from tests.support.scripted import VALUE, Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


# Writing.


@in_virtual_time
async def test_requests_of_one_tick_leave_in_one_write():
    peer = Peer()
    for _ in range(3):
        peer.ask()
    peer.ask(store(b"k", b"abc"))
    assert peer.transport.writes == []
    await settle()
    assert peer.transport.writes == [b"mg k v O1\r\nmg k v O2\r\nmg k v O3\r\nms k 3 T0 F0 O4\r\nabc\r\n"]


@in_virtual_time
async def test_a_caller_who_is_alone_is_written_for_at_once():
    """This holds from the second request on, because the first tick had one caller. It ends when a second caller asks."""
    peer = Peer()
    peer.ask()
    assert peer.transport.writes == []
    await settle()
    for number in (2, 3):
        peer.feed(b"EN O%d\r\n" % (number - 1))
        peer.ask()
        assert peer.transport.writes[number - 1 :] == [b"mg k v O%d\r\n" % number]
    await settle()
    assert len(peer.transport.writes) == 3, "and once"
    peer.feed(b"EN O3\r\n")
    for _ in range(3):
        peer.ask()
    assert peer.transport.writes[3:] == [b"mg k v O4\r\n"]
    await settle()
    assert peer.transport.writes[4:] == [b"mg k v O5\r\nmg k v O6\r\n"]
    peer.feed(b"EN O4\r\nEN O5\r\nEN O6\r\n")
    for _ in range(3):
        peer.ask()
    assert len(peer.transport.writes) == 5, "he is not alone any more"
    await settle()
    assert peer.transport.writes[5:] == [b"mg k v O7\r\nmg k v O8\r\nmg k v O9\r\n"]


@in_virtual_time
async def test_behind_a_request_that_waits_nobody_is_alone():
    peer = Peer()
    peer.ask()
    await settle()
    peer.ask()
    assert len(peer.transport.writes) == 1
    await settle()
    assert peer.transport.writes[1:] == [b"mg k v O2\r\n"]


@in_virtual_time
async def test_a_transport_that_has_enough_gets_nothing_of_a_caller_who_is_alone():
    peer = Peer()
    peer.ask()
    await settle()
    peer.feed(b"EN O1\r\n")
    peer.connection.pause_writing()
    peer.ask()
    await settle()
    assert peer.transport.writes == [b"mg k v O1\r\n"]
    peer.connection.resume_writing()
    assert peer.transport.writes[1:] == [b"mg k v O2\r\n"]


@in_virtual_time
async def test_a_server_with_nothing_to_do_gets_the_first_requests_of_a_long_tick_at_once():
    """So that it works while the rest are made; the rest leave in one write, and nothing is sent twice."""
    peer = Peer()
    for _ in range(EAGER_REQUESTS + 12):
        peer.ask()
    first = b"".join(b"mg k v O%d\r\n" % number for number in range(1, EAGER_REQUESTS + 1))
    assert peer.transport.writes == [first]
    await settle()
    rest = b"".join(b"mg k v O%d\r\n" % number for number in range(EAGER_REQUESTS + 1, EAGER_REQUESTS + 13))
    assert peer.transport.writes == [first, rest]


@in_virtual_time
async def test_a_server_that_is_busy_gets_a_long_tick_in_one_write():
    peer = Peer()
    peer.ask()
    await settle()
    for _ in range(EAGER_REQUESTS + 12):
        peer.ask()
    await settle()
    assert len(peer.transport.writes) == 2


@in_virtual_time
async def test_requests_of_another_tick_leave_in_another_write():
    peer = Peer()
    peer.ask()
    await settle()
    peer.ask()
    await settle()
    assert peer.transport.writes == [b"mg k v O1\r\n", b"mg k v O2\r\n"]


@in_virtual_time
async def test_a_value_may_be_empty():
    peer = Peer()
    peer.ask(store(b"k", b""))
    await settle()
    assert peer.sent == b"ms k 0 T0 F0 O1\r\n\r\n"


@in_virtual_time
async def test_stores_of_one_value_share_an_opaque():
    peer = Peer()
    answer = peer.ask_all([b"ms k 1 ME", b"ms k 1 C2 I"], b"v")
    await settle()
    assert peer.sent == b"ms k 1 ME O1\r\nv\r\nms k 1 C2 I O1\r\nv\r\n"
    peer.feed(b"NS O1\r\nH")
    assert not answer.done()
    peer.feed(b"D O1\r\n")
    assert outcome(answer) == [reply(b"NS O1"), reply(b"HD O1")]


@in_virtual_time
async def test_a_text_command_goes_as_it_is():
    peer = Peer()
    version, login = peer.ask_text(), peer.ask_text(b"set auth 0 0 3", data=b"a b")
    await settle()
    assert peer.sent == b"version\r\nset auth 0 0 3\r\na b\r\n"
    peer.feed(b"VERSION 1\r\nSTORED\r\n")
    assert (outcome(version), outcome(login)) == ([reply(b"VERSION 1")], [reply(b"STORED")])


@in_virtual_time
async def test_statistics_are_read_up_to_their_end():
    peer = Peer()
    answer, after = peer.ask_text(b"stats", until=b"END"), peer.ask()
    peer.feed(b"STAT a 1\r\nSTAT b 2\r\nEND\r\nEN O1\r\n")
    assert outcome(answer) == [reply(b"STAT a 1"), reply(b"STAT b 2"), reply(b"END")]
    assert outcome(after) == reply(b"EN O1")


# Matching.


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
@in_virtual_time
async def test_replies_are_matched_in_order_however_they_arrive(size):
    peer = Peer()
    answers = [peer.ask() for _ in range(20)]
    stream = b"".join(b"VA 3 O%d\r\n%03d\r\n" % (number, number) for number in range(1, 21))
    peer.feed(*(stream[start : start + size] for start in range(0, len(stream), size)))
    assert [outcome(answer).value for answer in answers] == [b"%03d" % number for number in range(1, 21)]
    assert peer.connection.pending == 0
    assert peer.connection.is_open


@in_virtual_time
async def test_each_reply_is_given_when_it_is_complete():
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    peer.feed(b"EN O1\r\nEN O2\r")
    assert (outcome(first), outcome(second)) == (reply(b"EN O1"), None)
    peer.feed(b"\n")
    assert outcome(second) == reply(b"EN O2")


@in_virtual_time
async def test_the_reply_of_a_cancelled_request_is_dropped_and_the_next_caller_gets_its_own():
    peer = Peer()
    given_up, next_one = peer.ask(), peer.ask()
    await settle()
    given_up.cancel()
    assert peer.connection.pending == 2
    peer.feed(b"VA 6 O1\r\nsecret\r\nVA 4 O2\r\nmine\r\n")
    assert outcome(next_one).value == b"mine"
    assert given_up.cancelled()
    assert peer.connection.is_open


@in_virtual_time
async def test_a_request_that_is_cancelled_before_it_is_written_keeps_its_place_too():
    peer = Peer()
    given_up, next_one = peer.ask(), peer.ask()
    given_up.cancel()
    await settle()
    assert peer.sent == b"mg k v O1\r\nmg k v O2\r\n"
    peer.feed(b"EN O1\r\nVA 4 O2\r\nmine\r\n")
    assert outcome(next_one).value == b"mine"


@in_virtual_time
async def test_the_reply_of_a_request_that_timed_out_is_dropped():
    peer = Peer()
    late = peer.ask(within=0.1)
    await asyncio.sleep(0.2)
    next_one = peer.ask()
    peer.feed(b"VA 3 O1\r\nold\r\n", b"VA 4 O2\r\nmine\r\n")
    assert type(outcome(late)) is NodeTimeout
    assert outcome(next_one).value == b"mine"


@pytest.mark.parametrize(
    "answer",
    [
        b"HD O2\r\n", b"HD O11\r\n", b"HD\r\n", b"VA 6 f0 O2\r\nsecret\r\n", b"MN\r\n", b"VERSION 1\r\n", b"END\r\n",
        b"ERROR\r\n", b"CLIENT_ERROR bad data chunk\r\n", b"CLIENT_ERROR bad command line format\r\n",
        b"\r\n", b"garbage\r\n", b"VA x\r\n", b"VA 3 O1\r\nabcd\r\n", b"VALUE k 0 3\r\nabc\r\nEND\r\n", b"x" * 3_000,
        b"HD O1\nHD O2\nHD O3\nHD O4\r\n", b"HD O9 O8\r\n",
    ],
)  # fmt: skip
@in_virtual_time
async def test_a_reply_that_can_not_be_right_ends_the_connection_and_is_given_to_nobody(answer):
    """The request it came for fails with ProtocolError, the others with ConnectionLost."""
    peer = Peer()
    first, second, third = (peer.ask() for _ in range(3))
    peer.feed(answer, b"HD O2\r\nHD O3\r\n")
    errors = [outcome(future) for future in (first, second, third)]
    assert list(map(type, errors)) == [ProtocolError, ConnectionLost, ConnectionLost]
    assert {error.node for error in errors} == {"node-1"}
    assert peer.transport.aborted
    assert not peer.connection.is_open
    assert [type(why) for why in peer.lost] == [ConnectionLost]
    await settle()
    assert len(peer.lost) == 1


@in_virtual_time
async def test_replies_before_the_wrong_one_are_delivered():
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    peer.feed(b"EN O1\r\ngarbage\r\n")
    assert outcome(first) == reply(b"EN O1")
    assert type(outcome(second)) is ProtocolError


@pytest.mark.parametrize("answer", [b"EN O1\r\n", b"MN\r\n", b"ERROR\r\n", b"SERVER_ERROR out of memory\r\n", b"\0"])
@in_virtual_time
async def test_what_nobody_asked_for_ends_the_connection(answer):
    peer = Peer()
    asked = peer.ask()
    peer.feed(b"EN O1\r\n")
    assert outcome(asked) == reply(b"EN O1")
    peer.feed(answer + b"\r\n")
    assert peer.transport.aborted
    assert len(peer.lost) == 1
    with pytest.raises(ConnectionLost):
        peer.ask()


@in_virtual_time
async def test_the_wrong_reply_to_a_cancelled_request_ends_the_connection_too():
    peer = Peer()
    given_up, next_one = peer.ask(), peer.ask()
    given_up.cancel()
    peer.feed(b"VA 4 O2\r\nmine\r\n")
    assert type(outcome(next_one)) is ConnectionLost
    assert peer.transport.aborted


@pytest.mark.parametrize(
    "line",
    [
        b"SERVER_ERROR object too large for cache",
        b"SERVER_ERROR out of memory storing object",
        b"CLIENT_ERROR invalid flag",
        b"CLIENT_ERROR cannot increment or decrement non-numeric value",
    ],
)
@in_virtual_time
async def test_an_error_after_which_the_stream_is_in_sync_is_a_reply(line):
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    peer.feed(line + b"\r\nEN O2\r\n")
    assert (outcome(first), outcome(second)) == (reply(line), reply(b"EN O2"))
    assert peer.connection.is_open


@pytest.mark.parametrize("line", [b"SERVER_ERROR backend failure", b"SERVER_ERROR no idea", b"SERVER_ERROR"])
@in_virtual_time
async def test_request_that_a_proxy_did_not_serve_fails_alone(line):
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    peer.feed(line + b"\r\nEN O2\r\n")
    error = outcome(first)
    assert (type(error), error.problem, error.node) == (NodeUnavailable, line.decode(), "node-1")
    assert outcome(second) == reply(b"EN O2")
    assert peer.connection.is_open


@pytest.mark.parametrize("size", [3, LARGE_BYTES])
@in_virtual_time
async def test_store_is_in_sync_after_known_errors_only(size):
    """After any other, the server may read the value as commands."""
    peer = Peer()
    first, second, third = (peer.ask(store(b"k", b"x" * size)) for _ in range(3))
    read = peer.ask()
    peer.feed(b"SERVER_ERROR backend failure\r\nSERVER_ERROR out of memory storing object\r\n")
    assert type(outcome(first)) is NodeUnavailable
    assert outcome(second) == reply(b"SERVER_ERROR out of memory storing object")
    assert peer.connection.is_open
    peer.feed(b"SERVER_ERROR no idea\r\n")
    assert [type(outcome(future)) for future in (third, read)] == [ProtocolError, ConnectionLost]
    assert peer.transport.aborted


# Time.


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


# The end.


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "reset by peer")])
@in_virtual_time
async def test_an_end_or_a_reset_fails_all_at_once(error):
    peer = Peer()
    answers = [peer.ask(), peer.ask_all([b"ms k 1"] * 3), peer.ask_many([b"a"]), peer.ask_text()]
    await settle()
    peer.transport.end(error)
    await settle()
    errors = [outcome(answer) for answer in answers]
    assert [type(found) for found in errors] == [ConnectionLost] * 4
    assert all(("closed by the server" if error is None else "reset by peer") in str(found) for found in errors)
    assert now() == 0
    assert len(peer.lost) == 1
    assert not peer.connection.is_open


@in_virtual_time
async def test_an_end_in_the_middle_of_a_value_gives_nobody_half_of_it():
    peer = Peer()
    answer = peer.ask()
    peer.feed(b"VA 100 O1\r\nhalf")
    peer.transport.end(None)
    await settle()
    assert type(outcome(answer)) is ConnectionLost


@in_virtual_time
async def test_exceptions_are_not_shared_between_waiters():
    """One object that is raised in many tasks collects the tracebacks of all of them."""
    peer = Peer()
    answers = [peer.ask() for _ in range(5)]
    peer.connection.abort()
    errors = [outcome(answer) for answer in answers] + peer.lost
    assert len(set(map(id, errors))) == 6
    assert {(type(error), error.problem, error.node) for error in errors} == {
        (ConnectionLost, "closed by this client", "node-1")
    }


@in_virtual_time
async def test_late_waiters_do_not_share_an_exception_either():
    peer = Peer()
    answers = [peer.ask(within=0.1) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert len({id(outcome(answer)) for answer in answers}) == 3


@in_virtual_time
async def test_abort_tells_everyone_once():
    peer = Peer()
    notes = Notes()
    peer.ask(waiter=notes)
    for _ in range(3):
        peer.connection.abort()
    peer.connection.retire()
    await settle()
    peer.connection.abort()
    assert len(peer.lost) == 1
    assert len(notes.told) == 1
    assert peer.transport.aborted


@in_virtual_time
async def test_what_was_not_written_when_it_ended_is_never_written():
    peer = Peer()
    answer = peer.ask()
    peer.connection.abort()
    await settle()
    assert peer.transport.writes == []
    assert type(outcome(answer)) is ConnectionLost


@in_virtual_time
async def test_after_the_end_requests_fail_at_once_with_nothing_written():
    peer = Peer()
    peer.connection.abort()
    for send in (peer.ask, peer.ask_text, lambda: peer.ask_all([b"ms k 1"]), lambda: peer.ask_many([b"k"])):
        with pytest.raises(ConnectionLost):
            send()
    await settle()
    assert peer.transport.writes == []
    assert peer.connection.pending == 0


@in_virtual_time
async def test_before_it_is_made_a_connection_takes_no_requests():
    peer = Peer(open_it=False)
    with pytest.raises(ConnectionLost):
        peer.ask()


@in_virtual_time
async def test_a_connection_that_was_aborted_before_it_was_made_stays_closed():
    """The dialer may have been faster than the cancellation."""
    peer = Peer(open_it=False)
    peer.connection.abort()
    peer.connection.connection_made(peer.transport)
    assert not peer.connection.is_open
    assert peer.transport.aborted
    await settle()
    assert len(peer.lost) == 1


@pytest.mark.parametrize("reason", ["abort", "garbage", "end", "silence"])
@in_virtual_time
async def test_a_waiter_that_tries_again_is_not_handed_the_connection_that_just_ended(reason):
    """Also not the first one, whose reply made no sense: the node knows before any of them."""
    peer = Peer(silence=5.0)
    found = []
    waiters = [Notes(on_error=lambda _: found.append((peer.connection.is_open, len(peer.lost)))) for _ in range(2)]
    for waiter in waiters:
        peer.ask(waiter=waiter, within=6)
    match reason:
        case "abort":
            peer.connection.abort()
        case "garbage":
            peer.feed(b"garbage\r\n")
        case "end":
            peer.transport.end(None)
        case "silence":
            await asyncio.sleep(7)
    await settle()
    assert found == [(False, 1)] * 2


@in_virtual_time
async def test_a_waiter_may_end_the_connection_when_it_is_told():
    peer = Peer()
    peer.ask(waiter=Notes(on_result=lambda _: peer.connection.abort("enough")))
    second = peer.ask()
    peer.feed(b"EN O1\r\nEN O2\r\n")
    assert type(outcome(second)) is ConnectionLost
    assert [str(why) for why in peer.lost] == ["node-1: enough"]


@in_virtual_time
async def test_a_waiter_may_send_when_it_is_told():
    peer = Peer()
    second = []
    peer.ask(waiter=Notes(on_result=lambda _: second.append(peer.ask())))
    peer.feed(b"EN O1\r\nEN O2\r\n")
    assert outcome(second[0]) == reply(b"EN O2")


# Retiring.


@in_virtual_time
async def test_a_retired_connection_answers_what_waits_and_then_closes():
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    peer.connection.retire()
    with pytest.raises(ConnectionLost):
        peer.ask()
    await settle()
    assert peer.sent == b"mg k v O1\r\nmg k v O2\r\n"
    peer.feed(b"EN O1\r\n")
    assert peer.lost == []
    assert not peer.transport.aborted
    peer.feed(b"VA 4 O2\r\nmine\r\n")
    assert (outcome(first), outcome(second).value) == (reply(b"EN O1"), b"mine")
    assert peer.transport.aborted
    assert len(peer.lost) == 1


@in_virtual_time
async def test_a_retired_connection_that_nobody_waits_on_closes_at_once():
    peer = Peer()
    peer.connection.retire()
    assert peer.transport.aborted
    assert len(peer.lost) == 1


@in_virtual_time
async def test_a_retired_connection_reads_the_replies_of_those_who_gave_up_while_others_wait():
    peer = Peer()
    given_up, waits = peer.ask(), peer.ask()
    given_up.cancel()
    peer.connection.retire()
    peer.feed(b"VA 6 O1\r\nsecret\r\n")
    assert not peer.transport.aborted
    peer.feed(b"EN O2\r\n")
    assert outcome(waits) == reply(b"EN O2")
    assert peer.transport.aborted


@in_virtual_time
async def test_a_retired_connection_does_not_wait_for_replies_that_nobody_wants():
    peer = Peer()
    given_up, also = peer.ask(), peer.ask()
    given_up.cancel()
    also.cancel()
    peer.connection.retire()
    assert peer.transport.aborted
    assert len(peer.lost) == 1


@in_virtual_time
async def test_a_retired_connection_closes_when_the_last_one_who_waited_gave_up_in_front_of_it():
    peer = Peer()
    waits, given_up = peer.ask(), peer.ask()
    peer.connection.retire()
    given_up.cancel()
    peer.feed(b"EN O1\r\n")
    assert outcome(waits) == reply(b"EN O1")
    assert peer.transport.aborted


@in_virtual_time
async def test_a_retired_connection_that_gets_no_answer_closes_at_the_last_deadline():
    peer = Peer(silence=5.0)
    soon, later = peer.ask(within=0.1), peer.ask(within=0.2)
    peer.connection.retire()
    await asyncio.sleep(0.15)
    assert not peer.transport.aborted
    await asyncio.sleep(0.06)
    assert type(outcome(soon)) is type(outcome(later)) is NodeTimeout
    assert peer.transport.aborted


@pytest.mark.parametrize("turns", [1, 2])
@in_virtual_time
async def test_retiring_again_changes_nothing(turns):
    peer = Peer()
    waits = peer.ask()
    for _ in range(turns):
        peer.connection.retire()
    peer.feed(b"EN O1\r\n")
    assert outcome(waits) == reply(b"EN O1")
    assert len(peer.lost) == 1


# Too much.


@in_virtual_time
async def test_over_so_many_waiting_requests_the_next_fails_with_nothing_written():
    peer = Peer(max_pending=3)
    for _ in range(3):
        peer.ask()
    await settle()
    written = peer.sent
    for send in (peer.ask, peer.ask_text, lambda: peer.ask_all([b"ms k 1"]), lambda: peer.ask_many([b"k"])):
        with pytest.raises(QueueFull) as caught:
            send()
        assert caught.value.node == "node-1"
    await settle()
    assert peer.sent == written
    assert peer.connection.is_open
    peer.feed(b"EN O1\r\n")
    assert not peer.ask().done()


@in_virtual_time
async def test_requests_that_were_given_up_count_until_they_are_answered():
    """The server still has them all to do."""
    peer = Peer(max_pending=2)
    for answer in [peer.ask(), peer.ask()]:
        answer.cancel()
    with pytest.raises(QueueFull):
        peer.ask()


@in_virtual_time
async def test_over_so_many_queued_bytes_the_next_fails_with_nothing_written():
    peer = Peer(max_queued_bytes=1_000)
    peer.connection.pause_writing()
    peer.ask(store(b"k", b"x" * 2_000))
    with pytest.raises(QueueFull, match="bytes"):
        peer.ask()
    assert peer.transport.writes == []
    peer.connection.resume_writing()
    assert peer.sent == b"ms k 2000 T0 F0 O1\r\n" + b"x" * 2_000 + b"\r\n"
    next_one = peer.ask()
    await settle()
    number = peer.sent.rpartition(b"O")[2].strip()
    peer.feed(b"HD O1\r\nEN O%b\r\n" % number)
    assert outcome(next_one).status == b"EN"


@in_virtual_time
async def test_a_server_that_takes_no_more_is_waited_for():
    peer = Peer()
    peer.ask()
    await settle()
    peer.connection.pause_writing()
    for _ in range(3):
        peer.ask()
        await settle()
    assert peer.transport.writes == [b"mg k v O1\r\n"]
    peer.connection.resume_writing()
    await settle()
    assert peer.transport.writes == [b"mg k v O1\r\n", b"mg k v O2\r\nmg k v O3\r\nmg k v O4\r\n"]
    peer.ask()
    await settle()
    assert peer.transport.writes[2:] == [b"mg k v O5\r\n"]


@in_virtual_time
async def test_a_pause_in_the_tick_of_a_request_holds_it_back():
    peer = Peer()
    peer.ask()
    peer.connection.pause_writing()
    await settle()
    assert peer.transport.writes == []
    peer.connection.resume_writing()
    assert peer.transport.writes == [b"mg k v O1\r\n"]
    await settle()
    assert peer.transport.writes == [b"mg k v O1\r\n"]


@in_virtual_time
async def test_requests_that_are_held_back_still_have_deadlines():
    peer = Peer()
    peer.connection.pause_writing()
    late = peer.ask(within=0.1)
    await asyncio.sleep(0.11)
    assert type(outcome(late)) is NodeTimeout


# Quiet batches.


@in_virtual_time
async def test_a_quiet_batch_is_closed_by_a_no_op():
    peer = Peer()
    peer.ask()
    answer = peer.ask_many([b"a", b"b", b"c"])
    after = peer.ask()
    await settle()
    assert peer.sent == b"mg k v O1\r\nmg a v q O2\r\nmg b v q O3\r\nmg c v q O4\r\nmn\r\nmg k v O5\r\n"
    peer.feed(b"EN O1\r\nVA 1 O2\r\na\r\nVA 1 O4\r\nc\r\n")
    assert not answer.done()
    peer.feed(b"MN\r\nEN O5\r\n")
    assert outcome(answer) == [(0, reply(b"VA O2", b"a")), (2, reply(b"VA O4", b"c"))]
    assert outcome(after) == reply(b"EN O5")
    assert peer.connection.pending == 0


@pytest.mark.parametrize("keys", [[], [b"a"], [b"a"] * 100])
@in_virtual_time
async def test_a_quiet_batch_without_hits_is_an_empty_list(keys):
    peer = Peer()
    answer = peer.ask_many(keys)
    await settle()
    assert peer.sent.endswith(b"mn\r\n")
    peer.feed(b"MN\r\n")
    assert answer.result() == []


@pytest.mark.parametrize(
    "stranger", [b"VA 1 O3\r\nb\r\n", b"VA 1 O2\r\na\r\n", b"VA 1 O1\r\nx\r\n", b"VA 1 O5\r\nx\r\n", b"HD\r\n"]
)
@in_virtual_time
async def test_a_stranger_in_a_quiet_batch_ends_the_connection(stranger):
    peer = Peer()
    before = peer.ask()
    answer, after = peer.ask_many([b"a", b"b", b"c"]), peer.ask()
    peer.feed(b"EN O1\r\nVA 1 O3\r\nb\r\n" + stranger + b"MN\r\nEN O5\r\n")
    assert outcome(before) == reply(b"EN O1")
    assert type(outcome(answer)) is ProtocolError
    assert type(outcome(after)) is ConnectionLost
    assert peer.transport.aborted


@in_virtual_time
async def test_error_in_a_quiet_batch_belongs_to_the_reads_that_fail_when_asked_again():
    peer = Peer()
    answer, after = peer.ask_many([b"a", b"b", b"c"]), peer.ask()
    await settle()
    peer.feed(b"VA 1 O1\r\na\r\nSERVER_ERROR backend failure\r\nMN\r\nEN O4\r\n")
    assert outcome(after) == reply(b"EN O4")
    assert outcome(answer) is None
    await settle()
    assert peer.transport.writes[-1] == b"mg b v O1\r\nmg c v O1\r\n"
    later = peer.ask()
    peer.feed(b"EN O1\r\nSERVER_ERROR backend failure\r\nEN O5\r\n")
    assert outcome(answer) == [(0, reply(b"VA O1", b"a")), (2, reply(b"SERVER_ERROR backend failure"))]
    assert outcome(later) == reply(b"EN O5")
    assert peer.connection.is_open


@in_virtual_time
async def test_batch_that_has_to_ask_again_fails_on_a_connection_that_retires():
    peer = Peer()
    answer = peer.ask_many([b"a", b"b"])
    await settle()
    peer.connection.retire()
    peer.feed(b"SERVER_ERROR backend failure\r\nMN\r\n")
    assert type(outcome(answer)) is ConnectionLost
    assert peer.transport.aborted


@in_virtual_time
async def test_a_quiet_batch_that_was_given_up_is_read_to_its_end():
    peer = Peer()
    answer, after = peer.ask_many([b"a", b"b"]), peer.ask()
    answer.cancel()
    peer.feed(b"VA 1 O2\r\nb\r\nMN\r\nVA 4 O3\r\nmine\r\n")
    assert outcome(after).value == b"mine"


def test_repr_shows_the_state():
    async def main():
        peer = Peer()
        waits = peer.ask()
        assert repr(peer.connection) == "<Connection node-1 open pending=1 queued=11B>"
        peer.connection.retire()
        assert "retiring" in repr(peer.connection)
        peer.connection.abort()
        assert repr(peer.connection) == "<Connection node-1 closed pending=0 queued=0B>"
        assert type(outcome(waits)) is ConnectionLost

    virtual_time.run(main())


# Everything at once.


class Server:
    """Answers requests in order; the value of a key says which key it is."""

    def __init__(self, rng):
        self._rng = rng
        self._buffer = b""
        self.replies = b""

    def receive(self, data):
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, rest = self._buffer.partition(b"\r\n")
            command, *tokens = line.split(b" ")
            if command == b"ms":
                size = int(tokens[1])
                if len(rest) < size + 2:
                    return
                assert rest[size : size + 2] == b"\r\n"
                value, rest = rest[:size], rest[size + 2 :]
                self.replies += b"HD s%b %b\r\n" % (value, tokens[-1])
            elif command == b"mg":
                key, quiet = tokens[0], b"q" in tokens
                if not key.startswith(b"miss"):
                    self.replies += b"VA %d k%b %b\r\nof %b\r\n" % (len(key) + 3, key, tokens[-1], key)
                elif not quiet:
                    self.replies += b"EN k%b %b\r\n" % (key, tokens[-1])
            else:
                self.replies += b"MN\r\n" if command == b"mn" else b"VERSION 1\r\n"
            self._buffer = rest

    def some(self):
        """Some of the bytes that are due."""
        size = self._rng.choice([1, 2, 5, 20, 200, 10_000])
        piece, self.replies = self.replies[:size], self.replies[size:]
        return piece


class Load:
    """Random requests; for each, its future and a check of what it may get."""

    def __init__(self, peer, rng):
        self._peer = peer
        self._rng = rng
        self._number = 0
        self.waiting = []

    def _key(self):
        self._number += 1
        return b"%b%d" % (self._rng.choice([b"hit", b"miss"]), self._number)

    def send(self):
        within = self._rng.choice([0.003, 0.05, 1_000.0])
        match self._rng.randrange(4):
            case 0:
                key = self._key()
                self.waiting.append((self._peer.ask(get(key, VALUE), within=within), lambda got: self._is_of(got, key)))
            case 1:
                key = self._key()
                future = self._peer.ask_all([b"ms k %d" % len(key)] * 3, key, within=within)
                self.waiting.append((future, lambda got: [found.tokens[0] for found in got] == [b"s" + key] * 3))
            case 2:
                keys = [self._key() for _ in range(self._rng.randrange(5))]
                future = self._peer.ask_many([b"%b" % key for key in keys], within=within)
                hits = [place for place, key in enumerate(keys) if key.startswith(b"hit")]
                self.waiting.append(
                    (
                        future,
                        lambda got: (
                            [place for place, _ in got] == hits and all(self._is_of(one, keys[at]) for at, one in got)
                        ),
                    )
                )
            case _:
                self.waiting.append((self._peer.ask_text(within=within), lambda got: got == [reply(b"VERSION 1")]))

    def cancel_one(self):
        unfinished = [future for future, _ in self.waiting if not future.done()]
        if unfinished:
            self._rng.choice(unfinished).cancel()

    @staticmethod
    def _is_of(got, key):
        value = None if key.startswith(b"miss") else b"of " + key
        return got.tokens[0] == b"k" + key and got.value == value


@pytest.mark.parametrize("seed", range(25))
@in_virtual_time
async def test_whoever_is_answered_gets_exactly_its_own_reply(seed):
    """Many requests of all kinds, random cancellations and timeouts, replies in random slices."""
    rng = random.Random(seed)
    peer = Peer(silence=1_000)
    server = Server(rng)
    load = Load(peer, rng)
    taken = 0
    for _ in range(400):
        match rng.randrange(8):
            case 0 | 1 | 2:
                load.send()
            case 3:
                load.cancel_one()
            case 4 | 5:
                await settle(2)
                fresh = peer.sent[taken:]
                taken += len(fresh)
                server.receive(fresh)
            case 6:
                peer.feed(server.some())
            case _:
                await asyncio.sleep(rng.choice([0.001, 0.01]))
    await settle()
    server.receive(peer.sent[taken:])
    while server.replies:
        peer.feed(server.some())

    counts = {"answered": 0, "cancelled": 0, "late": 0}
    for future, is_its_own in load.waiting:
        if future.cancelled():
            counts["cancelled"] += 1
        elif future.exception() is not None:
            assert type(future.exception()) is NodeTimeout
            counts["late"] += 1
        else:
            assert is_its_own(future.result())
            counts["answered"] += 1
    assert all(count >= 5 for count in counts.values()), counts  # the run was about all three
    assert peer.connection.is_open
    assert peer.connection.pending == 0
