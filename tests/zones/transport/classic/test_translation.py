"""Each request of the seam and its classic command, each classic answer and its reply: tables, exact."""

import pytest

from evcache.zones.errors import ProtocolError, ServerError, Unsupported
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import Hit, Reply, read_hit, unexpected
from evcache.zones.transport.classic import replies, translation
from evcache.zones.transport.classic.replies import Fetched
from evcache.zones.transport.classic.translation import CompareAndStore, Count, Delete, Get, Store, Touch, translate
from tests.support.packets import commands_of

KEY = b"ns:key"
MAX = 2**64 - 1

COMMANDS = {
    "read": (requests.meta_get(KEY), Get(KEY, (b"v", b"f", b"c"))),
    "read for a copy": (requests.meta_get(KEY, requests.COPY_FLAGS), Get(KEY, (b"v", b"f", b"c"))),
    "inspect": (requests.meta_get(KEY, requests.INSPECT_FLAGS), Get(KEY, (b"f", b"c", b"s"))),
    "touch": (requests.meta_touch(KEY, 60), Touch(KEY, 60)),
    "touch, for ever": (requests.meta_touch(KEY, 0), Touch(KEY, 0)),
    "set": (requests.meta_set(KEY, 5, ttl=60, flags=7), Store(b"set", KEY, 7, 60)),
    "add": (requests.meta_set(KEY, 5, ttl=60, flags=7, mode="add"), Store(b"add", KEY, 7, 60)),
    "replace": (requests.meta_set(KEY, 5, ttl=60, flags=7, mode="replace"), Store(b"replace", KEY, 7, 60)),
    "append": (requests.meta_set(KEY, 5, ttl=0, flags=0, mode="append"), Store(b"append", KEY, 0, 0)),
    "prepend": (requests.meta_set(KEY, 5, ttl=0, flags=0, mode="prepend"), Store(b"prepend", KEY, 0, 0)),
    "largest flags": (requests.meta_set(KEY, 5, ttl=1, flags=2**32 - 1), Store(b"set", KEY, 2**32 - 1, 1)),
    "unix time": (requests.meta_set(KEY, 5, ttl=2**31 - 1, flags=0), Store(b"set", KEY, 0, 2**31 - 1)),
    "compare": (requests.meta_set(KEY, 5, ttl=60, flags=7, compare=9), CompareAndStore(KEY, 7, 60, 9)),
    "compare with 0": (requests.meta_set(KEY, 5, ttl=60, flags=7, compare=0), CompareAndStore(KEY, 7, 60, 0)),
    "compare with the largest": (requests.meta_set(KEY, 5, ttl=0, flags=0, compare=MAX), CompareAndStore(KEY, 0, 0, MAX)),
    "delete": (requests.meta_delete(KEY), Delete(KEY)),
    "count up": (requests.meta_arithmetic(KEY, 3), Count(KEY, 3, decrement=False, initial=None, exptime=0)),
    "count down": (
        requests.meta_arithmetic(KEY, 3, decrement=True),
        Count(KEY, 3, decrement=True, initial=None, exptime=0),
    ),
    "count from": (
        requests.meta_arithmetic(KEY, 1, initial=5, ttl=60),
        Count(KEY, 1, decrement=False, initial=5, exptime=60),
    ),
    "count from 0, for ever": (
        requests.meta_arithmetic(KEY, 0, initial=0, ttl=0),
        Count(KEY, 0, decrement=False, initial=0, exptime=0),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_request_has_its_command(name):
    line, command = COMMANDS[name]
    assert translate(line, "node-1") == command


ADD, TAKE_OVER, CONFIRM = (line for line, _ in commands_of(requests.guarded_store(KEY, b"value", cas=9, ttl=60, flags=0)))
ONCE = requests.guarded_store_once(KEY, b"value", cas=9, ttl=60, flags=0, stub=99, stub_seconds=2)
STUB, ONCE_OVER, SET_TTL, UNMARK = (line for line, _ in commands_of(ONCE))
MISSING = {
    "the guarded store, first": (ADD, "versions"),
    "the guarded store, second": (TAKE_OVER, "versions"),
    "the guarded store, third": (CONFIRM, "versions"),
    "the one-copy store, first": (STUB, "leases"),
    "the one-copy store, second": (ONCE_OVER, "versions"),
    "the one-copy store, third": (SET_TTL, "deletes that compare"),
    "the one-copy store, fourth": (UNMARK, "versions"),
    "a version of one's own": (requests.meta_set(KEY, 5, ttl=0, flags=0, cas=9), "versions"),
    "a lease": (b"mg ns:key v f c N30", "leases"),
    "an early win": (b"mg ns:key v f c R5", "leases"),
    "a lease with a token": (b"mg ns:key v c E9", "versions"),
    "a conditional read": (b"mg ns:key v c C9", "conditional reads"),
    "the last access": (b"mg ns:key l", "item details"),
    "whether it was hit": (b"mg ns:key h", "item details"),
    "read and touch": (b"mg ns:key v f c T60", "reading and touching in one command"),
    "append or create": (b"ms ns:key 5 T0 F0 MA N60", "appending to what is not there"),
    "a delete that compares": (requests.meta_delete(KEY, 9), "deletes that compare"),
    "invalidation": (b"md ns:key I T30", "invalidation"),
    "a value dropped": (b"md ns:key x", "invalidation"),
    "a counter that compares": (b"ma ns:key D1 C9 v", "counters that compare"),
    "a counter's version": (b"ma ns:key D1 E9 v", "versions"),
    "a counter's time": (b"ma ns:key D1 T60 v", "a time to live for counters that exist"),
    "item details": (requests.meta_debug(KEY), "the command me"),
    "another command": (b"mx ns:key", "the command mx"),
    "an unknown flag": (b"mg ns:key v Z1", "the flag Z"),
    "binary keys": (b"mg bnM= v b", "the flag b"),
    "quiet": (b"ms ns:key 5 T0 q", "the flag q"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_has_no_classic_form_is_named(name):
    """Nothing is dropped in silence: a flag that nobody translates is a feature that is missing."""
    line, feature = MISSING[name]
    with pytest.raises(Unsupported, match=f"node-1 does not support {feature}") as caught:
        translate(line, "node-1")
    assert (caught.value.feature, caught.value.node) == (feature, "node-1")


READ = Get(KEY, (b"v", b"f", b"c"))
LOOK = Get(KEY, (b"f", b"c", b"s"))

ANSWERS = {
    "a hit": (translation.found(READ, Fetched(b"value", 7, 9)), Reply(b"VA", [b"f7", b"c9"], b"value")),
    "an empty value": (translation.found(READ, Fetched(b"", 0, 0)), Reply(b"VA", [b"f0", b"c0"], b"")),
    "a miss": (translation.found(READ, None), Reply(b"EN", [], None)),
    "a look": (translation.found(LOOK, Fetched(b"value", 7, 9)), Reply(b"HD", [b"f7", b"c9", b"s5"], None)),
    "a look at nothing": (translation.found(LOOK, None), Reply(b"EN", [], None)),
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


def test_a_hit_is_read_as_one_of_the_meta_protocol_is():
    assert read_hit(translation.found(READ, Fetched(b"value", 7, 9))) == Hit(b"value", 7, 9, None, False, False)
    assert read_hit(translation.found(READ, Fetched(b"", 0, 9))) == Hit(b"", 0, 9, None, False, False)
    assert read_hit(translation.found(READ, None)) is None


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
