"""What replies mean, how strictly their numbers are read, and after which errors a connection can still be used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import NodeUnavailable, ProtocolError, ServerError
from evcache.zones.protocol.replies import (
    ERROR_STATUSES,
    STATUSES,
    Hit,
    Reply,
    decimal,
    is_unserved,
    leaves_connection_in_sync,
    number,
    read_hit,
    token,
    unexpected,
)

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


def hit(value=b"v", flags=0, cas=1, ttl=None, *, stale=False, leased=False):
    return Hit(value, flags, cas, ttl, stale, leased)


# As in the answer to `mg k v f c [t] O1`: what was asked for in its order, then what the server has to add.
HITS = {
    "plain": (b"f0 c1", b"v", hit()),
    "the largest numbers": (b"f4294967295 c18446744073709551615", b"v", hit(flags=2**32 - 1, cas=2**64 - 1)),
    "an empty value": (b"f0 c1", b"", hit(b"")),
    "ttl": (b"f7 c12 t60", b"v", hit(flags=7, cas=12, ttl=60)),
    "never expires": (b"f0 c1 t-1", b"v", hit(ttl=-1)),
    "stale, and ours to renew": (b"f0 c1 X W", b"v", hit(stale=True)),
    "stale, and somebody renews it": (b"f0 c1 Z X", b"v", hit(stale=True)),
    "stale and empty is no stub": (b"f0 c1 X W", b"", hit(b"", stale=True)),
    "stale with ttl": (b"f0 c1 t30 X W", b"v", hit(ttl=30, stale=True)),
    "a stub, ours to fill": (b"f0 c1 t30 W", b"", hit(b"", ttl=30, leased=True)),
    "a stub that somebody fills": (b"f0 c1 Z", b"", hit(b"", leased=True)),
    "soon over, and ours to renew": (b"f0 c1 W", b"v", hit()),
    "soon over, and somebody renews it": (b"f0 c1 Z", b"v", hit()),
    "other order": (b"t5 c1 f2", b"v", hit(flags=2, ttl=5)),
    "more than was asked for": (b"f0 c1 s1 h1 l5", b"v", hit()),
    "CAS only at first": (b"c1 f0", b"v", hit()),
}


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("name", HITS)
def test_a_hit_is_read_from_each_shape(name, opaque):
    flags, value, expected = HITS[name]
    tokens = flags.split(b" ")
    if opaque:  # the server puts W, X and Z behind everything that was asked for
        tokens.insert(next((place for place, flag in enumerate(tokens) if flag in {b"W", b"X", b"Z"}), len(tokens)), b"O1")
    assert read_hit(Reply(b"VA", tokens, value)) == expected


@pytest.mark.parametrize("line", [b"EN", b"EN O1", b"EN kfoo O1"])
def test_a_miss_is_none(line):
    assert read_hit(reply(line)) is None


@pytest.mark.parametrize(
    "flags",
    [
        b"c1 O1", b"f0 O1", b"O1", b"f c1 O1", b"f0 c O1", b"fx c1 O1", b"f0 c1x O1", b"f0 c+1 O1", b"f0 c1_0 O1",
        b"f0x1 c1 O1", b"f0 c1 t O1", b"f0 c1 tx O1", b"f0 c1 t--1 O1", b"f0.5 c1 O1", b"", b" ", b"F0 C1 O1",
    ],
)  # fmt: skip
def test_a_hit_whose_numbers_are_missing_or_none_is_a_protocol_error(flags):
    with pytest.raises(ProtocolError):
        read_hit(Reply(b"VA", flags.split(b" "), b"v"))


@pytest.mark.parametrize("status", sorted(STATUSES - {b"VA", b"EN"}))
def test_no_other_reply_is_taken_for_a_miss(status):
    """Not stored, not found, stored, an error: none of them says that the key is not there."""
    expected = ProtocolError
    if status in ERROR_STATUSES:
        expected = NodeUnavailable if status == b"SERVER_ERROR" else ServerError
    with pytest.raises(expected):
        read_hit(Reply(status, [b"f0", b"c1", b"O1"], None))


def test_a_value_that_is_missing_is_not_a_miss():
    with pytest.raises(ProtocolError):
        read_hit(Reply(b"VA", [b"f0", b"c1"], None))


@pytest.mark.parametrize(
    ("line", "letter", "expected"),
    [
        (b"HD f0 c1", b"c", b"1"),
        (b"HD f0 c1", b"f", b"0"),
        (b"HD f0 c1", b"t", None),
        (b"HD t-1", b"t", b"-1"),
        (b"HD W", b"W", b""),
        (b"HD O1 c2", b"O", b"1"),
        (b"HD Oc5 c2", b"c", b"2"),
        (b"HD c1 c2", b"c", b"1"),
        (b"HD", b"c", None),
        (b"HD ", b"c", None),
        (b"HD C1", b"c", None),
    ],
)
def test_token_finds_a_flag_by_its_letter(line, letter, expected):
    assert token(reply(line), letter) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"0", 0), (b"7", 7), (b"007", 7), (b"-1", -1), (b"-0", 0), (b"18446744073709551615", 2**64 - 1)],
)
def test_a_decimal_is_digits_with_a_minus_at_most(text, expected):
    assert decimal(text) == expected
    assert number(Reply(b"HD", [b"f1", b"c" + text], None), b"c") == expected


NO_DECIMALS = [
    b"", b"-", b"+1", b"--1", b"1-", b" 1", b"1 ", b"1\n", b"1_0", b"1.0", b"1e3", b"0x10", b"x", b"\0",
    "\u0663".encode(), "\u00b2".encode(), b"-\xb2", b"inf", b"None",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_DECIMALS)
def test_what_int_would_take_or_choke_on_is_no_decimal(text):
    with pytest.raises(ProtocolError):
        decimal(text)
    with pytest.raises(ProtocolError):
        number(Reply(b"HD", [b"c" + text], None), b"c")


def test_a_number_that_is_missing_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="without flag c"):
        number(reply(b"HD f0 O1"), b"c")


@quick
@given(st.binary(max_size=30))
def test_any_text_is_a_decimal_or_a_protocol_error(text):
    try:
        found = decimal(text)
    except ProtocolError:
        return
    assert b"%d" % abs(found) == text.lstrip(b"-").lstrip(b"0") or found == 0


@pytest.mark.parametrize("tokens", [[b"", b"", b""], [b"f0", b"", b"O1"], [b"", b"c1", b"O1"], [b"f", b"c", b"O"]])
def test_a_hit_with_nothing_behind_a_flag_is_a_protocol_error(tokens):
    """A line with two spaces in a row has an empty word."""
    with pytest.raises(ProtocolError):
        read_hit(Reply(b"VA", tokens, b"v"))


def test_digits_beyond_what_int_takes_are_a_protocol_error():
    """Counters are values, so a text of any length gets here; int() raises its own ValueError over 4,300 digits."""
    with pytest.raises(ProtocolError):
        decimal(b"9" * 5_000)


# What 1.6.18 and 1.6.38 do after each error, with a value on its way: read it, or take it for commands.
IN_SYNC = [
    b"SERVER_ERROR object too large for cache",
    b"SERVER_ERROR out of memory storing object",
    b"SERVER_ERROR Out of memory during read",
    b"SERVER_ERROR backend failure",
    b"SERVER_ERROR lua start failure",
    b"SERVER_ERROR active request limit reached",
    b"CLIENT_ERROR invalid flag",
    b"CLIENT_ERROR invalid or duplicate flag",
    b"CLIENT_ERROR cannot increment or decrement non-numeric value",
    b"CLIENT_ERROR authentication failure",
    b"CLIENT_ERROR unauthenticated",
]
OUT_OF_SYNC = [
    b"ERROR",
    b"CLIENT_ERROR bad command line format",  # a key that is too long, or no length: the value runs as commands
    b"CLIENT_ERROR options flags too long",
    b"CLIENT_ERROR bad data chunk",  # more data than the command line says
    b"CLIENT_ERROR line too long",
    b"CLIENT_ERROR",
    b"SERVER_ERROR",
    b"SERVER_ERROR proxy backend failure",
    b"CLIENT_ERROR an error that nobody knows yet",
    b"ERROR SERVER_ERROR object too large for cache",
    b"CLIENT_ERROR object too large for cache",
]


@pytest.mark.parametrize("line", IN_SYNC)
def test_after_these_errors_the_next_reply_belongs_to_the_next_request(line):
    assert leaves_connection_in_sync(reply(line))


@pytest.mark.parametrize("line", OUT_OF_SYNC)
def test_after_any_other_error_nobody_knows(line):
    assert not leaves_connection_in_sync(reply(line))


@pytest.mark.parametrize("line", IN_SYNC + OUT_OF_SYNC)
def test_without_a_value_every_server_error_is_in_sync(line):
    in_sync = line in IN_SYNC or line.startswith(b"SERVER_ERROR")
    assert leaves_connection_in_sync(reply(line), payload=False) == in_sync


# A proxy could not serve the request: the key may be readable elsewhere, and a write is not refused for good.
UNSERVED = [
    b"SERVER_ERROR",
    b"SERVER_ERROR backend failure",
    b"SERVER_ERROR lua start failure",
    b"SERVER_ERROR active request limit reached",
    b"SERVER_ERROR proxy backend failure",
]


@pytest.mark.parametrize("line", IN_SYNC + OUT_OF_SYNC)
def test_error_reply_becomes_an_error_in_its_own_words(line):
    error = unexpected(reply(line))
    assert type(error) is (NodeUnavailable if line in UNSERVED else ServerError)
    assert is_unserved(reply(line)) == (line in UNSERVED)
    assert error.problem == line.decode()


@pytest.mark.parametrize("status", sorted(STATUSES - ERROR_STATUSES))
def test_any_other_reply_becomes_a_protocol_error(status):
    error = unexpected(Reply(status, [b"O1"], None))
    assert type(error) is ProtocolError
    assert status.decode() in str(error)


def test_bytes_that_are_no_text_can_be_shown():
    assert "\\xff" in str(unexpected(Reply(b"SERVER_ERROR", [b"\xff"], None)))


def test_a_replys_line_leaves_out_the_length_of_a_value():
    assert reply(b"VA f0 c1", b"abc").line == b"VA f0 c1"
