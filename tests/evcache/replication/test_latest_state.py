"""Conditional writes decide on the latest version that a zone within reach holds."""

import asyncio

import pytest

from evcache import CacheUnavailable, NearCache, Outcome
from evcache.zones.errors import ServerError
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import PATIENT, QUICK, TOMBSTONE, cut_off, full, on_zones, pass_time, pause_before_decisions

DECIDES = coordinator_order(full("k"), "abc")[0]
OTHERS = [zone for zone in "abc" if zone != DECIDES]


async def restarted_empty(zones, writer, old, new):
    """The deciding zone has lost what it held."""
    await writer.set("k", old, consistency="all")
    written = await writer.set("k", new, consistency="all")
    zones.evict("k", DECIDES)
    return written


async def missed_the_last_write(zones, writer, old, new):
    """The last write of another client did not reach the deciding zone, which no outage shows."""
    await writer.set("k", old, consistency="all")
    held = zones.held("k", DECIDES)
    written = await writer.set("k", new, consistency="all")
    zones.put_back("k", held, DECIDES)
    return written


async def missed_it_and_one_zone_hangs(zones, writer, old, new):
    """The third zone does not answer: of those within reach, one has the latest version."""
    written = await missed_the_last_write(zones, writer, old, new)
    zones.pause(OTHERS[1])
    return written


STATES = [restarted_empty, missed_the_last_write, missed_it_and_one_zone_hangs]
each_state = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
each_repair = pytest.mark.parametrize("repair", [True, False], ids=["repair", "no repair"])


async def prepared(zones, state, old, new, **options):
    """Make a client that has seen none of this, and return it with the value that was written last."""
    writer = await zones.ready(hints=None, local_zone=OTHERS[0])
    written = await state(zones, writer, old, new)
    cache = zones.client(hints=None, local_zone=OTHERS[0], write_timeout=3, write_consistency="quorum", **options)
    return cache, written


@each_repair
@each_state
@on_zones()
async def test_add(zones, state, repair):
    """The key is there."""
    cache, _ = await prepared(zones, state, "old", "new", repair=repair)
    result = await cache.add("k", "added")
    assert not result
    assert result.zones == {DECIDES: Outcome.NOT_STORED}
    assert zones.values("k")[DECIDES] == "new"


@each_repair
@each_state
@on_zones()
async def test_replace(zones, state, repair):
    cache, written = await prepared(zones, state, "old", "new", repair=repair)
    result = await cache.replace("k", "replaced")
    assert result
    assert result.version > written.version
    assert zones.values("k")[DECIDES] == zones.values("k")[OTHERS[0]] == "replaced"


@each_repair
@each_state
@on_zones()
async def test_cas_over_the_newest(zones, state, repair):
    """Which the deciding zone did not hold."""
    cache, written = await prepared(zones, state, "old", "new", repair=repair)
    assert await cache.cas("k", "ours", written.version)
    assert zones.values("k")[DECIDES] == zones.values("k")[OTHERS[0]] == "ours"


@each_state
@on_zones()
async def test_cas_over_what_was_replaced(zones, state):
    """Another client's write has come in between, though the deciding zone knows nothing of it."""
    writer = await zones.ready(hints=None, local_zone=OTHERS[0])
    before = await writer.set("k", "seen", consistency="all")
    cache, _ = await prepared(zones, state, "seen again", "new")
    result = await cache.cas("k", "ours", before.version)
    assert not result
    assert result.zones == {DECIDES: Outcome.EXISTS}
    assert zones.values("k")[DECIDES] == "new"


@each_state
@on_zones()
async def test_append_loses_no_acknowledged_write(zones, state):
    cache, _ = await prepared(zones, state, "old", "new")
    assert await cache.append("k", "+more")
    assert zones.values("k")[DECIDES] == zones.values("k")[OTHERS[0]] == "new+more"
    assert await cache.prepend("k", "more+")
    assert zones.values("k")[DECIDES] == "more+new+more"


