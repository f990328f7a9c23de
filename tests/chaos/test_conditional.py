"""Conditional writes as compare-and-set: each rule, with a history that keeps it and one that breaks it."""

import pytest

from integration.chaos.conditional import check_conditional
from integration.chaos.fault_plan import Fault
from integration.chaos.history import Kind, Outcome
from integration.chaos.lists import check_lists
from integration.chaos.promises import Findings, Promise
from tests.chaos.histories import (
    NEW,
    NEWER,
    OLD,
    ONE,
    THREE,
    TWO,
    YOU,
    A,
    B,
    C,
    deleted,
    outage,
    promises_of,
    read,
    saw_down,
    trouble,
    world,
    wrote,
)

FIRST = wrote(ONE, OLD, 1.0, 1.1)


def cas(value, version, base, begin, end, **rest):
    return wrote(value, version, begin, end, kind=Kind.CAS, base=base, **rest)


def add(value, version, begin, end, **rest):
    return wrote(value, version, begin, end, kind=Kind.ADD, **rest)


def refused(kind, begin, end, why="not_stored", base=None):
    call = wrote(THREE, None, begin, end, kind=kind, base=base, outcome=Outcome.REFUSED, zones=(), client=YOU)
    call.refusal = why
    return call


MINE = cas(TWO, NEW, OLD, 10.0, 10.1)
YOURS = cas(THREE, NEWER, OLD, 20.0, 20.1, client=YOU)
ALONGSIDE = cas(THREE, NEWER, OLD, 10.05, 10.15, client=YOU)
DOWN_FOR_ALL = outage(9.0, 15.0)

