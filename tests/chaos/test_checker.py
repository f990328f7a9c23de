"""Every kind of violation: a history that has it, and one that differs in a detail and has not."""

import random
import time

import pytest

from evcache.replication.hlc import HybridLogicalClock
from integration.chaos.checker import check_calls
from integration.chaos.end_state import Held, check_convergence, check_end_state
from integration.chaos.history import Call, History, Kind, Outcome
from integration.chaos.promises import Findings, Promise
from integration.chaos.values import TORN, make_element, make_value, read_elements, read_value
from tests.chaos.histories import (
    ME,
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
    looked,
    read,
    violations_of,
    wrote,
)


def pending(value):
    return Call(YOU, "k", Kind.SET, 1.0, value=value)


TWO_WRITES = [wrote(ONE, OLD, 0.1, 0.2), wrote(TWO, NEW)]
THEIRS = [wrote(ONE, OLD, client=YOU), wrote(TWO, NEW, client=YOU)]

# What happens; the promise; a history that breaks it; one that does not.
CALLS = [
    ("torn", Promise.WHOLE, [read(TORN)], [read(None)]),
    ("made up", Promise.WHOLE, [read(ONE)], [read(ONE), wrote(ONE, OLD)]),
    ("another key's", Promise.WHOLE, [wrote(ONE, OLD, key="j"), read(ONE)], [wrote(ONE, OLD, key="j"), read(ONE, key="j")]),
    ("read before it was written", Promise.WHOLE, [wrote(ONE, OLD, 5, 6), read(ONE)], [wrote(ONE, OLD, 3.5, 6), read(ONE)]),
    (
        "refused and yet read",
        Promise.WHOLE,
        [wrote(ONE, None, kind=Kind.ADD, outcome=Outcome.REFUSED), read(ONE)],
        [wrote(ONE, None, kind=Kind.ADD, outcome=Outcome.UNKNOWN), read(ONE)],
    ),
    ("under another version", Promise.WHOLE, [wrote(ONE, OLD), read(ONE, NEW)], [wrote(ONE, OLD), read(ONE, OLD)]),
    (
        "under two versions, neither of them told to the writer",
        Promise.WHOLE,
        [pending(ONE), read(ONE, OLD, client=YOU), read(ONE, NEW)],
        [pending(ONE), read(ONE, OLD, client=YOU), read(ONE, OLD)],
    ),
    ("torn on a server", Promise.WHOLE, [looked(TORN, OLD)], [looked(None, OLD)]),
    ("older than an own write", Promise.OWN_WRITES, [*TWO_WRITES, read(ONE, OLD)], [*TWO_WRITES, read(TWO, NEW)]),
    (
        "older, by a read that is not told versions",
        Promise.OWN_WRITES,
        [*TWO_WRITES, read(ONE)],
        [*TWO_WRITES, read(TWO)],
    ),
    (
        "older than an own delete",
        Promise.OWN_WRITES,
        [wrote(ONE, OLD, 0.1, 0.2), deleted(NEW), read(ONE)],
        [wrote(ONE, OLD, 0.1, 0.2), deleted(NEW), read(None)],
    ),
    (
        "older than an own write that had returned",
        Promise.OWN_WRITES,
        [*TWO_WRITES, read(ONE, begin=2.1)],
        [*TWO_WRITES, read(ONE, begin=1.9)],
    ),
    (
        "older than an own write that was acknowledged",
        Promise.OWN_WRITES,
        [wrote(ONE, OLD, 0.1, 0.2), wrote(TWO, NEW), read(ONE)],
        [wrote(ONE, OLD, 0.1, 0.2), wrote(TWO, NEW, outcome=Outcome.FAILED), read(ONE)],
    ),
    (
        "older than a write of its own",
        Promise.OWN_WRITES,
        [wrote(ONE, OLD, client=YOU), wrote(TWO, NEW), read(ONE)],
        [wrote(ONE, OLD, client=YOU), wrote(TWO, NEW, client=YOU), read(ONE)],
    ),
    (
        "older than a write of this key",
        Promise.OWN_WRITES,
        [*TWO_WRITES, wrote(THREE, NEWER, client=YOU), read(ONE)],
        [wrote(ONE, OLD, 0.1, 0.2), wrote(TWO, NEW, key="j"), wrote(THREE, NEWER, client=YOU), read(ONE)],
    ),
    (
        "older than what was read",
        Promise.NO_STEP_BACK,
        [*THEIRS, read(TWO, NEW), read(ONE, OLD, 5, 6)],
        [*THEIRS, read(ONE, OLD), read(TWO, NEW, 5, 6)],
    ),
    (
        "older, with a miss between",
        Promise.NO_STEP_BACK,
        [*THEIRS, read(TWO, NEW), read(None, None, 5, 6), read(ONE, OLD, 7, 8)],
        [*THEIRS, read(TWO, NEW), read(None, None, 5, 6), read(TWO, NEW, 7, 8)],
    ),
    (
        "older than what a read that had returned found",
        Promise.NO_STEP_BACK,
        [*THEIRS, read(TWO, NEW, 3, 4), read(ONE, OLD, 4.1, 5)],
        [*THEIRS, read(TWO, NEW, 3, 4), read(ONE, OLD, 3.9, 5)],
    ),
    (
        "older than what this client has read",
        Promise.NO_STEP_BACK,
        [*THEIRS, read(TWO), read(ONE, begin=5, end=6)],
        [*THEIRS, read(TWO), read(ONE, begin=5, end=6, client=YOU + "1")],
    ),
    (
        "older, of a write whose version only a third reader was told",
        Promise.NO_STEP_BACK,
        [
            wrote(ONE, OLD, client=YOU),
            pending(TWO),
            read(TWO, NEW, 8, 9, client="client-2"),
            read(TWO),
            read(ONE, None, 5, 6),
        ],
        [wrote(ONE, OLD, client=YOU), pending(TWO), read(TWO), read(ONE, None, 5, 6)],
    ),
    (
        "a server takes an older one over a tombstone",
        Promise.NEWEST_WINS,
        [*THEIRS, looked(None, NEWER), looked(TWO, NEW, 5, 6)],
        [*THEIRS, looked(None, OLD), looked(TWO, NEW, 5, 6)],
    ),
    (
        "a server takes an older one over a newer one",
        Promise.NEWEST_WINS,
        [*THEIRS, looked(TWO, NEW), looked(None, None, 4.5, 4.6), looked(ONE, OLD, 5, 6)],
        [*THEIRS, looked(TWO, NEW), looked(None, None, 4.5, 4.6), looked(ONE, OLD, 5, 6, server="eu-1a-0, start 2,")],
    ),
    (
        "one version for two writes of a key",
        Promise.ONE_VERSION,
        [wrote(ONE, OLD), wrote(THREE, OLD, client=YOU)],
        [wrote(ONE, OLD), wrote(THREE, OLD, client=YOU, key="j")],
    ),
    (
        "one version for two writes of a client",
        Promise.ONE_VERSION,
        [wrote(ONE, OLD), wrote(TWO, OLD, key="j")],
        [wrote(ONE, OLD), wrote(TWO, NEW, key="j")],
    ),
    (
        "one version for a write and a delete",
        Promise.ONE_VERSION,
        [wrote(ONE, OLD), deleted(OLD)],
        [wrote(ONE, OLD), deleted(NEW)],
    ),
    (
        "one version for a write and one that nobody heard of",
        Promise.ONE_VERSION,
        [wrote(ONE, OLD), pending(TWO), read(TWO, OLD, client=YOU)],
        [wrote(ONE, OLD), pending(TWO), read(TWO, NEW, client=YOU)],
    ),
]


