"""Each kind of request takes its own replies, is complete with its last, and lets nothing else through."""

import pytest

from tests.zones.scripted import Notes
from zones.errors import NodeTimeout, ProtocolError, ServerError
from zones.pending import Pending, PendingAll, PendingQuiet, PendingText
from zones.protocol.replies import Reply

NEVER = float("inf")

IN_SYNC = b"SERVER_ERROR object too large for cache"
OUT_OF_SYNC = b"CLIENT_ERROR bad data chunk"


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


def one(notes):
    return Pending(notes, NEVER, b"O7")


def three(notes):
    return PendingAll(notes, NEVER, b"O7", 3)


def four(notes):
    return PendingAll(notes, NEVER, b"O7", 4)


def quiet(notes):
    """Requests 7, 8, 9 and a no-op."""
    return PendingQuiet(notes, NEVER, [b"O7", b"O8", b"O9"])


def text(notes):
    return PendingText(notes, NEVER, None)


def statistics(notes):
    return PendingText(notes, NEVER, b"END")


# What is taken, one after another; what the waiter is told with the last.
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
    "no hits": (quiet, [b"MN"], []),
    "every hit": (
        quiet,
        [b"VA f0 O7", b"VA f0 O8", b"HD O9", b"MN"],
        [(0, reply(b"VA f0 O7")), (1, reply(b"VA f0 O8")), (2, reply(b"HD O9"))],
    ),
    "the last hit": (quiet, [b"VA f0 O9 W", b"MN"], [(2, reply(b"VA f0 O9 W"))]),
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


@pytest.mark.parametrize("lines", [[IN_SYNC, b"MN"], [b"VA O7", IN_SYNC, b"VA O9", b"MN"], [IN_SYNC, IN_SYNC, b"MN"]])
def test_an_error_in_a_quiet_batch_fails_all_of_it_at_its_end(lines):
    notes = Notes()
    pending = quiet(notes)
    for line in lines[:-1]:
        assert pending.take(reply(line)) is False
        assert notes.told == []
    assert pending.take(reply(lines[-1])) is True
    (error,) = notes.told
    assert type(error) is ServerError
    assert error.problem == IN_SYNC.decode()


@pytest.mark.parametrize("make", [one, three, quiet, text, statistics])
def test_fail_tells_the_waiter_once(make):
    notes = Notes()
    pending = make(notes)
    first = NodeTimeout("late")
    pending.fail(first)
    pending.fail(NodeTimeout("later"))
    assert notes.told == [first]
