"""Hedged reads, on zones in memory: a second zone is asked when the first is slow, and the first hit wins."""

import asyncio

import pytest

from evcache import CacheUnavailable, Hedging, InvalidArgument
from evcache.reads.hedging import BURST, PERCENTILE, SAMPLES, Latencies
from tests.support.memory_zones import PATIENT, Listener, Stopwatch, on_zones, pass_time

ALL = Hedging(share=1.0)
DELAY = ALL.least_delay  # in memory answers take no time, so this is what the first zone gets


@pytest.mark.parametrize("latency", [0.5, 3.0])
def test_the_percentile_is_that_of_the_last_samples(latency):
    """There is none before the first full set of samples. After that, each full set replaces it."""
    latencies = Latencies()
    for number in range(SAMPLES):
        assert latencies.percentile is None
        latencies.add(latency * (number + 1) / SAMPLES)
    assert latencies.percentile == pytest.approx(PERCENTILE * latency, rel=0.01)
    for _ in range(SAMPLES - 1):
        latencies.add(100.0)
    assert latencies.percentile < 100
    latencies.add(100.0)
    assert latencies.percentile == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", 0), ("share", 1.1), ("share", -1), ("share", True), ("share", "1"), ("share", float("nan"))]
    + [("least_delay", 0), ("least_delay", -1), ("least_delay", float("inf")), ("least_delay", None)],
)
def test_an_invalid_setting_is_refused_by_its_name(name, value):
    with pytest.raises(InvalidArgument) as caught:
        Hedging(**{name: value})
    assert caught.value.argument == name


async def measured(zones, hedging=ALL, **options):
    """Return a client that has measured its zone, with a value in every zone."""
    cache = await zones.ready(
        hedging=hedging, circuit=PATIENT, hints=None, read_repair_chance=0, read_timeout=0.9, **options
    )
    await cache.set("k", "value", consistency="all")
    for _ in range(SAMPLES):
        assert await cache.get("k") == "value"
    zones.forget()
    return cache


def second_of(cache):
    """Return the zone that this client asks second."""
    return cache._runtime.cluster.view.readers[1].name


@on_zones()
async def test_hedging_is_off_by_default(zones):
    """The client waits for a zone that hangs, for its share of the time."""
    cache = await measured(zones, hedging=None)
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k") == "value"
    assert watch.seconds == pytest.approx(0.3)
    assert cache.stats().hedges == 0
    zones.resume("a")


@on_zones()
async def test_a_second_zone_answers_in_place_of_a_slow_one(zones):
    """The client asks it after the delay, and reports the hedge."""
    listener = Listener()
    cache = await measured(zones, hooks=listener)
    zones.pause("a")
    watch = Stopwatch()
    item = await cache.get_item("k")
    assert watch.seconds == pytest.approx(DELAY)
    assert (item.value, item.zone, item.source) == ("value", second_of(cache), "fallback")
    assert listener.hedges == [(second_of(cache), True)]
    assert cache.stats().hedges == 1
    zones.resume("a")


@on_zones()
async def test_a_zone_of_usual_speed_is_not_hedged(zones):
    """No other zone receives a read."""
    cache = await measured(zones)
    for _ in range(100):
        assert await cache.get("k") == "value"
    assert zones.wire("b") == zones.wire("c") == b""
    assert cache.stats().hedges == 0


