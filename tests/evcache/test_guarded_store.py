"""The guarded store, command by command: whatever order servers see the commands of several writers in, newest wins.

The real commands run against fake servers whose connections deliver one command at a time, in an order that Hypothesis
picks: between the three stores of one write come those of others, repeated writes, evictions and writes of other clients.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from evcache.codec import FLAG_TOMBSTONE
from evcache.commands import GUARDED_PACKET_MAX_BYTES, Delete, Store, carry_out
from evcache.results import ACKNOWLEDGED
from evcache.versions import VersionClock
from tests.virtual_time import settle
from zones.capabilities import Capabilities
from zones.protocol.decoder import Decoder
from zones.testing import FakeMemcached

KEY = b"t:k"
NOW_MS = 1_800_000_000_000
ZONES = "ab"
FOREIGN = b"written by another kind of client"


class Wire:
    """A connection of one writer to one zone, with the interface that commands use. `step` delivers one command."""

    def __init__(self, fake):
        self._session = fake.session()
        self._decoder = Decoder()
        self._waiting = deque()  # (command bytes, the replies so far, how many are wanted, waiter)

    def __bool__(self):
        return bool(self._waiting)

    def request(self, line, waiter, deadline, data=None):
        self._waiting.append((line + (b"\r\n" if data is None else b"\r\n" + data + b"\r\n"), None, 1, waiter))

    def request_all(self, lines, data, waiter, deadline):
        replies = []
        for line in lines:
            self._waiting.append((line + b"\r\n" + data + b"\r\n", replies, len(lines), waiter))

    def step(self):
        command, replies, wanted, waiter = self._waiting.popleft()
        (reply,) = self._decoder.feed(self._session.receive(command))
        if replies is None:
            waiter.set_result(reply)
            return
        replies.append(reply)
        if len(replies) == wanted:
            waiter.set_result(replies)


class Place:
    """A node as commands see it."""

    label = "fake"
    capabilities = Capabilities("1.6.38", explicit_cas=True, cas=True)

    def __init__(self, fake):
        self.wire = Wire(fake)

    async def connected(self, deadline):
        return self.wire


class Write(NamedTuple):
    """One write: how new it is, how large its value, whether it is a delete."""

    age: int
    large: bool
    delete: bool
    newest_wins: bool = True

    @property
    def version(self):
        return (NOW_MS + self.age) << 20

    @property
    def value(self):
        if self.delete:
            return b""
        text = b"value %d;" % self.age
        return text * (GUARDED_PACKET_MAX_BYTES // len(text) + 1) if self.large else text

    @property
    def ttl(self):
        return 100 + self.age

    def command(self):
        clock = VersionClock(0, lambda: NOW_MS)
        if self.delete:
            return Delete(clock, KEY, ttl=self.ttl, version=self.version, newest_wins=self.newest_wins)
        return Store(clock, KEY, self.value, 0, ttl=self.ttl, version=self.version, newest_wins=self.newest_wins)


class Plan(NamedTuple):
    """What happens. `writes` by index, in `sent` in the order in which they set out, possibly repeated."""

    writes: tuple[Write, ...]
    sent: tuple[tuple[int, str], ...]  # (which write, to which zone)
    disturbances: tuple[tuple[str, str], ...]  # ("evict" or "foreign", in which zone)
    order: tuple[int, ...]


@dataclass
class Report:
    """What was seen."""

    older_replaced_newer: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    not_newest_at_the_end: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    not_acknowledged: list[str] = field(default_factory=list)

    @property
    def clean(self):
        return not any(vars(self).values())


def writes(*, large, deletes):
    return st.lists(
        st.tuples(
            st.integers(0, 1000), st.booleans() if large else st.just(False), st.booleans() if deletes else st.just(False)
        ),
        min_size=2,
        max_size=4,
        unique_by=lambda write: write[0],
    ).map(lambda drawn: tuple(Write(*write) for write in drawn))


@st.composite
def plans(draw, *, large=False, deletes=False, disturbed=False, repeated=False, newest_wins=True):
    """Every write goes to every zone, in any order, with any interleaving of the single commands."""
    all_writes = tuple(write._replace(newest_wins=newest_wins) for write in draw(writes(large=large, deletes=deletes)))
    sent = [(index, zone) for index in range(len(all_writes)) for zone in ZONES]
    if repeated:
        sent += draw(st.lists(st.sampled_from(sent), max_size=3))
    sent = draw(st.permutations(sent))
    disturbances = ()
    if disturbed:
        disturbance = st.tuples(st.sampled_from(["evict", "foreign"]), st.sampled_from(ZONES))
        disturbances = tuple(draw(st.lists(disturbance, max_size=3)))
    order = tuple(draw(st.lists(st.integers(0, 30), max_size=40)))
    return Plan(all_writes, tuple(sent), disturbances, order)


def simulate(plan):
    """Run the plan and report."""
    return asyncio.run(_simulate(plan))


async def _simulate(plan):
    clock = VersionClock(0, lambda: 2**43)
    fakes = {zone: FakeMemcached(clock=lambda: 0.0, wall_clock=lambda: NOW_MS / 1000) for zone in ZONES}
    by_version = {write.version: write for write in plan.writes}
    report = Report()
    places = [(zone, Place(fakes[zone])) for _, zone in plan.sent]
    tasks = [
        asyncio.create_task(carry_out(plan.writes[index].command(), place, 0.0))
        for (index, _), (_, place) in zip(plan.sent, places, strict=True)
    ]
    disturbances = list(plan.disturbances)
    disturbed_at = {}
    order = deque(plan.order)
    step = 0
    while True:
        await settle(3)
        ready = [(zone, place.wire.step, "store") for zone, place in places if place.wire]
        ready += [(zone, disturb(fakes[zone], kind), kind) for kind, zone in disturbances[:1]]
        if not ready:
            break
        step += 1
        chosen = (order.popleft() if order else 0) % len(ready)
        zone, act, kind = ready[chosen]
        before = look(fakes[zone], clock)
        act()
        after = look(fakes[zone], clock)
        if kind != "store":
            disturbances.pop(0)
            disturbed_at[zone] = step
        judge_step(report, f"step {step} in zone {zone}", kind, before, after, by_version)
        assert step < 10_000, "the writers never come to an end"
    for (index, zone), task in zip(plan.sent, tasks, strict=True):
        if not task.done():
            report.unfinished.append(f"write {index} to zone {zone}")
            task.cancel()
        elif task.result() not in ACKNOWLEDGED:
            report.not_acknowledged.append(f"write {index} to zone {zone}: {task.result()}")
    newest = max(plan.writes, key=lambda write: write.version)
    for zone in ZONES:
        item = fakes[zone].store.get(KEY)
        if zone in disturbed_at:
            continue  # the newest may have been what was evicted or overwritten
        expected = (newest.value, False, float(newest.ttl))
        if (item.value, item.stale, item.expires_at) != expected or clock.version_of(item.cas) != newest.version:
            report.not_newest_at_the_end.append(zone)
    return report


def disturb(fake, kind):
    if kind == "evict":
        return lambda: fake.store.evict(KEY)
    return lambda: fake.session().receive(b"set %b 0 0 %d\r\n%b\r\n" % (KEY, len(FOREIGN), FOREIGN))


def look(fake, clock):
    """What a reader would see: (version, value, is a tombstone), or None."""
    item = fake.store.get(KEY)
    return None if item is None else (clock.version_of(item.cas), item.value, item.flags == FLAG_TOMBSTONE)


def judge_step(report, where, kind, before, after, by_version):
    if kind == "store":
        if before is not None and after is None:
            report.vanished.append(where)
        had_a_version = before is not None and before[0] is not None
        if had_a_version and after is not None and (after[0] is None or after[0] < before[0]):
            report.older_replaced_newer.append(where)
    if after is None:
        return
    version, value, tombstone = after
    if version is None:
        if value != FOREIGN:
            report.torn.append(where)
    elif version not in by_version or (by_version[version].value, by_version[version].delete) != (value, tombstone):
        report.torn.append(where)


@given(plans(repeated=True))
@settings(max_examples=200, deadline=None)
def test_small_values(plan):
    """Three stores of each writer, interleaved and repeated in any way: never older over newer, never nothing, newest at the end."""
    assert simulate(plan).clean


@given(plans(large=True, deletes=True, repeated=True))
@settings(max_examples=200, deadline=None)
def test_large_values_and_deletes(plan):
    """The same with values that are compared and set in two steps, and with tombstones among the writes."""
    assert simulate(plan).clean


@given(plans(large=True, deletes=True, disturbed=True, repeated=True))
@settings(max_examples=300, deadline=None)
def test_with_evictions_and_other_clients(plan):
    """The same while items vanish and other kinds of clients write: every write still ends, in one of the two good ways."""
    assert simulate(plan).clean


@pytest.mark.parametrize("problem", ["older_replaced_newer", "not_newest_at_the_end"])
def test_blind_stores_do_leave_zones_different(problem):
    """Stores in order of arrival fail in both ways, so the tests above can see what they look for."""
    plan = find(plans(newest_wins=False), lambda plan: bool(getattr(simulate(plan), problem)))
    assert {write.newest_wins for write in plan.writes} == {False}


def test_the_search_finds_nothing_in_the_guarded_store():
    """The same search as for the blind store, which finds what there is, finds nothing here."""
    with pytest.raises(NoSuchExample):
        find(plans(), lambda plan: not simulate(plan).clean, settings=settings(max_examples=100))


def test_a_reader_in_the_middle_sees_the_new_value():
    """Step by step: add is refused, take over shows the new value as stale, confirm clears the mark and sets the TTL."""

    async def main():
        fake = FakeMemcached(clock=lambda: 0.0)
        old, new = Write(1, large=False, delete=False), Write(2, large=False, delete=False)
        seen = []
        for write in (old, new):
            place = Place(fake)
            task = asyncio.create_task(carry_out(write.command(), place, 0.0))
            await settle()
            while place.wire:
                place.wire.step()
                item = fake.store.get(KEY)
                seen.append((item.value, item.stale, item.expires_at))
                await settle()
            assert task.done()
        assert seen == [
            (old.value, False, old.ttl),
            (old.value, False, old.ttl),
            (old.value, False, old.ttl),
            (old.value, False, old.ttl),
            (new.value, True, old.ttl),
            (new.value, False, new.ttl),
        ]

    asyncio.run(main())
