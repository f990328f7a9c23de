"""Each kind of request takes its own replies, is complete with its last, and lets nothing else through."""

import pytest

from evcache.zones.errors import NodeTimeout, NodeUnavailable, ProtocolError, QueueFull
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import Hit, Keyed, Reply
from evcache.zones.transport.batches import ExpectEach, ExpectHits, ExpectValues
from evcache.zones.transport.in_flight import ExpectAll, ExpectReply, ExpectStore, ExpectText
from tests.support.scripted import Notes

NEVER = float("inf")

IN_SYNC = b"SERVER_ERROR object too large for cache"
OUT_OF_SYNC = b"CLIENT_ERROR bad data chunk"
UNKNOWN = b"SERVER_ERROR no route"  # in sync, unless the request carried a value
FAILED = b"SERVER_ERROR backend failure"


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


def one(notes):
    return ExpectReply(notes, NEVER, b"O7")


def three(notes):
    return ExpectAll(notes, NEVER, b"O7", 3)


def four(notes):
    return ExpectAll(notes, NEVER, b"O7", 4)


def quiet(notes):
    """Requests 7, 8, 9 and a no-op."""
    return ExpectHits(notes, NEVER, [b"O7", b"O8", b"O9"], [b"a", b"b", b"c"], Fields(b"v"), notes.send)


def values(notes):
    """`gets` of keys a and b, one of c, and a no-op."""
    return ExpectValues(notes, NEVER, b"O7", [b"a", b"b", b"c"], [2, 3], Fields(b"v"), notes.send)


def keyed(line):
    """`a 1 x` is key, flags and value; other lines are replies without a value."""
    if line[:1].isupper():
        return reply(line)
    key, flags, value = line.split(b" ")
    return Keyed(key, Hit(value, int(flags), 5, None, stale=False, leased=False))


def store(notes):
    return ExpectStore(notes, NEVER, b"O7")


def each(notes):
    """Reads 0 and 2 of three, of which read 1 was a hit."""
    return ExpectEach(notes, NEVER, b"O7", [0, 2], [None, reply(b"VA f0 O8"), None])


def text(notes):
    return ExpectText(notes, NEVER, None)


def statistics(notes):
    return ExpectText(notes, NEVER, b"END")


