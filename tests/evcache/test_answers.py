"""What follows from what several zones say about a key."""

import pytest

from evcache import CacheUnavailable, ConsistencyError
from evcache.answers import Found, check_answered, failed, newest, zones_behind
from evcache.codec import FLAG_TOMBSTONE
from zones.errors import NodeTimeout, NodeUnavailable
from zones.protocol.replies import Hit

SLOW = NodeTimeout("no reply in time", "n1")
DOWN = NodeUnavailable("it is down", "n2")


def found(value, version=None, zone="a", flags=0, *, leased=False):
    return Found(Hit(value, flags, 0, None, stale=False, leased=leased), zone, version)


V1, V2, V3 = found(b"1", 1), found(b"2", 2, "b"), found(b"3", 3, "c")
X, Y, X2 = found(b"x", zone="a"), found(b"y", zone="b"), found(b"x", zone="c")
X_FLAGGED = found(b"x", zone="c", flags=512)
GONE = found(b"", 9, "b", FLAG_TOMBSTONE)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        pytest.param([], None, id="nobody said anything"),
        pytest.param([None, SLOW], None, id="misses and failures"),
        pytest.param([V1], V1, id="one item"),
        pytest.param([None, V1, DOWN], V1, id="an item among misses and failures"),
        pytest.param([V1, V2, V3], V3, id="the newest"),
        pytest.param([V3, V1, V2], V3, id="the newest first"),
        pytest.param([V1, V1._replace(zone="c")], V1, id="the first of equals"),
        pytest.param([V1, GONE, V3], GONE, id="a newer tombstone"),
        pytest.param([GONE, found(b"late", 10, "c")], found(b"late", 10, "c"), id="a value newer than a tombstone"),
        pytest.param([X, V1, X2], V1, id="a version beats a majority without"),
        pytest.param([X, Y, X2], X, id="without versions, the majority"),
        pytest.param([Y, X, X2], X, id="the majority, though another is local"),
        pytest.param([X, Y], X, id="the first on a tie"),
        pytest.param([Y, X], Y, id="the first on the other tie"),
        pytest.param([X, Y, X_FLAGGED], X, id="same bytes under other flags are another value"),
        pytest.param([X_FLAGGED, Y, Y], Y, id="a majority of two against flags"),
        pytest.param([None, Y, None], Y, id="an item against a majority of misses"),
    ],
)
def test_newest(answers, winner):
    """The newest version holds; where there are none, what most zones hold, and the first on a tie."""
    assert newest(answers) == winner


@pytest.mark.parametrize(
    ("winner", "answers", "behind"),
    [
        (V2, {"a": V1, "b": V2, "c": None}, ["a", "c"]),
        (V3, {"a": V3, "b": V3._replace(zone="b")}, []),
        (V3, {"a": SLOW, "b": DOWN, "c": V3}, []),
        (V3, {"a": X, "b": None, "c": V3}, ["b"]),
        (GONE, {"a": V1, "b": GONE, "c": None}, ["a", "c"]),
        (X, {"a": X, "b": None, "c": Y}, ["b"]),
    ],
)
def test_zones_behind(winner, answers, behind):
    """Those with nothing or an older version; not those that failed, nor those whose item has no version."""
    assert zones_behind(winner, answers) == behind


@pytest.mark.parametrize(
    ("item", "is_value"), [(X, True), (V1, True), (GONE, False), (found(b"", leased=True), False), (found(b"", 5), True)]
)
def test_what_a_caller_may_see(item, is_value):
    """Tombstones and stubs of leases are not for callers; an empty value is."""
    assert item.is_value is is_value


@pytest.mark.parametrize(("answer", "error"), [(None, None), (V1, None), (SLOW, SLOW)])
def test_failed(answer, error):
    """A miss is an answer."""
    assert failed(answer) is error


@pytest.mark.parametrize(
    ("answers", "required", "error", "answered"),
    [
        ({"a": V1, "b": None, "c": SLOW}, 2, None, 2),
        ({"a": V1, "b": SLOW, "c": DOWN}, 1, None, 1),
        ({"a": SLOW}, 0, None, 0),
        ({"a": None, "b": SLOW, "c": DOWN}, 2, ConsistencyError, 1),
        ({"c": DOWN}, 3, ConsistencyError, 0),  # the others were not waited for
        ({"a": SLOW, "b": DOWN, "c": DOWN}, 1, CacheUnavailable, 0),
        ({"a": SLOW, "b": DOWN, "c": SLOW}, 3, CacheUnavailable, 0),
    ],
)
def test_check_answered(answers, required, error, answered):
    """Of three zones: enough answers, misses included; too few; all failed. The errors say who failed and why."""
    if error is None:
        check_answered("get", answers, required, 3)
        return
    with pytest.raises(error) as caught:
        check_answered("get", answers, required, 3)
    assert caught.value.operation == "get"
    assert caught.value.failures == {zone: answer for zone, answer in answers.items() if answer in (SLOW, DOWN)}
    if error is ConsistencyError:
        assert (caught.value.answered, caught.value.required) == (answered, required)
    for zone, reason in caught.value.failures.items():
        assert f"{zone}: {reason}" in str(caught.value)
