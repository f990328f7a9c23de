"""No operation does more than it did. What is counted is the same on every machine, so nothing here is about seconds."""

import dataclasses
import gc

import pytest

from tests.support.cores import CORES
from tests.work.counting import NOT_COUNTED, OURS, Calls, Instructions, Work
from tests.work.operations import OPERATIONS, count
from tests.work.stored import MEMORY, MUCH_LESS, PYTHON, TOLERANCE, compare, key_of, load

STORED = load()
known_python = pytest.mark.skipif(
    PYTHON not in STORED, reason=f"no figures for Python {PYTHON}, where work differs: `make work` under it adds them"
)


each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)


@known_python
@each_core
def test_every_operation_has_figures_and_no_other(core):
    assert STORED[key_of(core)].keys() == OPERATIONS.keys()


@known_python
@each_core
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_no_more_than_it_did(name, core):
    problems = compare(count(name, core), STORED[key_of(core)][name])
    assert not problems, "\n".join(problems)


SOME = Work(
    calls=100, library=100, builtins=100, instructions=100, turns=100, packets=100, bytes=100, garbage=0,
    pending=100, pending_bytes=100,
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (100, None),
        (100 * (1 + TOLERANCE), None),
        (100 * (1 + TOLERANCE) + 1, "104, and it was 100"),
        (100 * (1 - MUCH_LESS), None),
        (100 * (1 - MUCH_LESS) - 1, "down from 100"),
    ],
)
@pytest.mark.parametrize("figure", sorted({field.name for field in dataclasses.fields(Work)} - MEMORY - {"garbage"}))
def test_a_figure_may_differ_by_a_little(figure, now, problem):
    found = compare(dataclasses.replace(SOME, **{figure: now}), SOME)
    assert len(found) == (problem is not None)
    assert all(one.startswith(figure) and problem in one for one in found)


def test_where_there_was_nothing_nothing_is_allowed():
    assert compare(SOME, SOME) == []
    assert len(compare(dataclasses.replace(SOME, garbage=0.05), SOME)) == 1
    near = dataclasses.replace(SOME, pending=None)
    assert compare(near, near) == []
    assert len(compare(SOME, near)) == len(compare(near, SOME)) == 1


@pytest.fixture
def no_collections():
    """A collection would run what others have asked it to call, hypothesis for one, below whatever runs at that moment."""
    gc.disable()
    yield
    gc.enable()


def made(text, place):
    """A function `f`, as if it stood in a file of that folder."""
    names = {}
    exec(compile(text, f"{place}made_up.py", "exec"), names)
    return names["f"]


TWICE = """
import operator
def g(a): return a
def f(): return g(len("a")) + g(len("b"))
"""


@pytest.mark.parametrize("place", OURS)
def test_calls_and_builtins_of_the_sdk_are_counted(no_collections, place):
    f = made(TWICE, place)
    with Calls() as calls:
        f()
    assert (calls.ours, calls.builtins, calls.library) == (3, 2, 0)


def test_calls_below_the_sdk_are_counted_and_those_below_servers_and_tests_are_not(no_collections):
    def nothing(place):
        library = made(TWICE, "/usr/lib/")
        caller = made("def f(): return library()", place)
        caller.__globals__["library"] = library
        with Calls() as calls:
            caller()
        return calls.ours, calls.library, calls.builtins

    assert nothing(OURS[0]) == (1, 3, 0)
    for place in NOT_COUNTED[:-1]:
        assert nothing(place) == (0, 0, 0)


@pytest.mark.parametrize(
    ("place", "counted"), [(OURS[0], True), (OURS[1], True), ("/usr/lib/", False), (NOT_COUNTED[0], False)]
)
def test_instructions_of_the_sdk_are_counted(no_collections, place, counted):
    """In a loop too, which has no calls."""
    loop = "def f():\n for _ in range({}): pass\n"
    counts = []
    for turns in (10, 20):
        f = made(loop.format(turns), place)
        with Instructions() as instructions:
            f()
        counts.append(instructions.count)
    assert (counts[1] - counts[0] >= 10) is counted
    assert (counts[0] > 0) is counted
