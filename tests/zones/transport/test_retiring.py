"""The end of a pipelined connection: lost, aborted or retired, with an error for each waiting request."""

import asyncio

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout
from evcache.zones.protocol.replies import Reply
from tests.support import virtual_time
from tests.support.scripted import Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle

pytestmark = pytest.mark.usefixtures("each_core")


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


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
