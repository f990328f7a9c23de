"""The exact bytes of each request: a memcached reads them as they are written here."""

import pytest

from evcache.zones.protocol import requests
from evcache.zones.protocol.packet import LARGE_BYTES
from tests.support.packets import commands_of, parts_of

U64 = 2**64 - 1

LINES = {
    "no-op": (requests.NOOP, b"mn"),
    "version": (requests.VERSION, b"version"),
    "settings": (requests.STATS_SETTINGS, b"stats settings"),
    "probe": (requests.PROBE_EXPLICIT_CAS, b"mg !p E1"),
    "get": (requests.meta_get(b"k"), b"mg k v f c"),
    "get to copy: the seconds left come last": (requests.meta_get(b"k", requests.COPY_FLAGS), b"mg k v f c t"),
    "get to inspect: without counting as a use": (requests.meta_get(b"k", requests.INSPECT_FLAGS), b"mg k f c t s u"),
    "get of a key that is not ASCII": (requests.meta_get("käse".encode()), "mg käse v f c".encode()),
    "touch": (requests.meta_touch(b"k", 60), b"mg k f c T60"),
    "touch for ever": (requests.meta_touch(b"k", 0), b"mg k f c T0"),
    "touch into the past": (requests.meta_touch(b"k", -1), b"mg k f c T-1"),
    "set": (requests.meta_set(b"k", 3, ttl=60, flags=7), b"ms k 3 T60 F7"),
    "set of nothing": (requests.meta_set(b"k", 0, ttl=0, flags=0), b"ms k 0 T0 F0"),
    "set that is over at once": (requests.meta_set(b"k", 1, ttl=-1, flags=0), b"ms k 1 T-1 F0"),
    "set with the largest numbers": (
        requests.meta_set(b"k", 2**30, ttl=2**31 - 1, flags=2**32 - 1, compare=U64, cas=U64),
        b"ms k 1073741824 T2147483647 F4294967295 C18446744073709551615 E18446744073709551615",
    ),
    "add": (requests.meta_set(b"k", 3, ttl=60, flags=0, mode="add"), b"ms k 3 T60 F0 ME"),
    "replace": (requests.meta_set(b"k", 3, ttl=60, flags=0, mode="replace"), b"ms k 3 T60 F0 MR"),
    "append": (requests.meta_set(b"k", 3, ttl=60, flags=0, mode="append"), b"ms k 3 T60 F0 MA"),
    "prepend": (requests.meta_set(b"k", 3, ttl=60, flags=0, mode="prepend"), b"ms k 3 T60 F0 MP"),
    "compare": (requests.meta_set(b"k", 3, ttl=0, flags=0, compare=5), b"ms k 3 T0 F0 C5"),
    "compare with 0": (requests.meta_set(b"k", 3, ttl=0, flags=0, compare=0), b"ms k 3 T0 F0 C0"),
    "compare with nothing": (requests.meta_set(b"k", 3, ttl=0, flags=0, compare=None), b"ms k 3 T0 F0"),
    "a CAS of one's own": (requests.meta_set(b"k", 3, ttl=0, flags=0, cas=9), b"ms k 3 T0 F0 E9"),
    "a CAS of 0": (requests.meta_set(b"k", 3, ttl=0, flags=0, cas=0), b"ms k 3 T0 F0 E0"),
    "take over": (
        requests.meta_set(b"k", 3, ttl=0, flags=0, compare=5, cas=6, older_or_equal=True),
        b"ms k 3 T0 F0 C5 E6 I",
    ),
    "take over, with a mode": (
        requests.meta_set(b"k", 3, ttl=0, flags=0, compare=0, older_or_equal=True, mode="replace"),
        b"ms k 3 T0 F0 C0 I MR",
    ),
    "delete": (requests.meta_delete(b"k"), b"md k"),
    "delete one CAS": (requests.meta_delete(b"k", 5), b"md k C5"),
    "delete CAS 0": (requests.meta_delete(b"k", 0), b"md k C0"),
    "count up": (requests.meta_arithmetic(b"k", 1), b"ma k D1 v t c"),
    "count by nothing": (requests.meta_arithmetic(b"k", 0), b"ma k D0 v t c"),
    "count down": (requests.meta_arithmetic(b"k", 2, decrement=True), b"ma k D2 MD v t c"),
    "count up from 0, for ever": (requests.meta_arithmetic(b"k", 1, initial=0), b"ma k D1 N0 J0 v t c"),
    "count up from 10, for a minute": (requests.meta_arithmetic(b"k", 1, initial=10, ttl=60), b"ma k D1 N60 J10 v t c"),
    "count up from 0, with a TTL of 0": (requests.meta_arithmetic(b"k", 1, initial=0, ttl=0), b"ma k D1 N0 J0 v t c"),
    "count down from 10": (
        requests.meta_arithmetic(b"k", 1, decrement=True, initial=10, ttl=5),
        b"ma k D1 MD N5 J10 v t c",
    ),
    "a TTL means nothing to a counter that is not made": (requests.meta_arithmetic(b"k", 1, ttl=60), b"ma k D1 v t c"),
    "debug": (requests.meta_debug(b"k"), b"me k"),
    "flush": (requests.flush_all(), b"flush_all"),
    "verbosity": (requests.verbosity(2), b"verbosity 2"),
    "statistics": (requests.stats(), b"stats"),
    "statistics of a group": (requests.stats("items"), b"stats items"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_request_has_these_bytes(name):
    line, expected = LINES[name]
    assert line == expected


def test_a_guarded_store_is_three_stores_of_which_one_at_most_changes_the_item():
    """Add where nothing is; take over what is not newer; confirm, which matches only what the first two stored."""
    packet = requests.guarded_store(b"k", b"abc", cas=100, ttl=60, flags=7)
    assert parts_of(packet, b"O1") == [
        b"ms k 3 T60 F7 E100 ME O1\r\nabc\r\nms k 3 T60 F7 C100 E100 I O1\r\nabc\r\nms k 3 T60 F7 C100 E100 O1\r\nabc\r\n"
    ]
    assert (packet.commands, packet.name) == (3, "ms")


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE_BYTES - 1, LARGE_BYTES, 1_000_000])
def test_a_guarded_store_once_carries_the_value_in_its_second_command(size):
    """A stub where nothing is; take over what is not newer; set the TTL of ours; clear its mark."""
    data = b"v" * size
    packet = requests.guarded_store_once(b"k", data, cas=100, ttl=60, flags=7, stub=U64, stub_seconds=2)
    assert commands_of(packet) == [
        (b"mg k N2 E18446744073709551615", None),
        (b"ms k %d T60 F7 C100 E100 I" % size, data),
        (b"md k C100 E100 I T60", None),
        (b"ms k 0 C100 E100 MA", b""),
    ]
    assert packet.name == "ms"