# Replies in their order, and the result that the waiter gets with the last one.
COMPLETE = {
    "a hit": (one, [b"VA f0 O7"], reply(b"VA f0 O7")),
    "a miss": (one, [b"EN O7"], reply(b"EN O7")),
    "the opaque anywhere": (one, [b"HD O7 W X"], reply(b"HD O7 W X")),
    "an error in sync": (one, [IN_SYNC], reply(IN_SYNC)),
    "all": (three, [b"NS O7", b"HD O7", b"EX O7"], [reply(b"NS O7"), reply(b"HD O7"), reply(b"EX O7")]),
    "all, with an error": (three, [IN_SYNC, b"HD O7", IN_SYNC], [reply(IN_SYNC), reply(b"HD O7"), reply(IN_SYNC)]),
    "as many as were sent": (
        four,
        [b"HD O7 W", b"HD O7", b"HD O7", b"NS O7"],
        [reply(b"HD O7 W"), reply(b"HD O7"), reply(b"HD O7"), reply(b"NS O7")],
    ),
    "a store": (store, [b"HD O7"], reply(b"HD O7")),
    "a refused store": (store, [IN_SYNC], reply(IN_SYNC)),
    "each, in the order of the reads": (
        each,
        [b"VA f0 O7", FAILED],
        [reply(b"VA f0 O7"), reply(b"VA f0 O8"), reply(FAILED)],
    ),
    "each, without those that miss": (each, [b"EN O7", UNKNOWN], [None, reply(b"VA f0 O8"), reply(UNKNOWN)]),
    "no hits": (quiet, [b"MN"], [None, None, None]),
    "every hit": (
        quiet,
        [b"VA f0 O7", b"VA f0 O8", b"HD O9", b"MN"],
        [reply(b"VA f0 O7"), reply(b"VA f0 O8"), reply(b"HD O9")],
    ),
    "the last hit": (quiet, [b"VA f0 O9 W", b"MN"], [None, None, reply(b"VA f0 O9 W")]),
    "a text": (text, [b"VERSION 1.6.38"], [reply(b"VERSION 1.6.38")]),
    "a no-op": (text, [b"MN"], [reply(b"MN")]),
    "an error for a text": (text, [IN_SYNC], [reply(IN_SYNC)]),
    "up to the end": (
        statistics,
        [b"STAT a 1", b"STAT b 2", b"END"],
        [reply(b"STAT a 1"), reply(b"STAT b 2"), reply(b"END")],
    ),
    "only the end": (statistics, [b"END"], [reply(b"END")]),
    "an error instead of the end": (statistics, [b"STAT a 1", IN_SYNC], [reply(b"STAT a 1"), reply(IN_SYNC)]),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_a_request_is_complete_with_its_last_reply(name):
    make, lines, expected = COMPLETE[name]
    notes = Notes()
    pending = make(notes)
    for line in lines[:-1]:
        assert pending.take(reply(line)) is False
        assert notes.told == []
    assert pending.take(reply(lines[-1])) is True
    assert notes.told == [expected]


@pytest.mark.parametrize("name", COMPLETE)
def test_a_waiter_that_gave_up_is_told_nothing_and_its_replies_are_still_taken(name):
    make, lines, _ = COMPLETE[name]
    notes = Notes()
    notes.told = ["gave up"]
    pending = make(notes)
    assert [pending.take(reply(line)) for line in lines] == [False] * (len(lines) - 1) + [True]
    pending.fail(NodeTimeout("late"))
    assert notes.told == ["gave up"]


# What is taken first, and then the reply that can't be its own.
NOT_OURS = {
    "no opaque": (one, [], b"HD"),
    "another opaque": (one, [], b"HD O8"),
    "an opaque that begins with ours": (one, [], b"HD O77"),
    "ours in another flag": (one, [], b"HD kO7"),
    "a no-op's answer": (one, [], b"MN"),
    "a text": (one, [], b"VERSION 1.6.38"),
    "an end": (one, [], b"END"),
    "an error out of sync": (one, [], OUT_OF_SYNC),
    "an unknown command": (one, [], b"ERROR"),
    "another opaque among all": (three, [b"HD O7"], b"HD O8"),
    "a no-op's answer among all": (three, [b"HD O7"], b"MN"),
    "another opaque as the last of four": (four, [b"HD O7", b"HD O7", b"HD O7"], b"HD O8"),
    "an error out of sync among all": (three, [b"HD O7"], OUT_OF_SYNC),
    "an unknown error to a store": (store, [], UNKNOWN),
    "an unknown error among all": (three, [b"HD O7"], UNKNOWN),
    "another opaque for a store": (store, [], b"HD O8"),
    "another opaque among each": (each, [b"EN O7"], b"EN O8"),
    "a no-op's answer among each": (each, [], b"MN"),
    "a hit before the batch": (quiet, [], b"VA O6"),
    "a hit after the batch": (quiet, [], b"VA O10"),
    "a hit twice": (quiet, [b"VA O8"], b"VA O8"),
    "hits out of order": (quiet, [b"VA O8"], b"VA O7"),
    "a hit without opaque": (quiet, [], b"VA f0"),
    "a hit with an opaque that is no number": (quiet, [], b"VA Ox"),
    "a hit with an empty opaque": (quiet, [], b"VA O"),
    "an error out of sync in a batch": (quiet, [b"VA O7"], OUT_OF_SYNC),
    "an end in a batch": (quiet, [], b"END"),
    "a meta reply for a text": (text, [], b"HD O7"),
    "a hit for a text": (text, [], b"VA O7"),
    "a miss among statistics": (statistics, [b"STAT a 1"], b"EN"),
    "an error out of sync for a text": (text, [], OUT_OF_SYNC),
    "an unknown text command": (statistics, [], b"ERROR"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_reply_that_can_not_be_its_own_is_a_protocol_error_and_given_to_nobody(name):
    make, lines, stranger = NOT_OURS[name]
    notes = Notes()
    pending = make(notes)
    for line in lines:
        assert pending.take(reply(line)) is False
    with pytest.raises(ProtocolError):
        pending.take(reply(stranger))
    assert notes.told == []


@pytest.mark.parametrize("name", NOT_OURS)
def test_it_is_an_error_also_when_nobody_waits_any_more(name):
    """The stream is as broken as before."""
    make, lines, stranger = NOT_OURS[name]
    notes = Notes()
    notes.told = ["gave up"]
    pending = make(notes)
    for line in lines:
        pending.take(reply(line))
    with pytest.raises(ProtocolError):
        pending.take(reply(stranger))


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (one, [FAILED]),
        (one, [UNKNOWN]),
        (store, [FAILED]),
        (three, [FAILED, FAILED, FAILED]),
        (three, [b"HD O7", FAILED, b"NF O7"]),
        (three, [IN_SYNC, IN_SYNC, FAILED]),
    ],
)
def test_request_that_a_proxy_did_not_serve_fails_with_its_last_reply(make, lines):
    notes = Notes()
    pending = make(notes)
    for line in lines[:-1]:
        assert pending.take(reply(line)) is False
    with pytest.raises(NodeUnavailable, match="SERVER_ERROR"):
        pending.take(reply(lines[-1]))
    assert notes.told == []


# Replies of a batch with an error in it; the hits; the reads that are sent once more.
UNCLEAR = {
    "all fail": ([FAILED, FAILED, FAILED], [], b"mg a v O7\r\nmg b v O7\r\nmg c v O7\r\n"),
    "a refusal": ([IN_SYNC], [], b"mg a v O7\r\nmg b v O7\r\nmg c v O7\r\n"),
    "one of two without a hit": ([b"VA f0 O8", UNKNOWN], [1], b"mg a v O7\r\nmg c v O7\r\n"),
    "all but one hit": ([b"VA f0 O7", FAILED, b"VA f0 O9"], [0, 2], b"mg b v O7\r\n"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_after_an_error_a_batch_asks_again_for_what_had_no_hit(name):
    lines, hits, again = UNCLEAR[name]
    notes = Notes()
    pending = quiet(notes)
    for line in lines:
        assert pending.take(reply(line)) is False
    assert notes.sent == []
    assert pending.take(reply(b"MN")) is True
    assert notes.told == []
    ((data, each_of_them),) = notes.sent
    assert data == again
    assert each_of_them.deadline == pending.deadline
    unclear = [index for index in range(3) if index not in hits]
    for _ in unclear[:-1]:
        assert each_of_them.take(reply(FAILED)) is False
    assert each_of_them.take(reply(b"VA f1 O7")) is True
    (found,) = notes.told
    assert None not in found
    assert found[unclear[-1]] == reply(b"VA f1 O7")


def test_an_error_beside_hits_of_every_read_changes_nothing():
    notes = Notes()
    pending = quiet(notes)
    for line in (b"VA f0 O7", b"VA f0 O8", FAILED, b"VA f0 O9", b"MN"):
        pending.take(reply(line))
    assert None not in notes.told[0]
    assert notes.sent == []


def test_batch_without_room_to_ask_again_fails():
    notes = Notes()
    notes.refusal = QueueFull("full")
    pending = quiet(notes)
    assert [pending.take(reply(line)) for line in (FAILED, b"MN")] == [False, True]
    assert notes.told == [notes.refusal]


def test_batch_whose_caller_has_left_asks_for_nothing_again():
    notes = Notes()
    notes.told = ["gave up"]
    pending = quiet(notes)
    assert [pending.take(reply(line)) for line in (FAILED, b"MN")] == [False, True]
    assert notes.sent == []


@pytest.mark.parametrize("make", [one, store, three, quiet, each, text, statistics])
def test_fail_tells_the_waiter_once(make):
    notes = Notes()
    pending = make(notes)
    first = NodeTimeout("late")
    pending.fail(first)
    pending.fail(NodeTimeout("later"))
    assert notes.told == [first]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([b"END", b"END"], [None, None, None]),
        ([b"a 0 x", b"b 0 y", b"END", b"c 0 z", b"END"], [b"x", b"y", b"z"]),
        ([b"b 0 y", b"END", b"END"], [None, b"y", None]),
        ([b"END", b"c 0 z", b"END"], [None, None, b"z"]),
        ([b"a 1 ", b"END", b"END"], [b"", None, None]),  # flags tell it from a stub
    ],
)
def test_a_batch_by_keys_is_complete_with_its_no_op(lines, found):
    notes = Notes()
    pending = values(notes)
    assert [pending.take(keyed(line)) for line in lines] == [False] * len(lines)
    assert notes.told == []
    assert pending.take(reply(b"MN")) is True
    assert [[hit if hit is None else hit.value for hit in answer] for answer in notes.told] == [found]
    assert notes.sent == []


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        ([b"a 0 ", b"END", b"END"], b"mg a v O7\r\n"),  # it may be the stub of a lease
        ([b"a 0 x", b"b 0 ", b"END", b"c 0 ", b"END"], b"mg b v O7\r\nmg c v O7\r\n"),
        ([b"a 0 x", FAILED, b"END", b"c 0 z", b"END"], b"mg b v O7\r\n"),
        ([FAILED, b"END"], b"mg a v O7\r\nmg b v O7\r\nmg c v O7\r\n"),  # the error stands in place of an END
        ([b"a 0 ", FAILED, b"END", b"c 0 z", b"END"], b"mg a v O7\r\nmg b v O7\r\n"),
    ],
)
def test_a_batch_by_keys_asks_again_for_what_is_unclear(lines, again):
    notes = Notes()
    pending = values(notes)
    for line in lines:
        assert pending.take(keyed(line)) is False
    assert pending.take(reply(b"MN")) is True
    assert notes.told == []
    ((data, each_of_them),) = notes.sent
    assert data == again
    for _ in range(again.count(b"mg")):
        each_of_them.take(reply(b"EN O7"))
    (answer,) = notes.told
    found = {line[:1] for line in lines if line[4:] and not line[:1].isupper()}
    assert [hit is not None for hit in answer] == [key in found for key in (b"a", b"b", b"c")]


