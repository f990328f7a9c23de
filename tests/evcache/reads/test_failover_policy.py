"""The failover rule as tables: no client, no zone, no clock."""

from dataclasses import dataclass, field

import pytest

from evcache.errors import FailoverDenied, StaleReplica
from evcache.reads.failover.budget import TokenBucket
from evcache.reads.failover.policy import (
    Cost,
    ReadAttempt,
    come_to_standby,
    cost_of,
    end_of_attempt,
    first_to_end,
    is_settled,
    is_unanswered,
    may_ask_gutter,
    reason_not_first,
    should_ask_next,
    silent_last,
    zones_to_ask,
)
from evcache.replication.reconcile import ZoneHit
from evcache.zones.errors import NodeSilent, NodeTimeout, NodeUnavailable
from evcache.zones.protocol.replies import Hit

LATE = NodeTimeout("no reply in time", "n1")
SILENT = NodeSilent("no byte arrives", "n1")
DOWN = NodeUnavailable("it is down", "n1")
DENIED = FailoverDenied()
STALE = StaleReplica(1, 5)


def hit(version):
    return ZoneHit(Hit(b"value", 0, 0, None, stale=False, leased=False), "a", version)


@dataclass
class Node:
    """State of a node, as the rule sees it."""

    is_down: bool = False
    is_warming: bool = False
    is_silent: bool = False
    label: str = "n1"
    reason: NodeUnavailable = field(default_factory=lambda: DOWN)

    @property
    def may_answer(self):
        return not self.is_down

    def unavailable(self):
        return self.reason


@dataclass(eq=False)
class Pool:
    """A zone with one node."""

    name: str
    held: Node

    def node(self, position):
        return self.held


def pools(*silent):
    return tuple(Pool(name, Node(is_silent=name in silent)) for name in "abc")


def names(zones):
    return "".join(pool.name for pool in zones)


@pytest.mark.parametrize(
    ("silent", "order"),
    [("", "abc"), ("a", "bca"), ("b", "acb"), ("c", "abc"), ("ab", "cab"), ("ac", "bac"), ("bc", "abc"), ("abc", "abc")],
)
def test_zones_with_a_silent_node_come_last_in_their_order(silent, order):
    assert names(silent_last(pools(*silent), 0)) == order


def test_the_first_zone_moves_to_the_end():
    assert names(first_to_end(pools())) == "bca"
    assert names(first_to_end(pools()[:1])) == "a"


@pytest.mark.parametrize(
    ("order", "start", "answers", "zones"),
    [
        pytest.param("abc", 0, {}, "abc", id="none was asked"),
        pytest.param("abc", 1, {"a": None}, "bc", id="the first missed"),
        pytest.param("abc", 1, {"a": DOWN}, "bc", id="the first failed"),
        pytest.param("abc", 1, {"a": LATE}, "bc", id="a late zone is not asked again"),
        pytest.param("abc", 1, {"a": SILENT}, "bca", id="a silent zone is asked again at the end"),
        pytest.param("abc", 2, {"a": SILENT, "b": SILENT}, "cab", id="two silent zones"),
        pytest.param("a", 1, {"a": None}, "", id="there is one zone, and it missed"),
        pytest.param("a", 1, {"a": SILENT}, "a", id="there is one zone, and it is silent"),
    ],
)
def test_zones_that_are_still_to_be_asked(order, start, answers, zones):
    assert names(zones_to_ask([Pool(name, Node()) for name in order], start, answers)) == zones


@pytest.mark.parametrize(
    ("state", "settled"),
    [({}, True), ({"is_down": True}, False), ({"is_warming": True}, False), ({"is_silent": True}, False)],
)
def test_reads_go_to_a_settled_node_without_failover(state, settled):
    assert is_settled(Node(**state)) is settled


@pytest.mark.parametrize(("state", "word"), [({"is_silent": True}, "silent"), ({"is_warming": True}, "warming")])
def test_the_reason_for_not_being_first_names_the_node_and_its_state(state, word):
    reason = reason_not_first(Node(**state, label="a0:11211"))
    assert reason.node == "a0:11211"
    assert reason.problem.startswith(word)


def attempt_of(*answers, known=5, remote_requests=0):
    """Return an attempt with these answers of zones a, b and c, of which the first `remote_requests` were remote."""
    attempt = ReadAttempt(known)
    for index, (zone, answer) in enumerate(zip("abc", answers, strict=False)):
        attempt.record(zone, answer, is_remote=index < remote_requests)
    return attempt


@pytest.mark.parametrize(
    ("down", "is_remote", "attempt", "cost"),
    [
        pytest.param(False, False, attempt_of(), Cost.FREE, id="the preferred zone costs nothing"),
        pytest.param(False, False, attempt_of(DENIED), Cost.FREE, id="nor after a refusal"),
        pytest.param(False, True, attempt_of(), Cost.ONE, id="the first remote zone"),
        pytest.param(False, True, attempt_of(None), Cost.ONE, id="the first remote zone, after a miss"),
        pytest.param(False, True, attempt_of(None, remote_requests=1), Cost.ONE_SPARE, id="the second remote zone"),
        pytest.param(False, True, attempt_of(LATE, None, remote_requests=2), Cost.ONE_SPARE, id="the third remote zone"),
        pytest.param(True, False, attempt_of(), DOWN, id="a node that is down is not asked"),
        pytest.param(True, True, attempt_of(None), DOWN, id="nor in a remote zone, and it costs nothing"),
    ],
)
def test_cost_of_a_request(down, is_remote, attempt, cost):
    assert cost_of(Node(is_down=down), attempt, is_remote=is_remote) is cost


