"""A node connects when it is asked, tells callers at once when it is down, comes back by itself, and closes cleanly."""

import asyncio
import logging

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.fields import Fields
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.node_bench import ENDPOINT, FIRST_PAUSE, LIMITS, LONGEST_PAUSE, Bench
from tests.support.scripted import MemoryDialer, outcome
from tests.support.virtual_time import in_virtual_time, now, settle

LIMIT = 20.0  # seconds of real time after which a test on a real socket is ended


@in_virtual_time
async def test_nothing_is_opened_before_it_is_asked_for():
    async with Bench() as bench:
        await asyncio.sleep(60)
        assert bench.attempts == 0
        assert bench.node.state == "idle"
        assert not bench.node.is_down
        assert bench.node.connection() is None
        assert bench.node.capabilities is None
        assert bench.attempts == 0


@in_virtual_time
async def test_the_first_call_connects_and_the_next_finds_it():
    async with Bench() as bench:
        connection = await bench.connected()
        assert connection.is_open
        assert bench.node.state == "ready"
        assert bench.node.capabilities.server == "1.6.38"
        assert bench.node.connection() is connection
        assert await bench.connected() is connection
        assert bench.attempts == 1


@in_virtual_time
async def test_callers_that_come_at_once_share_one_connect():
    async with Bench() as bench:
        connections = await asyncio.gather(*(bench.connected() for _ in range(20)))
        assert len(set(connections)) == 1
        assert bench.attempts == 1


@in_virtual_time
async def test_when_it_is_refused_the_first_caller_is_told_why_and_later_ones_at_once(caplog):
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable, match="host:11211: .*refused"):
            await bench.connected()
        assert bench.node.state == "down"
        assert bench.node.is_down
        assert bench.health.unhealthy == 1
        attempts = bench.attempts
        for _ in range(5):
            with pytest.raises(NodeUnavailable, match="it is down: .*refused"):
                await bench.connected()
        assert bench.attempts == attempts
        assert now() == 0
        assert bench.node.connection() is None


@in_virtual_time
async def test_an_outage_is_logged_once_and_its_end_too(caplog):
    caplog.set_level(logging.INFO, "evcache.zones")
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(600)
        assert 10 < bench.attempts < 30
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE)
        assert [record.levelname for record in caplog.records if record.name == "evcache.zones.nodes"] == ["WARNING", "INFO"]


@in_virtual_time
async def test_reconnecting_starts_soon_and_slows_down_to_its_limit():
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(600)
        times = [time for _, time in bench.dialer.attempts]
        pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
        least = [min(LIMITS.longest_pause, LIMITS.first_pause * 2**number) for number in range(len(pauses))]
        for pause, shortest in zip(pauses, least, strict=True):
            assert shortest - 1e-6 <= pause <= shortest * (1 + LIMITS.jitter) + 1e-6
        assert pauses[-1] >= LIMITS.longest_pause
        assert len(set(pauses)) > len(pauses) / 2  # clients do not all knock in the same moment


@in_virtual_time
async def test_a_node_that_is_back_is_found_without_a_call():
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(100)
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE + 0.001)
        assert bench.node.state == "ready"
        assert (bench.node.is_warming, bench.health.unhealthy) == (True, 1)
        await asyncio.sleep(LIMITS.slow_start)
        assert (bench.node.is_warming, bench.health.unhealthy) == (False, 0)
        assert bench.node.connection().is_open


@in_virtual_time
async def test_a_cancelled_caller_does_not_stop_the_connect_for_the_others():
    async with Bench() as bench:
        bench.dialer.gate = asyncio.Event()
        first = asyncio.create_task(bench.connected())
        second = asyncio.create_task(bench.connected())
        await settle()
        first.cancel()
        await settle()
        bench.dialer.gate.set()
        assert (await second).is_open
        assert first.cancelled()
        assert bench.attempts == 1


