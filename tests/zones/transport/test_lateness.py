"""A connection reports the timeouts that the server caused, not those of cancelled callers or of a stalled event loop."""

import asyncio

import pytest

from evcache.zones.errors import NodeTimeout
from evcache.zones.health.loop_lag import REMEMBER_SECONDS, LoopLag
from evcache.zones.transport.lateness import BENEFIT_OF_DOUBT_SECONDS
from tests.support.scripted import FAR, Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle


def watched(**limits):
    """A connection whose loop is looked at."""
    return Peer(lag=LoopLag(asyncio.get_running_loop()), silence=FAR, **limits)


def answers(first, last):
    return b"".join(b"EN O%d\r\n" % number for number in range(first, last + 1))


@in_virtual_time
async def test_timeouts_are_counted_as_they_come_and_in_a_row():
    peer = watched()
    for count in (1, 2, 3, 4):
        peer.ask(within=0.1, waiter=Notes())
        await asyncio.sleep(0.11)
        assert peer.late[-1] == (1, count)
    assert len(peer.late) == 4


@in_virtual_time
async def test_those_of_one_moment_are_reported_together():
    peer = watched()
    waits = [peer.ask(within=0.1) for _ in range(5)]
    await asyncio.sleep(0.11)
    assert [type(outcome(wait)) for wait in waits] == [NodeTimeout] * 5
    assert peer.late == [(5, 5)]


@in_virtual_time
async def test_an_answer_in_time_begins_a_new_row():
    peer = watched()
    for _ in range(2):
        peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.11)
    fine = peer.ask(within=0.1)
    peer.feed(answers(1, 3))
    assert outcome(fine).status == b"EN"
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.11)
    assert peer.late == [(2, 2), (1, 1)]


@in_virtual_time
async def test_an_answer_that_nobody_waits_for_any_more_is_none_in_time():
    """A server that answers every request too late is unusable."""
    peer = watched()
    for number in (1, 2, 3):
        peer.ask(within=0.1, waiter=Notes())
        await asyncio.sleep(0.11)
        peer.feed(answers(number, number))
    assert peer.late == [(1, 1), (1, 2), (1, 3)]


@in_virtual_time
async def test_callers_who_gave_up_are_not_counted():
    peer = watched()
    waits = [peer.ask(within=0.1) for _ in range(20)]
    await asyncio.sleep(0.05)
    for wait in waits[:-1]:
        wait.cancel()
    await asyncio.sleep(0.1)
    assert peer.late == [(1, 1)]


@in_virtual_time
async def test_when_all_gave_up_nothing_is_reported():
    peer = watched()
    for _ in range(20):
        peer.ask(within=0.1).cancel()
    await asyncio.sleep(1)
    assert peer.late == []


@in_virtual_time
async def test_a_waiter_that_ends_the_connection_is_the_last_word():
    peer = watched()
    peer.ask(within=0.1, waiter=Notes(on_error=lambda _: peer.connection.abort()))
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.2)
    assert len(peer.lost) == 1
    assert peer.late == []


# A stalled event loop.


@in_virtual_time
async def test_a_stall_before_the_requests_could_leave_is_not_the_servers():
    """As when a task asks, and another computes in the same turn: they leave when their time is already over."""
    peer = watched()
    waits = [peer.ask(within=0.1) for _ in range(3)]
    peer.loop.advance(0.3)
    await asyncio.sleep(BENEFIT_OF_DOUBT_SECONDS / 2)
    assert [type(outcome(wait)) for wait in waits] == [NodeTimeout] * 3
    peer.feed(answers(1, 3))
    await asyncio.sleep(1)
    assert peer.late == []


@pytest.mark.parametrize("others", [0, 100], ids=["alone", "under traffic"])
@in_virtual_time
async def test_a_stall_while_replies_are_on_their_way_is_not_the_servers(others):
    """More than one turn of the loop may be needed to read them; also when nothing has been sent for a while."""
    peer = watched()
    waits = [peer.ask(within=0.1) for _ in range(3)]
    for _ in range(others):
        peer.ask(within=FAR)
        await asyncio.sleep(0.05 / others)
    await asyncio.sleep(0.05 if not others else 0)
    peer.loop.advance(0.3)
    await settle()
    assert [type(outcome(wait)) for wait in waits] == [NodeTimeout] * 3
    peer.feed(answers(1, 3 + others))
    await asyncio.sleep(1)
    assert peer.late == []


