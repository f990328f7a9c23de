"""Reads, on three zones in memory: which zones are asked, the items returned, and the reports to hooks."""

import pytest

from evcache import Item
from evcache.zones.errors import NodeUnavailable
from tests.support.memory_zones import TOMBSTONE, Listener, Stopwatch, full, on_zones, pass_time

NOBODY = {"a": {}, "b": {}, "c": {}}


def asked(zones):
    """Return the zones that received a command."""
    return {zone for zone, commands in zones.all_commands().items() if commands}


# One zone.


@on_zones()
async def test_a_local_hit_asks_no_other_zone(zones):
    """A hit in the local zone is one command."""
    cache = await zones.ready()
    await cache.set("k", "value")
    zones.forget()
    assert await cache.get("k") == "value"
    await pass_time()
    assert zones.all_commands() == NOBODY | {"a": {"mg": 1}}


@on_zones()
async def test_a_miss_asks_the_next_zones_in_turn(zones):
    cache = await zones.ready()
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    assert zones.all_commands() == dict.fromkeys("abc", {"mg": 2})
    await cache.set("k", "value")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k") == "value"
    commands = zones.all_commands()
    assert commands["a"]["mg"] == 1
    assert sum("mg" in commands[zone] for zone in "bc") == 1


@pytest.mark.parametrize("per_call", [True, False])
@on_zones()
async def test_without_fallback_on_miss_a_local_miss_is_final(zones, per_call):
    """For caches with many misses and zones far apart."""
    cache = await (zones.ready() if per_call else zones.ready(fallback_on_miss=False))
    call = {"fallback_on_miss": False} if per_call else {}
    await cache.set("k", "value")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k", **call) is None
    assert await cache.get_item("k", **call) is None
    assert await cache.get_many(["k"], **call) == {}
    assert asked(zones) == {"a"}
    assert await cache.get("k", fallback_on_miss=True) == "value"


@on_zones()
async def test_without_fallback_on_miss_a_failure_asks_the_next_zone(zones):
    cache = await zones.ready(fallback_on_miss=False)
    await cache.set("k", "value")
    await zones.kill("a")
    assert await cache.get("k") == "value"
    assert await cache.get_many(["k"]) == {"k": "value"}


@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_the_next_zone_serves_a_read_within_its_deadline(zones, how):
    """A dead zone costs no time, and a zone that hangs its share."""
    cache = await zones.ready(read_timeout=0.3)
    await cache.set("k", "value", consistency="all")
    if how == "kill":
        await zones.kill("a")
    else:
        zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k") == "value"
    assert watch.seconds == (0 if how == "kill" else pytest.approx(0.1))


@on_zones()
async def test_the_order_of_zones_differs_between_clients(zones):
    """The load of a dead zone is spread over the others. One client keeps its order."""
    seconds = set()
    writer = await zones.ready()
    await writer.set("k", "value", consistency="all")
    zones.pause("a")
    for _ in range(20):
        cache = zones.client(read_timeout=0.3)
        zones_of_client = {(await cache.get_item("k")).zone for _ in range(3)}
        assert len(zones_of_client) == 1
        seconds |= zones_of_client
    assert seconds == {"b", "c"}


@on_zones()
async def test_without_a_local_zone_reads_are_spread(zones):
    """Clients without a local zone prefer different zones."""
    firsts = set()
    for _ in range(30):
        cache = await zones.ready(local_zone=None)
        await cache.get("k", fallback_on_miss=False)
        firsts |= asked(zones)
    assert firsts == {"a", "b", "c"}


@on_zones()
async def test_a_tombstone_is_a_miss_that_asks_no_other_zone(zones):
    """Other zones may still hold the deleted value."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause("b", "c")
    await cache.delete("k", consistency="one", timeout=0.01)
    await pass_time(0.1)
    zones.forget()
    assert zones.values("k") == {"a": TOMBSTONE, "b": "value", "c": "value"}
    assert await cache.get("k") is None
    assert await cache.get_item("k") is None
    assert await cache.get_many(["k"]) == {}
    assert all(not packets for zone, packets in zones.sent.items() if zone != "a")


@pytest.mark.parametrize("stub", [b"", None])
@on_zones()
async def test_a_stub_of_a_lease_is_a_miss(zones, stub):
    """The client asks the other zones."""
    cache = await zones.ready()
    if stub is None:  # another client has won the lease
        zones.one("a").session().receive(b"mg %b N30 v\r\n" % full("k"))
    line = b"mg %b v N30\r\n" % full("k")
    assert zones.one("a").session().receive(line).startswith(b"VA 0")
    assert await cache.get("k") is None
    assert await cache.get_many(["k"]) == {}
    assert await cache.get("k", consistency="all") is None
    assert await cache.get_item("k") is None
    await cache.set("k", "elsewhere", consistency="all")
    zones.evict("k", "a")
    zones.one("a").session().receive(line)
    assert await cache.get("k") == "elsewhere"


@on_zones()
async def test_an_empty_value_is_a_value(zones):
    """Neither an empty str nor None is a miss."""
    cache = await zones.ready()
    for value in ("", b"", None, 0, False, []):
        await cache.set("k", value)
        assert await cache.get("k", "default") == value
        assert await cache.get_many(["k"]) == {"k": value}
        assert (await cache.get_item("k")).value == value


# Items.


@on_zones()
async def test_an_item_has_version_ttl_zone_and_source(zones):
    cache = await zones.ready()
    result = await cache.set("k", [1], ttl=60, consistency="all")
    await pass_time(10)
    item = await cache.get_item("k")
    assert item == Item(
        value=[1],
        version=result.version,
        ttl=50,
        zone="a",
        source="local",
        stale=False,
        cas_token=2**64 - 1 - result.version,
    )
    zones.evict("k", "a")
    await zones.kill("b")
    item = await cache.get_item("k")
    assert (item.zone, item.source, item.version) == ("c", "fallback", result.version)
    await cache.set("k", 1, ttl=float("inf"))
    assert (await cache.get_item("k")).ttl is None
    assert await cache.get_item("absent") is None


@on_zones()
async def test_an_item_that_another_client_invalidated_is_marked_stale(zones):
    """`get` returns its value."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.one("a").session().receive(b"md %b I T30\r\n" % full("k"))
    assert (await cache.get_item("k")).stale is True
    assert await cache.get("k") == "value"