@each_state
@on_zones()
async def test_counting_goes_on_where_it_was(zones, state):
    """Neither from an older number, nor from the start."""
    cache, _ = await prepared(zones, state, 5, 100)
    assert await cache.incr("k", initial=1) == 101
    assert await cache.decr("k", 2) == 99
    assert zones.values("k")[DECIDES] == zones.values("k")[OTHERS[0]] == 99


@each_state
@on_zones()
async def test_an_item_for_update_is_the_newest(zones, state):
    cache, written = await prepared(zones, state, "old", "new")
    item = await cache.get_item("k", for_update=True, timeout=3)
    assert (item.value, item.version, item.zone) == ("new", written.version, DECIDES)
    assert await cache.cas("k", "ours", item)


@pytest.mark.parametrize("operation", ["replace", "cas", "append", "incr", "add", "get_item"])
@on_zones()
async def test_a_delete_that_the_deciding_zone_missed_counts(zones, operation):
    """To every operation the key is absent."""
    writer = await zones.ready(hints=None, local_zone=OTHERS[0])
    before = await writer.set("k", 1 if operation == "incr" else "value", consistency="all")
    held = zones.held("k", DECIDES)
    await writer.delete("k", consistency="all")
    zones.put_back("k", held, DECIDES)
    cache = await zones.ready(hints=None, local_zone=DECIDES)
    match operation:
        case "replace":
            assert (await cache.replace("k", "x")).zones == {DECIDES: Outcome.NOT_STORED}
        case "cas":
            assert (await cache.cas("k", "x", before.version)).zones == {DECIDES: Outcome.NOT_FOUND}
        case "append":
            assert (await cache.append("k", "x")).zones == {DECIDES: Outcome.NOT_STORED}
        case "incr":
            assert await cache.incr("k") is None
        case "get_item":
            assert await cache.get_item("k", for_update=True) is None
        case "add":
            assert await cache.add("k", "x", consistency="all")
    expected = "x" if operation == "add" else TOMBSTONE
    assert zones.values("k") == dict.fromkeys("abc", expected)


@pytest.mark.parametrize("near", [None, NearCache()], ids=["", "near"])
@pytest.mark.parametrize("update", [False, True], ids=["", "for update"])
@on_zones()
async def test_a_cas_loop_makes_progress(zones, near, update):
    """However far behind the zones are that are read and that decide: each try knows more than the one before."""
    writer = await zones.ready(hints=None)
    await writer.set("k", 0, consistency="all")
    old = zones.held("k", "a")
    await writer.set("k", 10, consistency="all")
    last = OTHERS[1]
    for zone in "abc":
        if zone != last:
            zones.put_back("k", old, zone)
    cache = await zones.ready(hints=None, local_zone=OTHERS[0], near_cache=near, repair=False, read_timeout=1)
    for _ in range(3):
        item = await cache.get_item("k", for_update=update)
        if await cache.cas("k", item.value + 1, item, consistency="all"):
            break
    assert zones.values("k") == dict.fromkeys("abc", 11)


@on_zones()
async def test_what_this_client_knows_of_and_no_zone_has_is_not_decided_on(zones):
    """Every zone evicted the latest version, and one zone has an older one. To this client the key is a miss."""
    cache = await zones.ready(repair=False, hints=None)
    await cache.set("k", "older", consistency="all")
    held = zones.held("k", DECIDES)
    known = await cache.set("k", "known", consistency="all")
    zones.evict("k", *"abc")
    zones.put_back("k", held, DECIDES)
    assert not await cache.replace("k", "x")
    assert not await cache.append("k", "x")
    assert (await cache.cas("k", "x", known.version)).zones == {DECIDES: Outcome.NOT_FOUND}
    assert await cache.get_item("k", for_update=True) is None
    assert await cache.add("k", "added", consistency="all")
    assert zones.values("k") == dict.fromkeys("abc", "added")