@in_virtual_time
async def test_timeouts_that_were_the_loops_do_not_count_in_a_row_either():
    peer = watched()
    for _ in range(50):
        peer.ask(within=0.1, waiter=Notes())
    peer.loop.advance(0.3)
    await settle()
    peer.feed(answers(1, 50))
    await asyncio.sleep(2 * REMEMBER_SECONDS)
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.2)
    assert peer.late == [(1, 1)]


@in_virtual_time
async def test_a_server_that_stays_silent_after_a_stall_is_to_blame():
    """A little later, and for all of them."""
    peer = watched()
    for _ in range(3):
        peer.ask(within=0.1, waiter=Notes())
    peer.loop.advance(0.3)
    await settle()
    assert peer.late == []
    await asyncio.sleep(BENEFIT_OF_DOUBT_SECONDS)
    assert peer.late == [(3, 3)]
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.1 + 2 * BENEFIT_OF_DOUBT_SECONDS)
    assert peer.late == [(3, 3), (1, 4)]


@in_virtual_time
async def test_after_a_while_a_stall_excuses_nothing():
    peer = watched()
    peer.ask(within=FAR)
    peer.loop.advance(0.3)
    await asyncio.sleep(2 * REMEMBER_SECONDS)
    asked = now()
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.1 + BENEFIT_OF_DOUBT_SECONDS / 2)
    assert now() == pytest.approx(asked + 0.1 + BENEFIT_OF_DOUBT_SECONDS / 2)
    assert peer.late == [(1, 1)]


@in_virtual_time
async def test_a_connection_that_ends_while_it_has_the_benefit_of_the_doubt_reports_nothing():
    """The waiting callers got their errors, and the end of the connection is reported separately."""
    peer = watched()
    peer.ask(within=0.1, waiter=Notes())
    peer.loop.advance(0.3)
    await settle()
    peer.connection.abort()
    await asyncio.sleep(1)
    assert peer.late == []


# Counting.


@pytest.mark.parametrize(
    ("ask", "requests"),
    [
        (lambda peer: peer.ask(), 1),
        (lambda peer: peer.ask_all([b"ms k 1 ME", b"ms k 1 C2 I", b"ms k 1 C2"]), 1),
        (lambda peer: peer.ask_many([b"k%d" % number for number in range(100)]), 1),
        (lambda peer: peer.ask_text(), 0),
    ],
    ids=["one", "stores of one value", "a batch", "a question of our own"],
)
@in_virtual_time
async def test_what_has_one_answer_is_one_request(ask, requests):
    """As it is one timeout, and one that is unanswered: shares are of like things."""
    peer = watched()
    for count in (1, 2, 3):
        ask(peer)
        assert peer.connection.requests == count * requests
        assert peer.connection.unanswered == peer.connection.pending == count


@in_virtual_time
async def test_what_is_given_up_or_late_is_not_unanswered():
    peer = watched()
    waits = [peer.ask(within=0.1), peer.ask(), peer.ask()]
    await asyncio.sleep(0.2)
    waits[1].cancel()
    assert (peer.connection.pending, peer.connection.unanswered, peer.connection.requests) == (3, 1, 3)


# Probes.


@in_virtual_time
async def test_a_probe_is_answered():
    peer = watched()
    probe = asyncio.create_task(peer.connection.probe(peer.deadline(0.1)))
    await settle()
    assert peer.sent == b"mn\r\n"
    peer.feed(b"MN\r\n")
    await probe


@in_virtual_time
async def test_a_probe_behind_requests_that_were_given_up_is_answered_in_its_turn():
    peer = watched()
    peer.ask(within=0.1, waiter=Notes())
    await asyncio.sleep(0.2)
    probe = asyncio.create_task(peer.connection.probe(peer.deadline(0.1)))
    await settle()
    peer.feed(b"EN O1\r\n")
    await settle()
    assert not probe.done()
    peer.feed(b"MN\r\n")
    await probe


@in_virtual_time
async def test_a_probe_that_is_answered_too_late_has_failed():
    peer = watched()
    with pytest.raises(NodeTimeout):
        await peer.connection.probe(peer.deadline(0.1))
    assert now() == pytest.approx(0.1)
    peer.feed(b"MN\r\n")
    assert peer.connection.is_open


@in_virtual_time
async def test_a_probe_that_is_cancelled_leaves_its_place():
    peer = watched()
    probe = asyncio.create_task(peer.connection.probe(peer.deadline(0.1)))
    await settle()
    probe.cancel()
    await settle()
    after = peer.ask()
    peer.feed(b"MN\r\nEN O1\r\n")
    assert outcome(after).status == b"EN"
