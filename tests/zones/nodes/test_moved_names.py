"""Host name of a node that moves to another address while the server at the old one still answers."""

import asyncio

import pytest

from evcache.zones.errors import InvalidArgument
from evcache.zones.nodes.renewal import INTERVAL_JITTER, LOOKUPS_BEFORE_MOVE
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.replies import Reply
from tests.support.named_nodes import INTERVAL, LONGEST, NamedBench
from tests.support.node_bench import Bench, ask, call, transport_of
from tests.support.virtual_time import in_virtual_time, now, settle


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])
@in_virtual_time
async def test_a_node_follows_its_name_without_a_failed_call(classic_only, connections):
    async with NamedBench(classic_only=classic_only, connections=connections) as bench:
        await bench.connected()
        await settle(200)
        bench.move()
        began = now()
        assert await bench.moved(within=200)
        assert now() - began <= LOOKUPS_BEFORE_MOVE * LONGEST + 0.1
        assert isinstance(await call(bench), Reply)
        await settle(200)
        assert bench.new.connections == (1 if classic_only else connections)
        assert bench.changes == []


@in_virtual_time
async def test_requests_under_way_while_the_node_moves_get_their_replies():
    async with NamedBench() as bench:
        connection = await bench.connected()
        transport = transport_of(connection)
        write = transport.write
        bench.move()
        transport.write = lambda data: bench.loop.call_later(3.0, write, data)
        waiters = []
        while bench.node.connection() is connection:
            waiters.append(await ask(bench, within=10.0))
            await asyncio.sleep(0.5)
        assert bench.new.connections == 1
        await asyncio.sleep(6)
        assert {waiter.told[0].status for waiter in waiters} == {b"EN"}
        assert bench.server.connections == 0


@in_virtual_time
async def test_an_idle_node_follows_its_name_too():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        await asyncio.sleep(LOOKUPS_BEFORE_MOVE * LONGEST + 0.1)
        assert (bench.server.connections, bench.new.connections) == (0, 1)


STAYS = {
    "the same address": [["10.0.0.1"]] * 8,
    "another address beside it": [["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]] * 3,
    "one wrong answer": [["10.0.0.1"], ["10.0.0.2"]] * 4,
    "failed look-ups": [OSError("no name server")] * 8,
    "failed look-ups and one wrong answer": [OSError("no name server"), ["10.0.0.2"], ["10.0.0.1"]] * 3,
}


@pytest.mark.parametrize("name", STAYS)
@in_virtual_time
async def test_a_node_stays_where_its_name_may_still_mean(name):
    async with NamedBench() as bench:
        connection = await bench.connected()
        for answer in STAYS[name]:
            bench.dialer.error = answer if isinstance(answer, OSError) else None
            bench.dialer.addresses_now = ["10.0.0.1"] if isinstance(answer, OSError) else answer
            seen = len(bench.dialer.looked_up)
            while len(bench.dialer.looked_up) == seen:
                await asyncio.sleep(1)
        assert bench.node.connection() is connection
        assert bench.attempts == 1


@in_virtual_time
async def test_a_node_stays_until_the_new_address_can_be_connected_to():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        bench.dialer.refused.add("10.0.0.2")
        assert not await bench.moved(within=300)
        bench.dialer.refused.clear()
        assert await bench.moved(within=LONGEST + 0.1)


@in_virtual_time
async def test_look_ups_keep_their_distance():
    async with NamedBench() as bench:
        await bench.connected()
        await asyncio.sleep(100 * INTERVAL)
        times = bench.dialer.looked_up
        distances = [after - before for before, after in zip(times, times[1:], strict=False)]
        assert INTERVAL * (1 - INTERVAL_JITTER) <= min(distances) < max(distances) <= LONGEST
        assert len({round(distance, 3) for distance in distances}) > 20, "the processes of a service ask together"


@pytest.mark.parametrize(
    "settings",
    [{"lookup_interval": None}, {"lookup_interval": 0}, {"endpoint": "10.0.0.1:11211"}, {"endpoint": "[::1]:11211"}],
    ids=["None", "0", "IPv4", "IPv6"],
)
@in_virtual_time
async def test_no_look_ups_if_switched_off_and_for_addresses(settings):
    async with NamedBench(**settings) as bench:
        await bench.connected()
        await asyncio.sleep(10 * INTERVAL)
        assert bench.dialer.looked_up == []


@in_virtual_time
async def test_a_dialer_that_knows_no_names_is_not_asked():
    async with Bench() as bench:
        await bench.connected()
        await asyncio.sleep(10 * INTERVAL)
        assert isinstance(await call(bench), Reply)


@in_virtual_time
async def test_a_node_that_was_lost_connects_to_where_its_name_means_now():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        await bench.server.stop()
        await settle()
        assert isinstance(await call(bench), Reply)
        assert bench.new.connections == 1
        assert bench.dialer.looked_up == []


@in_virtual_time
async def test_close_does_not_wait_for_a_look_up_that_hangs():
    async with NamedBench() as bench:
        hangs = asyncio.Event()

        async def addresses(_):
            hangs.set()
            await bench.loop.create_future()

        bench.dialer.addresses = addresses
        await bench.connected()
        await hangs.wait()
        began = now()
        await bench.node.close(1.0)
        assert now() == began


@pytest.mark.parametrize("interval", [-1, float("nan"), "30"])
def test_an_interval_that_makes_no_sense_is_an_argument_error(interval):
    with pytest.raises(InvalidArgument, match="lookup_interval"):
        NodeSettings(lookup_interval=interval)
