"""Clients write and read while zones die, hang, are cut off, leave and come back: what is promised to them is kept."""

import asyncio
import random

import pytest

from integration.chaos import servers as chaos_servers
from integration.chaos import system
from integration.chaos.caller import Caller
from integration.chaos.checker import check_calls
from integration.chaos.convergence import Observer
from integration.chaos.fault_plan import Pace
from integration.chaos.history import History, Outcome
from integration.chaos.keys import KEYS
from integration.chaos.lifetimes import short_lived
from integration.chaos.program import NO_REPAIR, Settings, TooOld, require_versions, run
from integration.chaos.promises import Findings, Promise
from integration.chaos.values import name_value
from integration.patience import PATIENT_NODES, PATIENT_SECONDS
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


@pytest.mark.parametrize(("ordering", "is_broken"), [("arrival", True), ("newest", False)])
def test_without_the_guard_a_slow_link_alone_lets_an_older_write_win(versioned_zones, monkeypatch, ordering, is_broken):
    """The older write waits on its link until the newer one is stored, so the order does not depend on the machine.

    Remembered versions and repair hide it from clients, but not from a look at the servers.
    """
    for module, name in (
        (system, "READ_TIMEOUT_SECONDS"),
        (system, "WRITE_TIMEOUT_SECONDS"),
        (chaos_servers, "LOOK_TIMEOUT_SECONDS"),
    ):
        monkeypatch.setattr(module, name, PATIENT_SECONDS)
    key, slow, chooser = KEYS[0], "eu-1c", random.Random(SEED)

    async def main():
        history = History()
        options = {"ordering": ordering, "nodes": PATIENT_NODES, "write_consistency": "all"}
        async with system.open_system(versioned_zones, 2, history.now, options) as opened:
            observer = Observer(opened, history, [key])
            older, newer = (Caller(client, history) for client in opened.clients)
            await older.set(key, chooser)
            await newer.set(key, chooser)
            for link in opened.proxies(slow, 0):
                link.stall = True
            late = asyncio.create_task(older.set(key, chooser))
            async with asyncio.timeout(PATIENT_SECONDS):
                while (await observer.look_everywhere())[key]["eu-1a"].value != name_value(0, 2):
                    await asyncio.sleep(0.01)
            await newer.set(key, chooser)
            await observer.look_everywhere()
            assert not late.done()
            for link in opened.proxies(slow, 0):
                link.stall = False
            await late
            await observer.look_everywhere()
        return history.calls

    calls = asyncio.run(main())
    findings = Findings(check_calls(calls, short_lived(calls)))
    assert findings.of(Promise.NEWEST_WINS).total() > 0
    broken = [violation for violation in findings.violations if violation.promise is Promise.NEWEST_WINS]
    assert bool(broken) is is_broken, broken
    assert {call.outcome for call in calls} == {Outcome.OK}