def test_a_large_value_is_a_view_in_its_packet():
    data = b"v" * LARGE_BYTES
    packet = requests.guarded_store_once(b"k", data, cas=100, ttl=60, flags=7, stub=U64, stub_seconds=2)
    before, value, after = parts_of(packet, b"O1")
    assert before == b"mg k N2 E18446744073709551615 O1\r\nms k 65536 T60 F7 C100 E100 I O1\r\n"
    assert value.obj is data
    assert after == b"\r\nmd k C100 E100 I T60 O1\r\nms k 0 C100 E100 MA O1\r\n\r\n"


@pytest.mark.parametrize(
    ("user", "password", "line", "secret"),
    [
        ("alice", "s3cret", b"set auth 0 0 12", b"alice s3cret"),
        ("a", "", b"set auth 0 0 2", b"a "),
        ("jürgen", "pä", b"set auth 0 0 11", "jürgen pä".encode()),  # bytes are counted, not letters
    ],
)
def test_a_login_is_a_store_of_user_and_password(user, password, line, secret):
    assert requests.text_auth(user, password) == (line, secret)


@pytest.mark.parametrize("argument", ["3", b"3", b"3\r\nflush_all", None])
def test_no_text_gets_into_a_place_for_numbers(argument):
    """It could end the line and begin another command."""
    with pytest.raises(TypeError):
        requests.meta_set(b"k", argument, ttl=0, flags=0)
    with pytest.raises(TypeError):
        requests.meta_touch(b"k", argument)
