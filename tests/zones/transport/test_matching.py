"""Each reply of a pipelined connection goes to its request, and a reply that fits no request ends the connection."""

import asyncio

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from tests.support.operations import get, store
from tests.support.scripted import VALUE, Peer, outcome
from tests.support.virtual_time import in_virtual_time, settle

pytestmark = pytest.mark.usefixtures("each_core")


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


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
    assert outcome(answer) == [reply(b"VA O2", b"a"), None, reply(b"VA O4", b"c")]
    assert outcome(after) == reply(b"EN O5")
    assert peer.connection.pending == 0


@in_virtual_time
async def test_a_batch_of_values_is_read_by_keys():
    peer = Peer()
    before = peer.ask()
    answer, after = peer.ask_many([b"a", b"b", b"c"], fields=READ_FIELDS), peer.ask()
    await settle()
    assert peer.sent == b"mg k v O1\r\ngets a b c\r\nmn\r\nmg k v O3\r\n"
    peer.feed(b"EN O1\r\nVALUE a 4 1 9\r\nx\r\nVALUE c 5 0 8\r\n\r", b"\nEND\r\nM", b"N\r\nEN O3\r\n")
    assert outcome(before) == reply(b"EN O1")
    assert outcome(answer) == [
        Hit(b"x", 4, 9, None, stale=False, leased=False),
        None,
        Hit(b"", 5, 8, None, stale=False, leased=False),
    ]
    assert outcome(after) == reply(b"EN O3")
    assert peer.connection.requests == 3


@in_virtual_time
async def test_an_empty_value_is_read_again_because_it_may_be_the_stub_of_a_lease():
    peer = Peer()
    answer, after = peer.ask_many([b"a", b"b", b"c"], fields=READ_FIELDS), peer.ask()
    await settle()
    peer.feed(b"VALUE a 0 0 9\r\n\r\nVALUE c 0 0 8\r\n\r\nEND\r\nMN\r\nEN O2\r\n")
    assert outcome(after) == reply(b"EN O2")
    assert outcome(answer) is None
    await settle()
    assert peer.transport.writes[-1] == b"mg a v f c O1\r\nmg c v f c O1\r\n"
    peer.feed(b"VA 0 f0 c9 O1 W\r\n\r\nVA 0 f0 c8 O1\r\n\r\n")
    stub, none, empty = outcome(answer)
    assert (read_hit(stub).leased, none, read_hit(empty).leased) == (True, None, False)


@pytest.mark.parametrize(
    "stranger",
    [
        b"VALUE d 0 1 9\r\nx\r\n",
        b"VALUE a 0 1 9\r\nx\r\n",
        b"VALUE b 0 1\r\nx\r\n",
        b"VALUE b 0 1 9 9\r\nx\r\n",
        b"VALUE b 0 x 9\r\nx\r\n",
        b"VALUE  0 1 9\r\nx\r\n",
        b"VALUE b 0 1 9\r\nxy\r\n",
        b"END\r\nEND\r\n",
        b"END\r\nVALUE b 0 1 9\r\nx\r\n",
        b"END\r\nVALUE d 0 1 9\r\nx\r\n",
        b"MN\r\n",
        b"EN O2\r\n",
        b"VA 1 f0 c9 O2\r\nx\r\n",
    ],
)
@in_virtual_time
async def test_a_stranger_in_a_batch_by_keys_ends_the_connection(stranger):
    peer = Peer()
    before = peer.ask()
    answer, after = peer.ask_many([b"a", b"b", b"c"], fields=READ_FIELDS), peer.ask()
    peer.feed(b"EN O1\r\nVALUE a 0 1 9\r\nx\r\n" + stranger + b"END\r\nMN\r\nEN O3\r\n")
    assert outcome(before) == reply(b"EN O1")
    assert type(outcome(answer)) is ProtocolError
    assert type(outcome(after)) is ConnectionLost
    assert peer.transport.aborted


@in_virtual_time
async def test_an_item_with_its_key_answers_no_other_request():
    peer = Peer()
    answer = peer.ask(get(b"O1", VALUE))
    peer.feed(b"VALUE O1 0 1 9\r\nx\r\n")
    assert type(outcome(answer)) is ProtocolError
    assert peer.transport.aborted


@in_virtual_time
async def test_many_keys_take_several_lines_which_no_server_finds_too_long():
    peer = Peer()
    keys = [b"%0200d" % number for number in range(200)]
    answer = peer.ask_many(keys, fields=READ_FIELDS)
    await settle()
    *lines, no_op = peer.sent.splitlines(keepends=True)
    assert no_op == b"mn\r\n"
    assert len(lines) == 3
    assert max(map(len, lines)) <= 16 * 1024
    assert [key for line in lines for key in line.split()[1:]] == keys
    peer.feed(b"VALUE %b 0 1 9\r\nx\r\nEND\r\nEND\r\nEND\r\nMN\r\n" % keys[3])
    assert [index for index, hit in enumerate(answer.result()) if hit is not None] == [3]


@pytest.mark.parametrize("keys", [[], [b"a"], [b"a"] * 100])
@in_virtual_time
async def test_a_quiet_batch_without_hits_is_a_list_of_misses(keys):
    peer = Peer()
    answer = peer.ask_many(keys)
    await settle()
    assert peer.sent.endswith(b"mn\r\n")
    peer.feed(b"MN\r\n")
    assert answer.result() == [None] * len(keys)


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
    assert outcome(answer) == [reply(b"VA O1", b"a"), None, reply(b"SERVER_ERROR backend failure")]
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
