"""Troubles that are no outage: zones that stall for a moment, and too little of the processor, under 32 callers."""

import asyncio

import pytest

from benchmarks.outage import troubles

SECONDS = 4.5
WORTH_OF_STALL = 4 / 3  # the share of failed reads may exceed the share of stalled time by a third


def figures(zones, trouble):
    return asyncio.run(troubles.measure(zones, trouble, SECONDS))


def test_reads_fail_no_longer_than_all_zones_stand_still(zones):
    """Calls still try while every zone is out, and zones are used again when they go on."""
    found = figures(zones, "all still")
    assert found["still, %"] > 0
    assert found["failed, %"] <= WORTH_OF_STALL * found["still, %"]


@pytest.mark.parametrize("trouble", ["local still", "busy"])
def test_no_read_fails_while_another_zone_answers(zones, trouble):
    """Also if four processes compute on the processors of this client and its servers."""
    found = figures(zones, trouble)
    assert found["failed"] == 0, found
    if trouble == "busy":
        assert found["node down"] == 0, found
