"""`EVCache.check` on zones in memory: the state of each zone, and no effect on the health of nodes."""

import asyncio
import math

import pytest

from evcache import CircuitLimits, EVCache, Gutter, InvalidArgument, InvalidTopology, LocalZone, Mode, NodeCheck, UsageError
from evcache.zones import Topology
from evcache.zones.discovery.base import SourceStatus
from tests.support.gutter import add_gutter
from tests.support.memory_zones import ChangingTopology, Stopwatch, cut_off, on_zones, pass_time
from tests.support.readiness import errors, questions_under_way, usable

CONNECT_SECONDS = 0.5
CHECK_SECONDS = CONNECT_SECONDS + 0.1  # with the read timeout
NEWEST = {"versions": "1.6.40"}
OLDER = dict.fromkeys(("versions", "tombstones", "latest version wins at QUORUM and ALL", "read repair, hints, session guarantees", "cas with a version"), "memcached 1.6.18 is older than 1.6.27") | {"conditional reads": "memcached 1.6.18 is older than 1.6.40"}  # fmt: skip


# The result.


@on_zones(nodes=2, write_only="c", **NEWEST)
async def test_check_of_a_new_client_connects_to_every_node_and_is_ready(zones):
    cache = zones.client()
    result = await cache.check()
    assert result.ready
    assert result
    assert (result.local_zone, result.missing_zones, result.gutter, result.problems) == ("a", (), (), ())
    assert [(zone.name, zone.mode, zone.is_local) for zone in result.zones] == [
        ("a", Mode.READ_WRITE, True),
        ("b", Mode.READ_WRITE, False),
        ("c", Mode.WRITE_ONLY, False),
    ]
    for zone in result.zones:
        assert (zone.is_usable, zone.is_ejected, zone.missing) == (True, False, {})
        assert zone.nodes == tuple(
            NodeCheck(f"{zone.name}{number}:11211", f"{zone.name}{number}:11211", True, None, 0.0, "1.6.40", "meta")
            for number in range(2)
        )
    assert zones.connections_made() == 6


@on_zones(**NEWEST)
async def test_check_of_a_connected_client_sends_one_no_op_to_each_node(zones):
    cache = await zones.ready()
    made = zones.connections_made()
    assert await cache.check()
    assert zones.all_commands() == dict.fromkeys("abc", {"mn": 1})
    assert zones.connections_made() == made