@pytest.mark.parametrize(("promise", "broken", "kept"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_what_clients_were_told(promise, broken, kept):
    """The broken history breaks this promise and no other, the other history none; in whatever order calls were recorded."""
    for history in (broken, broken[::-1]):
        assert {violation.promise for violation in violations_of(check_calls(history))} == {promise}
    assert violations_of(check_calls(kept)) == []


def test_a_history_is_checked_in_time_order_however_long():
    """Versions that only grow break nothing; a single step back among thousands of calls is found, once."""
    chooser = random.Random(1)
    calls = []
    for number in range(5_000):
        calls.append(wrote(number, number + 1, number, number + 0.3, client=YOU))
        calls.append(read(number, number + 1, number + 0.4, number + 0.5))
    chooser.shuffle(calls)
    assert violations_of(check_calls(calls)) == []
    calls.append(read(2_000, None, 2_001.6, 2_001.7))
    (violation,) = violations_of(check_calls(calls))
    assert violation.promise is Promise.NO_STEP_BACK


NOTHING = {A: None, B: None, C: None}
TOMBSTONE = Held(NEW, None)


def everywhere(held):
    return {A: held, B: held, C: held}


@pytest.mark.parametrize(
    ("copies", "equal"),
    [
        (everywhere(Held(OLD, ONE)), True),
        (everywhere(TOMBSTONE), True),
        (NOTHING, True),
        (NOTHING | {B: TOMBSTONE}, True),
        (everywhere(TOMBSTONE) | {B: Held(NEWER, None)}, True),
        (everywhere(Held(NEW, TWO)) | {C: Held(OLD, ONE)}, False),
        (everywhere(Held(NEW, TWO)) | {C: None}, False),
        (everywhere(Held(NEW, TWO)) | {C: Held(NEWER, None)}, False),
        (NOTHING | {A: Held(OLD, ONE)}, False),
        (everywhere(Held(OLD, ONE, data=b"1")) | {B: Held(OLD, ONE, data=b"1 ")}, False),
        (everywhere(Held(OLD, ONE, data=b"1")) | {B: Held(OLD, ONE, data=b"1", flags=512)}, False),
        (everywhere(Held(OLD, ONE, expires=9.0)) | {B: Held(OLD, ONE, expires=8.0)}, True),
        (everywhere(Held(None, None, 5)), True),
        (everywhere(Held(None, None, 5, b"5")) | {B: Held(None, None, 6, b"6")}, False),
    ],
)
def test_convergence(copies, equal):
    """All zones hold the same version, bytes and flags, or all hold nothing or a tombstone."""
    found = violations_of(check_convergence({"j": NOTHING, "k": copies}, 60))
    assert [(violation.promise, violation.key) for violation in found] == ([] if equal else [(Promise.CONVERGENCE, "k")])


def emptied(zones, at):
    return {(zone, "k"): at for zone in zones}


SET = [wrote(ONE, OLD, 0.1, 0.2, zones=(A, B, C)), wrote(TWO, NEW, 1.0, 2.0, zones=(A, B))]
DELETE = [wrote(ONE, OLD, 0.1, 0.2, zones=(A, B, C)), deleted(NEW, 1.0, 2.0, zones=(A, B))]

# What happens; the promise that is broken, or None; writes; what zones hold in the end; when which zone was emptied.
ENDINGS = [
    ("the newest is there", None, SET, everywhere(Held(NEW, TWO)), {}),
    ("a newer one is there", None, SET, everywhere(Held(NEWER, THREE)), {}),
    ("an older one is there", Promise.NOTHING_LOST, SET, everywhere(Held(OLD, ONE)), {}),
    ("nothing is there", Promise.NOTHING_LOST, SET, NOTHING, {}),
    ("an older tombstone is there", Promise.NOTHING_LOST, SET, everywhere(Held(OLD, None)), {}),
    ("a newer tombstone is there", None, SET, everywhere(Held(NEWER, None)), {}),
    ("lost with one of its zones", Promise.NOTHING_LOST, SET, everywhere(Held(OLD, ONE)), emptied([A, C], 5.0)),
    ("lost with all its zones", None, SET, everywhere(Held(OLD, ONE)), emptied([A, B], 5.0)),
    ("emptied before it was written", Promise.NOTHING_LOST, SET, everywhere(Held(OLD, ONE)), emptied([A, B], 0.9)),
    ("emptied while it was written", None, SET, everywhere(Held(OLD, ONE)), emptied([A, B], 1.1)),
    ("an older one, lost too, that a third zone had", Promise.NOTHING_LOST, SET, NOTHING, emptied([A, B], 5.0)),
    ("all zones emptied", None, SET, NOTHING, emptied([A, B, C], 5.0)),
    ("no zone had acknowledged", None, [wrote(ONE, OLD, outcome=Outcome.FAILED, zones=())], NOTHING, {}),
    ("too few zones had acknowledged", None, [wrote(ONE, OLD, outcome=Outcome.FAILED, zones=(A,))], NOTHING, {}),
    ("deleted by a write that failed", None, [*SET, deleted(NEWER, 3, 4, outcome=Outcome.FAILED)], NOTHING, {}),
    ("deleted by a write that nobody heard of", None, [*SET, deleted(None, 3, 4, outcome=Outcome.UNKNOWN)], NOTHING, {}),
    (
        "deleted before, by a write that nobody heard of",
        Promise.NOTHING_LOST,
        [wrote(TWO, NEW, 3.0, 4.0), deleted(None, 0.5, 0.6, outcome=Outcome.UNKNOWN)],
        NOTHING,
        {},
    ),
    (
        "deleted before, by a client whose clock may be ahead",
        None,
        [*SET, deleted(None, 0.3, 0.4, outcome=Outcome.UNKNOWN)],
        NOTHING,
        {},
    ),
    ("deleted before", Promise.NOTHING_LOST, [*SET, deleted(OLD + 1, 0.5, 0.6, outcome=Outcome.FAILED)], NOTHING, {}),
    ("touched for a short time", None, [*SET, Call(YOU, "k", Kind.TOUCH, 3.0, 3.1, Outcome.OK, ttl=2.0)], NOTHING, {}),
    (
        "touched for long",
        Promise.NOTHING_LOST,
        [*SET, Call(YOU, "k", Kind.TOUCH, 3.0, 3.1, Outcome.OK, ttl=900.0)],
        NOTHING,
        {},
    ),
    ("deleted and gone", None, DELETE, NOTHING, {}),
    ("deleted and remembered", None, DELETE, everywhere(TOMBSTONE), {}),
    ("deleted and written again", None, DELETE, everywhere(Held(NEWER, THREE)), {}),
    ("deleted, and back everywhere", Promise.DELETED, DELETE, everywhere(Held(OLD, ONE)), {}),
    ("deleted, and back in one zone", Promise.DELETED, DELETE, NOTHING | {C: Held(OLD, ONE)}, {}),
    ("deleted, and an older tombstone in one zone", None, DELETE, NOTHING | {C: Held(OLD, None)}, {}),
    ("the delete lost with its zones", None, DELETE, NOTHING | {C: Held(OLD, ONE)}, emptied([A, B], 5.0)),
]


@pytest.mark.parametrize(
    ("promise", "calls", "copies", "when"), [case[1:] for case in ENDINGS], ids=[case[0] for case in ENDINGS]
)
def test_what_zones_hold_in_the_end(promise, calls, copies, when):
    """Acknowledged writes are there, and deleted keys are not, unless the zones that knew of it have lost everything."""
    found = violations_of(check_end_state(calls, {"j": NOTHING, "k": copies}, when))
    assert [(violation.promise, violation.key) for violation in found] == ([] if promise is None else [(promise, "k")])


def test_a_history_records_when_calls_were_made_and_returned():
    """In seconds since it began; a call that is under way has no end."""
    moments = iter([100.0, 101.5, 103.0])
    history = History(lambda: next(moments))
    call = history.begin(ME, "k", Kind.SET, ONE)
    assert (call.invoked, call.completed, call.outcome) == (1.5, float("inf"), Outcome.PENDING)
    history.end(call, Outcome.OK)
    assert (call.completed, call.outcome) == (3.0, Outcome.OK)
    assert history.calls == [call]


WHOLE = make_value("k", TWO, 200)


@pytest.mark.parametrize(
    ("data", "read_as"),
    [
        (WHOLE, ("k", TWO)),
        (make_value("another-key", THREE, 0), ("another-key", THREE)),
        (WHOLE[:-1], ("", TORN)),
        (WHOLE[1:], ("", TORN)),
        (WHOLE[:100] + make_value("k", ONE, 200)[100:], ("", TORN)),
        (WHOLE + WHOLE, ("", TORN)),
        (b"", ("", TORN)),
        (b"\x00" * 20, ("", TORN)),
        ("text", ("", TORN)),
    ],
)
def test_values_say_whose_they_are_and_whether_they_are_whole(data, read_as):
    """Bytes that no single writer has made have no name."""
    assert read_value(data) == read_as


@pytest.mark.parametrize(
    ("data", "elements"),
    [
        (make_element("k", ONE), (ONE,)),
        (make_element("k", ONE) + make_element("k", TWO), (ONE, TWO)),
        (make_element("k", ONE) + make_element("j", TWO), (TORN,)),
        (make_element("k", ONE)[1:], (TORN,)),
        (make_element("k", ONE)[:-1], (TORN,)),
        (b"", (TORN,)),
        ("text", (TORN,)),
    ],
)
def test_read_elements_returns_names_in_order_or_torn(data, elements):
    """A list that is cut, or mixed from two keys, is torn."""
    assert read_elements(data) == elements


def test_an_expired_item_need_not_be_replaced_in_its_zone():
    """A server forgets the version of an item that has expired, so an older one may come after it."""
    short = looked(TWO, NEW, 3.0, 3.1)
    short.expires = 4.5
    assert violations_of(check_calls([*THEIRS, short, looked(ONE, OLD, 6.0, 6.1)])) == []
    short.expires = 9.5
    assert [violation.promise for violation in violations_of(check_calls([*THEIRS, short, looked(ONE, OLD, 6.0, 6.1)]))] == [
        Promise.NEWEST_WINS
    ]


def test_an_older_long_lived_value_after_a_short_lived_one_has_its_own_promise():
    """The check reports it as another promise than an older value that replaces a long-lived one."""
    calls = [wrote(ONE, OLD, 0.1, 0.2), wrote(TWO, NEW), read(ONE, OLD, 9.0, 9.1)]
    assert [each.promise for each in violations_of(check_calls(calls, {TWO}))] == [Promise.SHORT_LIVED]
    assert [each.promise for each in violations_of(check_calls(calls, {ONE, TWO}))] == [Promise.OWN_WRITES]
    calls[-1] = read(TWO, NEW, 2.5, 2.6)
    assert Findings(check_calls(calls, {TWO})).checked[Promise.SHORT_LIVED, "read"] == 1


def test_facts_are_counted_by_promise_and_operation():
    """A promise that no call exercised has a count of 0."""
    found = Findings(check_calls([wrote(ONE, OLD), read(ONE, OLD)]))
    assert found.violations == []
    assert found.of(Promise.OWN_WRITES) == {"read": 1}
    assert found.of(Promise.TTL) == {}


FLOOR, AGAIN = OLD + 1, NEWER
RENEWED = wrote(ONE, AGAIN, 1.0, 2.0, client=YOU, floor=FLOOR)


@pytest.mark.parametrize(
    ("calls", "promises"),
    [
        ([RENEWED, read(ONE, NEW)], set()),
        ([RENEWED, read(ONE, AGAIN)], set()),
        ([RENEWED, read(ONE, OLD)], {Promise.WHOLE}),
        ([RENEWED, read(ONE, AGAIN + 1)], {Promise.WHOLE}),
        ([RENEWED, wrote(TWO, NEW, client=YOU), read(ONE), read(TWO, None, 5, 6)], set()),
        ([RENEWED, wrote(TWO, OLD, client=YOU), read(ONE), read(TWO, None, 5, 6)], {Promise.NO_STEP_BACK}),
        ([RENEWED, wrote(TWO, NEW, client=YOU), read(ONE, AGAIN), read(TWO, None, 5, 6)], {Promise.NO_STEP_BACK}),
    ],
)
def test_a_write_that_was_sent_again_had_former_versions(calls, promises):
    """Readers may see it under any version. A read without a version counts as the oldest, and later as the newest."""
    assert {violation.promise for violation in violations_of(check_calls(calls))} == promises


def test_a_history_gives_versions_that_no_later_write_falls_below():
    """By the wall clock of the client that writes."""
    history = History()
    behind = HybridLogicalClock(writer=0, wall_ms=lambda: int((time.time() - 0.5) * 1000))
    floor = history.floor(-0.5)
    assert floor < behind.tick() < history.floor(+0.5)


def test_a_short_lived_write_between_two_looks_may_have_expired():
    """The server then forgets its version, too, though neither look saw it."""
    between = wrote(THREE, NEWER, 4.0, 4.1, client=YOU, ttl=2.0)
    calls = [*THEIRS, looked(TWO, NEW, 3.0, 3.1, expires=90.0), between, looked(ONE, OLD, 6.0, 6.1)]
    assert violations_of(check_calls(calls)) == []
    between.ttl = 30.0
    assert {violation.promise for violation in violations_of(check_calls(calls))} == {Promise.NEWEST_WINS}
