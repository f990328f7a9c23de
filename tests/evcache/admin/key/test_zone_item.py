"""Items of a zone, decoded from replies."""

import math

import pytest

from evcache.admin.key.zone_item import Content, item_of, to_iso
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_GZIP, FLAG_INT, FLAG_MSGPACK, FLAG_TOMBSTONE
from evcache.zones.errors import ServerError
from evcache.zones.protocol.replies import Hit, Reply

NOW = 1_800_000_000.0
VERSION = (1_799_999_990_123 << 20) | (5 << 12) | 77
CAS = cas_of(VERSION)


def clock():
    return HybridLogicalClock(wall_ms=lambda: int(NOW * 1000))


def reply(value=b"v", *marks, flags=0, cas=CAS, ttl=60, idle=3, read=b"h1"):
    tokens = [b"f%d" % flags, b"c%d" % cas, b"t%d" % ttl, b"s%d" % len(value), b"l%d" % idle, read, *marks]
    return Reply(b"VA", tokens, value)


def test_the_parts_of_a_version():
    version = item_of(reply(), clock(), NOW).version
    assert (version.number, version.written_at, version.age) == (VERSION, "2027-01-15T07:59:50.123Z", 9.877)
    assert (version.writer, version.counter, version.is_believed) == (77, 5, True)


def test_a_version_far_ahead_is_shown_and_not_believed():
    ahead = (int(NOW * 1000) + 120_000) << 20
    version = item_of(reply(cas=cas_of(ahead)), clock(), NOW).version
    assert (version.number, version.age, version.is_believed) == (ahead, -120.0, False)


@pytest.mark.parametrize("cas", [0, 1, 12345, 2**64 - 1])
def test_a_cas_of_a_server_and_of_a_stub_is_no_version(cas):
    assert item_of(reply(cas=cas), clock(), NOW).version is None


@pytest.mark.parametrize(
    ("value", "marks", "flags", "content", "is_miss"),
    [
        (b"v", [], FLAG_INT, Content.VALUE, False),
        (b"", [], 0, Content.VALUE, False),
        (b"", [], FLAG_TOMBSTONE, Content.TOMBSTONE, True),
        (b"", [], FLAG_ABSENT, Content.ABSENCE, True),
        (b"", [b"W"], 0, Content.STUB, True),
        (b"", [b"Z"], 0, Content.STUB, True),
        (b"", [b"X", b"W"], 0, Content.VALUE, False),
        (b"short", [], FLAG_ENVELOPE, Content.ENVELOPE, False),
    ],
)
def test_the_content_of_an_item(value, marks, flags, content, is_miss):
    found = item_of(reply(value, *marks, flags=flags), clock(), NOW)
    assert (found.content, found.is_miss, found.is_stale) == (content, is_miss, b"X" in marks)


def test_the_fields_of_a_value():
    found = item_of(reply(b"abc", flags=FLAG_MSGPACK | FLAG_GZIP, read=b"h0"), clock(), NOW)
    assert (found.bytes, found.ttl, found.idle_seconds, found.was_read) == (3, 60, 3, False)
    assert (found.flags, found.meaning, found.cas) == (FLAG_MSGPACK | FLAG_GZIP, "msgpack, gzip", CAS)


def test_fields_that_the_classic_protocol_lacks_are_none():
    found = item_of(Hit(b"v", 0, 5, None, stale=False, leased=False), clock(), NOW)
    assert (found.ttl, found.idle_seconds, found.was_read, found.version) == (None, None, None, None)


def envelope(expires_at, stale_until, load_seconds=0.5):
    return wrap(Envelope(b"data", FLAG_INT, NOW - 10, expires_at, stale_until, load_seconds))


@pytest.mark.parametrize(
    ("stored", "times"),
    [
        (
            envelope(NOW + 5, NOW + 60),
            ("2027-01-15T07:59:50.000Z", "2027-01-15T08:00:05.000Z", "2027-01-15T08:01:00.000Z", 0.5, False),
        ),
        (
            envelope(NOW, NOW + 60, 0.0),
            ("2027-01-15T07:59:50.000Z", "2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z", None, True),
        ),
        (envelope(math.inf, math.inf), ("2027-01-15T07:59:50.000Z", None, None, 0.5, False)),
    ],
)
def test_the_times_of_an_envelope(stored, times):
    found = item_of(reply(stored, flags=FLAG_ENVELOPE), clock(), NOW)
    inside = found.envelope
    assert (inside.made_at, inside.expires_at, inside.stale_until, inside.load_seconds, inside.is_past_ttl) == times
    assert (inside.bytes, inside.flags, inside.meaning) == (4, FLAG_INT, "int")
    assert found.is_miss is inside.is_past_ttl


def test_an_envelope_that_is_cut_short_is_a_problem_of_the_item():
    found = item_of(reply(b"short", flags=FLAG_ENVELOPE), clock(), NOW)
    assert (found.envelope, found.problem) == (None, "invalid envelope: cut short")


def test_a_miss_is_no_item_and_an_error_raises():
    assert item_of(Reply(b"EN", [], None), clock(), NOW) is None
    with pytest.raises(ServerError):
        item_of(Reply(b"CLIENT_ERROR", [b"bad"], None), clock(), NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1.5, "1970-01-01T00:00:01.500Z"), (2**63 / 1000, "after 9999")],
)
def test_times_in_iso_8601(seconds, text):
    assert to_iso(seconds) == text
