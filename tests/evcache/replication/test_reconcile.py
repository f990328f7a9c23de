"""Answers of several zones about a key, and the result."""

import pytest

from evcache import CacheUnavailable, ConsistencyError
from evcache.errors import FailoverDenied, StaleReplica
from evcache.replication.reconcile import (
    ZoneHit,
    check_answered,
    count_answered,
    failure_of,
    latest_of,
    reject_if_older,
    stale_replicas,
)
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from evcache.zones.protocol.replies import Hit

SLOW = NodeTimeout("no reply in time", "n1")
DOWN = NodeUnavailable("it is down", "n2")


def found(value, version=None, zone="a", flags=0, *, leased=False):
    return ZoneHit(Hit(value, flags, 0, None, stale=False, leased=leased), zone, version)


V1, V2, V3 = found(b"1", 1), found(b"2", 2, "b"), found(b"3", 3, "c")
X, Y, X2 = found(b"x", zone="a"), found(b"y", zone="b"), found(b"x", zone="c")
X_FLAGGED = found(b"x", zone="c", flags=512)
GONE = found(b"", 9, "b", FLAG_TOMBSTONE)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        pytest.param([], None, id="no zone answered"),
        pytest.param([None, SLOW], None, id="misses and failures"),
        pytest.param([V1], V1, id="one item"),
        pytest.param([None, V1, DOWN], V1, id="an item among misses and failures"),
        pytest.param([V1, V2, V3], V3, id="the latest"),
        pytest.param([V3, V1, V2], V3, id="the latest first"),
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
def test_latest_of_returns_the_item_that_wins(answers, winner):
    """The latest version wins. Without versions the majority value wins, and the first of them on a tie."""
    assert latest_of(answers) == winner


@pytest.mark.parametrize(
    ("winner", "answers", "missed", "behind"),
    [
        (V2, {"a": V1, "b": V2, "c": None}, ["c"], ["a"]),
        (V3, {"a": V3, "b": V3._replace(zone="b")}, [], []),
        (V3, {"a": SLOW, "b": DOWN, "c": V3}, [], []),
        (V3, {"a": X, "b": None, "c": V3}, ["b"], []),
        (GONE, {"a": V1, "b": GONE, "c": None}, ["c"], ["a"]),
        (X, {"a": X, "b": None, "c": Y}, ["b"], []),
    ],
)
def test_stale_replicas_are_zones_with_nothing_or_an_older_version(winner, answers, missed, behind):
    """Zones that failed are not among them, nor items without a version."""
    assert stale_replicas(winner, answers) == (missed, behind)


@pytest.mark.parametrize(
    ("item", "is_value"), [(X, True), (V1, True), (GONE, False), (found(b"", leased=True), False), (found(b"", 5), True)]
)
def test_tombstones_and_stubs_are_no_values(item, is_value):
    """An empty value is one."""
    assert item.is_value is is_value


@pytest.mark.parametrize(("answer", "error"), [(None, None), (V1, None), (SLOW, SLOW)])
def test_a_miss_is_no_failure(answer, error):
    assert failure_of(answer) is error


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
def test_check_answered_raises_if_too_few_zones_answered(answers, required, error, answered):
    """There are three zones. A miss is an answer. The errors name the failures."""
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


BEHIND = StaleReplica(1, 2)


@pytest.mark.parametrize(
    ("answer", "known", "believed"),
    [
        (V1, 0, True),
        (V1, 1, True),
        (V1, 2, False),
        (GONE, 9, True),
        (GONE, 10, False),
        (X, 10, True),
        (None, 10, True),
        (SLOW, 10, True),
    ],
)
def test_an_item_older_than_the_version_known_is_rejected(answer, known, believed):
    """A value or a tombstone. Items without a version, misses and failures pass."""
    judgement = reject_if_older(answer, known)
    if believed:
        assert judgement is answer
    else:
        assert (judgement.held, judgement.known) == (answer.version, known)
        assert failure_of(judgement) is judgement


@pytest.mark.parametrize(
    ("answers", "zones", "answered"),
    [
        pytest.param([V1, None, SLOW], 3, 2, id="hits and misses"),
        pytest.param([V2, BEHIND, BEHIND], 3, 1, id="one that is not stale"),
        pytest.param([None, BEHIND, SLOW], 3, 1, id="a miss, a stale zone and a failure"),
        pytest.param([BEHIND, SLOW, DOWN], 3, 0, id="one is stale, the others failed"),
        pytest.param([BEHIND, BEHIND, BEHIND], 3, 3, id="all stale: gone everywhere"),
        pytest.param([BEHIND, None, BEHIND], 3, 3, id="stale or missing in all: gone everywhere"),
        pytest.param([BEHIND, BEHIND], 3, 0, id="one has not answered"),
        pytest.param([BEHIND, None], 3, 1, id="a miss, and one has not answered"),
        pytest.param([BEHIND, FailoverDenied(), FailoverDenied()], 3, 0, id="not asked is not answered"),
        pytest.param([None, None, None], 3, 3, id="all miss"),
    ],
)
def test_count_answered_counts_no_stale_zone_unless_all_are(answers, zones, answered):
    """If every zone misses or is stale, the version known is gone from all of them."""
    assert count_answered(dict(zip("abc", answers, strict=False)), zones) == answered
