"""Guarded store, command by command: the latest version wins in any order in which servers receive the commands.

The real commands run against fake servers whose connections deliver one command at a time, in an order that Hypothesis
picks. Between the commands of one write come those of others, in any form of the store. There are also repeated writes,
connections that end in the middle, evictions, leases and writes of other clients.
"""

import asyncio

import pytest
from hypothesis import find, given, settings
from hypothesis.errors import NoSuchExample

from evcache.replication.hlc import GUARD_STUB_CAS, MAX_CAS, HybridLogicalClock
from evcache.zones.protocol.operations import STUB_SECONDS
from evcache.zones.testing import FakeMemcached
from tests.support.store_simulation import (
    KEY,
    NOW_MS,
    ONCE,
    SETTLE,
    THREE,
    Place,
    Write,
    plans,
    simulate,
)
from tests.support.virtual_time import settle

ALL_FORMS = [THREE, ONCE, SETTLE]


@given(plans(repeated=True))
def test_three_copy_stores_keep_the_latest_version(plan):
    """Interleaved and repeated in any way: no older version replaces a newer one, and no key is absent between."""
    assert simulate(plan).clean


@given(plans(forms=[ONCE], repeated=True))
def test_one_copy_stores_keep_the_latest_version(plan):
    assert simulate(plan).clean


@given(plans(forms=ALL_FORMS, deletes=True, repeated=True))
def test_all_forms_and_deletes_keep_the_latest_version(plan):
    assert simulate(plan).clean


@given(plans(forms=ALL_FORMS, deletes=True, disturbed=True, repeated=True))
def test_writes_end_among_evictions_leases_and_other_clients(plan):
    assert simulate(plan).clean


@given(plans(forms=ALL_FORMS, deletes=True, repeated=True, cut=True))
def test_repeated_write_completes_one_whose_connection_ended(plan):
    """Half-done stores of any writers do no harm. Each write is sent once more in the end."""
    assert simulate(plan).clean


@pytest.mark.parametrize("problem", ["older_replaced_newer", "not_newest_at_the_end"])
def test_search_finds_the_faults_of_stores_by_arrival(problem):
    """They fail in both ways, so the tests above can find such faults."""
    plan = find(plans(newest_wins=False), lambda plan: bool(getattr(simulate(plan), problem)))
    assert {write.newest_wins for write in plan.writes} == {False}


def test_search_finds_no_fault_of_the_guarded_store():
    """It is the search that finds the faults of stores by arrival."""
    for forms in ([THREE], [ONCE]):
        with pytest.raises(NoSuchExample):
            find(plans(forms=forms), lambda plan: not simulate(plan).clean, settings=settings(max_examples=100))


def seen_between_commands(*writes_in_turn):
    """Return the value, stale mark and end of the item after each command. None for a miss, and "stub" for a stub."""

    async def main():
        fake = FakeMemcached(clock=lambda: 0.0, wall_clock=lambda: NOW_MS / 1000)
        seen = []
        for write in writes_in_turn:
            place = Place(fake)
            task = asyncio.create_task(write.execute(place))
            await settle()
            while place.wire:
                place.wire.step()
                item = fake.store.get(KEY)
                stub = item is not None and item.cas == GUARD_STUB_CAS
                seen.append("stub" if stub else item and (item.value, item.stale, item.expires_at))
                await settle()
            assert task.done()
        return seen

    return asyncio.run(main())


def test_reader_between_commands_of_three_copies_sees_the_new_value():
    """The add is refused, the second store shows the new value as stale, and the third clears the mark and sets the TTL."""
    old, new = Write(1, ttl=101), Write(2, ttl=102)
    assert seen_between_commands(old, new) == [
        (old.value, False, old.ttl),
        (old.value, False, old.ttl),
        (old.value, False, old.ttl),
        (old.value, False, old.ttl),
        (new.value, True, old.ttl),
        (new.value, False, new.ttl),
    ]


def test_reader_between_commands_of_one_copy_sees_a_stub_for_an_absent_key():
    """The steps: a stub; the value with the stub's TTL and the mark; its own TTL; no mark. Then over an older value."""
    old, new = Write(1, ONCE, ttl=101), Write(2, ONCE, ttl=102)
    assert seen_between_commands(old, new, old, new) == [
        "stub",
        (old.value, True, STUB_SECONDS),
        (old.value, True, old.ttl),
        (old.value, False, old.ttl),
        (old.value, False, old.ttl),
        (new.value, True, old.ttl),
        (new.value, True, new.ttl),
        (new.value, False, new.ttl),
        *[(new.value, False, new.ttl)] * 5,  # the older one: its four commands, and the look that follows
        (new.value, False, new.ttl),
        (new.value, False, new.ttl),
        (new.value, True, new.ttl),
        (new.value, False, new.ttl),
    ]


def test_every_version_is_newer_than_the_stub():
    """The stub itself is not a version."""
    clock = HybridLogicalClock(0)
    assert clock.observe(GUARD_STUB_CAS) is None
    assert MAX_CAS - clock.tick() < GUARD_STUB_CAS
