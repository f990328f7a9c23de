"""Counters: each rule, with a history that keeps it and one that breaks it."""

import pytest

from integration.chaos.counters import check_counters
from integration.chaos.end_state import Held
from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.promises import Promise
from tests.chaos.histories import (
    ME,
    NEW,
    YOU,
    A,
    B,
    C,
    deleted,
    looked,
    outage,
    promises_of,
    read,
    saw_down,
    trouble,
    world,
)


def incr(number, begin, end, *, client=ME, key="count-0", outcome=Outcome.OK):
    return Call(client, key, Kind.INCR, begin, end, outcome, number=number)


def reads(number, begin, end, what="get at ALL", *, client=YOU, odd=""):
    return read(None, begin=begin, end=end, key="count-0", client=client, number=number, what=what, odd=odd)


def ends_with(number):
    return {"count-0": dict.fromkeys((A, B, C), Held(1, None, number))}


ONE, TWO, THREE = incr(1, 1.0, 1.1), incr(2, 5.0, 5.1, client=YOU), incr(3, 20.0, 20.1)
ALL_LOST = [(A, 0, 10.0), (B, 0, 10.0)]

CASES = [
    ("growing", [ONE, TWO, THREE], world(), 3, None),
    ("one without a result", [ONE, incr(None, 2.0, 3.0, outcome=Outcome.UNKNOWN), incr(3, 5.0, 5.1)], world(), 3, None),
    ("not growing", [ONE, TWO, incr(2, 20.0, 20.1)], world(), 2, Promise.COUNTED),
    ("begun again", [ONE, TWO, incr(1, 20.0, 20.1), incr(2, 30.0, 30.1)], world(), 2, Promise.COUNTED),
    ("not growing after an outage for all", [ONE, TWO, incr(2, 20.0, 20.1)], world(outage(6.0, 15.0)), 2, Promise.COUNTED),
    ("not growing during it", [ONE, TWO, incr(2, 20.0, 20.1)], world(outage(6.0, 25.0)), 2, Promise.COUNTED),
    ("lost with zones", [ONE, TWO, incr(1, 20.0, 20.1)], world(emptied=ALL_LOST), 1, None),
    ("lost with one zone", [ONE, TWO, incr(1, 20.0, 20.1)], world(emptied=[(A, 0, 10.0)]), 1, Promise.COUNTED),
    ("while clients disagreed", [ONE, TWO, incr(2, 20.0, 20.1)], world(views=saw_down(YOU, 19.0, 20.5)), 2, None),
    ("at once, and unique", [incr(1, 1.0, 1.1), incr(2, 1.05, 1.15, client=YOU)], world(), 2, None),
    ("at once, and the same", [incr(1, 1.0, 1.1), incr(1, 1.05, 1.15, client=YOU)], world(), 2, Promise.COUNTED),
    ("more than were tried", [ONE, TWO], world(), 3, Promise.COUNTED),
    ("fewer than were acknowledged", [ONE, TWO], world(), 1, Promise.COUNTED),
    ("fewer, with zones that had them", [ONE, TWO], world(emptied=ALL_LOST), 1, None),
    ("read by ALL", [ONE, TWO, reads(2, 6.0, 6.1)], world(), 2, None),
    ("read lower by ALL", [ONE, TWO, reads(1, 6.0, 6.1)], world(), 2, Promise.COUNT_READ),
    ("read lower by QUORUM", [ONE, TWO, reads(1, 6.0, 6.1, "get at QUORUM")], world(), 2, Promise.COUNT_READ),
    ("read lower by one zone for another client", [ONE, TWO, reads(1, 6.0, 6.1, "get", client=ME)], world(), 2, None),
    ("read lower by one zone for its own client", [ONE, TWO, reads(1, 6.0, 6.1, "get")], world(), 2, Promise.COUNT_READ),
    ("read lower while a zone misses copies", [ONE, TWO, reads(1, 6.0, 6.1)], world(outage(4.0, 6.5)), 2, None),
    ("read lower at the same time", [ONE, TWO, reads(1, 5.05, 5.15)], world(), 2, None),
    ("read as a str", [ONE, reads(1, 2.0, 2.1, odd="str '1'")], world(), 1, Promise.INTEGER),
]


@pytest.mark.parametrize(
    ("calls", "there", "final", "broken"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_check_counters(calls, there, final, broken):
    """Results are unique and grow, reads are not lower, nothing acknowledged is lost in the end."""
    assert promises_of(check_counters(calls, ends_with(final), there)) == (set() if broken is None else {broken})


def mixed(kind, begin, end, outcome=Outcome.OK, number=5):
    return Call(YOU, "mixed-0", kind, begin, end, outcome, number=number, acknowledged=(A, B))


def sees(number, begin, server="eu-1a-0, start 0,", last=None, version=None):
    last = begin if last is None else last
    return looked(
        None,
        version,
        begin,
        begin + 0.01,
        server=server,
        key="mixed-0",
        number=number,
        last_seen=last,
        seen_until=last + 0.01,
    )


GONE = deleted(None, 5.0, 5.1, key="mixed-0")
VERSIONED = deleted(NEW, 5.0, 5.1, key="mixed-0")
HANG = trouble(Fault.ZONE_HANGS, 3.0, 6.0)

DELETES = [
    ("stays away", [mixed(Kind.INCR, 1.0, 1.1), GONE, sees(None, 6.0)], world(), False),
    ("comes back", [mixed(Kind.INCR, 1.0, 1.1), GONE, sees(5, 6.0)], world(), True),
    (
        "comes back in a zone that missed the delete",
        [mixed(Kind.INCR, 1.0, 1.1), GONE, sees(5, 6.0, "eu-1c-0, start 0,")],
        world(),
        False,
    ),
    ("is counted again", [mixed(Kind.INCR, 1.0, 1.1), GONE, mixed(Kind.INCR, 5.5, 5.6), sees(5, 6.0)], world(), False),
    ("is counted at the same time", [mixed(Kind.INCR, 4.9, 5.05), GONE, sees(5, 6.0)], world(), False),
    ("may be counted late", [mixed(Kind.INCR, 3.5, 4.5, Outcome.UNKNOWN), GONE, sees(5, 6.5)], world(HANG), False),
    ("was counted long ago", [mixed(Kind.INCR, 1.0, 2.0, Outcome.UNKNOWN), GONE, sees(5, 6.5)], world(), True),
    ("was never away", [mixed(Kind.INCR, 1.0, 1.1), sees(5, 2.0, last=7.0), GONE], world(), True),
    (
        "was counted again while it was looked at",
        [mixed(Kind.INCR, 1.0, 1.1), sees(5, 2.0, last=5.5), GONE, mixed(Kind.INCR, 5.505, 5.6)],
        world(),
        False,
    ),
    ("was away in time", [mixed(Kind.INCR, 1.0, 1.1), sees(5, 2.0, last=5.05), GONE], world(), False),
    ("the delete was forgotten", [mixed(Kind.INCR, 1.0, 1.1), GONE, sees(5, 6.0)], world(emptied=[(A, 0, 5.5)]), False),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in DELETES], ids=[case[0] for case in DELETES])
def test_no_late_copy_undoes_a_delete(calls, there, broken):
    """Until the next write begins, a zone that acknowledged the delete holds no number."""
    assert promises_of(check_counters(calls, {}, there)) == ({Promise.COUNTER_DELETED} if broken else set())