CASES = [
    ("one after the other", [FIRST, MINE, cas(THREE, NEWER, NEW, 20.0, 20.1, client=YOU)], world(), None),
    ("over one version", [FIRST, MINE, YOURS], world(), Promise.COMPARE),
    ("over one version, at once", [FIRST, MINE, ALONGSIDE], world(), Promise.COMPARE),
    (
        "the second was not acknowledged",
        [FIRST, MINE, cas(THREE, NEWER, OLD, 20.0, 20.1, outcome=Outcome.FAILED)],
        world(),
        None,
    ),
    ("over one version of another key", [FIRST, MINE, cas(THREE, NEWER, OLD, 20.0, 20.1, key="j")], world(), None),
    ("after an outage for all", [FIRST, MINE, YOURS], world(DOWN_FOR_ALL), Promise.COMPARE),
    ("while clients disagreed", [FIRST, MINE, YOURS], world(views=saw_down(YOU, 9.9, 10.2)), None),
    ("while clients disagreed about the second", [FIRST, MINE, YOURS], world(views=saw_down(YOU, 19.9, 20.2)), None),
    ("while clients agreed again", [FIRST, MINE, YOURS], world(views=saw_down(YOU, 13.0, 14.0)), Promise.COMPARE),
    ("the zones that knew were emptied", [FIRST, MINE, YOURS], world(emptied=[(A, 0, 15.0), (B, 0, 16.0)]), None),
    ("one of them was", [FIRST, MINE, YOURS], world(emptied=[(A, 0, 15.0)]), Promise.COMPARE),
    (
        "the zones that knew could not be reached",
        [FIRST, MINE, YOURS],
        world(outage(19.0, 21.0, A), outage(19.0, 21.0, B)),
        None,
    ),
    ("over a set that was acknowledged", [FIRST, wrote(TWO, NEW, 5.0, 5.1), YOURS], world(), Promise.COMPARE),
    ("over a set that was not", [FIRST, wrote(TWO, NEW, 5.0, 5.1, outcome=Outcome.FAILED), YOURS], world(), None),
    ("over a set on its way", [FIRST, wrote(TWO, NEW, 19.5, 19.6), YOURS], world(), None),
    (
        "over a set that every zone had",
        [FIRST, wrote(TWO, NEW, 19.5, 19.6, zones=(A, B, C)), YOURS],
        world(),
        Promise.COMPARE,
    ),
    ("over a set of its own client", [FIRST, wrote(TWO, NEW, 19.5, 19.6, client=YOU), YOURS], world(), Promise.COMPARE),
    (
        "over a cas on its way",
        [FIRST, cas(TWO, NEW, OLD, 19.5, 19.6), cas(THREE, NEWER, OLD - 1, 20.0, 20.1, client=YOU)],
        world(),
        Promise.COMPARE,
    ),
    (
        "over a set that a zone held back",
        [FIRST, wrote(TWO, NEW, 16.0, 16.1), YOURS],
        world(trouble(Fault.ZONE_HANGS, 15.0, 19.8, C)),
        None,
    ),
    ("over a set under way", [FIRST, wrote(TWO, NEW, 19.9, 20.05), YOURS], world(), None),
    ("over a delete that was acknowledged", [FIRST, deleted(NEW, 5.0, 5.1), YOURS], world(), Promise.COMPARE),
    ("over one that has expired", [FIRST, wrote(TWO, NEW, 5.0, 5.1, ttl=2), YOURS], world(), None),
    ("add over a value", [FIRST, add(TWO, NEW, 10.0, 10.1)], world(), Promise.COMPARE),
    ("add over a delete", [FIRST, deleted(NEW, 5.0, 5.1), add(TWO, NEWER, 10.0, 10.1)], world(), None),
    (
        "add over a delete that may have happened",
        [FIRST, deleted(None, 5.0, 5.1, outcome=Outcome.UNKNOWN), add(TWO, NEWER, 10.0, 10.1)],
        world(),
        None,
    ),
    (
        "add over a delete that is older",
        [FIRST, deleted(OLD - 1, 0.1, 0.2), add(TWO, NEWER, 10.0, 10.1)],
        world(),
        Promise.COMPARE,
    ),
    (
        "add over a delete still to come",
        [FIRST, add(TWO, NEW, 10.0, 10.1), deleted(NEWER, 15.0, 15.1)],
        world(),
        Promise.COMPARE,
    ),
    ("add over what has expired", [wrote(ONE, OLD, 1.0, 1.1, ttl=3), add(TWO, NEW, 10.0, 10.1)], world(), None),
    (
        "add over what all zones have forgotten",
        [FIRST, add(TWO, NEW, 10.0, 10.1)],
        world(emptied=[(A, 0, 5.0), (B, 0, 5.0)]),
        None,
    ),
    ("add refused over a value", [FIRST, refused(Kind.ADD, 10.0, 10.1)], world(), None),
    ("add refused over a delete", [FIRST, deleted(NEW, 5.0, 5.1), refused(Kind.ADD, 10.0, 10.1)], world(), Promise.REFUSAL),
    ("replace refused over a value", [FIRST, refused(Kind.REPLACE, 10.0, 10.1)], world(), Promise.REFUSAL),
    ("replace refused over a delete", [FIRST, deleted(NEW, 5.0, 5.1), refused(Kind.REPLACE, 10.0, 10.1)], world(), None),
    ("append refused over a value", [FIRST, refused(Kind.APPEND, 10.0, 10.1)], world(), Promise.REFUSAL),
    ("cas refused over the latest", [FIRST, refused(Kind.CAS, 10.0, 10.1, "exists", OLD)], world(), Promise.REFUSAL),
    ("cas refused over an older one", [FIRST, MINE, refused(Kind.CAS, 20.0, 20.1, "exists", OLD)], world(), None),
    (
        "cas finds nothing where a value is",
        [FIRST, MINE, refused(Kind.CAS, 20.0, 20.1, "not_found", OLD)],
        world(),
        Promise.REFUSAL,
    ),
    (
        "cas finds nothing where nothing is",
        [FIRST, deleted(NEW, 5.0, 5.1), refused(Kind.CAS, 10.0, 10.1, "not_found", OLD)],
        world(),
        None,
    ),
    (
        "refused while another may be newer",
        [FIRST, deleted(NEW, 9.9, 10.05), refused(Kind.REPLACE, 10.0, 10.1)],
        world(),
        None,
    ),
    (
        "refused while clients disagreed",
        [FIRST, refused(Kind.REPLACE, 10.0, 10.1)],
        world(views=saw_down(YOU, 9.0, 11.0)),
        None,
    ),
    ("refused after an outage", [FIRST, refused(Kind.REPLACE, 20.0, 20.1)], world(DOWN_FOR_ALL), Promise.REFUSAL),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_check_conditional(calls, there, broken):
    """Each successful one replaced the latest acknowledged version, and each refusal is what that one says."""
    assert promises_of(check_conditional(calls, there)) == (set() if broken is None else {broken})


def test_check_conditional_counts_what_it_checked():
    """Each `cas` by itself and against what was acknowledged before it, each refusal."""
    found = Findings(check_conditional([FIRST, MINE, refused(Kind.ADD, 20.0, 20.1)], world()))
    assert found.of(Promise.COMPARE) == {"cas once": 1, "cas over the latest": 1}
    assert found.of(Promise.REFUSAL) == {"add refused": 1}


# Lists.

FOUR = 7_000
START = wrote(ONE, OLD, 1.0, 1.1, key="list-0")


def append(value, version, begin, end, key="list-0", kind=Kind.APPEND, **rest):
    return wrote(value, version, begin, end, key=key, kind=kind, **rest)


def holds(*elements, key="list-0"):
    return read(elements[-1], begin=30.0, end=30.1, key=key, elements=elements)


MORE = append(TWO, NEW, 10.0, 10.1)
RESET = wrote(TWO, NEW, 10.0, 10.1, key="list-0")
UNHEARD = wrote(TWO, NEW, 10.0, 10.1, key="list-0", outcome=Outcome.FAILED)
MOST = append(THREE, NEWER, 20.0, 20.1, client=YOU)

LISTS = [
    ("all there", [START, MORE, MOST, holds(ONE, TWO, THREE)], world(), None),
    ("one lost", [START, MORE, MOST, holds(ONE, THREE)], world(), Promise.APPENDED),
    ("one lost after an outage for all", [START, MORE, MOST, holds(ONE, THREE)], world(DOWN_FOR_ALL), Promise.APPENDED),
    ("the last one is behind", [START, MORE, MOST, holds(ONE, TWO)], world(), None),
    (
        "one not acknowledged",
        [START, append(TWO, NEW, 10.0, 10.1, outcome=Outcome.FAILED), MOST, holds(ONE, THREE)],
        world(),
        None,
    ),
    ("one twice", [START, MORE, holds(ONE, TWO, TWO)], world(), Promise.APPENDED),
    ("one that no write to it made", [START, holds(ONE, FOUR)], world(), Promise.WHOLE),
    ("set since", [START, MORE, wrote(THREE, NEWER, 20.0, 20.1, key="list-0"), holds(THREE)], world(), None),
    ("a set lost", [START, RESET, MOST, holds(ONE, THREE)], world(), Promise.APPENDED),
    ("a set lost at the same time", [START, RESET, append(THREE, NEWER, 9.9, 10.05), holds(ONE, THREE)], world(), None),
    ("a set that was not acknowledged", [START, UNHEARD, MOST, holds(ONE, THREE)], world(), None),
    ("while clients disagreed", [START, MORE, MOST, holds(ONE, THREE)], world(views=saw_down(YOU, 19.0, 21.0)), None),
    (
        "with the zones that had it",
        [START, MORE, MOST, holds(ONE, THREE)],
        world(emptied=[(A, 0, 15.0), (B, 0, 15.0)]),
        None,
    ),
    (
        "with one of the zones that had it",
        [START, MORE, MOST, holds(ONE, THREE)],
        world(emptied=[(A, 0, 15.0), (C, 0, 15.0)]),
        Promise.APPENDED,
    ),
    (
        "by a write of which it is not known when it was decided",
        [START, MORE, append(THREE, NEWER, 20.0, 20.1, outcome=Outcome.UNKNOWN), holds(ONE, THREE)],
        world(),
        None,
    ),
]


@pytest.mark.parametrize(("calls", "there", "broken"), [case[1:] for case in LISTS], ids=[case[0] for case in LISTS])
def test_check_lists(calls, there, broken):
    """Every value holds each acknowledged element that was added since its first one was set, once."""
    assert promises_of(check_lists(calls, there, "list")) == (set() if broken is None else {broken})


def test_check_lists_of_elements_in_front():
    """The newest comes first."""
    calls = [
        wrote(ONE, OLD, 1.0, 1.1, key="front-0"),
        append(TWO, NEW, 10.0, 10.1, "front-0", Kind.PREPEND),
        append(THREE, NEWER, 20.0, 20.1, "front-0", Kind.PREPEND),
    ]
    assert promises_of(check_lists([*calls, holds(THREE, TWO, ONE, key="front-0")], world(), "front")) == set()
    assert promises_of(check_lists([*calls, holds(THREE, ONE, key="front-0")], world(), "front")) == {Promise.APPENDED}
