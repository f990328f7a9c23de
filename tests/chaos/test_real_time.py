"""The order of acknowledged writes in real time, and touches of absences."""

import pytest

from integration.chaos.end_state import Held
from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.promises import Promise
from integration.chaos.real_time import check_real_time
from integration.chaos.touches import check_absences, check_touches
from tests.chaos.histories import (
    ME,
    NEW,
    NEWER,
    OLD,
    ONE,
    TWO,
    YOU,
    A,
    B,
    C,
    deleted,
    looked,
    outage,
    promises_of,
    read,
    violations_of,
    world,
    wrote,
)


def touched(begin, end, outcome=Outcome.OK, zones=(A, B), ttl=300):
    return Call(ME, "k", Kind.TOUCH, begin, end, outcome, ttl=ttl, acknowledged=zones)


# The first one's clock is ahead.
AHEAD = wrote(ONE, NEWER, 1.0, 1.1, client=YOU)
AFTER = wrote(TWO, OLD, 2.0, 2.1)

CASES = [
    ("in order", [wrote(ONE, OLD, 1.0, 1.1, client=YOU), wrote(TWO, NEW, 2.0, 2.1)], world(), False),
    ("out of order", [AHEAD, AFTER], world(), True),
    ("a delete out of order", [AHEAD, deleted(OLD, 2.0, 2.1)], world(), True),
    ("at the same time", [AHEAD, wrote(TWO, OLD, 1.05, 2.0)], world(), False),
    ("the first was not acknowledged", [wrote(ONE, NEWER, 1.0, 1.1, outcome=Outcome.FAILED), AFTER], world(), False),
    ("the second was not acknowledged", [AHEAD, wrote(TWO, OLD, 2.0, 2.1, outcome=Outcome.FAILED)], world(), False),
    ("no zone had both", [wrote(ONE, NEWER, 1.0, 1.1, zones=(A,)), wrote(TWO, OLD, 2.0, 2.1, zones=(B, C))], world(), False),
    ("the zones that had both were emptied", [AHEAD, AFTER], world(emptied=[(A, 0, 1.5), (B, 0, 1.5)]), False),
    (
        "it may have succeeded in the other zones",
        [wrote(ONE, NEWER, 1.0, 1.1, zones=(A,)), wrote(TWO, OLD, 2.0, 2.1, zones=(A, B, C))],
        world(),
        False,
    ),
    (
        "it needed one that had the first",
        [wrote(ONE, NEWER, 1.0, 1.1, zones=(A,)), wrote(TWO, OLD, 2.0, 2.1, zones=(A, C))],
        world(),
        True,
    ),
    (
        "one zone was enough",
        [wrote(ONE, NEWER, 1.0, 1.1, zones=(A,)), wrote(TWO, OLD, 2.0, 2.1, zones=(A, C))],
        world(outage(0.5, 9.0, B, fault=Fault.WRITE_ONLY)),
        False,
    ),
    (
        "another node had the first",
        [AHEAD, AFTER],
        world(outage(1.5, 9.0, A, fault=Fault.NODE_LEAVES), outage(1.5, 9.0, B, fault=Fault.NODE_LEAVES)),
        False,
    ),
    ("one of them was", [AHEAD, AFTER], world(emptied=[(A, 0, 1.5)]), True),
    ("the first may have expired", [wrote(ONE, NEWER, 1.0, 1.1, ttl=3), AFTER], world(), False),
    ("the first lives long enough", [wrote(ONE, NEWER, 1.0, 1.1, ttl=30), AFTER], world(), True),
    ("the first was touched, and may have expired", [AHEAD, touched(1.2, 1.3, ttl=1), AFTER], world(), False),
    (
        "a short-lived one replaced the first",
        [AHEAD, wrote(3, NEWER + 1, 1.2, 1.3, client=YOU, ttl=2), wrote(TWO, OLD, 5.0, 5.1)],
        world(),
        False,
    ),
    ("the first was touched for long", [AHEAD, touched(1.2, 1.3), AFTER], world(), True),
    ("a third one at the same time is newer", [AHEAD, AFTER, wrote(3, NEWER + 1, 2.05, 2.2, client=YOU)], world(), False),
    ("a third one at the same time is older", [AHEAD, AFTER, wrote(3, NEW, 2.05, 2.2, client=YOU)], world(), True),
    ("a third one later is newer", [AHEAD, AFTER, wrote(3, NEWER + 1, 2.15, 2.2, client=YOU)], world(), True),
    ("a cas", [AHEAD, wrote(TWO, OLD, 2.0, 2.1, kind=Kind.CAS)], world(), True),
    (
        "a cas that could not see it",
        [AHEAD, wrote(TWO, OLD, 2.0, 2.1, kind=Kind.CAS)],
        world(outage(1.9, 2.05), outage(1.9, 2.05, B)),
        False,
    ),
    ("a set that could not see it", [AHEAD, AFTER], world(outage(1.9, 2.05), outage(1.9, 2.05, B)), True),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_check_real_time(calls, there, broken):
    """A write that begins after another one was acknowledged is newer."""
    assert promises_of(check_real_time(calls, {}, there)) == ({Promise.REAL_TIME} if broken else set())


def test_check_real_time_of_later_reads_and_of_the_end():
    """Neither a later read of the client, nor the end, shows what an acknowledged write came after."""
    calls = [AHEAD, AFTER, read(ONE, NEWER, 3.0, 3.1)]
    assert {violation.what for violation in violations_of(check_real_time(calls, {}, world()))} == {
        "set after another client",
        "later reads",
    }
    copies = {A: Held(NEWER, ONE), B: Held(NEWER, ONE), C: None}
    found = violations_of(check_real_time([AHEAD, AFTER], {"k": copies}, world()))
    assert {violation.what for violation in found} == {"set after another client", "the end"}
    right = [wrote(ONE, OLD, 1.0, 1.1, client=YOU), wrote(TWO, NEW, 2.0, 2.1), read(TWO, NEW, 3.0, 3.1)]
    assert violations_of(check_real_time(right, {"k": {A: Held(NEW, TWO)}}, world())) == []


# Touches.

SET, GONE = wrote(ONE, OLD, 1.0, 1.1), deleted(NEW, 2.0, 2.1)

TOUCHES = [
    ("a value", [SET, touched(3.0, 3.1)], world(), False),
    ("never a value", [touched(3.0, 3.1)], world(), True),
    ("never a value, and told so", [touched(3.0, 3.1, Outcome.FAILED, ())], world(), False),
    ("deleted", [SET, GONE, touched(3.0, 3.1)], world(), True),
    (
        "deleted, by zones that are not the touched ones",
        [SET, deleted(NEW, 2.0, 2.1, zones=(A,)), touched(3.0, 3.1, zones=(B, C))],
        world(),
        False,
    ),
    ("deleted at the same time", [SET, deleted(NEW, 2.0, 3.05), touched(3.0, 3.1)], world(), False),
    ("deleted, and written again", [SET, GONE, wrote(TWO, NEWER, 2.5, 2.6), touched(3.0, 3.1)], world(), False),
    ("deleted, and written at the same time", [SET, GONE, wrote(TWO, NEWER, 2.5, 9.0), touched(3.0, 3.1)], world(), False),
    ("deleted, and forgotten", [SET, GONE, touched(3.0, 3.1)], world(emptied=[(A, 0, 2.5), (B, 0, 2.5)]), False),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in TOUCHES], ids=[case[0] for case in TOUCHES])
def test_check_touches(calls, there, broken):
    """True says that there was a value."""
    assert promises_of(check_touches(calls, there)) == ({Promise.TOUCH} if broken else set())


@pytest.mark.parametrize(
    ("what", "left", "broken"),
    [
        ("tombstone", 60.0, False),
        ("tombstone", 300.0, True),
        ("tombstone", 40.0, True),
        ("absence", 3.0, False),
        ("absence", 60.0, True),
    ],
)
def test_check_absences(what, left, broken):
    """An absence lives as long as it was given, touched or not."""
    look = looked(None, NEW, 3.0, 3.1, absence=True, what=what, expires=3.1 + left)
    deletes = [deleted(NEW, 2.0, 2.1)] if what == "tombstone" else []
    assert promises_of(check_absences([look], deletes)) == ({Promise.TOUCH} if broken else set())
