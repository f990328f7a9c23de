"""Close of a node, at any moment and with requests in flight."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import pytest

from evcache.zones.errors import ConnectionLost, NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.nodes.renewal import LOOKUPS_BEFORE_MOVE
from tests.support.named_nodes import NamedBench
from tests.support.node_bench import (
    FIRST_PAUSE,
    Bench,
    ask,
    bench_of,
    forget,
    kinds,
    time_out,
)
from tests.support.odd_servers import BinarySession, Server
from tests.support.scripted import outcome
from tests.support.virtual_time import in_virtual_time, now, settle

STEADY = CircuitLimits(jitter=0.0)


async def connecting(bench):
    bench.node._reconnector.start()  # noqa: SLF001


async def probing(bench, *, lost=False):
    """Reach the first probe after an outage, on the old connection or on a new one."""
    await bench.connected()
    bench.server.pause()
    await time_out(bench)
    if lost:
        await bench.hang_up()
    else:
        bench.server.resume()
    while bench.node.circuit != "half-open":
        await asyncio.sleep(0.0005)
        if bench.node.circuit == "closed":
            break  # the probe took no time


async def waking(bench):
    """Reach the turn of the loop in which the pause before the first probe ends."""
    await bench.connected()
    await settle(100)
    bench.server.pause()
    while not bench.node.is_down:
        await time_out(bench, 1)
    bench.server.resume()
    opened = bench.changes[-1][2]
    await asyncio.sleep(opened + 1.0 - now())


async def checking(bench):
    """Reach the check whether new connections work, after a timeout on one that the network has dropped."""
    await bench.connected()
    forget(bench)
    waiter = await ask(bench)
    while not waiter.told:
        await asyncio.sleep(0.001)


async def moving(bench):
    """Reach the lookup after which the node moves."""
    await bench.connected()
    bench.move()
    while len(bench.dialer.looked_up) < LOOKUPS_BEFORE_MOVE:
        await asyncio.sleep(0.01)


async def recovering(bench):
    """Reach the probe on a new connection, after connects were refused."""
    bench.refuse()
    with pytest.raises(NodeUnavailable):
        await bench.connected()
    bench.accept()
    await asyncio.sleep(FIRST_PAUSE / 1.5)  # without jitter


class Activity(NamedTuple):
    bench: Callable[[], Bench]
    begin: Callable[[Bench], Awaitable[None]]
    turns: range
    """Turns of the event loop between the beginning and the close."""


ACTIVITIES = {
    "a connect": Activity(Bench, connecting, range(40)),
    "a diagnosis": Activity(lambda: Bench(Server(lambda *_: BinarySession(sasl=False))), connecting, range(0, 24, 2)),
    "a probe": Activity(lambda: bench_of(circuit=STEADY), probing, range(30)),
    "a classic probe": Activity(lambda: bench_of(classic_only=True, circuit=STEADY), probing, range(30)),
    "a new connection": Activity(lambda: bench_of(circuit=STEADY), partial(probing, lost=True), range(30)),
    "a new classic connection": Activity(
        lambda: bench_of(classic_only=True, circuit=STEADY), partial(probing, lost=True), range(30)
    ),
    "the end of a pause": Activity(lambda: bench_of(connections=1, circuit=STEADY), waking, range(30)),
    "the end of a pause, two connections": Activity(lambda: bench_of(connections=2, circuit=STEADY), waking, range(30)),
    "a recovery": Activity(lambda: Bench(circuit=STEADY), recovering, range(50)),
    "a check": Activity(bench_of, checking, range(40)),
    "a move": Activity(NamedBench, moving, range(30)),
}


@pytest.mark.parametrize(("during", "turns"), [(name, turns) for name, one in ACTIVITIES.items() for turns in one.turns])
@in_virtual_time
async def test_close_at_any_moment_leaves_nothing(during, turns):
    """`Bench` and `in_virtual_time` also look for connections, tasks and counted nodes that are left."""
    activity = ACTIVITIES[during]
    async with activity.bench() as bench:
        await activity.begin(bench)
        await settle(turns)
        await bench.node.close()
        await settle()
        assert (bench.node.state, bench.node.is_warming) == ("closed", False)
        assert (bench.health.unhealthy, bench.server.connections) == (0, 0)
        # Sockets of a pool or a diagnosis have no `is_open`. The server counts them.
        assert [one for one in bench.dialer.made if getattr(one, "is_open", False)] == []
        assert [timer for timer in bench.loop._scheduled if not timer.cancelled() and "_end_slow_start" in repr(timer)] == []  # noqa: SLF001
        changes, attempts = len(bench.changes), bench.attempts
        await asyncio.sleep(600)
        assert (len(bench.changes), bench.attempts, bench.health.unhealthy) == (changes, attempts, 0)


@pytest.mark.parametrize("turns", range(40))
@in_virtual_time
async def test_close_ends_a_caller_of_a_connect_at_any_moment(turns):
    async with Bench() as bench:
        caller = asyncio.create_task(bench.connected())
        await settle(turns)
        await bench.node.close()
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


@pytest.mark.parametrize("drain", [0.0, 1.0])
@pytest.mark.parametrize("state", ["open", "half-open"])
@kinds
@in_virtual_time
async def test_close_while_it_is_down_takes_no_time(classic_only, state, drain):
    """No request waits on the node."""
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        while bench.node.circuit != state:
            await asyncio.sleep(0.01)
        began = now()
        await bench.node.close(drain)
        assert now() == began
        assert (bench.node.state, bench.health.unhealthy, bench.node.failure) == ("closed", 0, None)