def test_after_a_refusal_no_other_remote_zone_is_asked():
    refusal = cost_of(Node(), attempt_of(DOWN, DENIED), is_remote=True)
    assert isinstance(refusal, FailoverDenied)
    assert cost_of(Node(is_down=True), attempt_of(DOWN, DENIED), is_remote=True) is DOWN


def on_standby(*answers, asked=()):
    """Return an attempt that has come to the standby zones after these answers. They answered `asked`."""
    attempt = attempt_of(*answers, remote_requests=2)
    come_to_standby([attempt], TokenBucket(1.0, 0.0))
    for zone, answer in zip("def", asked, strict=False):
        attempt.record(zone, answer, is_remote=answer is not DOWN and answer is not DENIED)
    return attempt


@pytest.mark.parametrize(
    ("attempt", "cost"),
    [
        pytest.param(on_standby(None, None, None), Cost.EXEMPT, id="all missed"),
        pytest.param(on_standby(LATE, None, DENIED), Cost.EXEMPT, id="one missed"),
        pytest.param(on_standby(None, DENIED, DENIED, asked=[DOWN]), Cost.EXEMPT, id="a zone that is down was not asked"),
        pytest.param(on_standby(None, None, None, asked=[None]), Cost.ONE_SPARE, id="a further zone after a miss"),
        pytest.param(on_standby(None, None, None, asked=[LATE]), Cost.ONE_SPARE, id="a further zone after a failure"),
        pytest.param(on_standby(DOWN, LATE, DENIED), Cost.ONE, id="all failed"),
        pytest.param(on_standby(DOWN, LATE, DENIED, asked=[None]), Cost.ONE_SPARE, id="all failed, a further zone"),
        pytest.param(on_standby(STALE, DOWN, DOWN), Cost.ONE, id="one is stale"),
    ],
)
def test_cost_of_a_request_to_a_standby_zone(attempt, cost):
    assert cost_of(Node(), attempt, is_remote=True, is_standby=True) is cost
    assert cost_of(Node(is_down=True), attempt, is_remote=True, is_standby=True) is DOWN


def test_a_silent_zone_that_is_asked_again_after_standby_zones_is_not_exempt():
    assert cost_of(Node(), on_standby(None, SILENT, asked=[DOWN]), is_remote=True) is Cost.ONE


def test_after_a_refusal_no_further_standby_zone_is_asked():
    refusal = cost_of(Node(), on_standby(None, asked=[None, DENIED]), is_remote=True, is_standby=True)
    assert isinstance(refusal, FailoverDenied)


@pytest.mark.parametrize(
    ("later", "has_gutter", "end"),
    [(2, False, 14.0), (1, False, 16.0), (0, False, 22.0), (2, True, 13.0), (0, True, 16.0)],
)
def test_each_attempt_gets_an_equal_share_of_the_time_left(later, has_gutter, end):
    assert end_of_attempt(10.0, 22.0, later, has_gutter=has_gutter) == end


@pytest.mark.parametrize(
    ("answer", "on_miss", "without"),
    [
        (None, True, False),
        (DOWN, True, True),
        (LATE, True, True),
        (DENIED, True, True),
        (STALE, True, True),
        (hit(7), False, False),
    ],
)
def test_a_failure_leads_to_the_next_zone_and_a_miss_if_allowed(answer, on_miss, without):
    assert should_ask_next(answer, fallback_on_miss=True) is on_miss
    assert should_ask_next(answer, fallback_on_miss=False) is without


@pytest.mark.parametrize(
    ("version", "accepted"), [(4, False), (5, True), (6, True), (None, True)], ids=["older", "known", "newer", "no version"]
)
def test_an_older_item_than_the_version_known_is_no_answer(version, accepted):
    attempt = ReadAttempt(5)
    item = hit(version)
    answer = attempt.record("a", item)
    assert attempt.answers == {"a": answer}
    if accepted:
        assert answer is attempt.item is item
        assert not attempt.has_stale
    else:
        assert (answer.held, answer.known) == (4, 5)
        assert attempt.has_stale
        assert attempt.item is None


def test_the_last_answer_of_a_zone_counts():
    attempt = attempt_of(SILENT)
    attempt.record("a", None, is_remote=True)
    assert attempt.answers == {"a": None}
    assert attempt.has_missed
    assert attempt.remote_requests == 1


ENDS = {
    "all failed": ((DOWN, LATE, SILENT), True, True),
    "none may be asked": ((DOWN, DENIED, DENIED), True, True),
    "one missed": ((DOWN, None, LATE), False, False),
    "all missed": ((None, None, None), False, False),
    "one is stale, the others failed": ((STALE, DOWN, LATE), True, False),
    "one is stale, one missed": ((STALE, None, LATE), False, False),
    "all are stale": ((STALE, STALE, STALE), False, False),
    "one has not been asked": ((DOWN, LATE), False, False),
}


@pytest.mark.parametrize(("answers", "unanswered", "gutter"), ENDS.values(), ids=ENDS)
def test_a_read_is_unanswered_if_every_zone_failed(answers, unanswered, gutter):
    attempt = attempt_of(*answers)
    assert is_unanswered(attempt, 3) is unanswered
    assert may_ask_gutter(attempt, 3) is gutter
