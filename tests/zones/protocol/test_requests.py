"""The exact bytes of each request: a memcached reads them as they are written here."""

import pytest

from evcache.zones.protocol import requests
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES, guarded_store
from evcache.zones.protocol.packet import LARGE_BYTES
from tests.support.packets import commands_of, parts_of

U64 = 2**64 - 1

LINES = {
    "no-op": (requests.NOOP, b"mn"),
    "version": (requests.VERSION, b"version"),
    "settings": (requests.STATS_SETTINGS, b"stats settings"),
    "probe": (requests.PROBE_EXPLICIT_CAS, b"mg !p E1"),
    "touch": (requests.meta_touch(b"k", 60), b"mg k f c T60"),
    "touch for ever": (requests.meta_touch(b"k", 0), b"mg k f c T0"),
    "touch into the past": (requests.meta_touch(b"k", -1), b"mg k f c T-1"),
    "delete": (requests.meta_delete(b"k"), b"md k"),
    "delete one CAS": (requests.meta_delete(b"k", 5), b"md k C5"),
    "delete CAS 0": (requests.meta_delete(b"k", 0), b"md k C0"),
    "count up": (requests.meta_arithmetic(b"k", 1), b"ma k D1 v t c"),
    "count by nothing": (requests.meta_arithmetic(b"k", 0), b"ma k D0 v t c"),
    "count down": (requests.meta_arithmetic(b"k", 2, decrement=True), b"ma k D2 MD v t c"),
    "count up to a version": (
        requests.meta_arithmetic(b"k", 1, compare=0, cas=U64),
        b"ma k D1 C0 E18446744073709551615 v t c",
    ),
    "lease": (requests.meta_lease(b"k", 30), b"mg k v f c N30 t"),
    "lease with a CAS of 0": (requests.meta_lease(b"k", 30, 0), b"mg k v f c N30 t E0"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_request_has_these_bytes(name):
    line, expected = LINES[name]
    assert line == expected


def test_a_guarded_store_is_three_stores_of_which_one_at_most_changes_the_item():
    """Add where nothing is; take over what is not newer; confirm, which matches only what the first two stored."""
    packet = guarded_store(b"k", b"abc", 7, 60, cas=100, stub=U64).packet
    assert parts_of(packet, b"O1") == [
        b"ms k 3 T60 F7 E100 ME O1\r\nabc\r\nms k 3 T60 F7 C100 E100 I O1\r\nabc\r\nms k 3 T60 F7 C100 E100 O1\r\nabc\r\n"
    ]
    assert (packet.commands, packet.name) == (3, "ms")


@pytest.mark.parametrize("size", [THREE_COPIES_MAX_BYTES + 1, 1000, LARGE_BYTES - 1, LARGE_BYTES, 1_000_000])
def test_a_guarded_store_once_carries_the_value_in_its_second_command(size):
    """A stub where nothing is; take over what is not newer; set the TTL of ours; clear its mark."""
    data = b"v" * size
    packet = guarded_store(b"k", data, 7, 60, cas=100, stub=U64).packet
    assert commands_of(packet) == [
        (b"mg k N2 E18446744073709551615", None),
        (b"ms k %d T60 F7 C100 E100 I" % size, data),
        (b"md k C100 E100 I T60", None),
        (b"ms k 0 C100 E100 MA", b""),
    ]
    assert packet.name == "ms"


def test_a_large_value_is_a_view_in_its_packet():
    data = b"v" * LARGE_BYTES
    packet = guarded_store(b"k", data, 7, 60, cas=100, stub=U64).packet
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
        requests.meta_touch(b"k", argument)


def test_a_guarded_touch_sets_the_ttl_of_one_version_and_clears_its_mark():
    packet = requests.guarded_touch(b"k", cas=100, ttl=60)
    assert commands_of(packet) == [(b"md k C100 E100 I T60", None), (b"ms k 0 T0 F0 C100 E100 MA", b"")]
    assert packet.name == "md"


def test_replacing_what_is_older_keeps_the_ttl_and_clears_the_mark():
    packet = requests.replace_older(b"k", b"41", flags=7, cas=100)
    assert commands_of(packet) == [(b"ms k 2 T0 F7 C100 E100 I", b"41"), (b"ms k 0 T0 F0 C100 E100 MA", b"")]
    assert packet.name == "ms"
