"""Outcomes of a guarded store, by tables over all combinations of the replies that servers give."""

from itertools import product

import pytest

from evcache.replication.commands.guarded_store import interpret_guarded, interpret_guarded_once
from evcache.results import Outcome
from evcache.zones.errors import ProtocolError
from evcache.zones.protocol.replies import Reply

TOO_LARGE = b"SERVER_ERROR object too large for cache"
NO_MEMORY = b"SERVER_ERROR out of memory storing object"


def reply(line):
    status, *tokens = line.split(b" ")
    return Reply(status, tokens, None)


def once(*lines):
    return interpret_guarded_once([reply(line) for line in lines])


HD, EX, NF, NS, EN = b"HD O1", b"EX O1", b"NF O1", b"NS O1", b"EN O1"

# Replies to stub, take over, TTL and unmark; what they prove.
ONCE = {
    "nothing was there": ((b"HD O1 W", HD, HD, HD), Outcome.STORED),
    "over an older one": ((HD, HD, HD, HD), Outcome.STORED),
    "over the half of a store": ((b"HD O1 Z X", HD, HD, HD), Outcome.STORED),
    "over a lease": ((b"HD O1 Z", HD, HD, HD), Outcome.STORED),
    "a newer one, or one without a version": ((HD, EX, EX, EX), None),
    "a newer one came after the second": ((HD, HD, EX, EX), None),
    "a newer one came after the third": ((HD, HD, HD, EX), None),
    "gone after the first": ((b"HD O1 W", NF, NF, NS), None),
    "gone after the second": ((HD, HD, NF, NS), None),
    "gone after the third, or no memory to clear the mark": ((HD, HD, HD, NS), None),
    "gone after the first, then a copy of this version": ((HD, NF, HD, HD), Outcome.STORED),
    "gone after the first, then a newer one": ((HD, NF, EX, EX), None),
    "an item without a version, then a copy of this version": ((HD, EX, HD, HD), Outcome.STORED),
    "gone after the third, back before the fourth": ((HD, HD, NF, HD), None),
    "no memory for the stub": ((NO_MEMORY, NF, NF, NS), None),
    "a stub that was not made": ((EN, NF, NF, NS), None),
    "no memory for the value": ((b"HD O1 W", NO_MEMORY, NF, NS), Outcome.NOT_STORED),
    "no memory for the value, and a newer one": ((HD, NO_MEMORY, EX, EX), None),
    "no memory for a value in chunks: the stub stays": (
        (b"HD O1 W", b"SERVER_ERROR Out of memory during read", EX, EX),
        None,
    ),
    "no memory for the value, but for the same one of somebody else": ((HD, NO_MEMORY, HD, HD), Outcome.STORED),
    "too large": ((HD, TOO_LARGE, NF, NS), Outcome.NOT_STORED),
    "errors throughout": ((NO_MEMORY, NO_MEMORY, NO_MEMORY, NO_MEMORY), None),
    "an error for the TTL": ((HD, HD, NO_MEMORY, HD), None),
    "an error for the mark": ((HD, HD, HD, NO_MEMORY), None),
}


@pytest.mark.parametrize("name", ONCE)
def test_one_copy_store(name):
    lines, outcome = ONCE[name]
    assert once(*lines) is outcome


STATUSES = [
    (HD, b"HD O1 W", EN, NO_MEMORY),
    (HD, EX, NF, NS, NO_MEMORY, TOO_LARGE),
    (HD, EX, NF, NO_MEMORY),
    (HD, EX, NF, NS, NO_MEMORY),
]


def test_one_copy_store_is_stored_or_refused_only_if_the_replies_prove_it():
    """Stored: the TTL was set and the mark cleared for this version. Refused: the server refused the value and holds no item."""
    for lines in product(*STATUSES):
        took_over, ttl, unmark = lines[1:]
        if (ttl, unmark) == (HD, HD):
            expected = Outcome.STORED
        elif took_over in (NO_MEMORY, TOO_LARGE) and ttl == NF:
            expected = Outcome.NOT_STORED
        else:
            expected = None
        assert once(*lines) is expected, lines


@pytest.mark.parametrize(
    "lines",
    [
        (NF, HD, HD, HD),
        (b"VA f0 O1", HD, HD, EX),
        (HD, EN, EX, EX),
        (HD, HD, NS, HD),
        (HD, HD, EN, HD),
        (HD, HD, HD, EN),
        (HD, HD, HD, b"MN"),
        (b"MN", HD, HD, HD),
    ],
)
def test_reply_that_a_command_cannot_have_is_an_error(lines):
    with pytest.raises(ProtocolError):
        once(*lines)


# Replies to add, take over and confirm; what the last proves.
THREE = {
    "nothing was there": ((HD, HD, HD), Outcome.STORED),
    "over an older one": ((NS, HD, HD), Outcome.STORED),
    "a newer one, or one without a version": ((NS, EX, EX), None),
    "gone after the second": ((NS, HD, NF), None),
    "no memory": ((NO_MEMORY, NO_MEMORY, NO_MEMORY), Outcome.NOT_STORED),
    "memory for the last": ((HD, NO_MEMORY, NF), None),
}


@pytest.mark.parametrize("name", THREE)
def test_three_copy_store(name):
    lines, outcome = THREE[name]
    assert interpret_guarded([reply(line) for line in lines]) is outcome
