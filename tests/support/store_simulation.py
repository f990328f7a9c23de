"""Simulation of guarded stores: commands of several writers reach fake servers one at a time, in a chosen order."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from evcache.replication.commands.command import execute
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION, HybridLogicalClock
from evcache.results import ACKNOWLEDGED
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.errors import ConnectionLost
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.protocol.decoder import Decoder
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES
from evcache.zones.testing import FakeMemcached
from tests.support.lines import get_line, store_line
from tests.support.packets import commands_of
from tests.support.virtual_time import settle

KEY = b"t:k"
NOW_MS = 1_800_000_000_000
ZONES = "ab"
FOREIGN = b"written by another kind of client"
LEASE_CAS = MAX_CAS - 7
# Releases that differ in the commands of the guarded store, or might: the first with versions, and the one of Debian 13.
RELEASES = ["1.6.27", "1.6.38"]
# Forms of a guarded store. "settle" is what follows a refused packet, here without the packet.
THREE, ONCE, SETTLE = "three copies", "one copy", "settle"


class Wire:
    """Connection of one writer to one zone, with the interface that commands use. `step` delivers one command."""

    def __init__(self, fake, ends_after=None):
        self._session = fake.session()
        self._decoder = Decoder()
        self._waiting = deque()  # (command bytes, the replies so far, how many are wanted, waiter)
        self._left = ends_after  # commands until the connection ends; None: it does not

    def __bool__(self):
        return bool(self._waiting)

    def get(self, key, fields, waiter, deadline, latest=None):
        self.request(get_line(key, fields), waiter, deadline)

    def read(self, key, fields, deadline, latest=None):
        answer = asyncio.get_running_loop().create_future()
        self.get(key, fields, answer, deadline, latest)
        return answer

    def store(self, key, data, flags, exptime, waiter, deadline, **more):
        self.request(store_line(key, len(data), ttl=exptime, flags=flags, **more), waiter, deadline, data)

    def send_store(self, store, waiter, deadline):
        self.request_all(store.packet, waiter, deadline)

    def request(self, line, waiter, deadline, data=None):
        self._waiting.append((line + (b"\r\n" if data is None else b"\r\n" + data + b"\r\n"), None, 1, waiter))

    def request_all(self, packet, waiter, deadline):
        replies = []
        for line, payload in commands_of(packet):
            data = b"" if payload is None else payload + b"\r\n"
            self._waiting.append((line + b"\r\n" + data, replies, packet.commands, waiter))

    def step(self):
        if self._left == 0:
            self._waiting[0][3].set_exception(ConnectionLost("reset"))
            self._waiting.clear()
            return
        if self._left is not None:
            self._left -= 1
        command, replies, wanted, waiter = self._waiting.popleft()
        (reply,) = self._decoder.feed(self._session.receive(command))
        if replies is None:
            waiter.set_result(reply)
            return
        replies.append(reply)
        if len(replies) == wanted:
            waiter.set_result(replies)


class Place:
    """Node, with the interface that commands use."""

    label = "fake"
    capabilities = Capabilities("1.6.38", explicit_cas=True, cas=True)

    def __init__(self, fake, ends_after=None):
        self.wire = Wire(fake, ends_after)

    async def connected_by(self, deadline):
        return self.wire, deadline


class Write(NamedTuple):
    """One write: its age, the form of its store, whether it is a delete, and its exptime."""

    age: int
    form: str = THREE
    delete: bool = False
    ttl: int = 100
    newest_wins: bool = True

    @property
    def version(self):
        return (NOW_MS + self.age) << 20

    @property
    def value(self):
        if self.delete:
            return b""
        text = b"value %d;" % self.age
        return text if self.form == THREE else text * (THREE_COPIES_MAX_BYTES // len(text) + 1)

    @property
    def expires_at(self):
        """End of the item on the clock of the fakes, which stays at 0."""
        if self.ttl == 0:
            return None
        return float(self.ttl if self.ttl <= 30 * 24 * 3600 else self.ttl - NOW_MS // 1000)

    def command(self):
        clock = HybridLogicalClock(0, lambda: NOW_MS)
        if self.delete:
            return DeleteCommand(clock, KEY, ttl=self.ttl, version=self.version, newest_wins=self.newest_wins)
        return StoreCommand(clock, KEY, self.value, 0, ttl=self.ttl, version=self.version, newest_wins=self.newest_wins)

    async def execute(self, place):
        if self.form == SETTLE:
            return await self.command().peek_and_apply(place, 0.0)
        return await execute(self.command(), place, 0.0)


class Plan(NamedTuple):
    """Events of one run. `sent` refers to `writes` by index, in the order in which they start, possibly repeated."""

    writes: tuple[Write, ...]
    sent: tuple[tuple[int, str], ...]  # (which write, to which zone)
    ends: tuple[int | None, ...]  # for each of `sent`: commands after which its connection ends
    disturbances: tuple[tuple[str, str], ...]  # (one of DISTURBANCES, in which zone)
    order: tuple[int, ...]
    release: str


DISTURBANCES = ["evict", "foreign", "lease", "lease given back"]
HARMLESS = {"lease", "lease given back"}  # to what the zone holds at the end


@dataclass
class Report:
    """Problems of one run."""

    older_replaced_newer: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    not_newest_at_the_end: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    not_acknowledged: list[str] = field(default_factory=list)

    @property
    def clean(self):
        return not any(vars(self).values())


def writes(*, forms, deletes, newest_wins):
    ttls = st.one_of(st.integers(10, 1000), st.just(0), st.integers(NOW_MS // 1000 + 40 * 86400, 2**31 - 1))
    write = st.builds(
        Write,
        age=st.integers(0, 1000),
        form=st.sampled_from(forms),
        delete=st.booleans() if deletes else st.just(False),
        ttl=ttls,
        newest_wins=st.just(newest_wins),
    )
    return st.lists(write, min_size=2, max_size=4, unique_by=lambda write: write.age).map(tuple)


@st.composite
def plans(draw, *, forms=(THREE,), deletes=False, disturbed=False, repeated=False, cut=False, newest_wins=True):
    """Draw a plan: every write goes to every zone, in any order, with any interleaving of the single commands."""
    all_writes = draw(writes(forms=forms, deletes=deletes, newest_wins=newest_wins))
    sent = [(index, zone) for index in range(len(all_writes)) for zone in ZONES]
    if repeated:
        sent += draw(st.lists(st.sampled_from(sent), max_size=3))
    sent = draw(st.permutations(sent))
    end = st.one_of(st.none(), st.integers(0, 4)) if cut else st.none()
    ends = tuple(draw(end) for _ in sent)
    disturbances = ()
    if disturbed:
        disturbance = st.tuples(st.sampled_from(DISTURBANCES), st.sampled_from(ZONES))
        disturbances = tuple(draw(st.lists(disturbance, max_size=4)))
    order = tuple(draw(st.lists(st.integers(0, 30), max_size=60)))
    return Plan(all_writes, tuple(sent), ends, disturbances, order, draw(st.sampled_from(RELEASES)))


def simulate(plan):
    """Run the plan and report."""
    return asyncio.run(_simulate(plan))


async def _simulate(plan):
    clock = HybridLogicalClock(0, lambda: 2**43)
    fakes = {
        zone: FakeMemcached(clock=lambda: 0.0, wall_clock=lambda: NOW_MS / 1000, version=plan.release) for zone in ZONES
    }
    by_version = {write.version: write for write in plan.writes}
    report = Report()
    places = [(zone, Place(fakes[zone], end)) for (_, zone), end in zip(plan.sent, plan.ends, strict=True)]
    tasks = [
        asyncio.create_task(plan.writes[index].execute(place))
        for (index, _), (_, place) in zip(plan.sent, places, strict=True)
    ]
    disturbances = list(plan.disturbances)
    disturbed = set()
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
            if kind not in HARMLESS:
                disturbed.add(zone)
        judge_step(report, f"step {step} in zone {zone}", kind, before, after, by_version)
        assert step < 10_000, "the writers never come to an end"
    for (index, zone), task in zip(plan.sent, tasks, strict=True):
        if not task.done():
            report.unfinished.append(f"write {index} to zone {zone}")
            task.cancel()
        elif isinstance(task.exception(), ConnectionLost):
            pass
        elif task.result() not in ACKNOWLEDGED:
            report.not_acknowledged.append(f"write {index} to zone {zone}: {task.result()}")
    newest = max(plan.writes, key=lambda write: write.version)
    for zone in ZONES:
        if any(end is not None for end in plan.ends):
            await complete(newest, fakes[zone])
        judge_end(report, zone, fakes[zone].store.get(KEY), clock, newest, by_version, disturbed=zone in disturbed)
    return report


async def complete(write, fake):
    """Send a write again, as a hint does after its connection ended."""
    place = Place(fake)
    task = asyncio.create_task(write.execute(place))
    await settle(3)
    while place.wire:
        place.wire.step()
        await settle(3)
    assert task.result() in ACKNOWLEDGED


def disturb(fake, kind):
    if kind == "evict":
        return lambda: fake.store.evict(KEY)
    commands = {
        "foreign": b"set %b 0 0 %d\r\n%b\r\n" % (KEY, len(FOREIGN), FOREIGN),
        "lease": b"mg %b v c f N10 t E%d\r\n" % (KEY, LEASE_CAS),
        "lease given back": b"md %b C%d\r\n" % (KEY, LEASE_CAS),
    }
    return lambda: fake.session().receive(commands[kind])


def look(fake, clock):
    """Return the version, the value and whether it is a tombstone, as a reader sees them. None for a miss and for a stub."""
    item = fake.store.get(KEY)
    if item is None or (not item.value and not item.stale and item.win_sent and item.cas > MAX_CAS - NOT_A_VERSION):
        return None
    return clock.observe(item.cas), item.value, item.flags == FLAG_TOMBSTONE


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


def judge_end(report, zone, item, clock, newest, by_version, *, disturbed):
    """Report a zone that does not hold the latest version, with its own TTL and without the stale mark."""
    if disturbed:  # the newest may have been what was evicted or overwritten
        if item is None or item.value == FOREIGN or item.cas == LEASE_CAS:
            return
        newest = by_version.get(clock.observe(item.cas), newest)
    expected = (newest.version, newest.value, False, newest.expires_at)
    if item is None or (clock.observe(item.cas), item.value, item.stale, item.expires_at) != expected:
        report.not_newest_at_the_end.append(zone)
