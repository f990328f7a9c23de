"""The decoder gives the same replies however the bytes arrive, and nothing but ProtocolError for what is no reply."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import ProtocolError
from evcache.zones.protocol.decoder import MAX_LINE_BYTES, MAX_VALUE_BYTES
from evcache.zones.protocol.replies import STATUSES, Hit, Reply
from fuzz import fuzz_decoder
from tests.support.cores import CORES

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)

SMALL_LINE, SMALL_VALUE = 40, 1_000  # limits for cases about limits


@pytest.fixture(autouse=True, scope="module", params=CORES, ids=lambda core: core.name)
def decoder_of_each_core(request):
    """The tests of this module run on the decoder of each core."""
    global Decoder  # noqa: PLW0603
    before = fuzz_decoder.Decoder
    Decoder = fuzz_decoder.Decoder = request.param.new_decoder
    yield
    fuzz_decoder.Decoder = before


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


def usual(value, flags, cas, opaque, ttl=None):
    """What the usual reply to a read becomes."""
    return Hit(value, flags, cas, ttl, stale=False, leased=False, opaque=opaque)


def decode(slices, **limits):
    """All replies, and the error that ended the stream or None."""
    decoder = Decoder(**limits)
    replies = []
    try:
        for piece in slices:
            for found in decoder.feed(piece):
                replies.append(found)
    except ProtocolError as error:
        return replies, error
    return replies, None


def byte_by_byte(data):
    return [data[index : index + 1] for index in range(len(data))]


def every_two_split(data):
    return [[data[:middle], data[middle:]] for middle in range(len(data) + 1)]


def every_way(data):
    return [
        [data],
        byte_by_byte(data),
        [piece for byte in byte_by_byte(data) for piece in (byte, b"")],
        *every_two_split(data),
    ]


STREAMS = {
    "hit without value": (b"HD\r\n", [reply(b"HD")]),
    "flags": (b"HD f0 c12 t-1 O7\r\n", [reply(b"HD f0 c12 t-1 O7")]),
    "miss": (b"EN\r\n", [reply(b"EN")]),
    "miss with opaque": (b"EN O1\r\n", [reply(b"EN O1")]),
    "not stored": (b"NS O1\r\n", [reply(b"NS O1")]),
    "exists": (b"EX O1\r\n", [reply(b"EX O1")]),
    "not found": (b"NF O1\r\n", [reply(b"NF O1")]),
    "no-op": (b"MN\r\n", [reply(b"MN")]),
    "debug": (b"ME foo exp=60 la=0 cas=16\r\n", [reply(b"ME foo exp=60 la=0 cas=16")]),
    "item": (b"VA 3 f9 c1 O1\r\nabc\r\n", [usual(b"abc", 9, 1, b"O1")]),
    "item with its largest numbers": (
        b"VA 3 f4294967295 c18446744073709551615 t2147483647 O18446744073709551615\r\nabc\r\n",
        [usual(b"abc", 2**32 - 1, 2**64 - 1, b"O18446744073709551615", 2**31 - 1)],
    ),
    "item for ever": (b"VA 3 f0 c1 t-1 O1\r\nabc\r\n", [usual(b"abc", 0, 1, b"O1", -1)]),
    "empty item": (b"VA 0 f0 c1 O1\r\n\r\n", [usual(b"", 0, 1, b"O1")]),
    "item of a whole item": (
        b"VA 18 f0 c1 O1\r\nVA 1 f0 c1 O2\r\nx\r\n\r\n",
        [usual(b"VA 1 f0 c1 O2\r\nx\r\n", 0, 1, b"O1")],
    ),
    "item with marks": (b"VA 3 f0 c1 O1 W X\r\nabc\r\n", [reply(b"VA f0 c1 O1 W X", b"abc")]),
    "item in another order": (b"VA 3 c1 f0 O1\r\nabc\r\n", [reply(b"VA c1 f0 O1", b"abc")]),
    "item with an opaque that is no number": (b"VA 3 f0 c1 Oa\r\nabc\r\n", [reply(b"VA f0 c1 Oa", b"abc")]),
    "item without an opaque": (b"VA 3 f0 c1\r\nabc\r\n", [reply(b"VA f0 c1", b"abc")]),
    "item with two spaces": (b"VA 3 f0 c1  O1\r\nabc\r\n", [Reply(b"VA", [b"f0", b"c1", b"", b"O1"], b"abc")]),
    "item with a sign": (b"VA 3 f+1 c1 O1\r\nabc\r\n", [reply(b"VA f+1 c1 O1", b"abc")]),
    "value": (b"VA 3 O1\r\nabc\r\n", [reply(b"VA O1", b"abc")]),
    "value without flags": (b"VA 3\r\nabc\r\n", [reply(b"VA", b"abc")]),
    "empty value": (b"VA 0\r\n\r\n", [reply(b"VA", b"")]),
    "value that is a line end": (b"VA 2\r\n\r\n\r\n", [reply(b"VA", b"\r\n")]),
    "value that ends in CR": (b"VA 1\r\n\r\r\n", [reply(b"VA", b"\r")]),
    "value with END": (b"VA 9 O1\r\nab\r\nEND\r\n\r\n", [reply(b"VA O1", b"ab\r\nEND\r\n")]),
    "value with an END line": (b"VA 5 O1\r\nEND\r\n\r\n", [reply(b"VA O1", b"END\r\n")]),
    "value with a VA line": (b"VA 6 O1\r\nVA 5\r\n\r\n", [reply(b"VA O1", b"VA 5\r\n")]),
    "value with a whole reply": (b"VA 12 O1\r\nVA 1 O2\r\nx\r\n\r\n", [reply(b"VA O1", b"VA 1 O2\r\nx\r\n")]),
    "value of spaces and NULs": (b"VA 4\r\n \0 \0\r\n", [reply(b"VA", b" \0 \0")]),
    "length with leading zeros": (b"VA 0000000003\r\nabc\r\n", [reply(b"VA", b"abc")]),
    "version": (b"VERSION 1.6.38\r\n", [reply(b"VERSION 1.6.38")]),
    "statistics": (b"STAT a 1\r\nSTAT b c d\r\nEND\r\n", [reply(b"STAT a 1"), reply(b"STAT b c d"), reply(b"END")]),
    "ok": (b"OK\r\n", [reply(b"OK")]),
    "stored": (b"STORED\r\n", [reply(b"STORED")]),
    "reset": (b"RESET\r\n", [reply(b"RESET")]),
    "error": (b"ERROR\r\n", [reply(b"ERROR")]),
    "client error": (b"CLIENT_ERROR bad data chunk\r\n", [reply(b"CLIENT_ERROR bad data chunk")]),
    "server error": (b"SERVER_ERROR out of memory\r\n", [reply(b"SERVER_ERROR out of memory")]),
    "a space at the end": (b"HD \r\n", [Reply(b"HD", [b""], None)]),
    "CR inside a token": (b"HD a\rb\r\n", [reply(b"HD a\rb")]),
    "several": (
        b"HD O1\r\nVA 1 O2\r\nx\r\nEN O3\r\nVA 0 O4\r\n\r\nMN\r\n",
        [reply(b"HD O1"), reply(b"VA O2", b"x"), reply(b"EN O3"), reply(b"VA O4", b""), reply(b"MN")],
    ),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", STREAMS)
def test_replies_do_not_depend_on_how_the_bytes_arrive(name):
    stream, expected = STREAMS[name]
    for slices in every_way(stream):
        assert decode(slices) == (expected, None), slices


@pytest.mark.parametrize("following", ["hit without value", "value", "value with END"])
@pytest.mark.parametrize("name", STREAMS)
def test_the_next_reply_may_be_stuck_on_the_end(name, following):
    stream, expected = STREAMS[name]
    more, then = STREAMS[following]
    for slices in every_way(stream + more):
        assert decode(slices) == ([*expected, *then], None), slices


def test_every_status_is_in_the_table():
    """A status that is added needs a case of its own here."""
    covered = {found.status for _, expected in STREAMS.values() for found in expected}
    assert covered == STATUSES


@pytest.mark.parametrize("slice_size", [1460, 65_536, 262_144, 1_048_570])
def test_a_megabyte_arrives_in_slices(slice_size):
    value = random.Random(1).randbytes(1024 * 1024)
    stream = b"VA %d f0 c1 O1\r\n%b\r\nHD O2\r\n" % (len(value), value)
    slices = [stream[start : start + slice_size] for start in range(0, len(stream), slice_size)]
    assert decode(slices) == ([usual(value, 0, 1, b"O1"), reply(b"HD O2")], None)


def test_a_reply_is_given_as_soon_as_its_last_byte_is_here():
    stream = b"VA 3 O1\r\nabc\r\n"
    decoder = Decoder()
    for piece in byte_by_byte(stream[:-1]):
        assert list(decoder.feed(piece)) == []
    assert list(decoder.feed(stream[-1:])) == [reply(b"VA O1", b"abc")]


def test_a_value_may_be_as_long_as_the_limit():
    value = b"x" * SMALL_VALUE
    assert decode([b"VA %d\r\n%b\r\n" % (len(value), value)], max_value=SMALL_VALUE) == ([reply(b"VA", value)], None)


def test_an_announced_gigabyte_is_waited_for_without_complaint():
    assert decode([b"VA %d O1\r\n" % MAX_VALUE_BYTES, b"x"]) == ([], None)


@pytest.mark.parametrize("limit", [SMALL_LINE, MAX_LINE_BYTES])
def test_a_line_may_be_as_long_as_the_limit(limit):
    line = b"HD " + b"x" * (limit - 3)
    stream = line + b"\r\n"
    for slices in ([stream], byte_by_byte(stream), [stream[:-1], stream[-1:]], [stream[:-2], stream[-2:]]):
        assert decode(slices, max_line=limit) == ([reply(line)], None)


@pytest.mark.parametrize("limit", [SMALL_LINE, MAX_LINE_BYTES])
def test_a_line_over_the_limit_is_an_error_with_and_without_its_end(limit):
    too_long = b"HD " + b"x" * (limit - 2)
    for stream in (too_long + b"\r\n", too_long + b"\r\nHD\r\n", too_long + b"x", too_long * 3):
        for slices in ([stream], byte_by_byte(stream)):
            replies, error = decode(slices, max_line=limit)
            assert (replies, type(error)) == ([], ProtocolError)


BROKEN = {
    "unknown status": b"WHAT\r\n",
    "a status in lower case": b"hd\r\n",
    "a classic value": b"VALUE foo 0 3\r\nabc\r\nEND\r\n",
    "a status stuck to its flags": b"HDf0\r\n",
    "a space first": b" HD\r\n",
    "a tab instead of a space": b"HD\tO1\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "an empty line": b"\r\n",
    "an empty line after a reply's own": b"\r\nHD\r\n",
    "LF only": b"HD\nHD\r\n",
    "LF, then CR": b"HD\n\rHD\r\n",
    "NUL": b"\0\r\n",
    "VA without a length": b"VA\r\n",
    "VA with an empty length": b"VA \r\n",
    "a flag for a length": b"VA f0 c1\r\n",
    "two spaces before a length": b"VA  3\r\nabc\r\n",
    "a negative length": b"VA -1\r\n",
    "a length with a plus": b"VA +3\r\nabc\r\n",
    "a length with an underscore": b"VA 1_0\r\n0123456789\r\n",
    "a length in hex": b"VA 0x3\r\nabc\r\n",
    "a length with a fraction": b"VA 3.0\r\nabc\r\n",
    "a length in other digits": "VA \u0663\r\nabc\r\n".encode(),
    "a length of 11 digits": b"VA 00000000003\r\nabc\r\n",
    "a length of 30 digits": b"VA 999999999999999999999999999999\r\n",
    "a length over the limit": b"VA %d\r\n" % (SMALL_VALUE + 1),
    "a value that is longer than announced": b"VA 2\r\nabc\r\n",
    "a value that is shorter than announced": b"VA 4\r\nabc\r\nHD\r\n",
    "a value with LF only": b"VA 3\r\nabc\nHD\r\n",
    "a value with CR only": b"VA 3\r\nabc\rHD\r\n",
    "an empty value without its line end": b"VA 0\r\nHD\r\n",
    "a line without end": b"H" * (SMALL_LINE + 2),
    "a line over the limit": b"HD %b\r\n" % (b"x" * SMALL_LINE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_reply_is_a_protocol_error(name):
    for slices in every_way(BROKEN[name]):
        replies, error = decode(slices, max_line=SMALL_LINE, max_value=SMALL_VALUE)
        assert (replies, type(error)) == ([], ProtocolError), slices


@pytest.mark.parametrize("name", BROKEN)
def test_replies_before_the_error_are_still_given(name):
    before, expected = STREAMS["several"]
    for slices in every_way(before + BROKEN[name]):
        replies, error = decode(slices, max_line=SMALL_LINE, max_value=SMALL_VALUE)
        assert (replies, type(error)) == (expected, ProtocolError), slices


@pytest.mark.parametrize("length", [MAX_VALUE_BYTES + 1, 9_999_999_999])
def test_the_default_limit_on_values_is_a_gigabyte(length):
    replies, error = decode([b"VA %d\r\n" % length])
    assert (replies, type(error)) == ([], ProtocolError)


def test_errors_show_little_of_what_came():
    """A value that is mistaken for a line may hold secrets, and a log line of a megabyte is unreadable."""
    for stream in (b"x" * 100_000, b"x" * 2_000 + b"\r\n", b"VA " + b"x" * 2_000 + b"\r\n"):
        _, error = decode([stream])
        assert len(str(error)) < 200


visible = st.binary(min_size=1, max_size=8).map(lambda raw: bytes(33 + byte % 94 for byte in raw))


@st.composite
def valid_replies(draw):
    status = draw(st.sampled_from(sorted(STATUSES)))
    tokens = draw(st.lists(visible, max_size=5))
    if status != b"VA":
        return Reply(status, tokens, None)
    marks = st.sampled_from([b"", b"END\r\n", b"VA 5\r\n", b"\r\n", b"HD O1\r\n"])
    value = b"".join(draw(st.lists(st.one_of(marks, st.binary(max_size=20)), max_size=4)))
    if draw(st.booleans()):
        flags, cas, ttl = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**64 - 1)), draw(st.none() | st.integers(-1))
        return usual(value, flags, cas, b"O%d" % draw(st.integers(0, 2**64 - 1)), None if ttl is None else ttl % 2**31)
    return Reply(status, tokens, value)


def encode(found):
    if found.value is None:
        return b" ".join([found.status, *found.tokens]) + b"\r\n"
    return b" ".join([found.status, b"%d" % len(found.value), *found.tokens]) + b"\r\n" + found.value + b"\r\n"


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


@quick
@given(st.lists(valid_replies(), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_replies_cut_anywhere_come_out_as_they_went_in(replies, places):
    assert decode(cut(b"".join(map(encode, replies)), places)) == (replies, None)


fragments = st.sampled_from(
    [
        b"VA ",
        b"VA 5",
        b"HD",
        b"EN",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b"5",
        b"-1",
        b"END",
        b"STAT a",
        b"CLIENT_ERROR",
        b"99999999999",
    ]
)


@quick
@given(
    st.lists(st.one_of(fragments, st.binary(max_size=10)), max_size=20).map(b"".join),
    st.lists(st.integers(0, 300), max_size=5),
)
def test_any_bytes_raise_nothing_but_protocol_error(data, places):
    """And are taken or refused alike in any slices."""
    limits = {"max_line": SMALL_LINE, "max_value": SMALL_VALUE}
    replies, error = decode([data], **limits)
    sliced, sliced_error = decode(cut(data, places), **limits)
    assert (sliced, type(sliced_error)) == (replies, type(error))


def test_the_fuzzer_finds_nothing_in_a_short_run():
    assert fuzz_decoder.fuzz(random.Random(20_240_229), iterations=1_500) == 1_500


def test_the_fuzzer_notices_a_decoder_that_looks_for_line_ends_in_values(monkeypatch):
    """A fuzzer that can't fail would be worth nothing."""

    class Searching(Decoder):
        def feed(self, data):
            return super().feed(data.replace(b"END\r\n", b""))

    monkeypatch.setattr(fuzz_decoder, "Decoder", Searching)
    with pytest.raises(AssertionError):
        fuzz_decoder.fuzz(random.Random(1), iterations=2_000)
