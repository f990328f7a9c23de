"""What `make bench` makes of its measurements: percentiles, ratios, and whether a figure was reached."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.contenders import contenders
from benchmarks.figures import AIOMCACHE, ASYNCIO_PEERS, BEST, EMCACHE, Figure, figures, verdict
from benchmarks.measuring import Result, Run, WrongAnswerError, measure, percentile, ratio
from benchmarks.peers import POOLS, pool_sizes
from benchmarks.report import text_of
from benchmarks.works import Work, works

WORK = Work("get hit", callers=32)


def result(per_second, p99=(1.0, 1.0, 1.0)):
    return Result("", list(per_second), [1.0] * len(per_second), [1.0], list(p99), [1.0])


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (1, 0.999, 1), (2, 0.5, 1), (100, 0.99, 99), (101, 0.99, 100), (1000, 0.999, 999), (10, 0.999, 10)],
)
def test_a_percentile_is_the_value_that_this_share_does_not_exceed(count, share, expected):
    """The nearest rank: at least that share of the values is as low."""
    assert percentile([float(number) for number in range(1, count + 1)], share) == expected


def test_ratios_are_taken_within_a_round():
    """A machine that is ten times as slow in one round changes nothing for who is faster."""
    assert ratio([100.0, 10.0, 100.0], [50.0, 5.0, 50.0]) == 2


@pytest.mark.parametrize(
    ("figure", "results", "expected"),
    [
        (Figure(WORK, "evcache", EMCACHE, 2), {"evcache": result([4, 4, 4]), EMCACHE: result([2, 2, 2])}, "reached"),
        (Figure(WORK, "evcache", EMCACHE, 2.1), {"evcache": result([4, 4, 4]), EMCACHE: result([2, 2, 2])}, "missed"),
        (Figure(WORK, "evcache", EMCACHE, 2), {"evcache": result([4, 4, 4])}, "not measured"),
        (Figure(WORK, "evcache", EMCACHE, 2), {EMCACHE: result([4, 4, 4])}, "not measured"),
        (
            Figure(WORK, "evcache", BEST, 1),
            {"evcache": result([4, 4, 4]), EMCACHE: result([2, 2, 2]), AIOMCACHE: result([5, 5, 5])},
            "missed",
        ),
        (
            Figure(WORK, "evcache", BEST, 1, "p99"),
            {"evcache": result([9, 9, 9], [3, 3, 3]), EMCACHE: result([1, 1, 1], [2, 2, 2])},
            "missed",
        ),
        (
            Figure(WORK, "evcache", BEST, 1, "p99"),
            {"evcache": result([1, 1, 1], [2, 2, 2]), EMCACHE: result([9, 9, 9], [2, 2, 2])},
            "reached",
        ),
    ],
)
def test_a_figure_is_reached_missed_or_not_measured(figure, results, expected):
    """The best peer is the one that is hardest to beat, and a latency is better when it is lower."""
    assert verdict(figure, {WORK.title: results})["verdict"] == expected


def test_every_figure_is_about_work_that_is_measured():
    """That includes the short form. A figure of work that no benchmark does would never be missed."""
    done = {work.title for work in works() if work.short}
    assert {figure.work.title for figure in figures()} <= done


def test_every_figure_compares_contenders_that_exist():
    """A figure of a contender with another name would never be measured."""
    names = {contender.name for contender in contenders("no server")}
    assert {figure.ours for figure in figures()} <= names
    assert {figure.against for figure in figures()} <= names | {BEST}
    assert set(ASYNCIO_PEERS) <= names


def test_the_report_names_each_figure_with_its_verdict_and_counts_the_rest():
    figure = Figure(WORK, "evcache", EMCACHE, 4.5)
    results = {"evcache": result([9, 9, 9]), EMCACHE: result([2, 2, 2])}
    missed = verdict(Figure(WORK, "evcache", EMCACHE, 4.6), {WORK.title: results})
    lines = text_of([verdict(figure, {WORK.title: results}), missed, verdict(figure, {})]).splitlines()[1:]
    assert [line.split()[:4] for line in lines[:2]] == [["reached", "4.50", "of", "4.5"], ["missed", "4.50", "of", "4.6"]]
    assert lines[0].endswith("evcache / emcache")
    assert lines[2:] == ["  not measured: 1"]


def test_a_caller_of_set_many_has_as_many_connections_as_many_callers():
    """The peers' own calls for its keys run at once."""
    assert pool_sizes(Work("set_many", keys=100, zones=3)) == POOLS[32]
    assert pool_sizes(Work("get_many", keys=100)) == POOLS[1]


def test_titles_name_one_kind_of_work_each():
    """Results are kept by title."""
    titles = [work.title for work in works()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("in_threads", [False, True])
def test_a_wrong_answer_ends_the_measurement(in_threads):
    """A client that answers misses where there is a value would be fast."""

    async def answer():
        return None

    call = (lambda: None) if in_threads else answer
    with pytest.raises(WrongAnswerError):
        asyncio.run(measure(Run("wrong", [call], in_threads=in_threads), 0.01))


@pytest.mark.parametrize("in_threads", [False, True])
def test_every_caller_has_one_answer_at_least(in_threads):
    """On a busy machine a turn is over before the last caller begins, and nothing can be said of no answers."""

    async def answer():
        return True

    calls = [(lambda: True) if in_threads else answer] * 3
    turn = asyncio.run(measure(Run("late", calls, in_threads=in_threads), -1.0))
    assert turn.operations == 3
    assert turn.cpu_microseconds >= 0