@in_virtual_time
async def test_a_connect_goes_on_when_all_callers_are_gone():
    async with Bench() as bench:
        bench.dialer.gate = asyncio.Event()
        caller = asyncio.create_task(bench.connected())
        await settle()
        caller.cancel()
        bench.dialer.gate.set()
        await settle(100)
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_connect_that_takes_too_long_fails_its_callers_and_is_tried_again():
    async with Bench(connect_timeout=0.5) as bench:
        bench.dialer.gate = asyncio.Event()
        with pytest.raises(NodeUnavailable, match=r"no connection in 0\.5 s"):
            await bench.connected()
        assert now() == pytest.approx(0.5)
        assert bench.node.is_down
        bench.dialer.gate.set()
        await asyncio.sleep(FIRST_PAUSE + 0.5)
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_caller_waits_no_longer_than_its_own_deadline():
    async with Bench(connect_timeout=0.5) as bench:
        bench.dialer.gate = asyncio.Event()
        with pytest.raises(NodeTimeout) as caught:
            await bench.connected(within=0.02)
        assert caught.value.node == "host:11211"
        assert now() == pytest.approx(0.02)
        assert bench.node.state == "connecting"
        bench.dialer.gate.set()
        await settle(100)
        assert bench.node.state == "ready"
        assert bench.attempts == 1


@in_virtual_time
async def test_a_server_that_accepts_and_says_nothing_is_down():
    async with Bench(connect_timeout=0.5) as bench:
        bench.server.pause()
        with pytest.raises(NodeUnavailable, match=r"no connection in 0\.5 s"):
            await bench.connected()
        assert now() == pytest.approx(0.5)
        bench.server.resume()
        await asyncio.sleep(FIRST_PAUSE + 0.5)
        assert bench.node.state == "ready"
        assert bench.server.connections == 1


@in_virtual_time
async def test_a_login_that_is_refused_is_a_node_that_is_down():
    async with Bench(FakeMemcached(auth=("alice", "s3cret")), auth=("alice", "wr0ng")) as bench:
        with pytest.raises(NodeUnavailable, match="the login was refused") as caught:
            await bench.connected()
        assert "wr0ng" not in str(caught.value)
        assert bench.server.connections == 0


@in_virtual_time
async def test_a_login_that_is_accepted():
    async with Bench(FakeMemcached(auth=("alice", "s3cret")), auth=("alice", "s3cret")) as bench:
        answer = await bench.ask()
        assert (await answer).status == b"EN"


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(NodeSettings(auth=("alice", "s3cret")))


@in_virtual_time
async def test_whatever_a_dialer_raises_the_node_is_down_and_tried_again():
    async with Bench() as bench:
        broken = [ValueError("a bug"), OSError(113, "no route")]

        async def dial(endpoint, factory):
            if broken:
                raise broken.pop()
            return await bench.dialer(endpoint, factory)

        node = Node(ENDPOINT, NodeSettings(dialer=dial))
        with pytest.raises(NodeUnavailable, match="no route"):
            await node.connected(asyncio.get_running_loop().time() + 10)
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert node.state == "ready"
        await node.close()


@in_virtual_time
async def test_several_connections_are_opened_and_used_in_turn():
    async with Bench(connections=3) as bench:
        await bench.connected()
        await settle(100)
        assert bench.server.connections == 3
        used = [bench.node.connection() for _ in range(9)]
        assert set(used[:3]) == set(bench.dialer.made)
        assert used[:3] == used[3:6] == used[6:]
        await asyncio.sleep(60)
        assert bench.attempts == 3


@in_virtual_time
async def test_one_of_several_that_ends_is_replaced_at_the_next_call():
    async with Bench(connections=3) as bench:
        await bench.connected()
        await settle(100)
        bench.dialer.made[0].abort()
        await settle(100)
        others = {bench.node.connection() for _ in range(10)}
        await settle(100)
        assert bench.dialer.made[0] not in others
        assert len({bench.node.connection() for _ in range(9)}) == 3
        assert bench.attempts == 4


@in_virtual_time
async def test_one_connection_is_enough_to_go_on_while_more_are_refused():
    async with Bench(connections=2) as bench:
        await bench.connected()
        await settle(100)
        assert bench.attempts == 2
        bench.refuse()
        bench.dialer.made[0].abort()
        for _ in range(10):
            assert (await (await bench.ask())).status == b"EN"
            await asyncio.sleep(1)
        assert bench.attempts > 5
        assert not bench.node.is_down
        assert bench.node.state == "ready"
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE + 0.001)
        assert bench.server.connections == 2


