"""Each answer of a classic server and its reply: tables, exact."""

import pytest

from evcache.zones.errors import ProtocolError, ServerError
from evcache.zones.protocol.replies import Reply, unexpected
from evcache.zones.transport.classic import replies

ANSWERS = {
    "stored": (replies.stored(b"STORED"), Reply(b"HD", [], None)),
    "not stored": (replies.stored(b"NOT_STORED"), Reply(b"NS", [], None)),
    "changed meanwhile": (replies.stored(b"EXISTS"), Reply(b"EX", [], None)),
    "gone meanwhile": (replies.stored(b"NOT_FOUND"), Reply(b"NF", [], None)),
    "too large": (
        replies.stored(b"SERVER_ERROR object too large for cache"),
        Reply(b"SERVER_ERROR", [b"object", b"too", b"large", b"for", b"cache"], None),
    ),
    "deleted": (replies.deleted(b"DELETED"), Reply(b"HD", [], None)),
    "nothing to delete": (replies.deleted(b"NOT_FOUND"), Reply(b"NF", [], None)),
    "touched": (replies.touched(b"TOUCHED"), Reply(b"HD", [], None)),
    "nothing to touch": (replies.touched(b"NOT_FOUND"), Reply(b"EN", [], None)),
    "counted": (replies.counted(b"42"), Reply(b"VA", [], b"42")),
    "counted to 0": (replies.counted(b"0"), Reply(b"VA", [], b"0")),
    "counted, with the spaces of a longer number": (replies.counted(b"9 "), Reply(b"VA", [], b"9")),
    "no counter": (replies.counted(b"NOT_FOUND"), Reply(b"NF", [], None)),
    "not a number": (
        replies.counted(b"CLIENT_ERROR cannot increment or decrement non-numeric value"),
        Reply(b"CLIENT_ERROR", b"cannot increment or decrement non-numeric value".split(), None),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_has_its_reply(name):
    reply, expected = ANSWERS[name]
    assert reply == expected


@pytest.mark.parametrize("read", [replies.stored, replies.deleted, replies.touched, replies.counted])
@pytest.mark.parametrize(
    "line", [b"", b"OK", b"END", b"HD", b"STORED ", b"stored", b"VALUE key 0 1", b"-1", b"1.5", b"\xff"]
)
def test_any_other_answer_is_an_error_and_no_outcome(read, line):
    with pytest.raises(ProtocolError):
        read(line)


@pytest.mark.parametrize("line", [b"ERROR", b"CLIENT_ERROR bad data chunk", b"SERVER_ERROR out of memory"])
def test_complaints_are_replies_in_the_servers_words(line):
    reply = replies.refusal(line)
    assert reply.line == line
    assert isinstance(unexpected(reply), ServerError)


@pytest.mark.parametrize("line", [b"STORED", b"ERRORS", b"", b"error"])
def test_other_lines_are_no_complaints(line):
    assert replies.refusal(line) is None
