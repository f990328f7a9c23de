"""A short run of `integration.coherence`: its judge, and that its clients keep nothing which it would find."""

import pytest

from integration.coherence.judge import Counts, Judge, Truth
from integration.coherence.program import Guard, Settings, run

SECONDS = 20.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_near_hit_is_older_than_what_its_client_has_heard(seed):
    """No hit is older than a published invalidation by more than the delay of the message."""
    counts = run(Settings(seed, SECONDS))
    assert counts.hits > 3_000
    assert counts.heard > 300
    assert (counts.stale, counts.torn, counts.gaps) == (0, 0, 0)
    assert counts.worst_behind < 0.2


def test_without_guards_some_are():
    """The test above proves nothing unless a run without guards finds stale hits.

    Without version fences there are some, and more if fetches in flight are stored too. The run has many writes, because
    with few of them chance decides which of the two stores more.
    """
    floorless, guardless = (
        [run(Settings(seed, 30.0, guard, writes_per_second=80.0)) for seed in (1, 2)]
        for guard in (Guard.NO_FLOORS, Guard.NOTHING)
    )
    assert 0 < sum(counts.kept for counts in floorless) < sum(counts.kept for counts in guardless)
    assert min(counts.worst for counts in floorless + guardless) > 1.0


def test_a_seed_gives_the_same_run():
    assert run(Settings(7, 5.0)) == run(Settings(7, 5.0))


def test_the_judge_counts_what_is_older_than_what_was_heard():
    counts, truth = Counts(), Truth()
    judge, other = Judge(counts, truth), Judge(counts, truth)
    truth.announced("k", 5, 1.0)
    other.hit("k", 4, 2.0)  # this client has not received the message
    assert (counts.hits, counts.stale, counts.behind, counts.worst_behind) == (1, 0, 1, 1.0)
    judge.heard("k", 5, 3.0)
    judge.heard("k", 3, 4.0)  # older, and later
    judge.hit("k", 5, 5.0)
    assert counts.stale == 0
    judge.hit("k", 4, 5.0)
    judge.hit("k", 4, 7.0)
    judge.hit("other", 1, 7.0)
    assert (counts.hits, counts.stale, counts.kept, counts.worst) == (5, 2, 1, 4.0)
    judge.wrote("other", 2, 8.0)
    judge.hit("other", 1, 8.5)
    assert (counts.stale, counts.kept) == (3, 2)


def test_the_truth_never_goes_back():
    truth = Truth()
    for mark, now in ((5, 1.0), (4, 2.0), (7, 3.0)):
        truth.announced("k", mark, now)
    assert [truth.since("k", mark) for mark in (4, 5, 6, 7)] == [1.0, 3.0, 3.0, None]
