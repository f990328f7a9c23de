"""Clients write and read while zones die, hang, are cut off, leave and come back: what is promised to them is kept."""

import asyncio

import pytest

from integration.chaos.checker import Promise
from integration.chaos.fault_plan import Fault, Pace
from integration.chaos.program import NO_REPAIR, Settings, TooOld, require_versions, run

SEED = 3
# Short faults, so that many fit into a run that CI can wait for. `python -m integration.chaos` has longer ones.
BRISK = Pace(lasting=(0.8, 2.5), between=(0.2, 0.8), overlapping=0.4)
LEAST_FAULTS = 8


@pytest.fixture
def versioned_zones(zones):
    """Three zones of two nodes whose servers keep versions."""
    try:
        require_versions(zones)
    except TooOld as reason:
        pytest.skip(str(reason))
    return zones


def chaos(zones, **settings):
    """A run; its report is printed, for pytest to show when the test fails."""
    report = asyncio.run(run(zones, Settings(SEED, pace=BRISK, **settings)))
    print("\n".join(report.lines()))
    return report


def test_promises_are_kept_through_every_fault(versioned_zones):
    """Whole values, own writes, no step back, no version twice; in the end zones are equal and have what was acknowledged."""
    report = chaos(versioned_zones, seconds=25.0)
    assert sum(report.faults.values()) >= LEAST_FAULTS
    assert report.converged_after is not None
    assert report.broken == {}


def test_without_guard_tombstones_and_repair_the_same_faults_break_promises(versioned_zones):
    """So the test above can fail: zones stay different, what was deleted is back, and clients go back in time."""
    report = chaos(
        versioned_zones,
        seconds=12.0,
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
    """What clients remember and what is repaired hides it from them, but not from whoever watches the servers."""
    report = chaos(
        versioned_zones,
        seconds=8.0,
        faults=[Fault.SLOW_LINK],
        calls_per_second=600.0,
        ordering="arrival",
        tombstones=False,
        convergence=5.0,
    )
    assert report.broken[Promise.NEWEST_WINS] > 0