@pytest.mark.parametrize(
    ("lines", "stranger"),
    [
        ([], b"d 0 x"),
        ([], b"c 0 x"),  # of the second command, before the end of the first
        ([b"b 0 x"], b"a 0 x"),
        ([b"a 0 x"], b"a 0 x"),
        ([b"END"], b"a 0 x"),
        ([b"END", b"END"], b"c 0 x"),
        ([b"END", b"END"], b"END"),
        ([b"END"], b"MN"),
        ([], b"VA f0 O7"),
        ([], b"HD O7"),
        ([], b"EN"),
        ([], OUT_OF_SYNC),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_reply_that_does_not_fit_a_batch_by_keys_is_a_protocol_error(lines, stranger, gone):
    notes = Notes()
    if gone:
        notes.told = ["gave up"]
    pending = values(notes)
    for line in lines:
        pending.take(keyed(line))
    with pytest.raises(ProtocolError):
        pending.take(keyed(stranger))
    assert notes.told == (["gave up"] if gone else [])


@pytest.mark.parametrize("make", [one, store, three, quiet, each, text, statistics])
def test_an_item_with_its_key_is_no_reply_to_another_kind_of_request(make):
    notes = Notes()
    with pytest.raises(ProtocolError):
        make(notes).take(keyed(b"k 0 x")._replace(key=b"O7"))
    assert notes.told == []
