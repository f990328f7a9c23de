"""Clients write and read while zones die, hang, are cut off, leave and come back: what is promised to them is kept."""

import asyncio

import pytest

from integration.chaos.fault_plan import Fault, Pace
from integration.chaos.program import NO_REPAIR, Settings, TooOld, require_versions, run
from integration.chaos.promises import Promise
from tests.support.cores import CORES, running

SEED = 3
# Short faults, so that many fit into a run that CI can wait for. `python -m integration.chaos` has longer ones.
BRISK = Pace(lasting=(0.8, 2.5), between=(0.2, 0.8), overlapping=0.4)
LEAST_FAULTS = 8


def checked_for_versions(zones):
    """The zones, if their servers keep versions."""
    try:
        require_versions(zones)
    except TooOld as reason:
        pytest.skip(str(reason))
    return zones


@pytest.fixture
def versioned_zones(zones):
    """Three zones of two nodes whose servers keep versions."""
    return checked_for_versions(zones)


@pytest.fixture(scope="module", params=CORES, ids=lambda core: core.name)
def report(servers, request):
    """Report of a run with every kind of fault, on each core."""
    with running(request.param), servers.best.local_zones().running() as zones:
        return chaos(checked_for_versions(zones), seconds=20.0)


def chaos(zones, **settings):
    """A run; its report is printed, for pytest to show when the test fails."""
    report = asyncio.run(run(zones, Settings(SEED, pace=BRISK, **settings)))
    print("\n".join(report.lines()))
    return report


def test_a_run_has_faults_and_exercises_every_promise(report):
    """A report without violations counts only if the checks looked at facts."""
    assert sum(report.faults.values()) >= LEAST_FAULTS
    assert {promise for promise, _ in report.checked} >= set(Promise)


def test_promises_are_kept_through_every_fault(report):
    """Return the results that clients got, the items that servers held, and the items that zones hold in the end."""
    assert report.converged_after is not None
    assert report.broken == {}


def test_without_guard_tombstones_and_repair_the_same_faults_break_promises(versioned_zones):
    """So the test above can fail: zones stay different, what was deleted is back, and clients go back in time."""
    report = chaos(
        versioned_zones,
        seconds=10.0,
        ordering="arrival",
        tombstones=False,
        options=NO_REPAIR,
        convergence=5.0,
    )
    assert {Promise.CONVERGENCE, Promise.DELETED, Promise.NO_STEP_BACK} <= {
        promise for promise, n in report.broken.items() if n
    }
    assert report.broken[Promise.WHOLE] == 0, "values stay whole whatever the order"


def test_without_the_guard_slow_links_alone_let_older_writes_win(versioned_zones):
    """Remembered versions and repair hide it from clients, but not from a look at the servers."""
    report = chaos(
        versioned_zones,
        seconds=6.0,
        faults=[Fault.SLOW_LINK],
        calls_per_second=600.0,
        ordering="arrival",
        tombstones=False,
        convergence=5.0,
    )
    assert report.broken[Promise.NEWEST_WINS] > 0