@on_zones()
async def test_an_item_for_update_comes_from_the_coordinator(zones):
    """The coordinator of a key is one zone for all clients."""
    first, second = await zones.ready(local_zone="a"), await zones.ready(local_zone="b")
    used = set()
    for number in range(20):
        key = f"k{number}"
        await first.set(key, number, consistency="all")
        one, other = await first.get_item(key, for_update=True), await second.get_item(key, for_update=True)
        assert one.zone == other.zone
        assert one.value == number
        used.add(one.zone)
    assert used == {"a", "b", "c"}
    assert await first.get_item("absent", for_update=True) is None
    await first.delete("k0", consistency="all")
    assert await first.get_item("k0", for_update=True) is None


# Write-only zones, hooks, and get_and_touch.


@on_zones(write_only="c")
async def test_write_only_zones_are_never_read_and_never_count(zones):
    """A zone that is being filled gets no reads. Levels count the readable zones."""
    cache = await zones.ready()
    assert await cache.set("k", "value", consistency="all")
    zones.forget()
    for consistency in ("one", "quorum", "all"):
        assert await cache.get("k", consistency=consistency) == "value"
        assert await cache.get("absent", consistency=consistency) is None
        assert await cache.get_many(["k", "absent"], consistency=consistency) == {"k": "value"}
        assert (await cache.get_item("k", for_update=True)).zone in {"a", "b"}
    assert "mg" not in zones.commands("c")
    zones.evict("k", "a", "b")
    assert await cache.get("k") is None
    await zones.kill("c")
    assert await cache.get("k", consistency="all") is None


@on_zones(write_only="a")
async def test_a_local_zone_that_is_write_only_is_not_read(zones):
    """Reads go to the other zones, as without a local zone."""
    cache = await zones.ready(local_zone="a")
    await cache.set("k", "value", consistency="all")
    zones.forget()
    assert (await cache.get_item("k")).source == "preferred"
    assert "mg" not in zones.commands("a")


@on_zones()
async def test_the_hook_reports_each_zone_that_was_left_for_another(zones):
    """With the error of a failure, or None for a miss. The last zone is not reported."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.get("k")
    assert [error for _, error in listener.left] == [None, None]
    assert listener.left[0][0] == "a"
    listener.left.clear()
    await cache.get_many(["k", "j"])
    assert [error for _, error in listener.left] == [None, None]
    listener.left.clear()
    await cache.set("k", 1, consistency="all")
    await zones.kill("a")
    await cache.get("k")
    ((zone, error),) = listener.left
    assert zone == "a"
    assert isinstance(error, NodeUnavailable)


@on_zones()
async def test_get_and_touch_returns_the_value_and_sets_the_ttl_in_every_zone(zones):
    """The caller does not wait for the touch."""
    cache = await zones.ready()
    await cache.set("k", "value", ttl=50, consistency="all")
    zones.pause("b", "c")
    watch = Stopwatch()
    assert await cache.get_and_touch("k", 500) == "value"
    assert watch.seconds == 0
    await pass_time(0.05)
    assert zones.held("k", "a").ttl == 500
    zones.resume("b", "c")
    await pass_time()
    assert zones.held("k", "a").ttl == 499
    assert {zones.held("k", zone).ttl for zone in "bc"} == {499}
    assert await cache.get_and_touch("absent", default="default") == "default"
    assert zones.values("absent") == dict.fromkeys("abc")


@on_zones()
async def test_get_and_touch_uses_the_clients_ttl(zones):
    """It applies if the call gives no `ttl`."""
    cache = await zones.ready(ttl=77)
    await cache.set("k", "value", ttl=5, consistency="all")
    assert await cache.get_and_touch("k") == "value"
    await pass_time(0.1)
    assert zones.held("k", "a").ttl == 77


@on_zones()
async def test_get_and_touch_does_not_touch_a_tombstone(zones):
    """A short TTL would let the zones forget the delete."""
    cache = await zones.ready()
    await cache.delete("k", consistency="all")
    assert await cache.get_and_touch("k", 1, "default") == "default"
    await pass_time(2)
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