@pytest.mark.parametrize(
    ("server", "transport", "missing"),
    [
        ({"versions": "1.6.18"}, "meta", OLDER),
        ({"versions": "1.6.27"}, "meta", {"conditional reads": "memcached 1.6.27 is older than 1.6.40"}),
        ({"versions": "1.6.40"}, "meta", {}),
        (
            {"versions": "1.6.40", "cas_enabled": False},
            "meta",
            dict.fromkeys([*list(OLDER)[:5], "CAS (not run with -C)", "leases"], "memcached 1.6.40 runs without CAS (-C)"),
        ),
        (
            {"versions": "1.4.39", "classic_only": True},
            "classic",
            dict.fromkeys(
                [
                    *OLDER,
                    *("meta protocol", "remaining TTL", "append to compressed values", "numbered replies"),
                    *("text login (-Y)", "leases", "stale marks, invalidate"),
                ],
                "memcached 1.4.39 is used over the classic protocol",
            ),
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_missing_features_have_the_reason_that_the_handshake_showed(server, transport, missing):
    @on_zones(zones=1, **server)
    async def main(zones):
        result = await zones.client().check()
        assert result.ready
        (zone,) = result.zones
        (node,) = zone.nodes
        assert (node.ok, node.server, node.transport) == (True, server["versions"], transport)
        assert zone.missing == missing
        problem = [] if "versions" not in missing else [f"zone a keeps no versions: {missing['versions']}"]
        assert list(result.problems) == problem

    main()


@pytest.mark.parametrize("options", [{"ordering": "arrival"}, {"interop": True}])
@on_zones(zones=2, versions="1.6.18")
async def test_zone_without_versions_is_no_problem_for_a_client_without_need_of_them(zones, options):
    result = await zones.client(**options).check()
    assert result.problems == ()
    assert [zone.missing for zone in result.zones] == [OLDER, OLDER]


@on_zones(zones=1, nodes=3, versions="1.6.40")
async def test_zone_of_mixed_servers_lacks_the_features_that_one_of_them_lacks(zones):
    await zones.replace("a", 1, version="1.6.18")
    await zones.replace("a", 2, version="1.6.26")
    (zone,) = (await zones.client().check()).zones
    assert zone.missing["versions"] == "memcached 1.6.18 is older than 1.6.27; memcached 1.6.26 is older than 1.6.27"


# Failures of nodes and zones.


@on_zones(nodes=3, **NEWEST)
async def test_one_dead_node_leaves_its_zone_usable(zones):
    await zones.servers["a"][1].kill()
    cache = zones.client()
    result = await cache.check()
    assert result.ready
    assert usable(result) == {"a": True, "b": True, "c": True}
    assert errors(result) == {"a1:11211": "[Errno 111] the server is not running"}
    assert result.problems == (
        "zone a degraded: 1 of 3 nodes failed, the first is a1:11211: [Errno 111] the server is not running",
    )
    (node,) = (node for zone in result.zones for node in zone.nodes if not node.ok)
    assert (node.server, node.transport) == (None, None)


@pytest.mark.parametrize(
    ("dead", "write_only", "ready"),
    [("a", "", True), ("ab", "", True), ("abc", "", False), ("ab", "c", False), ("c", "c", True)],
)
def test_client_is_ready_while_one_readable_zone_is_usable(dead, write_only, ready):
    @on_zones(nodes=2, write_only=write_only, **NEWEST)
    async def main(zones):
        await zones.kill(*dead)
        result = await zones.client().check()
        assert (result.ready, bool(result)) == (ready, ready)
        assert usable(result) == {name: name not in dead for name in "abc"}
        assert {zone.name for zone in result.zones if zone.is_ejected} == set(dead) - set(write_only)
        assert [problem.partition(":")[0] for problem in result.problems] == [
            f"zone {name} unusable" for name in sorted(dead)
        ]

    main()


@on_zones(**NEWEST)
async def test_dead_zone_that_returns_is_usable_again(zones):
    cache = await zones.ready()
    await zones.kill("a")
    assert not usable(await cache.check())["a"]
    zones.restart("a")
    await pass_time(5)
    result = await cache.check()
    assert (usable(result)["a"], result.problems) == (True, ())


@on_zones(**NEWEST)
async def test_hanging_zones_cost_one_deadline(zones):
    cache = await zones.ready()
    zones.pause("a", "b")
    watch = Stopwatch()
    result = await cache.check(timeout=0.3)
    assert watch.seconds == 0.3
    assert result.ready
    assert errors(result) == {"a0:11211": "no answer in 0.3 s", "b0:11211": "no answer in 0.3 s"}
    assert [round(zone.nodes[0].seconds, 6) for zone in result.zones] == [0.3, 0.3, 0.0]


@on_zones(**NEWEST)
async def test_node_that_hangs_in_the_handshake_fails_with_the_connect(zones):
    """The next check reports it at once, because the node is down."""
    zones.pause("a")
    cache = zones.client(circuit=CircuitLimits(jitter=0))
    for seconds in (CONNECT_SECONDS, 0.0):
        watch = Stopwatch()
        result = await cache.check()
        assert watch.seconds == seconds
        assert errors(result) == {"a0:11211": "no connection in 0.5 s"}


@pytest.mark.parametrize("out", ["a", "abc"])
@on_zones(**NEWEST)
async def test_open_circuit_is_reported_with_its_reason_at_once(zones, out):
    """Also if all zones are ejected, while reads wait for a stalled node."""
    cache = await zones.ready()
    await cut_off(zones, cache, *out)
    zones.forget()
    watch = Stopwatch()
    result = await cache.check()
    assert watch.seconds == 0.0
    assert errors(result) == {f"{zone}0:11211": "3 requests in a row had no reply in time" for zone in out}
    assert {zone.name for zone in result.zones if zone.is_ejected} == set(out)
    assert zones.commands("a") == {}


@on_zones(**NEWEST)
async def test_node_that_goes_down_during_a_check_is_reported_with_its_reason(zones):
    cache = await zones.ready()
    checking = asyncio.create_task(cache.check(timeout=2))
    await cut_off(zones, cache, "a")
    assert errors(await checking) == {"a0:11211": "3 requests in a row had no reply in time"}


@on_zones(**NEWEST)
async def test_default_timeout_is_that_of_a_connect_and_a_read(zones):
    cache = await zones.ready()
    zones.pause("a")
    watch = Stopwatch()
    await cache.check()
    assert watch.seconds == CHECK_SECONDS


# No effect on the health of nodes.


@on_zones(**NEWEST)
async def test_checks_that_time_out_open_no_circuit(zones):
    cache = await zones.ready()
    zones.pause("a")
    for _ in range(10):
        assert not usable(await cache.check(timeout=0.1))["a"]
    assert cache.stats().nodes_down == 0
    zones.resume("a")
    assert usable(await cache.check())["a"]


@on_zones(**NEWEST)
async def test_checks_that_wait_for_a_connection_open_no_circuit(zones):
    cache = await zones.ready()
    await zones.kill("a")
    zones.restart("a")
    zones.pause("a")
    for _ in range(4):  # three calls without a connection would take the node down
        assert errors(await cache.check(timeout=0.1)) == {"a0:11211": "no answer in 0.1 s"}
    assert cache.stats().nodes_down == 0


@on_zones(**NEWEST)
async def test_cancelled_check_leaves_no_question_and_the_next_one_works(zones):
    cache = await zones.ready()
    zones.pause("a", "b", "c")
    checking = asyncio.create_task(cache.check(timeout=5))
    await pass_time(0.2)
    assert questions_under_way() == 3
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert questions_under_way() == 0
    zones.resume("a", "b", "c")
    assert await cache.check()


@on_zones(**NEWEST)
async def test_client_closed_during_a_check_fails_its_nodes(zones):
    cache = await zones.ready()
    zones.pause("a", "b", "c")
    checking = asyncio.create_task(cache.check(timeout=5))
    await pass_time(0.1)
    watch = Stopwatch()
    await cache.close(0)
    result = await checking
    assert (watch.seconds, result.ready, len(errors(result))) == (0.0, False, 3)


# The topology.


@on_zones(**NEWEST)
async def test_client_without_a_local_zone_has_no_local_zone_in_its_check(zones, monkeypatch):
    monkeypatch.delenv("EVCACHE_ZONE", raising=False)
    result = await zones.client(local_zone=None).check()
    assert (result.ready, result.local_zone, result.missing_zones, result.problems) == (True, None, (), ())
    assert not any(zone.is_local for zone in result.zones)


@on_zones(**NEWEST)
async def test_local_zone_that_left_the_topology_is_a_problem(zones):
    discovery = ChangingTopology(zones.topology)
    cache = await zones.ready(zones=discovery, topology_guard=None)
    discovery.change(Topology(zones.topology.zones[1:]))
    await pass_time()
    result = await cache.check()
    assert (result.ready, result.local_zone, result.missing_zones) == (True, "a", ("a",))
    assert result.problems == ("zone a missing: the topology has b, c",)


class FailingDiscovery:
    """A source that raises an error, or hangs, until a topology is set."""

    def __init__(self, error):
        self.error = error
        self.topology = None

    async def load(self):
        if self.topology is not None:
            return self.topology
        if self.error is not None:
            raise self.error
        return await asyncio.Event().wait()

    async def watch(self):
        for topology in ():
            yield topology


class SlowDiscovery(FailingDiscovery):
    """A source that takes a part of the time of a check."""

    async def load(self):
        await asyncio.sleep(0.1)
        return await super().load()


@on_zones(**NEWEST)
async def test_node_error_after_a_slow_source_names_the_limit_of_the_check(zones):
    """The time that was left for the node differs from check to check, so operators could not search for it."""
    discovery = SlowDiscovery(None)
    discovery.topology = zones.topology
    cache = zones.client(zones=discovery)
    zones.pause("a")
    assert errors(await cache.check(timeout=0.3)) == {"a0:11211": "no answer in 0.3 s"}
    zones.resume("a")


@pytest.mark.parametrize(
    ("error", "seconds", "cause"),
    [
        (ConnectionRefusedError("no API server"), 0.0, "no API server"),
        (InvalidTopology("zones", "there are none"), 0.0, "zones: there are none"),
        (RuntimeError(), 0.0, "RuntimeError"),
        (None, 0.3, "FailingDiscovery: no answer in 0.3 s"),
    ],
)
@on_zones(**NEWEST)
async def test_unknown_topology_is_a_result(zones, error, seconds, cause):
    discovery = FailingDiscovery(error)
    cache = zones.client(zones=discovery)
    watch = Stopwatch()
    result = await cache.check(timeout=0.3)
    assert watch.seconds == seconds
    assert (result.ready, result.zones, result.local_zone, result.missing_zones) == (False, (), "a", ())
    assert result.problems == (f"topology unknown: {cause}",)
    if error is not None:
        discovery.topology = zones.topology
        assert await cache.check()


@on_zones(**NEWEST)
async def test_local_zone_that_the_first_topology_lacks_is_a_problem(zones):
    discovery = ChangingTopology(Topology(zones.topology.zones[1:]))
    result = await zones.client(zones=discovery).check()
    assert (result.ready, result.missing_zones) == (True, ("a",))
    assert result.problems == ("zone a missing: the topology has b, c",)
    result = await zones.client(zones=discovery, local_zone=LocalZone("a", strict=True)).check()
    assert not result.ready
    assert result.problems == ("topology unknown: local_zone: 'a' is not one of the zones: b, c",)


@on_zones(**NEWEST)
async def test_failing_source_and_held_topology_are_problems(zones):
    discovery = ChangingTopology(zones.topology)
    discovery.status = SourceStatus("a source")
    cache = zones.client(zones=discovery)
    assert (await cache.check()).problems == ()
    discovery.status.fail(ConnectionRefusedError("no name server"))
    discovery.change(Topology(zones.topology.zones[:1]))
    await pass_time()
    result = await cache.check()
    assert result.ready
    assert result.problems == (
        "topology update failed: no name server",
        "topology held back: zone b is missing; zone c is missing",
    )


@on_zones(**NEWEST)
async def test_status_of_another_kind_is_ignored(zones):
    discovery = ChangingTopology(zones.topology)
    discovery.status = "fine"
    assert (await zones.client(zones=discovery).check()).problems == ()


@on_zones(**NEWEST)
async def test_nodes_of_the_gutter_are_checked_and_do_not_make_a_client_ready(zones):
    endpoints = add_gutter(zones, 2)
    cache = zones.client(gutter=Gutter(endpoints))
    result = await cache.check()
    assert [(node.node, node.ok) for node in result.gutter] == [("gutter0:11211", True), ("gutter1:11211", True)]
    assert result.problems == ()
    await zones.servers["gutter"][0].kill()
    await zones.kill("a", "b", "c")
    result = await cache.check()
    assert not result.ready
    assert [node.ok for node in result.gutter] == [False, True]
    assert result.problems[-1].startswith("gutter degraded: 1 of 2 nodes failed, the first is gutter0:11211: ")


# Misuse.


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "1", True])
@on_zones(zones=1)
async def test_unusable_timeout_is_refused_before_anything_is_sent(zones, timeout):
    cache = zones.client()
    with pytest.raises(InvalidArgument, match="timeout"):
        await cache.check(timeout=timeout)
    assert zones.connections_made() == 0
    assert cache.topology is None


@on_zones(zones=1)
async def test_check_of_a_closed_client_is_refused(zones):
    cache = await zones.ready()
    await cache.close()
    with pytest.raises(UsageError, match="closed"):
        await cache.check()


def test_check_on_a_second_loop_is_refused():
    cache = EVCache("t", {"a": ["127.0.0.1:1"]}, local_zone="a")
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert not first.run_until_complete(cache.check())
        with pytest.raises(UsageError, match="another event loop"):
            second.run_until_complete(cache.check())
        first.run_until_complete(cache.close(0))
    finally:
        first.close()
        second.close()
