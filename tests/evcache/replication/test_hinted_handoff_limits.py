"""Limits of hinted handoff: number of hints, rate and retries of deliveries, and the close of a client."""

from itertools import pairwise

import pytest

from evcache import EVCache, Hints, Outcome
from evcache.replication.handoff.hinted_handoff import MAX_DELIVERIES, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS
from evcache.zones.errors import NodeTimeout
from tests.support.memory_zones import (
    PATIENT,
    QUICK,
    TOMBSTONE,
    Listener,
    cut_off,
    full,
    on_zones,
    pass_time,
)

BACK_SECONDS = 5.0  # after which a node that lives again has been noticed, and has got what it missed


class Times(list):
    """The packets to a zone, and when each was sent."""

    def __init__(self, loop):
        super().__init__()
        self.at = []
        self._loop = loop

    def append(self, data):
        super().append(data)
        self.at.append((self._loop.time(), data))

    def about(self, key):
        """When packets were sent that name this key."""
        return [at for at, data in self.at if full(key) in data]


def timed(zones, zone):
    """Have the packets to a zone timed."""
    times = zones.sent[zone] = Times(zones._loop)
    return times


class Ends(Listener):
    """Notes when hints ended."""

    def __init__(self, loop):
        super().__init__()
        self.at = []
        self._loop = loop

    def hint_ended(self, zone, end):
        super().hint_ended(zone, end)
        self.at.append(self._loop.time())


# How much.


@on_zones()
async def test_over_the_limit_the_oldest_go(zones, caplog):
    """The overflow is logged once and counted, and the hooks are called. The other hints are delivered."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener, hints=Hints(max_keys=3))
    await cut_off(zones, cache, "c")
    for number in range(5):
        await cache.set(f"k{number}", number)
    assert cache.stats().hints == 3
    assert cache.stats().hints_dropped == 2
    assert listener.ended == [("c", "overflow")] * 2
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert [zones.values(f"k{number}")["c"] for number in range(5)] == [None, None, 2, 3, 4]
    assert len([record for record in caplog.records if "hint limit reached" in record.message]) == 1


@on_zones()
async def test_large_values_make_room_and_are_copied_later(zones):
    """What was too much to keep is not forgotten: the zones are compared for it."""
    cache = await zones.ready(circuit=QUICK, hints=Hints(max_bytes=10_000))
    await cut_off(zones, cache, "c")
    for number in range(5):
        await cache.set(f"k{number}", b"%d" % number * 3000)
    assert cache.stats().hints == 5
    assert cache.stats().hint_bytes <= 10_000
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert [zones.values(f"k{number}")["c"] for number in range(5)] == [b"%d" % number * 3000 for number in range(5)]
    assert cache.stats().hint_bytes == 0


@on_zones()
async def test_a_delete_that_had_to_go_is_believed_no_more(zones):
    """Else what this client can't bring any more would keep it from ever reading the zone's value."""
    cache = await zones.ready(circuit=QUICK, hints=Hints(max_keys=1), remember_versions=0, local_zone="c")
    await cache.set("k", "value", consistency="all")
    await cut_off(zones, cache, "c")
    await cache.delete("k")
    await cache.delete("other")
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert await cache.get("k") == "value"


# How fast.


@pytest.mark.parametrize("rate", [20, 500])
@on_zones()
async def test_deliveries_per_second_are_limited(zones, rate):
    """A zone that has just come back has other work, too."""
    ends = Ends(zones._loop)
    cache = await zones.ready(circuit=QUICK, hooks=ends, hints=Hints(rate=rate), tombstone_ttl=1000)
    await cut_off(zones, cache, "c")
    count = 4 * rate
    await cache.set_many({f"k{number}": number for number in range(count)})
    zones.resume("c")
    await pass_time(10)
    assert len(ends.ended) == count
    assert {end for _, end in ends.ended} == {"delivered"}
    for start in ends.at:
        assert sum(start <= at < start + 1 for at in ends.at) <= rate + MAX_DELIVERIES
    assert ends.at[-1] - ends.at[0] <= count / rate + 1


@on_zones()
async def test_what_was_missed_is_not_sent_again_at_once(zones):
    """Whatever made the zone miss it may be still there; also when some other node came back long before."""
    cache = await zones.ready(circuit=PATIENT)
    await zones.kill("b")
    await cache.delete("nothing", consistency="one")
    zones.restart("b")
    await pass_time(100)
    times = timed(zones, "c")
    zones.pause("c")
    began = zones._loop.time()
    await cache.set("k", 1, consistency="all", timeout=0.1)
    await pass_time(3)
    first, second, *_ = times.about("k")
    assert first == began
    assert second == pytest.approx(began + 0.1 + RETRY_FIRST_SECONDS)
    zones.resume("c")


@on_zones()
async def test_a_delivery_that_fails_is_tried_again_with_growing_pauses(zones, monkeypatch):
    """The node looks up, and does not take the delivery. The client tries again after growing pauses."""
    cache = await zones.ready(circuit=QUICK)
    zones.pause("c")
    await cache.delete("k", consistency="all", timeout=0.1)
    zones.resume("c")
    tried = []

    async def fails(command, node, deadline):
        tried.append(zones._loop.time())
        raise NodeTimeout("no reply in time", node.label)

    with monkeypatch.context() as patch:
        patch.setattr("evcache.replication.handoff.delivery.execute", fails)
        await pass_time(400)
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    expected = [min(RETRY_LONGEST_SECONDS, RETRY_FIRST_SECONDS * 2**number) for number in range(len(pauses))]
    assert len(pauses) >= 10
    for pause, least in zip(pauses, expected, strict=True):
        assert least - 0.001 <= pause <= least + RETRY_FIRST_SECONDS + 0.001
    assert cache.stats().hints == 1
    await pass_time(RETRY_LONGEST_SECONDS + RETRY_FIRST_SECONDS)
    assert cache.stats().hints == 0
    assert zones.held("k", "c").value == TOMBSTONE


class HangsAgain(Listener):
    """Has a zone hang again as soon as it is back."""

    def __init__(self, zones):
        super().__init__()
        self._zones = zones

    def node_changed(self, zone, node, *, down, why):
        if not down:
            self._zones.pause(zone)


@pytest.mark.parametrize("age", [1, 100])
@on_zones()
async def test_what_a_node_does_not_answer_is_tried_again(zones, age):
    """A set that is delivered, and one that is too old and only compared. The zone holds neither."""
    cache = await zones.ready(circuit=QUICK, hooks=HangsAgain(zones))
    await cut_off(zones, cache, "c")
    written = await cache.set("k", "value", ttl=800)
    await pass_time(age)
    zones.resume("c")
    await pass_time(3.5)  # it is back, and hangs
    assert cache.stats().hints == 1
    assert zones.held("k", "c") is None
    zones.resume("c")
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert zones.stored_versions("k")["c"] == written.version
    assert cache.stats().hints == 0


@on_zones()
async def test_what_is_missed_while_others_are_brought_is_brought_too(zones):
    """The write may also come too late for the last pass."""
    cache = await zones.ready(circuit=PATIENT, hints=Hints(rate=10))
    zones.pause("c")
    await cache.set("k1", 1, consistency="all", timeout=0.1)
    zones.resume("c")
    await pass_time(RETRY_FIRST_SECONDS + 0.05)  # it was delivered, and the rate makes a pause
    zones.pause("c")
    await cache.set("k2", 2, consistency="all", timeout=0.01)
    assert cache.stats().hints == 1
    zones.resume("c")
    await pass_time(RETRY_LONGEST_SECONDS + BACK_SECONDS)
    assert cache.stats().hints == 0


@on_zones()
async def test_a_zone_that_is_down_for_long_costs_little(zones):
    """A pass over the hints does not run for each write that the zone misses."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    passes = []
    original = cache._runtime.handoff._deliver_all

    async def counted():
        passes.append(zones._loop.time())
        return await original()

    cache._runtime.handoff._deliver_all = counted
    for number in range(1000):
        await cache.set(f"k{number}", number)
        await pass_time(0.1)
    assert len(passes) < 10 + 100 / RETRY_LONGEST_SECONDS
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert cache.stats().hints == 0


