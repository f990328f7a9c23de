"""A node that answers nothing in time is not asked any more, and callers do not wait for it."""

import asyncio

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.transport.classic.pool import PoolLimits
from tests.support.node_bench import TIMEOUT, Bench, answered, ask, bench_of, call, lose, time_out
from tests.support.scripted import outcome
from tests.support.virtual_time import in_virtual_time, now, settle

kinds = pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])


@kinds
@in_virtual_time
async def test_after_three_timeouts_in_a_row_calls_fail_at_once(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench, 2)
        assert (bench.node.state, bench.node.circuit, bench.changes) == ("ready", "closed", [])
        await time_out(bench, 1)
        assert (bench.node.state, bench.node.circuit, bench.node.is_down) == ("down", "open", True)
        assert bench.health.unhealthy == 1
        began = now()
        for _ in range(50):
            assert bench.node.connection() is None
            with pytest.raises(NodeUnavailable, match="it is down: .*3 requests in a row had no reply in time"):
                await bench.connected()
        assert now() == began
        assert type(bench.node.failure) is NodeTimeout


@kinds
@in_virtual_time
async def test_requests_of_one_moment_that_time_out_are_enough(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        for _ in range(3):
            await ask(bench)
        await asyncio.sleep(1.1 * TIMEOUT)
        assert bench.node.is_down


@kinds
@in_virtual_time
async def test_an_answer_between_timeouts_keeps_it_up(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        for _ in range(5):
            bench.server.pause()
            await time_out(bench, 2)
            bench.server.resume()
            await settle(40)
            assert await answered(bench)
        assert bench.changes == []


@kinds
@in_virtual_time
async def test_callers_who_give_up_do_not_open_it(classic_only):
    """However many: they say nothing about the node."""
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        for _ in range(10):
            callers = [asyncio.create_task(call(bench)) for _ in range(10)]
            await asyncio.sleep(TIMEOUT / 2)
            for caller in callers:
                caller.cancel()
            await asyncio.sleep(TIMEOUT)
        assert (bench.node.state, bench.changes) == ("ready", [])


@kinds
@in_virtual_time
async def test_a_loop_that_stood_still_does_not_open_it(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        for _ in range(5):
            for _ in range(20):
                await ask(bench)
            bench.loop.advance(5 * TIMEOUT)
            await asyncio.sleep(2)
        assert (bench.node.state, bench.changes) == ("ready", [])
        assert await answered(bench)


@kinds
@in_virtual_time
async def test_a_server_that_stays_silent_after_the_loop_stood_still_is_down_soon(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        for _ in range(3):
            await ask(bench)
        bench.loop.advance(5 * TIMEOUT)
        await settle()
        assert not bench.node.is_down
        for _ in range(15):
            if not bench.node.is_down:
                await time_out(bench, 1)
        assert bench.node.is_down
        assert now() < 3


@kinds
@in_virtual_time
async def test_a_busy_loop_does_not_hide_a_silent_server(classic_only):
    """One that is held up a little all the time, as under load: what waited for its whole time has waited."""
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        waiters = []
        while not bench.node.is_down:
            assert now() < 1
            waiters.append(await ask(bench))
            for _ in range(6):
                bench.loop.advance(0.03)  # by a computation
                await asyncio.sleep(0.001)
        # The classic transport blames at once. The meta transport waits 0.1 s for a late reply, and the next request is sent.
        assert len(waiters) == (3 if classic_only else 4)


@kinds
@in_virtual_time
async def test_a_server_that_closes_on_each_request_is_not_asked_any_more(classic_only):
    """It never times out, so it is the share of failures that tells."""
    async with bench_of(classic_only, circuit=CircuitLimits(least_requests=20, jitter=0.0)) as bench:
        failed = 0
        while bench.node.circuit == "closed":
            assert failed < 20
            await lose(bench, 1)
            failed += 1
        assert failed == 20
        assert bench.node.is_down
        with pytest.raises(NodeUnavailable, match="20 of 20 requests failed"):
            await bench.connected()


@kinds
@pytest.mark.parametrize(("fine", "lost", "down"), [(0, 10, False), (0, 19, False), (0, 20, True), (30, 10, False)])
@in_virtual_time
async def test_requests_that_are_lost_count_with_those_that_went_well(fine, lost, down, classic_only):
    async with bench_of(classic_only, classic=PoolLimits(connections=32)) as bench:
        for _ in range(fine):
            assert await answered(bench)
        await lose(bench, lost)
        assert bench.node.is_down is down
        assert now() == 0


@pytest.mark.parametrize(("fine", "lost", "down"), [(200, 60, False), (30, 60, True)])
@in_virtual_time
async def test_one_connection_that_ends_under_many_requests_is_no_outage(fine, lost, down):
    """Most earlier requests were answered, so the node is connected to again at once."""
    async with bench_of() as bench:
        for _ in range(fine):
            assert await answered(bench)
        await lose(bench, lost)
        assert bench.node.is_down is down
        assert now() == 0
        assert bench.attempts == (1 if down else 2)


async def reconnecting(bench):
    """It was connected, the connection is lost in use, and the next connect gets no answer for as long as the gate is shut."""
    await bench.connected()
    bench.server.pause()
    waits = await bench.ask()
    bench.dialer.gate = asyncio.Event()
    bench.dialer.made[-1].abort("lost")
    bench.server.resume()
    await settle()
    assert isinstance(outcome(waits), ConnectionLost)
    assert bench.node.state == "connecting"


@in_virtual_time
async def test_calls_do_not_go_on_waiting_for_a_connect_that_hangs():
    """As with a network that drops all packets. After three connect timeouts, no further call waits for the node."""
    async with Bench(connect_timeout=5.0) as bench:
        await reconnecting(bench)
        for _ in range(3):
            with pytest.raises(NodeTimeout):
                await bench.connected(within=0.03)
        assert now() == pytest.approx(0.09)
        for _ in range(10):
            with pytest.raises(NodeUnavailable, match="3 calls in a row had no connection in time"):
                await bench.connected(within=0.03)
        assert now() == pytest.approx(0.09)
        bench.dialer.gate.set()  # the connect that was under way ends, and that is all it takes
        await settle(100)
        assert bench.node.state == "ready"
        assert bench.attempts == 2


@in_virtual_time
async def test_callers_who_give_up_while_it_connects_do_not_take_it_down():
    async with Bench(connect_timeout=5.0) as bench:
        await reconnecting(bench)
        for _ in range(10):
            caller = asyncio.create_task(bench.connected(within=1.0))
            await settle()
            caller.cancel()
        await asyncio.sleep(0.1)
        assert not bench.node.is_down
        bench.dialer.gate.set()


@in_virtual_time
async def test_the_first_connect_ever_may_take_its_time():
    async with Bench(connect_timeout=5.0) as bench:
        bench.dialer.gate = asyncio.Event()
        for _ in range(10):
            with pytest.raises(NodeTimeout):
                await bench.connected(within=0.03)
        assert not bench.node.is_down
        bench.dialer.gate.set()
        assert (await bench.connected()).is_open


@in_virtual_time
async def test_waits_for_different_connects_are_not_in_a_row():
    async with Bench(connect_timeout=5.0) as bench:
        for _ in range(4):
            await reconnecting(bench)
            for _ in range(2):
                with pytest.raises(NodeTimeout):
                    await bench.connected(within=0.03)
            bench.dialer.gate.set()
            await settle(100)
            assert bench.node.state == "ready"
