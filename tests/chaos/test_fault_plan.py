"""Faults are drawn from a seed, before any of them happens."""

from itertools import pairwise

import pytest

from integration.chaos.fault_plan import Fault, Pace, plan_faults

ZONES = ("eu-1a", "eu-1b", "eu-1c")


def plan(seed, seconds=600.0):
    return plan_faults(seed, seconds, ZONES, nodes=2, clients=6, pace=Pace())


def test_a_seed_gives_the_same_faults_and_another_seed_others():
    """So that what a seed has shown can be looked at again."""
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_hold_every_fault_several_times(seed):
    """Over a hundred faults, of each kind at least three, each one to six seconds long."""
    faults = plan(seed)
    assert len(faults) > 100
    assert min(sum(planned.fault is fault for planned in faults) for fault in Fault) >= 3
    assert all(1.0 <= planned.seconds <= 6.0 for planned in faults[:-1])


@pytest.mark.parametrize("seed", range(20))
def test_faults_that_overlap_hit_different_zones(seed):
    """At most two at a time, and so one zone at least is well; some do overlap."""
    faults = plan(seed)
    overlapping = [(one, two) for one, two in pairwise(faults) if two.start < one.end]
    assert 0 < len(overlapping) < len(faults) / 2
    assert all(one.zone != two.zone for one, two in overlapping)
    assert all(third.start >= one.end for one, third in zip(faults, faults[2:], strict=False))


@pytest.mark.parametrize("seed", range(20))
def test_the_last_fault_outlives_the_plan_and_keeps_writes_from_a_zone(seed):
    """What the zone then misses, no later write brings it."""
    last = plan(seed, 20.0)[-1]
    assert last.start < 20.0 < last.end
    assert last.fault in (Fault.ZONE_HANGS, Fault.ZONE_CUT_OFF, Fault.REFUSED)
    assert (last.node, last.client) == (None, None)


def test_there_may_be_no_time_for_any_fault():
    """A run that is over before the first one has none."""
    assert plan(1, 0.5) == []