@in_virtual_time
async def test_it_is_down_only_when_the_last_of_several_connections_has_ended(caplog):
    """Being refused another one is no outage; with none left it is one at once, without a further attempt."""
    caplog.set_level(logging.INFO, "evcache.zones.nodes")
    async with Bench(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.refuse()
        bench.dialer.made[0].abort()
        assert bench.node.connection() is bench.dialer.made[1]  # and asks for another
        await asyncio.sleep(LONGEST_PAUSE)
        assert (bench.node.state, bench.health.unhealthy, caplog.messages) == ("ready", 0, [])
        bench.dialer.made[1].abort()
        assert (bench.node.state, bench.health.unhealthy) == ("down", 1)
        assert len(caplog.messages) == 1
        with pytest.raises(NodeUnavailable, match="refused"):
            await bench.connected()


@in_virtual_time
async def test_lost_while_idle_it_is_connected_again_on_demand_only():
    async with Bench() as bench:
        await bench.connected()
        await bench.hang_up()
        await asyncio.sleep(600)
        assert bench.attempts == 1
        assert bench.node.state == "idle"
        assert not bench.node.is_down
        assert bench.node.connection() is None
        assert (await bench.connected()).is_open
        assert bench.attempts == 2


@in_virtual_time
async def test_lost_while_busy_it_is_connected_again_at_once():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        await settle()
        other = bench.dialer.servers["host"] = FakeMemcached()
        await bench.server.kill()
        await settle(100)
        assert type(outcome(waits)) is ConnectionLost
        assert bench.attempts == 2
        assert bench.node.state == "ready"
        assert other.connections == 1
        assert now() == 0


@in_virtual_time
async def test_lost_by_an_answer_that_makes_no_sense_it_is_connected_again_at_once():
    """It was in use, also when the request that got the answer was the only one."""
    async with Bench() as bench:
        connection = await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        bench.server.resume()
        connection.data_received(b"garbage\r\n")
        assert outcome(waits).problem
        await settle(100)
        assert bench.attempts == 2
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_server_that_hangs_up_after_the_first_words_gives_its_callers_a_reason():
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        while bench.node.state != "ready":
            await asyncio.sleep(0)
        assert not caller.done()
        bench.dialer.made[0].abort("gone again")
        with pytest.raises(NodeUnavailable, match="as soon as it was made"):
            await caller
        assert not bench.node.is_down
        assert (await bench.connected()).is_open


@pytest.mark.parametrize("turns", range(60))
@in_virtual_time
async def test_a_connection_that_ends_at_any_moment_leaves_the_node_usable(turns):
    """So many turns of the loop after the connect began, the server closes it."""
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        await settle(turns)
        await bench.server.stop()
        bench.server.revive()
        try:
            await caller
        except NodeUnavailable as error:
            assert "None" not in str(error)
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert (await bench.connected()).is_open


@pytest.mark.parametrize("turns", range(40))
@in_virtual_time
async def test_close_at_any_moment_of_connecting_leaves_nothing(turns):
    """`run` and `Bench` look for tasks and connections that are left."""
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        await settle(turns)
        await bench.node.close()
        await settle()
        assert bench.node.state == "closed"
        assert bench.server.connections == 0
        try:
            assert not (await caller).is_open
        except NodeUnavailable as error:
            assert "it is closed" in str(error)


@in_virtual_time
async def test_close_ends_callers_that_wait_for_a_connect():
    async with Bench(connect_timeout=100) as bench:
        bench.dialer.gate = asyncio.Event()
        callers = [asyncio.create_task(bench.connected()) for _ in range(3)]
        await settle()
        await bench.node.close()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(result) for result in results] == ["host:11211: it is closed"] * 3
        assert {type(result) for result in results} == {NodeUnavailable}
        assert now() == 0


@in_virtual_time
async def test_close_stops_the_attempts_to_reconnect():
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        assert bench.health.unhealthy == 1
        await bench.node.close()
        attempts = bench.attempts
        await asyncio.sleep(600)
        assert bench.attempts == attempts
        assert bench.health.unhealthy == 0


@in_virtual_time
async def test_after_close_calls_fail_and_nothing_is_opened():
    async with Bench() as bench:
        connection = await bench.connected()
        for _ in range(2):
            await bench.node.close()
        assert not connection.is_open
        assert bench.node.connection() is None
        assert bench.node.is_down
        with pytest.raises(NodeUnavailable, match="it is closed"):
            await bench.connected()
        assert bench.attempts == 1


