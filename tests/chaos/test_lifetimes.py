"""Time to live: values are gone in time, and copies expire together."""

import pytest

from integration.chaos.end_state import Held
from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.lifetimes import check_end_ttls, check_expiry, ends_of, short_lived
from integration.chaos.promises import Findings, Promise
from tests.chaos.histories import (
    ME,
    NEW,
    OLD,
    ONE,
    TWO,
    YOU,
    A,
    B,
    C,
    looked,
    promises_of,
    read,
    trouble,
    world,
    wrote,
)

DEFAULT = 3600.0


def touched(ttl, begin, end, outcome=Outcome.OK):
    return Call(YOU, "k", Kind.TOUCH, begin, end, outcome, ttl=ttl, acknowledged=(A, B))


def expired(calls, there):
    ends = ends_of(calls, there, DEFAULT)
    return promises_of(check_expiry(calls, ends, short_lived(calls), there))


# Written with 3 s, so that the last request has left at 2 s, and all is over at 6 s and the slack.
SHORT = wrote(ONE, NEW, 1.0, 1.1, ttl=3)

CASES = [
    ("read in time", [SHORT, read(ONE, begin=6.2)], world(), False),
    ("read too late", [SHORT, read(ONE, begin=6.7)], world(), True),
    ("read too late by another client", [SHORT, read(ONE, begin=6.7, client=YOU)], world(), True),
    ("a call that ends late may leave late", [wrote(ONE, NEW, 1.0, 3.0, ttl=3), read(ONE, begin=7.2)], world(), False),
    ("seen too late on a server", [SHORT, looked(ONE, NEW, 6.7, 6.8)], world(), True),
    ("last seen in time", [SHORT, looked(ONE, NEW, 2.0, 2.1, last_seen=6.0)], world(), False),
    ("last seen too late", [SHORT, looked(ONE, NEW, 2.0, 2.1, last_seen=7.0)], world(), True),
    ("no short life", [wrote(ONE, NEW, 1.0, 1.1), read(ONE, begin=900.0)], world(), False),
    ("another value", [SHORT, wrote(TWO, NEW + 1, 5.0, 5.1, ttl=6), read(TWO, begin=7.0)], world(), False),
    (
        "a write that ended in an error",
        [wrote(ONE, None, 1.0, 2.0, ttl=3, outcome=Outcome.UNKNOWN), read(ONE, begin=7.0)],
        world(),
        True,
    ),
    ("touched", [SHORT, touched(3, 3.0, 3.1), read(ONE, begin=7.9)], world(), False),
    ("touched twice", [SHORT, touched(3, 3.0, 3.1), touched(4, 7.0, 7.1), read(ONE, begin=12.9)], world(), False),
    ("touched, and over", [SHORT, touched(3, 3.0, 3.1), read(ONE, begin=8.7)], world(), True),
    ("touched when it was gone", [SHORT, touched(9, 6.5, 6.6), read(ONE, begin=8.0)], world(), True),
    ("touched before it was written", [touched(9, -2.0, -1.9), SHORT, read(ONE, begin=7.0)], world(), True),
    (
        "touched before, by a request that a zone held back",
        [touched(9, -2.0, -1.9), SHORT, read(ONE, begin=8.0)],
        world(trouble(Fault.ZONE_HANGS, -2.0, 1.5)),
        False,
    ),
    (
        "a touch without a known result",
        [SHORT, touched(9, 3.0, 4.0, Outcome.UNKNOWN), read(ONE, begin=13.0)],
        world(),
        False,
    ),
    ("a zone held the write back", [SHORT, read(ONE, begin=9.9)], world(trouble(Fault.ZONE_HANGS, 1.0, 5.0)), False),
    ("and let it go", [SHORT, read(ONE, begin=10.7)], world(trouble(Fault.ZONE_HANGS, 1.0, 5.0)), True),
    ("a zone died", [SHORT, read(ONE, begin=6.7)], world(trouble(Fault.ZONE_DIES, 1.0, 5.0)), True),
    ("a zone hung before", [SHORT, read(ONE, begin=6.7)], world(trouble(Fault.ZONE_HANGS, 0.0, 0.9)), True),
    ("a server has just gone on", [SHORT, read(ONE, begin=6.8, end=7.1)], world(trouble(Fault.ZONE_HANGS, 6.5, 7.0)), False),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_check_expiry(calls, there, broken):
    """No value is read later than its ttl + 1 s after the last moment at which a server may have taken it."""
    assert expired(calls, there) == ({Promise.TTL} if broken else set())


def ended(*expires, calls, ttl=None):
    copies = {zone: Held(NEW, ONE, expires=at) for zone, at in zip((A, B, C), expires, strict=True)}
    write = wrote(ONE, NEW, 1.0, 1.1, ttl=ttl, client=ME)
    calls = [write, *calls]
    return promises_of(check_end_ttls(calls, {"k": copies}, ends_of(calls, world(), DEFAULT), DEFAULT))


@pytest.mark.parametrize(
    ("expires", "calls", "broken"),
    [
        ((3600.0, 3601.0, 3602.0), [], False),
        ((3600.0, 3601.0, 3604.0), [], True),
        ((3600.0, 3601.0, 3596.0), [], False),
        ((3600.0, 3601.0, 3590.0), [], True),
        ((3600.0, 3601.0, 900.0), [touched(900, 3.0, 3.1)], False),
        ((3600.0, 3601.0, None), [], False),
        ((4000.0, 3601.0, 3600.0), [touched(3990, 9.0, 9.1)], False),
        ((4003.0, 3601.0, 3600.0), [touched(3990, 9.0, 9.1)], True),
        ((4003.0, 3601.0, 3600.0), [wrote(TWO, OLD, 0.0, 0.1, ttl=3990)], True),
    ],
)
def test_check_end_ttls(expires, calls, broken):
    """Copies of one version expire when the original does; earlier only after a touch that a zone may have missed."""
    assert ended(*expires, calls=calls) == ({Promise.EQUAL_TTL} if broken else set())


def test_check_expiry_counts_misses_after_an_end():
    """A miss before the end of a value's life says nothing about it."""
    calls = [SHORT, read(None, begin=3.0), read(ONE, begin=4.0), read(None, begin=7.0), read(None, begin=7.0, key="j")]
    found = Findings(check_expiry(calls, ends_of(calls, world(), DEFAULT), short_lived(calls), world()))
    assert found.of(Promise.TTL) == {"read": 1, "miss after an end": 1}
