"""Fixes can be switched off, each by its name; then its defect shows, and it is gone when the fix is back."""

import pytest

from evcache.replication.repair import read_repair
from evcache.values import ttl
from integration.chaos.promises import Promise, Violation
from integration.chaos.report import Report
from integration.chaos.switched_off import is_shown
from integration.chaos.without import FIXES, Fix, NotInProduct, Patch, _find, without
from tests.chaos.defects import DEFECTS
from tests.support.memory_zones import MemoryZones
from tests.support.virtual_time import run


def targets_of(name):
    """Return the functions that a fix's patches replace."""
    places = [_find(patch.target) for patch in FIXES[name].patches]
    return [owner.__dict__[attribute] for owner, attribute in places]


@pytest.mark.parametrize("name", FIXES)
def test_a_fix_is_switched_off_and_on_again(name):
    """Its functions are replaced and restored."""
    before = targets_of(name)
    with without([name]):
        assert all(now is not then for now, then in zip(targets_of(name), before, strict=True))
    assert all(now is then for now, then in zip(targets_of(name), before, strict=True))


def defect_shows(name):
    async def main():
        zones = MemoryZones()
        try:
            return await DEFECTS[name](zones)
        finally:
            await zones.close_clients()

    return run(main())


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_shows_without_its_fix(name):
    """The shortest history of it suffices."""
    with without([name]):
        assert defect_shows(name)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_does_not_show_with_its_fix(name):
    """The same history, with the fix."""
    assert not defect_shows(name)


def test_a_patch_replaces_imported_copies_too():
    """And nothing is left when one of several patches has no target."""
    original = ttl.exptime_of_copy
    with without(["copy-ttl"]):
        assert read_repair.exptime_of_copy is ttl.exptime_of_copy is not original
        assert ttl.exptime_of_copy(1, 0.5, 0.0) == 1
    assert read_repair.exptime_of_copy is ttl.exptime_of_copy is original
    broken = Fix("two patches", (FIXES["copy-ttl"].patches[0], Patch("evcache.values.ttl:no_such_function", lambda _: None)))
    with pytest.raises(NotInProduct, match="no_such_function"):
        broken()
    assert read_repair.exptime_of_copy is ttl.exptime_of_copy is original


def report_of(*broken):
    return Report(1, [Violation(promise, "k", "") for promise in broken], {}, 0, 0, {}, None)


@pytest.mark.parametrize(
    ("broken", "before", "shown"),
    [
        ([Promise.TTL], [], True),
        ([Promise.TTL, Promise.TOUCH], [Promise.TOUCH], True),
        ([Promise.TTL], [Promise.TTL], False),
        ([Promise.TOUCH], [], False),
        ([], [], False),
    ],
)
def test_is_shown_if_a_promise_of_the_fix_is_broken_that_was_kept_before(broken, before, shown):
    """A promise that is broken with every fix too shows nothing."""
    assert is_shown(report_of(*broken), report_of(*before), {Promise.TTL, Promise.EQUAL_TTL}) is shown


def test_every_fix_has_a_short_history():
    assert DEFECTS.keys() == FIXES.keys()