# The end of the client.


@on_zones()
async def test_close_delivers_to_reachable_zones(zones):
    """At once, without the pause that there is otherwise."""
    cache = await zones.ready(circuit=PATIENT)
    zones.pause("c")
    await cache.set("k", "value", consistency="all", timeout=0.1)
    zones.resume("c")
    await pass_time(0)
    zones.evict("k", "c")  # what came of the first attempt
    began = zones._loop.time()
    await cache.close()
    assert zones._loop.time() - began < 0.1
    assert zones.held("k", "c").value == "value"
    assert cache.stats().hints == 0


@on_zones()
async def test_close_logs_undeliverable_hints(zones, caplog):
    """Each zone is logged and counted, and the hooks are called. The close waits for no dead zone."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await zones.kill("b", "c")
    await cache.set("k1", 1, consistency="one")
    await cache.delete("k2", consistency="one")
    await pass_time(3)
    began = zones._loop.time()
    await cache.close()
    assert zones._loop.time() - began < 0.1
    assert sorted(listener.ended) == [("b", "closed")] * 2 + [("c", "closed")] * 2
    stats = cache.stats()
    assert (stats.hints, stats.hints_dropped) == (0, 4)
    said = [record.message for record in caplog.records if record.name == "evcache.replication"]
    assert said == [
        "closed with 2 undelivered hints for zone b: dropped",
        "closed with 2 undelivered hints for zone c: dropped",
    ]
    assert not [record for record in caplog.records if "unfinished" in record.message]


@on_zones()
async def test_close_logs_hints_with_an_unfinished_delivery(zones, caplog):
    """A write whose zone has not answered when the client ends is missed like any other."""
    listener = Listener()
    cache = await zones.ready(circuit=PATIENT, hooks=listener)
    zones.pause("c")
    result = await cache.set("k", 1, timeout=10)
    assert result.zones["c"] is Outcome.PENDING
    began = zones._loop.time()
    await cache.close(0.5)
    assert zones._loop.time() - began <= 0.5 + 0.001
    assert listener.ended == [("c", "closed")]
    assert "closed with 1 undelivered hints for zone c: dropped" in caplog.text
    assert cache.stats().hints == 0


@pytest.mark.parametrize("drain", [0, 0.25, 2.0])
@on_zones()
async def test_close_takes_no_longer_than_it_may(zones, drain):
    """With a server that answers nothing, and much to bring."""
    listener = Listener()
    cache = await zones.ready(circuit=PATIENT, hooks=listener)
    zones.pause("c")
    await cache.set_many({f"k{number}": number for number in range(100)}, consistency="all", timeout=0.1)
    assert cache.stats().hints == 100
    began = zones._loop.time()
    await cache.close(drain)
    assert zones._loop.time() - began <= drain + 0.001
    assert listener.ended == [("c", "closed")] * 100
    assert cache.stats().background_tasks == 0
    await cache.close(drain)


@on_zones()
async def test_a_client_that_is_closed_keeps_nothing_more(zones):
    """Not even of a write that ends after it."""
    cache: EVCache = await zones.ready(circuit=PATIENT)
    zones.pause("c")
    await cache.set("k", 1, timeout=10)
    await cache.close(0)
    await pass_time(20)
    assert cache.stats().hints == 0
    assert cache.stats().background_tasks == 0