@on_zones()
async def test_a_zone_that_hangs_costs_a_share_of_the_time(zones):
    """The zone may hold the latest version, but does not answer. The other zones decide in time."""
    cache = await zones.ready(write_timeout=0.9)
    await cache.set("k", 1, consistency="all")
    zones.pause(OTHERS[1])
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await cache.incr("k") == 2
    assert loop.time() - began == pytest.approx(0.3)


@on_zones()
async def test_a_deciding_zone_that_refuses_the_newest_version_decides_nothing(zones):
    """With the older one it would undo the newer."""
    writer = await zones.ready(hints=None)
    await missed_the_last_write(zones, writer, "old", "new")
    cache = await zones.ready(hints=None)
    zones.one(DECIDES).store.item_size_max = 10
    with pytest.raises(ServerError, match="latest version"):
        await cache.append("k", "x")
    assert zones.values("k")[DECIDES] is None, "memcached drops what it can't replace"
    assert {zones.values("k")[zone] for zone in OTHERS} == {"new"}


@on_zones()
async def test_of_two_cas_over_one_item_one_succeeds_before_and_after_an_outage(zones):
    """The first was decided while the usual zone was away; when it is back it still holds what both compare with."""
    first = await zones.ready(hints=None, circuit=QUICK, local_zone=OTHERS[0])
    late = await zones.ready(hints=None, circuit=QUICK, local_zone=OTHERS[0])
    await first.set("k", "v1", consistency="all")
    item = await late.get_item("k")
    await cut_off(zones, first, DECIDES)
    assert await first.cas("k", "first's", item)
    await first.close(0)
    zones.resume(DECIDES)
    await pass_time(3)
    assert zones.values("k")[DECIDES] == "v1"
    starts_after = await zones.ready(local_zone=OTHERS[0])
    for cache in (late, starts_after):
        assert (await cache.cas("k", "second's", item)).zones == {DECIDES: Outcome.EXISTS}
    assert zones.values("k") == dict.fromkeys("abc", "first's")


TWO_AT_ONCE = {
    "incr": (1, lambda cache, timeout: cache.incr("k", timeout=timeout)),
    "append": ("x", lambda cache, timeout: cache.append("k", "y", timeout=timeout)),
    "replace": ("x", lambda cache, timeout: cache.replace("k", "y", timeout=timeout)),
}


@pytest.mark.parametrize("operation", TWO_AT_ONCE)
@on_zones()
async def test_two_calls_of_one_client_at_once(zones, operation):
    """One call waits for a slow zone to compare while another call writes. The first call must not find the key absent."""
    value, call = TWO_AT_ONCE[operation]
    cache = await zones.ready(local_zone=OTHERS[0])
    await cache.set("k", value, consistency="all")
    zones.pause(OTHERS[1])

    async def second():
        await pass_time(0.01)
        return await call(cache, 0.3)

    done = await asyncio.gather(call(cache, 3), second())
    zones.resume(OTHERS[1])
    assert all(done)


@pytest.mark.parametrize("missed", ["set", "touch"])
@on_zones()
async def test_a_decision_with_a_lost_reply_where_the_zone_had_missed_a_write(zones, missed):
    """The zones become equal, though a write is kept for the deciding zone already."""
    cache = await zones.ready(circuit=PATIENT, local_zone=OTHERS[0])
    await cache.set("k", 4, consistency="all")
    zones.pause(DECIDES)
    if missed == "set":
        await cache.set("k", 5, consistency="quorum", timeout=0.2)
    else:
        await cache.touch("k", 600, consistency="quorum", timeout=0.2)
    await pass_time(0.25)
    assert cache.stats().hints == 1
    zones.resume(DECIDES)
    pause_before_decisions(zones, cache, DECIDES)
    with pytest.raises(CacheUnavailable):
        await cache.incr("k", timeout=0.1)
    zones.resume(DECIDES)
    await pass_time(20)
    assert zones.values("k") == dict.fromkeys("abc", 6 if missed == "set" else 5)