@on_zones()
async def test_without_enough_samples_nothing_is_hedged(zones):
    cache = await zones.ready(hedging=ALL, circuit=PATIENT, hints=None, read_timeout=0.9)
    await cache.set("k", "value", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k") == "value"
    assert watch.seconds == pytest.approx(0.3)
    assert cache.stats().hedges == 0
    zones.resume("a")


@on_zones()
async def test_the_first_zone_wins_if_its_hit_comes_first(zones):
    """The second zone was asked."""
    listener = Listener()
    cache = await measured(zones, hooks=listener)
    zones.pause("a", second_of(cache))
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    zones.resume("a")
    item = await reading
    assert (item.value, item.zone) == ("value", "a")
    assert listener.hedges == [(second_of(cache), False)]
    zones.resume(second_of(cache))


@on_zones()
async def test_a_miss_of_one_zone_waits_for_the_other_zone(zones):
    """A zone without the key does not win by its speed, neither the second nor the first."""
    cache = await measured(zones)
    second = second_of(cache)
    zones.evict("k", second)
    zones.pause("a")
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    assert not reading.done()
    zones.resume("a")
    assert (await reading).zone == "a"

    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    zones.pause("a", second)
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    zones.resume("a")
    await pass_time(DELAY)
    assert not reading.done()
    zones.resume(second)
    assert (await reading).zone == second


@on_zones()
async def test_if_both_zones_miss_the_third_is_asked(zones):
    """This is the failover of a read without hedging."""
    cache = await measured(zones)
    second = second_of(cache)
    zones.evict("k", "a", second)
    zones.pause("a")
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    zones.resume("a")
    (third,) = set("bc") - {second}
    assert (await reading).zone == third


@pytest.mark.parametrize("how", ["dies", "is down"])
@on_zones()
async def test_if_the_second_zone_fails_the_first_one_answers(zones, how):
    """The client waits for the first zone as if it had not asked the second."""
    cache = await measured(zones)
    second = second_of(cache)
    if how == "is down":
        await zones.kill(second)
        await pass_time(0.1)
    else:
        zones.pause(second)
    zones.pause("a")
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    if how == "dies":
        await zones.kill(second)
        await pass_time(DELAY)
    zones.resume("a")
    assert (await reading).value == "value"


@on_zones()
async def test_if_the_first_zone_fails_the_second_one_answers(zones):
    """The second request is in flight already."""
    cache = await measured(zones)
    second = second_of(cache)
    zones.pause("a", second)
    reading = asyncio.create_task(cache.get_item("k"))
    await pass_time(10 * DELAY)
    await zones.kill("a")
    zones.resume(second)
    assert (await reading).zone == second


@on_zones()
async def test_if_all_zones_hang_the_call_ends_at_its_deadline(zones):
    cache = await measured(zones)
    zones.pause(*"abc")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    assert watch.seconds <= 0.9 + 0.001
    zones.resume(*"abc")


@on_zones()
async def test_a_stale_second_zone_does_not_win(zones):
    """An older version than the one known counts as a failure, and the zone is repaired."""
    listener = Listener()
    cache = await measured(zones, hooks=listener)
    second = second_of(cache)
    old = zones.held("k", second)
    newest = await cache.set("k", "new", consistency="all")
    zones.put_back("k", old, second)
    zones.pause("a")
    item = await cache.get_item("k")
    assert (item.value, item.version) == ("new", newest.version)
    assert listener.behind == [second]
    assert listener.hedges == [(second, True)]
    await pass_time()
    assert zones.held("k", second).version == newest.version
    zones.resume("a")


@on_zones()
async def test_no_more_than_the_share_of_reads_is_hedged(zones):
    """A zone that is slow for all reads does not double the load of the next one."""
    cache = await measured(zones, hedging=Hedging(share=0.02))
    zones.pause("a")
    for _ in range(300):
        assert await cache.get("k") == "value"
    assert cache.stats().hedges <= BURST + 0.02 * (SAMPLES + 300) + 1
    assert cache.stats().hedges >= BURST
    zones.resume("a")


@pytest.mark.parametrize("when", [0.0, DELAY / 2, 5 * DELAY, 0.2])
@on_zones()
async def test_a_cancelled_read_leaves_nothing(zones, when):
    """Before the hedge and during it. The late replies are dropped, and the next call gets its own."""
    cache = await measured(zones)
    await cache.set("other", "other value", consistency="all")
    zones.pause(*"abc")
    reading = asyncio.create_task(cache.get("k"))
    await pass_time(when)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    zones.resume(*"abc")
    assert await cache.get("other") == "other value"
    assert await cache.get("k") == "value"


@on_zones()
async def test_nothing_is_hedged_while_the_event_loop_is_late(zones):
    """Every zone looks slow then."""
    cache = await measured(zones)
    zones.pause("a")
    reading = asyncio.create_task(cache.get("k"))
    await asyncio.sleep(0)
    zones._loop.advance(0.1)  # it computes
    await pass_time(0.05)
    assert cache.stats().hedges == 0
    zones.resume("a")
    assert await reading == "value"


@on_zones(zones=1)
async def test_a_single_zone_is_not_hedged(zones):
    """The client waits for it."""
    cache = await measured(zones)
    zones.pause("a")
    reading = asyncio.create_task(cache.get("k"))
    await pass_time(0.5)
    zones.resume("a")
    assert await reading == "value"
    assert cache.stats().hedges == 0


@on_zones()
async def test_a_tombstone_of_the_second_zone_wins(zones):
    """A tombstone is a hit, like a value."""
    cache = await measured(zones)
    await cache.delete("k", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k") is None
    assert watch.seconds == pytest.approx(DELAY)
    zones.resume("a")
