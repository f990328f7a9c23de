"""Requests of a pipelined connection: their writes, their order and the limits of the queue."""

import pytest

from evcache.zones.errors import QueueFull
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.replies import Reply
from evcache.zones.transport.core.write_queue import EAGER_REQUESTS
from tests.support.operations import store
from tests.support.scripted import VALUE, Peer, outcome
from tests.support.virtual_time import in_virtual_time, settle

pytestmark = pytest.mark.usefixtures("each_core")


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


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


@pytest.mark.parametrize("keys", [[], [b"a"], [b"a", b"b"]], ids=len)
@pytest.mark.parametrize("fields", [VALUE, READ_FIELDS])
@in_virtual_time
async def test_a_batch_of_any_size_counts_as_one_request(keys, fields):
    peer = Peer()
    peer.ask_many(keys, fields=fields)
    assert peer.connection.requests == 1