@in_virtual_time
async def test_close_without_drain_fails_what_waits():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        await bench.node.close()
        assert type(outcome(waits)) is ConnectionLost
        assert now() == 0
        bench.server.resume()


@in_virtual_time
async def test_close_with_drain_waits_for_replies_and_not_longer():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        asyncio.get_running_loop().call_later(0.5, bench.server.resume)
        await bench.node.close(drain=3)
        assert outcome(waits).status == b"EN"
        assert now() == pytest.approx(0.5)


@in_virtual_time
async def test_close_with_drain_gives_up_in_time():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        await bench.node.close(drain=3)
        assert type(outcome(waits)) is ConnectionLost
        assert now() == pytest.approx(3)
        bench.server.resume()


@in_virtual_time
async def test_close_twice_at_once_takes_no_longer_than_once():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        asyncio.get_running_loop().call_later(0.5, bench.server.resume)
        await asyncio.gather(bench.node.close(drain=3), bench.node.close(drain=3))
        assert outcome(waits).status == b"EN"
        assert now() == pytest.approx(0.5)


@in_virtual_time
async def test_close_with_drain_that_is_cancelled_still_ends_the_connections():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        closing = asyncio.create_task(bench.node.close(drain=3))
        await settle()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert type(outcome(waits)) is ConnectionLost
        bench.server.resume()


@in_virtual_time
async def test_a_retired_node_answers_what_it_was_asked_and_takes_no_more():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waits = await bench.ask()
        bench.node.retire()
        assert bench.node.pending == 1
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        bench.server.resume()
        assert (await waits).status == b"EN"
        assert bench.node.pending == 0
        await settle()
        assert bench.server.connections == 0


@in_virtual_time
async def test_pending_counts_what_waits_on_all_connections():
    async with Bench(connections=2, limits=ConnectionLimits(silence=1_000)) as bench:
        await bench.connected()
        await settle(100)
        bench.server.pause()
        answers = [await bench.ask() for _ in range(5)]
        assert bench.node.pending == 5
        bench.server.resume()
        assert {reply.status for reply in await asyncio.gather(*answers)} == {b"EN"}
        assert bench.node.pending == 0


@in_virtual_time
async def test_nodes_of_a_cluster_share_a_tally():
    health, dialer = HealthCounters(), MemoryDialer()
    nodes = [Node(Endpoint.parse(name), NodeSettings(dialer=dialer), health) for name in ("a", "b")]
    for count, node in enumerate(nodes, 1):
        with pytest.raises(NodeUnavailable):
            await node.connected(asyncio.get_running_loop().time() + 1)
        assert health.unhealthy == count
    for count, node in enumerate(nodes, 1):
        await node.close()
        assert health.unhealthy == 2 - count


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_node_on_a_real_socket(family, tmp_path):
    """Connects, answers, notices the end, and is refused afterwards."""

    async def main():
        server = FakeMemcached()
        await (server.start() if family == "tcp" else server.start_unix(str(tmp_path / "memcached.sock")))
        node = Node(Endpoint.parse(server.address), NodeSettings(connect_timeout=LIMIT))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT):
            answers = [loop.create_future() for _ in range(100)]
            connection = await node.connected(loop.time() + LIMIT)
            for number, answer in enumerate(answers):
                connection.get(b"key:%d" % number, Fields(b"k v"), answer, loop.time() + LIMIT)
            replies = await asyncio.gather(*answers)
            assert [reply.tokens[0] for reply in replies] == [b"kkey:%d" % number for number in range(100)]
            await server.stop()
            while connection.is_open:
                await asyncio.sleep(0)
            with pytest.raises(NodeUnavailable, match="it is down"):
                await node.connected(loop.time() + LIMIT)
            await node.close()
        assert server.connections == 0

    asyncio.run(main())


@in_virtual_time
async def test_repr_shows_the_state():
    async with Bench() as bench:
        assert repr(bench.node) == "<Node host:11211 idle connections=0>"
        await bench.connected()
        assert repr(bench.node) == "<Node host:11211 ready connections=1>"
